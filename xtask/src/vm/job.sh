#!/bin/sh
# What a test machine does: look at itself, run the live tests, power off.
# ttyS0 is the kernel's console, ttyS1 the tests' words, ttyS2 and ttyS3 what `observer check` says (text, JSON).
export PATH=/usr/bin:/bin:/usr/sbin:/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
# Without it 5.10's TOMOYO refuses (ENOENT) to execute a file by its descriptor, as runc does itself.
ln -s /proc/self/fd /dev/fd
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
chmod 1777 /tmp
mount -t tmpfs run /run
ip link set lo up
for tty in 1 2 3; do stty -F /dev/ttyS$tty raw -echo 115200; done

# The words of the kernel's command line that begin with "observer." are for this script.
for word in $(cat /proc/cmdline); do
  case $word in
    observer.layout=*) layout=${word#*=} ;;
    observer.report=*) report=${word#*=} ;;
    observer.tests=*) tests=$(echo "${word#*=}" | base64 -d) ;;
  esac
done

# A kernel program that takes a microsecond takes milliseconds here, as long as a task's slice: on kernels that preempt
# such programs nearly every run would be. Slices as much longer make it as rare as elsewhere.
mkdir -p /tmp/debug
if mount -t debugfs debugfs /tmp/debug 2>/dev/null; then
  echo 500000000 2>/dev/null >/tmp/debug/sched/base_slice_ns
  umount /tmp/debug
fi
rmdir /tmp/debug

mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo '+cpu +memory +pids +io' >/sys/fs/cgroup/cgroup.subtree_control
if [ "$layout" = slices ]; then
  # As systemd lays it out: processes live in leaves only.
  mkdir -p /sys/fs/cgroup/init.scope /sys/fs/cgroup/system.slice/observer-live.service /sys/fs/cgroup/user.slice
  echo '+cpu +memory +pids +io' >/sys/fs/cgroup/system.slice/cgroup.subtree_control
  echo 1 >/sys/fs/cgroup/init.scope/cgroup.procs
  export OBSERVER_LIVE_CGROUP_PARENT=/system.slice
fi

export OBSERVER_BIN=/usr/bin/observer OBSERVER_LIVE_EMULATED=1 RUST_BACKTRACE=1
# A line that begins with "observer-vm: " is read by whoever started the machine: it writes into the machine's memory.
export OBSERVER_LIVE_DEBUGGER=/dev/ttyS1
observer check >/dev/ttyS2 2>&1
if [ "$report" = yes ]; then
  # With everything that can be asked for: the record is about what the kernel allows.
  echo 'audit: {capabilities: true, syscalls: true, seccomp: true, apparmor: true}' >/tmp/everything.yaml
  observer check --json --config /tmp/everything.yaml >/dev/ttyS3 2>/dev/null
fi
if [ "$tests" != none ]; then
  (
    if [ "$layout" = slices ]; then
      echo 0 >/sys/fs/cgroup/system.slice/observer-live.service/cgroup.procs
    fi
    # Without real-time priority: the agent's threads would preempt the kernel programs that wake them, see above.
    # (With its path: the shell would take its own setpriv.)
    exec /usr/bin/setpriv --bounding-set=-sys_nice /usr/bin/live --test-threads=1 $tests
  ) >/dev/ttyS1 2>&1 </dev/null
fi
echo "exit $?" >/dev/ttyS1
poweroff -f
