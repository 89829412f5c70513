//! Harmless versions of the ways out of a container, run inside the live tests' containers.
//!
//! Every attack aims at something the test made: a `sleep` on the host, a scratch cgroup, a bind mount. It prints
//! one line, `ok` or `errno N` (more words may follow), and exits with 0 or N, so that a test tells "the kernel
//! refused" from "it happened" without guessing. Where an attack takes a command, `ok` comes first and the command
//! replaces the process, as it would after a real escape.
//!
//! Only libc is linked: the file is copied into a busybox root with the two or three libraries it needs.

mod cgroup;
mod hostile;
mod limits;
mod namespaces;
mod raw;
mod refused;
mod root;
mod seccomp;
mod sys;
mod threads;

use std::process::exit;
use sys::Errno;

const USAGE: &str = "observer-attacks ATTACK [ARGUMENTS]
  setns-each    SOURCE TYPES [CMD...]      one setns per type; SOURCE is a pid or a directory of ns files
  setns-pidfd   PID TYPES [CMD...]         one setns on a pidfd with all flags at once
  setns32       SOURCE TYPES [CMD...]      like setns-each, by int 0x80
  setns32-hold  SOURCE TYPES SECONDS       the same, then only sleeps: no fork, no exec, no exit
  setns-thread  SOURCE TYPES [SECONDS]     in a thread that is not the leader, which then sleeps
  unshare       TYPES [CMD...]
  unshare32     TYPES [CMD...]             by int 0x80
  unshare-user  [CMD...]
  clone-newns   TYPES CMD...               new namespaces by clone3
  clone-chrooted DIR TYPES                 chroot, then clone3 into a user namespace and others: to be refused
  clone32       TYPES                      by int 0x80, to be refused
  clone3-race   TYPES N                    clones refused N times while a thread rewrites their flags
  confuse32                                32-bit calls whose numbers are watched calls' in 64-bit
  count-eperm   N SOURCE TYPE              N joins that must be refused
  thread-exec   CMD...                     a thread that is not the leader execs
  many-threads  N SECONDS
  threads-setns N FILE SOURCE TYPES        N threads that join, one after another, each time FILE grows
  chroot        DIR [CMD...]
  chroot32      DIR [CMD...]               by int 0x80
  chroot-race   A B N                      N times into the short relative paths A or B, while a thread rewrites the path
  pivot         DIR [CMD...]               in a new mount namespace
  join-cgroup   FILE [CMD...]              writes 0 to cgroup.procs or tasks
  clone-into-cgroup DIR CMD...             clone3 with CLONE_INTO_CGROUP
  as-pid        PID CMD...                 clone3 with set_tid: that very pid again
  quick                                    one unshare(CLONE_NEWUTS), then gone
  hog           MIB SECONDS                takes memory, and keeps it for a while
  reclaim       MIB SECONDS                fills memory that the kernel may take back
  spin          SECONDS                    uses all CPU time that it gets
  bomb          CALL N                     forks until refused, then is refused N + 1 times more by CALL: clone, clone3,
                                           fork, vfork or clone32
  nproc         UID                        a fork that RLIMIT_NPROC refuses to that user
  denials       N                          N times unshare, mount, keyctl, clone; counts the EPERMs of each
  own-errno     CALL ERRNO N               N calls of getppid or sched_yield under a filter of its own
  stopped       HOW                        a thread under a filter that does trap, kill-process or kill-thread
  permissive-load SECONDS                  all that ends oddly, under a filter that refuses nothing
  hostile-exec  SOURCE TYPES               the same joins under a hostile name, comm and arguments
TYPES: comma-separated names of mnt, pid, net, ipc, uts, user, cgroup, time";

fn main() {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    // A hostile second stage is recognised by its last argument alone: its argv[0] and [1..] are noise on purpose.
    if let Some(stage) = args.last().and_then(|last| hostile::second_stage(last)) {
        finish(stage);
    }
    let args: Vec<String> = args.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    finish(run(&args));
}

/// Prints the verdict and leaves with it as the exit code.
fn finish(outcome: Result<String, Errno>) -> ! {
    match outcome {
        Ok(more) if more.is_empty() => println!("ok"),
        Ok(more) => println!("ok {more}"),
        Err(errno) => {
            println!("errno {} {}", errno.code, errno.at);
            exit(errno.code.clamp(1, 255));
        }
    }
    exit(0);
}

fn run(args: &[&str]) -> Result<String, Errno> {
    match args {
        ["setns-each", source, types, cmd @ ..] => namespaces::setns_each(source, types, cmd),
        ["setns-pidfd", pid, types, cmd @ ..] => namespaces::setns_pidfd(pid, types, cmd),
        ["setns32", source, types, cmd @ ..] => namespaces::setns32(source, types, cmd),
        ["setns32-hold", source, types, seconds] => {
            let outcome = namespaces::setns32(source, types, &[]);
            std::thread::sleep(std::time::Duration::from_secs(number(seconds)));
            outcome
        }
        ["setns-thread", source, types] => threads::setns_thread(source, types, 0),
        ["setns-thread", source, types, seconds] => threads::setns_thread(source, types, number(seconds)),
        ["unshare", types, cmd @ ..] => namespaces::unshare(types, cmd),
        ["unshare32", types, cmd @ ..] => namespaces::unshare32(types, cmd),
        ["unshare-user", cmd @ ..] => namespaces::unshare("user", cmd),
        ["clone-newns", types, cmd @ ..] if !cmd.is_empty() => namespaces::clone_newns(types, cmd),
        ["clone-chrooted", dir, types] => refused::clone_chrooted(dir, types),
        ["clone32", types] => refused::clone32(types),
        ["clone3-race", types, n] => refused::clone3_race(types, number(n)),
        ["confuse32"] => namespaces::confuse32(),
        ["count-eperm", n, source, kind] => namespaces::count_eperm(number(n), source, kind),
        ["thread-exec", cmd @ ..] if !cmd.is_empty() => threads::thread_exec(cmd),
        ["many-threads", n, seconds] => threads::many_threads(number(n), number(seconds)),
        ["threads-setns", n, file, source, types] => threads::threads_setns(number(n), file, source, types),
        ["chroot", dir, cmd @ ..] => root::chroot(dir, cmd),
        ["chroot32", dir, cmd @ ..] => root::chroot32(dir, cmd),
        ["chroot-race", a, b, n] => root::chroot_race([a, b], number(n)),
        ["pivot", dir, cmd @ ..] => root::pivot(dir, cmd),
        ["join-cgroup", file, cmd @ ..] => cgroup::join(file, cmd),
        ["clone-into-cgroup", dir, cmd @ ..] if !cmd.is_empty() => cgroup::clone_into(dir, cmd),
        ["as-pid", pid, cmd @ ..] if !cmd.is_empty() => cgroup::as_pid(number(pid), cmd),
        ["hog", mib, seconds] => limits::hog(number(mib), number(seconds)),
        ["reclaim", mib, seconds] => limits::reclaim(number(mib), number(seconds)),
        ["spin", seconds] => limits::spin(number(seconds)),
        ["bomb", call, n] => limits::bomb(call, number(n)),
        ["nproc", user] => limits::nproc(number(user)),
        ["quick"] => namespaces::unshare("uts", &[]),
        ["denials", n] => seccomp::denials(number(n)),
        ["own-errno", call, errno, n] => seccomp::own_errno(call, number(errno), number(n)),
        ["stopped", how] => seccomp::stopped(how),
        ["permissive-load", seconds] => seccomp::permissive_load(number(seconds)),
        ["hostile-exec", source, types] => hostile::first_stage(source, types),
        _ => usage(),
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| usage())
}

/// 200 is no errno, so a mistake in a test is never taken for a refusal by the kernel.
pub(crate) fn usage() -> ! {
    eprintln!("{USAGE}");
    exit(200);
}
