//! An independent reader of the kernel's audit log: AppArmor's lines in it, as the kernel multicasts them.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// As much as a test may cause before it reads.
static BUFFER: libc::c_int = 16 << 20;
/// What a security module says (include/uapi/linux/audit.h).
const AUDIT_AVC: u16 = 1400;

#[derive(Debug)]
pub struct AuditLog {
    socket: OwnedFd,
    lines: Vec<String>,
}

impl AuditLog {
    /// From now on.
    pub fn join() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: plain integers; the result is checked.
        let socket = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_AUDIT) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nothing else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        // SAFETY: all zeros is a valid address; the group is AUDIT_NLGRP_READLOG, as a bit.
        let mut address: libc::sockaddr_nl = unsafe { mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = 1;
        let size = |bytes: usize| bytes as libc::socklen_t;
        // SAFETY: an integer and an address, each as long as is said.
        let results = unsafe {
            [
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_RCVBUFFORCE,
                    (&raw const BUFFER).cast(),
                    size(size_of_val(&BUFFER)),
                ),
                libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size(size_of_val(&address))),
            ]
        };
        if results.contains(&-1) {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket, lines: Vec::new() })
    }

    /// AppArmor's lines so far that have all of these words in them.
    pub fn lines(&mut self, words: &[&str]) -> Vec<String> {
        let mut buffer = [0; 16 << 10];
        loop {
            // SAFETY: as much room as is said.
            let length =
                unsafe { libc::recv(self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            let Ok(length) = usize::try_from(length) else {
                let error = io::Error::last_os_error();
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "the test's own log: {error}");
                break;
            };
            let (header, text) = buffer[..length].split_at(length.min(16));
            if header.get(4..6).is_some_and(|kind| u16::from_ne_bytes([kind[0], kind[1]]) == AUDIT_AVC) {
                self.lines.push(String::from_utf8_lossy(text).into_owned());
            }
        }
        let fits =
            |line: &&String| line.contains("apparmor=") && words.iter().all(|word| line.contains(word));
        self.lines.iter().filter(fits).cloned().collect()
    }
}
