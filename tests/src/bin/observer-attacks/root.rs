//! Leaving by the root directory.

use crate::raw;
use crate::sys::{self, Errno, check, check_raw};
use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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

/// A short path as it lies in memory, its NULs included.
fn word(path: &str) -> u64 {
    let mut bytes = [0; 8];
    // One byte stays for the NUL.
    if path.is_empty() || path.len() >= bytes.len() {
        crate::usage();
    }
    bytes[..path.len()].copy_from_slice(path.as_bytes());
    u64::from_ne_bytes(bytes)
}

fn inode(path: &str) -> Result<(u64, u64), Errno> {
    let meta = std::fs::metadata(path).map_err(|e| Errno::from(e, "stat"))?;
    Ok((meta.dev(), meta.ino()))
}

/// Changes the root `n` times, alternately into one and the other, while another thread keeps rewriting the path with both
/// of them and with one that leads nowhere. The working directory stays, so that the paths lead to the same directories
/// each time. Prints where it really was after each call, as numbers of the paths.
pub(crate) fn chroot_race(paths: [&str; 2], n: u64) -> Result<String, Errno> {
    let words = paths.map(word);
    let inodes = [inode(paths[0])?, inode(paths[1])?];
    let path = AtomicU64::new(words[0]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for other in [words[0], word("nowhere"), words[1]] {
                    path.store(other, Ordering::Relaxed);
                    (0..50).for_each(|_| std::hint::spin_loop());
                }
            }
        });
        let mut went = String::new();
        let mut calls = 0u64;
        let outcome = loop {
            if went.len() as u64 == n {
                break Ok(went);
            }
            path.store(words[went.len() % 2], Ordering::Relaxed);
            calls += 1;
            // SAFETY: eight bytes that outlive the call and of which the last is always a NUL; the kernel copies them.
            let result = unsafe { libc::chroot(path.as_ptr().cast()) };
            match check(result.into(), "chroot") {
                Ok(_) => match inode("/").map(|now| inodes.iter().position(|known| *known == now)) {
                    Ok(Some(number)) => went.push_str(&number.to_string()),
                    Ok(None) => break Err(Errno { code: 253, at: "neither directory" }),
                    Err(errno) => break Err(errno),
                },
                Err(errno) if errno.code == libc::ENOENT && calls < n * 10_000 => {}
                Err(errno) => break Err(errno),
            }
        };
        over.store(true, Ordering::Relaxed);
        outcome
    })
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
