//! The kernel's audit log, as it comes: netlink multicast, which needs no auditd and works beside one.
//!
//! The kernel sends it to the first network namespace only (`kauditd_send_multicast_skb`, kernel/audit.c), and asks for
//! CAP_AUDIT_READ when a socket joins the group, not when it is read: so it is opened at the start, before the agent gives up what
//! running does not need.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind,
    netlink::{AUDIT, SocketAddrNetlink},
    recvfrom, socket_with, sockopt,
};

use super::{KernelError, audit_record::parse};
use crate::{
    host::lsm,
    model::{AppArmorRecord, Clock},
};

/// AUDIT_NLGRP_READLOG, as a bit.
const READLOG: u32 = 1;
/// The type of a message: what a security module has to say.
const AUDIT_AVC: u16 = 1400;
/// Of a netlink message: its length (4 bytes), its type (2), then flags, sequence number and port.
const HEADER: usize = 16;
/// Longer than any record.
const BUFFER: usize = 32 << 10;
/// For a burst that comes while the pipeline is at something else: some hundreds of records, as much as a process may have by
/// default, unless it may have more.
const RECEIVE_BUFFER: usize = 1 << 20;

/// An open log.
#[derive(Debug)]
pub struct AuditLog {
    socket: OwnedFd,
    buffer: Vec<u8>,
    undecodable: u64,
    /// What the socket's own counter, which wraps, last said; and all of it.
    dropped: u32,
    lost: u64,
}

impl AuditLog {
    /// The log, as far as AppArmor writes it.
    pub fn open() -> Result<Self, KernelError> {
        if !lsm::has_apparmor(Path::new("/proc")) {
            return Err(KernelError::Unable(
                "AppArmor is not active here: /proc/self/attr/apparmor/current cannot be read".into(),
            ));
        }
        AuditLog::join().map_err(|(step, error)| KernelError::AuditLog { step, why: explain(error) })
    }

    fn join() -> Result<Self, (&'static str, io::Error)> {
        let step = |step: &'static str| move |error: rustix::io::Errno| (step, io::Error::from(error));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(AUDIT))
            .map_err(step("opened"))?;
        // By whoever may; else as much as anybody may have. If there is only less, more is lost and counted.
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
        }
        // Before it joins, so that nothing else comes: an auditd may have the kernel write of every call.
        filter(&socket).map_err(|error| ("filtered", error))?;
        bind(&socket, &SocketAddrNetlink::new(0, READLOG)).map_err(step("joined"))?;
        Ok(AuditLog { socket, buffer: vec![0; BUFFER], undecodable: 0, dropped: 0, lost: 0 })
    }

    /// Why nothing will come by it, if that is so: the kernel knows one network namespace only, and `host` is the host's.
    pub fn is_deaf(&self, host: u32) -> Option<KernelError> {
        let own = std::fs::metadata("/proc/self/ns/net").ok()?.ino();
        let why = "the agent is not in the host's network namespace, and the kernel sends its audit log to no other";
        (own != u64::from(host)).then(|| KernelError::Unable(why.into()))
    }

    /// The next messages, `most` at the most, without waiting. How many there were.
    pub fn read(&mut self, most: usize, clock: &Clock, mut take: impl FnMut(AppArmorRecord)) -> usize {
        for read in 0..most {
            let (length, sender) =
                match recvfrom(&self.socket, &mut self.buffer, RecvFlags::TRUNC | RecvFlags::DONTWAIT) {
                    Ok((_, length, sender)) => (length, sender),
                    Err(rustix::io::Errno::INTR) => continue,
                    // There was no room for some: the socket counts them.
                    Err(rustix::io::Errno::NOBUFS) => continue,
                    Err(_) => return read,
                };
            // From a process, and not from the kernel: whoever may do that is no witness.
            let is_kernel = sender
                .and_then(|sender| SocketAddrNetlink::try_from(sender).ok())
                .is_some_and(|sender| sender.pid() == 0);
            if !is_kernel {
                continue;
            }
            match self.buffer.get(..length).and_then(payload).map(|record| parse(record, clock)) {
                Some(Ok(record)) => record.into_iter().for_each(&mut take),
                None | Some(Err(_)) => self.undecodable += 1,
            }
        }
        most
    }

    /// Records that were not understood.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Records that found no room in the socket. What the kernel itself had no room for, it tells those who may administer
    /// the log, and not us.
    pub fn lost(&mut self) -> u64 {
        if let Some(dropped) = dropped(&self.socket) {
            self.lost += u64::from(dropped.wrapping_sub(self.dropped));
            self.dropped = dropped;
        }
        self.lost
    }
}

impl AsRawFd for AuditLog {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// What a message holds. It is one record; the header says another length on old kernels.
fn payload(message: &[u8]) -> Option<&[u8]> {
    let kind = message.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes)?;
    message.get(HEADER..).filter(|_| kind == AUDIT_AVC)
}

fn explain(error: io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM) => format!("{error}: it takes CAP_AUDIT_READ in the first user namespace"),
        Some(libc::EPROTONOSUPPORT | libc::ECONNREFUSED) => {
            format!("{error}: this kernel has no audit (CONFIG_AUDIT), or it is switched off (audit=0)")
        }
        _ => error.to_string(),
    }
}

/// Lets only AppArmor's type of message through (and that of modules like it): classic BPF, which reads what it loads as
/// big-endian.
fn filter(socket: &OwnedFd) -> io::Result<()> {
    const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf, k }
    }
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 4),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, u32::from(AUDIT_AVC.to_be())),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as libc::c_ushort, filter: program.as_mut_ptr() };
    // SAFETY: the program is as long as it says, and the kernel copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many messages the socket had no room for (include/uapi/linux/sock_diag.h).
fn dropped(socket: &OwnedFd) -> Option<u32> {
    const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
    let mut numbers = [0u32; DROPS + 1];
    let mut length = size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: as much room as is said.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    (result == 0 && length as usize == size_of_val(&numbers)).then_some(numbers[DROPS])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_a_header() {
        let message = |kind: u16, text: &str| {
            let mut bytes = vec![0; HEADER];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(text.as_bytes());
            bytes
        };
        assert_eq!(payload(&message(AUDIT_AVC, "audit")), Some(&b"audit"[..]));
        assert_eq!(payload(&message(1300, "audit")), None);
        assert_eq!(payload(&message(AUDIT_AVC, "")), Some(&b""[..]));
        assert_eq!(payload(&message(AUDIT_AVC, "")[..HEADER - 1]), None);
        assert_eq!(payload(&[]), None);
    }

    /// Where this process may join: the socket is empty, has lost nothing, and does not wait. Where not, the errno says why.
    #[test]
    fn the_log_is_joined_or_it_is_said_why_not() {
        match AuditLog::join() {
            Ok(mut log) => {
                assert_eq!(log.read(16, &Clock::now(), |record| panic!("{record:?}")), 0);
                assert_eq!((log.lost(), log.undecodable()), (0, 0));
                let own = std::fs::metadata("/proc/self/ns/net").expect("our own").ino();
                assert!(log.is_deaf(own as u32).is_none());
                assert!(log.is_deaf(own as u32 + 1).is_some());
            }
            Err((step, error)) => {
                let errno = error.raw_os_error().expect("the kernel's");
                let known = matches!(
                    (step, errno),
                    ("joined", libc::EPERM)
                        | ("opened", libc::EPROTONOSUPPORT | libc::EPERM | libc::EAFNOSUPPORT)
                );
                assert!(known, "{step}: {error}");
                println!("SKIPPED: the audit log cannot be {step}: {error}");
            }
        }
    }
}
