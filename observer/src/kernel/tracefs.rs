//! Tracepoint ids and attachment, without needing tracefs to be mounted where others can see it.

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::KernelError;

/// A tracefs, either the one that is mounted or one that only this file descriptor leads to.
#[derive(Debug)]
pub enum Tracefs {
    Mounted(PathBuf),
    Detached(OwnedFd),
}

impl Tracefs {
    /// Not mounted where the kernel is locked down to confidentiality: it has nothing in it then, and to unmount it
    /// crashes 6.12 (a corrupt list in `tracefs_destroy_inode`, seen).
    pub fn open(confidential: bool) -> Result<Self, KernelError> {
        for path in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
            if Path::new(path).join("events/syscalls").is_dir() {
                return Ok(Tracefs::Mounted(path.into()));
            }
        }
        if confidential {
            let locked = io::Error::new(io::ErrorKind::PermissionDenied, "lockdown=confidentiality");
            return Err(KernelError::Tracefs(locked));
        }
        detached().map(Tracefs::Detached).map_err(KernelError::Tracefs)
    }

    /// The number of the tracepoint `category:name`.
    pub fn event_id(&self, category: &str, name: &str) -> io::Result<u64> {
        let path = match self {
            Tracefs::Mounted(base) => base.join(format!("events/{category}/{name}/id")),
            Tracefs::Detached(fd) => {
                PathBuf::from(format!("/proc/self/fd/{}/events/{category}/{name}/id", fd.as_raw_fd()))
            }
        };
        let mut text = String::new();
        File::open(path)?.take(64).read_to_string(&mut text)?;
        text.trim()
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a tracepoint id is a number"))
    }
}

/// fsopen, fsconfig, fsmount (Linux 5.2): a mount that is attached nowhere and goes with its descriptor.
fn detached() -> io::Result<OwnedFd> {
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    let name: &CStr = c"tracefs";
    // SAFETY: a NUL-terminated name and no flags but close-on-exec; the result is checked.
    let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), 1) })?;
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: the command takes no key and no value.
    let created =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0) };
    if created != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a configured context; close-on-exec, no mount attributes.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, 0) })
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

/// The head of `struct perf_event_attr` in its first published size (64 bytes), which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    bits: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

/// Runs a loaded program on a tracepoint, on all CPUs, until the descriptor is closed.
pub fn attach(program: BorrowedFd<'_>, event_id: u64) -> io::Result<OwnedFd> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    const PERF_EVENT_IOC_SET_BPF: libc::c_ulong = 0x4004_2408;
    const PERF_EVENT_IOC_ENABLE: libc::c_ulong = 0x2400;
    let attr = PerfEventAttr {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<PerfEventAttr>() as u32,
        config: event_id,
        sample_period: 1,
        ..Default::default()
    };
    // SAFETY: `attr` is of the size it says; any pid, CPU 0 (a program hangs on the tracepoint itself, so it runs
    // on all of them), no group.
    let event = owned(unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC)
    })?;
    // SAFETY: both descriptors are open; the ioctls take a descriptor and nothing.
    unsafe {
        if libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF, program.as_raw_fd()) != 0
            || libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_ENABLE, 0) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(event)
}
