//! What the kernel side counts of checks of capabilities; nothing of it is an event.

use crate::assert_size;

/// Checks of one capability by the tasks of one slot that ended in the same way.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CapabilityKey {
    /// The container's first slot, where userspace has named it, else the task's own.
    pub slot: u64,
    /// Number as in include/uapi/linux/capability.h.
    pub capability: u32,
    /// An [`outcome`].
    pub outcome: u32,
}

/// How a check ended. Not counted at all are checks that mean no use (`CAP_OPT_NOAUDIT`); where the options are not to be seen
/// (the tracepoint `cap_capable`), they are among the others, except [`outcome::WITHHELD`].
pub mod outcome {
    pub const GRANTED: u32 = 0;
    /// The process has not got it, as any user or one that has given it up has not; or has another one that does as well.
    pub const DENIED: u32 = 1;
    /// Nor has its container been given it: it is not in the bounding set, or it was asked for in a user namespace that is not
    /// the task's own.
    pub const WITHHELD: u32 = 2;
}

/// How many there were, and the first of them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilityChecks {
    /// Never falls.
    pub count: u64,
    /// Kernel time (CLOCK_BOOTTIME), ns.
    pub first_ns: u64,
    /// The process that was the first.
    pub start_ns: u64,
    pub tgid: u32,
    pub uid: u32,
    pub gid: u32,
    /// The inode number of the user namespace in which the first was asked for.
    pub user_ns: u32,
    pub comm: [u8; 16],
}

/// Keys that the table has room for, while checks are counted: some 1.7 MiB.
pub const CAPABILITY_KEYS: u32 = 12_288;

/// Capabilities that no kernel from 6.14 on (where the tracepoint begins) asks for without meaning it, as far as its sources tell:
/// CHOWN, KILL, LINUX_IMMUTABLE, NET_BIND_SERVICE, NET_RAW, SYS_MODULE, SYS_CHROOT, SYS_BOOT, SYS_TIME, MKNOD, AUDIT_WRITE,
/// AUDIT_CONTROL, SETFCAP. Speculative checks are known of SYS_ADMIN (memory, seccomp, attributes), SYS_PTRACE (/proc), NET_ADMIN
/// (sysctl, vsock), SYSLOG (kernel addresses), BPF, PERFMON, SYS_RESOURCE, FOWNER, SYS_RAWIO, SETUID and SETGID (integrity
/// measurement).
pub const NEVER_SPECULATIVE: u64 = 1 << 0
    | 1 << 5
    | 1 << 9
    | 1 << 10
    | 1 << 13
    | 1 << 16
    | 1 << 18
    | 1 << 22
    | 1 << 25
    | 1 << 27
    | 1 << 29
    | 1 << 30
    | 1 << 31;

assert_size!(CapabilityKey = 16, CapabilityChecks = 56);

#[cfg(feature = "user")]
mod user {
    // SAFETY: plain integers without padding that anyone could read uninitialised; any bit pattern is valid.
    unsafe impl aya::Pod for super::CapabilityKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::CapabilityChecks {}
}
