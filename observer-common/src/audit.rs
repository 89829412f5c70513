//! What the kernel side keeps of containers' system calls while they are audited. Only a first denial and a SIGSYS are events.

use crate::assert_size;

/// Numbers of the 64-bit table that are kept; x32's and whatever is above belong to nobody's profile.
pub const SYSCALLS: usize = 512;

/// Containers audited at a time, and one more: index 0 means that it is not yet known which.
pub const AUDITED: u32 = 2048;

/// What one container's tasks have called, by number. A byte each, and not a bit: 5.10 has no atomic *or*, and a plain one
/// loses bits between CPUs, where a byte is written whole.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calls(pub [u8; SYSCALLS]);

impl Calls {
    pub const NONE: Calls = Calls([0; SYSCALLS]);
}

/// A set of numbers of system calls.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallSet(pub [u64; SYSCALLS / 64]);

impl CallSet {
    pub const NONE: CallSet = CallSet([0; SYSCALLS / 64]);
    pub const ALL: CallSet = CallSet([u64::MAX; SYSCALLS / 64]);

    /// A number beyond the table is in no set.
    pub fn insert(&mut self, nr: u32) {
        if let Some(word) = self.0.get_mut(nr as usize / 64) {
            *word |= 1 << (nr % 64);
        }
    }

    pub fn contains(&self, nr: u32) -> bool {
        self.0.get(nr as usize / 64).is_some_and(|word| word & 1 << (nr % 64) != 0)
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..SYSCALLS as u32).filter(|nr| self.contains(*nr))
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// What userspace has told of an audited container, by its index.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    /// The container's first slot.
    pub slot: u64,
    /// What the filter that its runtime installs lets pass whatever the arguments are: an error of such a call is none of the
    /// filter's.
    pub allowed: CallSet,
    /// What that filter never lets pass: an error of such a call is always the filter's.
    pub refused: CallSet,
    /// How many filters that is: 1, or 0 if none was declared. Those beyond are the programs' own.
    pub filters: u32,
    pub reserved: u32,
}

/// Processes in one entry of the table that says whose calls are a process's: two bytes for each thread group id.
pub const CHUNK: usize = 64;

/// By thread group id, in chunks: the index of the process's container; 0 while it is not known, or with [`NOBODY`]. Taken back
/// whenever the process's mark changes.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Indices(pub [u16; CHUNK]);

/// Whose the calls are that come from one thread, by its kernel stack: what `PROCESSES` says of it, kept where no helper is needed to
/// find it. Each call to one costs some 20 ns where returns are guarded against speculation, as much as all else that a call
/// costs that is nobody's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    /// The index, and above it the number of changes up to which it holds.
    pub word: u64,
    /// Stands for the address of the thread's saved registers, which is the same for all its calls.
    pub regs: u64,
}

/// Threads of which that is kept, more or less: 64 KiB. A power of two.
pub const STACKS: u32 = 4096;

/// With the generation in the bits below: the process was found to be no container's when that many containers (modulo) had
/// been told of. When there is another one, it is looked at again.
pub const NOBODY: u16 = 1 << 15;

/// What the agent tells the programs while they run.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AuditState {
    /// [`NOBODY`] and the number of containers told of so far: what the mark of a process that is no container's must be to
    /// be believed.
    pub nobody: u16,
    pub reserved: [u16; 3],
    /// A byte for each number: 1 if the beginnings of that call are seen, so that an end without one is a denial.
    pub armed: Calls,
}

/// Programs, by the number and name of their call, that the program on the end of every call runs itself while calls are
/// audited: one program on that end costs every call less than two kinds of them. What is `exit_NAME` on the call's own end is
/// `over_NAME` here. The place is the one in the table of programs.
pub const TAKEN_OVER: [(u32, &str, &str); 10] = [
    (56, "clone", "clone"),
    (56, "clone", "fork_refused"),
    (57, "fork", "fork_refused"),
    (58, "vfork", "fork_refused"),
    (155, "pivot_root", "root"),
    (161, "chroot", "root"),
    (272, "unshare", "unshare"),
    (308, "setns", "setns"),
    (435, "clone3", "clone3"),
    (435, "clone3", "fork_refused"),
];

/// Places there of those that come second: the first of a call runs it when it is through.
pub const CLONE_SECOND: u32 = 1;
pub const CLONE3_SECOND: u32 = 9;

/// Counted by slot and number.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DenialKey {
    /// The container's first slot, where userspace has named it, else the task's own.
    pub slot: u64,
    /// Below [`SYSCALLS`], or [`OTHER_CALLS`].
    pub nr: u32,
    /// A [`verdict`].
    pub verdict: u32,
}

/// Instead of a number that is not in the table.
pub const OTHER_CALLS: u32 = u32::MAX;

/// What an end of a call in a task with a filter is taken for.
pub mod verdict {
    /// There was no beginning: seccomp refused it.
    pub const DENIED: u32 = 0;
    /// An error of a call whose beginnings were not seen yet: the filter's or the call's own.
    pub const UNCLASSIFIED: u32 = 1;
    /// SIGSYS was sent (`SECCOMP_RET_TRAP`, `SECCOMP_RET_KILL_PROCESS`).
    pub const SIGNALLED: u32 = 2;
    /// One thread of several was ended (`SECCOMP_RET_KILL_THREAD`).
    pub const THREAD_KILLED: u32 = 3;
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Denial {
    /// Never falls.
    pub count: u64,
    /// Kernel time (CLOCK_BOOTTIME), ns.
    pub first_ns: u64,
    pub last_ns: u64,
    /// The process that was the first.
    pub start_ns: u64,
    pub tgid: u32,
    /// Of the last one.
    pub errno: u32,
    pub comm: [u8; 16],
}

/// Keys that the table of denials has room for: some 500 KiB.
pub const DENIAL_KEYS: u32 = 4096;

/// Slots that call before userspace has said what they are.
pub const EARLY_SLOTS: u32 = 128;

/// `AUDIT_ARCH_X86_64` of include/uapi/linux/audit.h.
pub const ARCH_X86_64: u32 = 0xc000_003e;

assert_size!(
    Calls = 512,
    CallSet = 64,
    Audited = 144,
    Indices = 128,
    Stack = 16,
    AuditState = 520,
    DenialKey = 16,
    Denial = 56
);

#[cfg(feature = "user")]
mod user {
    // SAFETY: plain integers without padding that anyone could read uninitialised; any bit pattern is valid.
    unsafe impl aya::Pod for super::Calls {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Audited {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Indices {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::AuditState {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::DenialKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Denial {}
}
