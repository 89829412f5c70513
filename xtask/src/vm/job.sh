#!/bin/sh
# What a test machine does: look at itself, run the live tests, power off.
# ttyS0 is the kernel's console, ttyS1 the tests' words, ttyS2 and ttyS3 what `observer check` says (text, JSON).
export PATH=/usr/bin:/bin:/usr/sbin:/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
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
    observer.tests=*) tests=$(echo "${word#*=}" | base64 -d) ;;
  esac
done

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
observer check >/dev/ttyS2 2>&1
if [ "$tests" = none ]; then
  observer check --json >/dev/ttyS3 2>/dev/null
else
  (
    if [ "$layout" = slices ]; then
      echo 0 >/sys/fs/cgroup/system.slice/observer-live.service/cgroup.procs
    fi
    exec live --test-threads=1 $tests
  ) >/dev/ttyS1 2>&1 </dev/null
fi
echo "exit $?" >/dev/ttyS1
poweroff -f
