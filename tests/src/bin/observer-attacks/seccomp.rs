//! Calls that a seccomp filter refuses, and such as it does not refuse though they end in errors.

use crate::sys::{Errno, check};
use libc::{c_int, c_long, c_ulong};
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Makes each of these calls `n` times and counts what the kernel, or a filter before it, answers with EPERM.
pub(crate) fn denials(n: u64) -> Result<String, Errno> {
    let refused = |call: &dyn Fn() -> c_long| (0..n).filter(|_| is_eperm(call())).count();
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: a plain integer; what is not refused gives this process, which ends soon, a namespace of its own.
    let unshare = refused(&|| unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUTS) });
    // SAFETY: no path is given, so nothing can be mounted.
    let mount = refused(&|| unsafe { libc::syscall(libc::SYS_mount, null, null, null, 0, null) });
    // SAFETY: KEYCTL_GET_KEYRING_ID of the session keyring, without making one: reads a number.
    let keyctl = refused(&|| unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) });
    let clone = refused(&|| clone_user());
    Ok(format!("unshare={unshare} mount={mount} keyctl={keyctl} clone={clone}"))
}

fn is_eperm(result: c_long) -> bool {
    result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// A clone into a user namespace; a child that was made all the same ends at once.
fn clone_user() -> c_long {
    let flags = c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    // SAFETY: no CLONE_VM and no stack, so this is a fork.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if child == 0 {
        // SAFETY: ends only this child, without running the parent's exit handlers.
        unsafe { libc::_exit(0) };
    }
    child
}

/// `if (nr == CALL) return ACTION; else allow`. Of a 64-bit program's calls only, which is all that are made here.
fn install(call: c_long, action: u32) -> Result<(), Errno> {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let jump = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let ret = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut filter = [
        libc::sock_filter { code: load, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: jump, jt: 0, jf: 1, k: call as u32 },
        libc::sock_filter { code: ret, jt: 0, jf: 0, k: action },
        libc::sock_filter { code: ret, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: plain integers; then a whole program that outlives the call.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into(), "no_new_privs")?;
        let mode = libc::SECCOMP_MODE_FILTER as c_ulong;
        check(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program).into(), "seccomp").map(drop)
    }
}

/// A filter of this program's own that answers `call` with an errno, then the call, `n` times; says how often that was what
/// came.
pub(crate) fn own_errno(call: &str, errno: u64, n: u64) -> Result<String, Errno> {
    let number = match call {
        "getppid" => libc::SYS_getppid,
        "sched_yield" => libc::SYS_sched_yield,
        _ => crate::usage(),
    };
    install(number, libc::SECCOMP_RET_ERRNO | errno as u32)?;
    let refused = (0..n).filter(|_| {
        // SAFETY: neither of the two takes anything.
        let result = unsafe { libc::syscall(number) };
        result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(errno as i32)
    });
    Ok(refused.count().to_string())
}

/// A filter that stops whoever calls `sysfs`, then a thread, beside the first, that does.
pub(crate) fn stopped(how: &str) -> Result<String, Errno> {
    let action = match how {
        "trap" => libc::SECCOMP_RET_TRAP,
        "kill-process" => libc::SECCOMP_RET_KILL_PROCESS,
        "kill-thread" => libc::SECCOMP_RET_KILL_THREAD,
        _ => crate::usage(),
    };
    install(libc::SYS_sysfs, action)?;
    std::thread::spawn(|| {
        // SAFETY: asks how many file systems there are, if it comes to that.
        unsafe { libc::syscall(libc::SYS_sysfs, 3) };
    });
    // Whether the thread ends cannot be waited for: it does not come back to tell.
    std::thread::sleep(Duration::from_millis(500));
    Ok(String::new())
}

extern "C" fn on_signal(_: c_int) {}

/// Under a filter that lets everything pass, everything that ends in an odd way: forks, vforks, execs, signals that interrupt
/// what waits, calls that wait all the time, errors of the kernel's own. Says how many rounds that were.
pub(crate) fn permissive_load(seconds: u64) -> Result<String, Errno> {
    install(-1, libc::SECCOMP_RET_ALLOW)?;
    let mut pipe = [0; 2];
    // SAFETY: room for two descriptors, which are owned from then on.
    let (reader, _writer) = unsafe {
        check(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC).into(), "pipe")?;
        (OwnedFd::from_raw_fd(pipe[0]), OwnedFd::from_raw_fd(pipe[1]))
    };
    let mut blocked = std::fs::File::from(reader);
    // Waits until the process ends, in a call that began before the agent, or the arming, did.
    std::thread::spawn(move || {
        let _ = blocked.read(&mut [0]);
    });
    // SAFETY: a handler that does nothing, without SA_RESTART, so that what waits ends in EINTR; then a timer.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        check(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()).into(), "sigaction")?;
        let every = libc::timeval { tv_sec: 0, tv_usec: 3_000 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        check(
            libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()).into(),
            "setitimer",
        )?;
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut rounds = 0;
    while Instant::now() < end {
        round()?;
        rounds += 1;
    }
    Ok(rounds.to_string())
}

fn round() -> Result<(), Errno> {
    // SAFETY: children end or exec at once; strings are NUL-terminated; a pipe's descriptors are closed again.
    unsafe {
        let fork = libc::fork();
        if fork == 0 {
            libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/nothing".as_ptr(), libc::O_RDONLY);
            libc::_exit(0);
        }
        wait_for(fork);
        #[expect(deprecated, reason = "it is what is to be tried")]
        let vfork = libc::vfork();
        if vfork == 0 {
            libc::execl(c"/bin/true".as_ptr(), c"true".as_ptr(), std::ptr::null::<libc::c_char>());
            libc::_exit(1);
        }
        wait_for(vfork);
        // Errors of the kernel's own: refused, senseless, not there, interrupted, would block.
        libc::syscall(libc::SYS_setns, -1, 0);
        libc::syscall(libc::SYS_mount, 0, 0, 0, 0, 0);
        libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/nothing".as_ptr(), libc::O_RDONLY);
        libc::syscall(libc::SYS_kill, libc::getpid(), 0);
        let pause = libc::timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        libc::nanosleep(&raw const pause, std::ptr::null_mut());
        libc::poll(std::ptr::null_mut(), 0, 5);
        let mut pipe = [0; 2];
        check(libc::pipe2(pipe.as_mut_ptr(), libc::O_NONBLOCK).into(), "pipe")?;
        libc::read(pipe[0], [0u8; 1].as_mut_ptr().cast(), 1);
        libc::close(pipe[0]);
        libc::close(pipe[1]);
        libc::raise(libc::SIGALRM);
    }
    Ok(())
}

/// Through all interruptions.
///
/// # Safety
/// A child of this process.
unsafe fn wait_for(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: a child, and a local.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } == -1
        && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
    {}
}
