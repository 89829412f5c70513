//! What every frame begins with.

use crate::{Inodes, assert_size};

/// What happened. The order is the wire's; new kinds go at the end.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A process was made (threads are not reported). The header is the child's.
    Fork = 1,
    /// A process began a new program image.
    Exec = 2,
    /// The last thread of a process ended.
    Exit = 3,
    /// A cgroup was made.
    CgroupMkdir = 4,
    /// A cgroup was removed.
    CgroupRmdir = 5,
    /// A task moved to another cgroup, by any door. The header is the moved task's.
    CgroupMove = 6,
    Setns = 7,
    Unshare = 8,
    /// clone or clone3 asked for new namespaces and was refused; what it made shows in Fork.
    Clone = 9,
    Chroot = 10,
    PivotRoot = 11,
    /// A thread's namespaces are not those last seen, and no watched call of its own said so.
    Drift = 12,
    /// The kernel chose a process to kill, for want of memory. The header is that of the task that asked for memory.
    OomKill = 13,
    /// clone, clone3, fork or vfork returned EAGAIN: a limit on tasks. Repeats within a short time are counted, not sent.
    ForkRefused = 14,
    /// seccomp refused a call of this container's for the first time, or an error was seen that may be its.
    SeccompDenied = 15,
    /// seccomp sent SIGSYS, or ended a thread.
    SeccompKilled = 16,
}

/// Number of kinds plus one: kinds index the per-kind counters.
pub const KINDS: usize = 17;

/// All kinds, in the order of the wire.
pub const ALL_KINDS: [Kind; KINDS - 1] = [
    Kind::Fork,
    Kind::Exec,
    Kind::Exit,
    Kind::CgroupMkdir,
    Kind::CgroupRmdir,
    Kind::CgroupMove,
    Kind::Setns,
    Kind::Unshare,
    Kind::Clone,
    Kind::Chroot,
    Kind::PivotRoot,
    Kind::Drift,
    Kind::OomKill,
    Kind::ForkRefused,
    Kind::SeccompDenied,
    Kind::SeccompKilled,
];

impl From<Kind> for u32 {
    fn from(kind: Kind) -> u32 {
        kind as u32
    }
}

impl Kind {
    pub fn from_wire(number: u16) -> Option<Kind> {
        ALL_KINDS.into_iter().find(|kind| *kind as u16 == number)
    }

    /// As events and metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Fork => "fork",
            Kind::Exec => "exec",
            Kind::Exit => "exit",
            Kind::CgroupMkdir => "cgroup_mkdir",
            Kind::CgroupRmdir => "cgroup_rmdir",
            Kind::CgroupMove => "cgroup_move",
            Kind::Setns => "setns",
            Kind::Unshare => "unshare",
            Kind::Clone => "clone",
            Kind::Chroot => "chroot",
            Kind::PivotRoot => "pivot_root",
            Kind::Drift => "drift",
            Kind::OomKill => "oom_kill",
            Kind::ForkRefused => "fork_refused",
            Kind::SeccompDenied => "seccomp_denied",
            Kind::SeccompKilled => "seccomp_killed",
        }
    }
}

/// Bits of [`Header::flags`].
pub mod flags {
    /// Behind the payload stand [`crate::MAX_ANCESTORS`] ancestors.
    pub const ANCESTORS: u32 = 1 << 0;
    /// The task's namespaces differ from those last seen for this thread (or inherited from its parent).
    pub const CHANGED: u32 = 1 << 1;
    /// The kernel side had not seen this thread's namespaces before.
    pub const FIRST_SIGHT: u32 = 1 << 2;
    /// The task is being brought into a container from outside and has not yet executed anything there.
    pub const ENTERING: u32 = 1 << 3;
    /// An exec that ended [`ENTERING`]: the moment at which a newcomer, or a host task that joined namespaces,
    /// is judged.
    pub const JUDGE: u32 = 1 << 4;
    /// The task was moved out of its container's cgroups at some time.
    pub const MOVED: u32 = 1 << 5;
    /// Came by the priority ring.
    pub const PRIORITY: u32 = 1 << 6;
    /// Would have come by the priority ring, but its slot's budget was spent.
    pub const DEMOTED: u32 = 1 << 7;
    /// Bytes behind the payload were cut at their bound.
    pub const TRUNCATED: u32 = 1 << 8;
    /// The thread's last change of namespaces came from a watched call that succeeded.
    pub const EXPLAINED: u32 = 1 << 9;
    /// Of a fork: the parent's own namespaces were not those last seen. What they are is in the payload; the
    /// rest of the parent (comm, ids) is as in the child's header, which was copied from it.
    pub const PARENT_CHANGED: u32 = 1 << 10;
    /// The task's root directory is in a mount that shows the very tree that the host's root mount shows.
    pub const HOST_ROOT: u32 = 1 << 11;
}

/// Context carried by every event, so that no alert depends on a table having been filled in time.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Header {
    /// Bytes in the whole frame, this field included.
    pub size: u32,
    pub version: u16,
    /// A [`Kind`]; an unknown number is an error that the reader counts.
    pub kind: u16,
    /// CLOCK_BOOTTIME, ns (`bpf_ktime_get_boot_ns`).
    pub time_ns: u64,
    pub cpu: u32,
    /// See [`flags`].
    pub flags: u32,
    /// Thread group id: what userspace calls the pid, in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// The real parent's thread group id.
    pub ppid: u32,
    pub uid: u32,
    pub gid: u32,
    /// The process's pid inside its own (innermost) pid namespace.
    pub ns_pid: u32,
    /// The thread group leader's start, ns of CLOCK_BOOTTIME: with `tgid` it names a process for good.
    pub start_ns: u64,
    /// The process's container slot, 0 for none. Set when it entered, inherited over fork, never taken away.
    pub slot: u64,
    /// kernfs id of the task's cgroup in the v2 hierarchy, 0 if there is none.
    pub cgroup_v2: u64,
    /// kernfs id of the task's cgroup in the v1 pids hierarchy, 0 if pids is not a v1 hierarchy.
    pub cgroup_pids: u64,
    /// kernfs id of the task's cgroup in the v1 memory hierarchy, 0 if memory is not a v1 hierarchy.
    pub cgroup_memory: u64,
    /// Capabilities of the thread's own credentials, after what happened: those that it may use (cap_permitted) ...
    pub permitted: u64,
    /// ... and those and all that it could come to by executing a file (cap_bset, cap_inheritable).
    pub attainable: u64,
    /// How many programs its process has executed, and those that it is descended from (task_struct.self_exec_id); 0 where
    /// these three are not known.
    pub execs: u32,
    pub reserved: u32,
    /// The thread's namespaces after what happened.
    pub inodes: Inodes,
    /// As the kernel has it: chosen by the process, so only ever shown, never trusted.
    pub comm: [u8; 16],
}

/// How far up the kernel side follows `real_parent` for an event of the priority ring.
pub const MAX_ANCESTORS: usize = 8;

/// One process on the way up to pid 1, nearest first; `tgid` 0 ends the list.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Ancestor {
    pub tgid: u32,
    pub reserved: u32,
    pub start_ns: u64,
    pub comm: [u8; 16],
}

assert_size!(Header = 168, Ancestor = 32);
