//! Clones into new namespaces that the kernel is to refuse. Whatever is not refused leaves a child that ends at once, and
//! is a failure.

use crate::raw;
use crate::sys::{self, CloneArgs, Errno, check};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const NOT_REFUSED: Errno = Errno { code: 253, at: "was not refused" };

/// What the kernel said to a clone, by its own convention: a child ends here.
fn refusal(result: i64, at: &'static str) -> Result<String, Errno> {
    match result {
        // SAFETY: ends only this child, without running the parent's exit handlers.
        0 => unsafe { libc::_exit(0) },
        1.. => Err(NOT_REFUSED),
        error => Err(Errno { code: -error as i32, at }),
    }
}

fn clone3(args: *const CloneArgs) -> i64 {
    // SAFETY: no CLONE_VM and no stack given, so this is a fork; the kernel only reads the arguments.
    match unsafe { libc::syscall(libc::SYS_clone3, args, size_of::<CloneArgs>()) } {
        -1 => -i64::from(Errno::last("clone3").code),
        result => result,
    }
}

/// After a chroot, new user namespaces are refused (EPERM, `create_user_ns`, kernel/user_namespace.c), whatever else is
/// asked for.
pub(crate) fn clone_chrooted(dir: &str, types: &str) -> Result<String, Errno> {
    let path = std::ffi::CString::new(dir).unwrap_or_else(|_| crate::usage());
    // SAFETY: a NUL-terminated path that outlives the call.
    check(unsafe { libc::chroot(path.as_ptr()) }.into(), "chroot")?;
    let args = CloneArgs {
        flags: sys::flags(types) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..Default::default()
    };
    refusal(clone3(&raw const args), "clone3")
}

/// A 32-bit clone, with the parent's stack as fork has it.
pub(crate) fn clone32(types: &str) -> Result<String, Errno> {
    refusal(raw::int80(raw::CLONE, (sys::flags(types) | libc::SIGCHLD) as u32, 0).into(), "clone32")
}

/// Clones until `n` were refused with EPERM, while another thread keeps exchanging their flags for such as make no sense
/// (EINVAL): what was refused is what the kernel read first, and not what is in memory at the end of the call. The count
/// of all calls is printed.
pub(crate) fn clone3_race(types: &str, n: u64) -> Result<String, Errno> {
    let asked = sys::flags(types) as u64;
    // Signal handlers can be shared only together with memory.
    let nonsense = libc::CLONE_SIGHAND as u64;
    let mut args = CloneArgs { flags: asked, exit_signal: libc::SIGCHLD as u64, ..Default::default() };
    let args = &raw mut args;
    // SAFETY: the first member of the structure above, which outlives the scope; nobody takes a reference to it.
    let flags = unsafe { AtomicU64::from_ptr(&raw mut (*args).flags) };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                flags.store(nonsense, Ordering::Relaxed);
                // Long enough that a call begins in either state.
                (0..50).for_each(|_| std::hint::spin_loop());
                flags.store(asked, Ordering::Relaxed);
                (0..50).for_each(|_| std::hint::spin_loop());
            }
        });
        let (mut refused, mut calls) = (0, 0u64);
        let outcome = loop {
            if refused == n {
                break Ok(calls.to_string());
            }
            calls += 1;
            match refusal(clone3(args), "clone3") {
                Err(errno) if errno.code == libc::EPERM => refused += 1,
                Err(errno) if errno.code == libc::EINVAL && calls < n * 10_000 => {}
                other => break other,
            }
        };
        over.store(true, Ordering::Relaxed);
        outcome
    })
}
