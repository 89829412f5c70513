//! What the kernel side counts of checks of capabilities; nothing of it is an event.

use crate::assert_size;

/// Checks of one capability by the tasks of one slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CapabilityKey {
    /// The container's first slot, where userspace has named it, else the task's own.
    pub slot: u64,
    /// Number as in include/uapi/linux/capability.h.
    pub capability: u32,
    pub reserved: u32,
}

/// How those checks ended. None of them ever falls.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilityCount {
    pub granted: u64,
    pub denied: u64,
    /// Asked for without meaning to use it (`CAP_OPT_NOAUDIT`): the kernel does as well without. Whatever the answer was.
    /// Where the options are not to be seen (the tracepoint `cap_capable`), these are among the other two.
    pub speculative: u64,
}

/// Keys that the table has room for, while checks are counted: some 1.5 MiB.
pub const CAPABILITY_KEYS: u32 = 16_384;

assert_size!(CapabilityKey = 16, CapabilityCount = 24);

#[cfg(feature = "user")]
mod user {
    // SAFETY: plain integers without padding that anyone could read uninitialised; any bit pattern is valid.
    unsafe impl aya::Pod for super::CapabilityKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::CapabilityCount {}
}
