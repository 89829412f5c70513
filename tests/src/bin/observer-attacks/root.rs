//! Leaving by the root directory.

use crate::raw;
use crate::sys::{self, Errno, check, check_raw};
use std::ffi::CString;

fn path(dir: &str) -> CString {
    CString::new(dir).unwrap_or_else(|_| crate::usage())
}

fn enter_root() -> Result<(), Errno> {
    std::env::set_current_dir("/").map_err(|e| Errno::from(e, "chdir"))
}

pub(crate) fn chroot(dir: &str, cmd: &[&str]) -> Result<String, Errno> {
    // SAFETY: a NUL-terminated path that outlives the call.
    check(unsafe { libc::chroot(path(dir).as_ptr()) }.into(), "chroot")?;
    enter_root()?;
    sys::become_cmd(cmd)
}

pub(crate) fn chroot32(dir: &str, cmd: &[&str]) -> Result<String, Errno> {
    let dir = path(dir);
    let bytes = dir.as_bytes_with_nul();
    let (protection, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT);
    // SAFETY: a fresh anonymous mapping, placed by the kernel in the low 2 GiB as a 32-bit pointer needs it.
    let low = unsafe { libc::mmap(std::ptr::null_mut(), bytes.len(), protection, kind, -1, 0) };
    if low == libc::MAP_FAILED {
        return Err(Errno::last("mmap"));
    }
    // SAFETY: the mapping is at least `bytes.len()` long, writable and ours alone.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), low.cast::<u8>(), bytes.len()) };
    check_raw(raw::int80(raw::CHROOT, low as usize as u32, 0), "chroot32")?;
    enter_root()?;
    sys::become_cmd(cmd)
}

/// pivot_root(".", "."): the new root is stacked on the old one, which is then detached.
pub(crate) fn pivot(dir: &str, cmd: &[&str]) -> Result<String, Errno> {
    // SAFETY: plain integers.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into(), "unshare")?;
    std::env::set_current_dir(dir).map_err(|e| Errno::from(e, "chdir"))?;
    // SAFETY: NUL-terminated literals.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }, "pivot_root")?;
    // SAFETY: a NUL-terminated literal; detaches the old root in this process's own mount namespace only.
    check(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }.into(), "umount")?;
    enter_root()?;
    sys::become_cmd(cmd)
}
