//! Joining and making namespaces, by every call that can.

use crate::raw;
use crate::sys::{self, CloneArgs, Errno, check, check_raw};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub(crate) fn setns_each(source: &str, types: &str, cmd: &[&str]) -> Result<String, Errno> {
    for (file, flag) in sys::open_namespaces(source, types)? {
        sys::setns(&file, flag)?;
    }
    sys::become_cmd(cmd)
}

pub(crate) fn setns_pidfd(pid: &str, types: &str, cmd: &[&str]) -> Result<String, Errno> {
    let Ok(pid) = pid.parse::<libc::pid_t>() else { crate::usage() };
    // SAFETY: plain integers.
    let raw = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }, "pidfd_open")?;
    // SAFETY: a descriptor that the kernel just made for us and nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(raw as i32) };
    sys::setns(&pidfd, sys::flags(types))?;
    sys::become_cmd(cmd)
}

pub(crate) fn setns32(source: &str, types: &str, cmd: &[&str]) -> Result<String, Errno> {
    for (file, flag) in sys::open_namespaces(source, types)? {
        check_raw(raw::int80(raw::SETNS, file.as_raw_fd() as u32, flag as u32), "setns32")?;
    }
    sys::become_cmd(cmd)
}

pub(crate) fn unshare(types: &str, cmd: &[&str]) -> Result<String, Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::unshare(sys::flags(types)) }.into(), "unshare")?;
    sys::become_cmd(cmd)
}

pub(crate) fn unshare32(types: &str, cmd: &[&str]) -> Result<String, Errno> {
    check_raw(raw::int80(raw::UNSHARE, sys::flags(types) as u32, 0), "unshare32")?;
    sys::become_cmd(cmd)
}

pub(crate) fn clone_newns(types: &str, cmd: &[&str]) -> Result<String, Errno> {
    sys::clone3_and_run(&mut CloneArgs { flags: sys::flags(types) as u64, ..Default::default() }, cmd)
}

/// 32-bit calls whose numbers mean setns, unshare, chroot, pivot_root, clone and clone3 to a reader that takes
/// every number for a 64-bit one. What they really are fails or changes nothing.
pub(crate) fn confuse32() -> Result<String, Errno> {
    let newnet = libc::CLONE_NEWNET as u32;
    for number in [
        308, // setns      | pselect6, with a bad pointer
        272, // unshare    | fadvise64_64, on no descriptor
        161, // chroot     | sched_rr_get_interval
        155, // pivot_root | sched_getparam
        56,  // clone      | (mpx, never implemented)
    ] {
        // Arguments as unshare and setns would have them; none of these is a valid pointer or descriptor.
        let _ = raw::int80(number, newnet, newnet);
    }
    Ok(String::new())
}

/// The attempts that must be refused; the count of refusals with EPERM is printed.
pub(crate) fn count_eperm(n: u64, source: &str, kind: &str) -> Result<String, Errno> {
    let files = sys::open_namespaces(source, kind)?;
    let mut refused = 0u64;
    for _ in 0..n {
        for (file, flag) in &files {
            match sys::setns(file, *flag) {
                Err(errno) if errno.code == libc::EPERM => refused += 1,
                Err(errno) => return Err(errno),
                Ok(()) => return Err(Errno { code: 253, at: "was not refused" }),
            }
        }
    }
    Ok(refused.to_string())
}
