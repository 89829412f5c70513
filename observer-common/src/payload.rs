//! What follows the header, by kind.

use crate::{Inodes, assert_size};

/// Longest file name of an exec that is carried, in bytes.
pub const MAX_FILENAME: usize = 256;
/// Longest argument block of an exec that is carried, in bytes.
pub const MAX_ARGS: usize = 1024;
/// Longest path carried: a cgroup's, or the one given to chroot or pivot_root.
pub const MAX_PATH: usize = 512;
/// Longest name of a directory, with its NUL (NAME_MAX, include/uapi/linux/limits.h).
pub const MAX_NAME: usize = 256;
/// Room for the names on the way from a root directory up to the root of its mount namespace. A power of two.
pub const MAX_ROOT_PATH: usize = 1024;
/// Directories and mounts on that way, at most.
pub const ROOT_STEPS: usize = 32;

/// [`crate::Kind::Fork`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Fork {
    pub parent_tgid: u32,
    pub parent_tid: u32,
    pub parent_start_ns: u64,
    /// v2 cgroup of the parent: another one in the header means CLONE_INTO_CGROUP.
    pub parent_cgroup_v2: u64,
    /// The parent's namespaces, to see what the child got anew.
    pub parent_inodes: Inodes,
}

/// [`crate::Kind::Exec`]; `filename_len` bytes of the path as given to execve follow, then `args_len` bytes of
/// NUL-separated arguments.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Exec {
    /// The thread that called execve; it has the leader's id afterwards.
    pub old_tid: u32,
    pub filename_len: u32,
    pub args_len: u32,
    /// Length of the argument block before it was cut, in bytes.
    pub args_total: u32,
}

/// [`crate::Kind::Exit`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Exit {
    /// As wait(2) has it.
    pub status: i32,
    pub reserved: u32,
}

/// [`crate::Kind::CgroupMkdir`] and [`crate::Kind::CgroupRmdir`]; `path_len` bytes of path follow, relative to
/// the hierarchy's root.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Cgroup {
    /// As in the first field of /proc/PID/cgroup; 0 is the v2 hierarchy.
    pub hierarchy: u32,
    pub level: u32,
    /// kernfs id: what stat(2) gives as the directory's inode number.
    pub id: u64,
    pub parent_id: u64,
    /// The cgroup's own slot, inherited from its parent if that belongs to a container.
    pub slot: u64,
    pub path_len: u32,
    pub reserved: u32,
}

/// [`crate::Kind::CgroupMove`]; `path_len` bytes of the destination's path follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct CgroupMove {
    pub to: Cgroup,
    /// The process that did it.
    pub mover_tgid: u32,
    pub mover_tid: u32,
    pub mover_start_ns: u64,
    pub mover_slot: u64,
    pub mover_comm: [u8; 16],
    /// Whole process (cgroup.procs) or one thread (tasks, cgroup.threads).
    pub threadgroup: u32,
    /// A [`door`].
    pub door: u32,
}

/// How a task came into another cgroup.
pub mod door {
    /// A write to cgroup.procs, cgroup.threads or tasks (`cgroup_attach_task`).
    pub const WRITE: u32 = 1;
    /// clone3 with CLONE_INTO_CGROUP.
    pub const CLONE: u32 = 2;
    /// All tasks of a cgroup were moved at once (`cgroup_transfer_tasks`).
    pub const TRANSFER: u32 = 3;
}

/// [`crate::Kind::Setns`], [`crate::Kind::Unshare`] and [`crate::Kind::Clone`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Syscall {
    /// Number in the 64-bit table of this machine. That of clone also for a clone3 or a 32-bit clone that was refused, where
    /// the refusal was seen behind the call.
    pub nr: u32,
    pub reserved: u32,
    /// What it returned: negative errno or a result.
    pub ret: i64,
    /// setns: fd, nstype. unshare: flags. clone and clone3: flags; the other is whatever the way of seeing it gives.
    pub args: [u64; 2],
}

/// [`crate::Kind::Chroot`] and [`crate::Kind::PivotRoot`]; `path_len` bytes follow, whose form depends on where they are
/// from.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct RootChange {
    pub call: Syscall,
    pub root: Root,
    pub path_len: u32,
    /// A [`path_source`].
    pub path_source: u32,
}

/// Where the path of a [`RootChange`] is from.
pub mod path_source {
    /// There is none.
    pub const NONE: u32 = 0;
    /// The caller's memory after the call, where another thread may have rewritten it: text without NUL.
    pub const CALLER: u32 = 1;
    /// The kernel's own record of the root that the task got: the names from the directory up to the root of the mount
    /// namespace that it is in, each with its NUL. With [`crate::flags::TRUNCATED`], the rest of the way is not there.
    pub const KERNEL: u32 = 2;
}

/// A task's root directory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Root {
    /// Inode number of the mount namespace that the root's mount belongs to.
    pub mnt_ns: u32,
    /// `s_dev` of the file system, in the kernel's encoding (major << 20 | minor).
    pub dev: u32,
    /// Inode at the root of the *mount*: the file system's own root unless the mount is a bind of a directory.
    pub mount_root_ino: u64,
    /// Inode of the root directory itself.
    pub ino: u64,
}

/// [`crate::Kind::OomKill`]. Pages are of 4 KiB.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct OomKill {
    /// The slot of the victim's mark, 0 for none.
    pub victim_slot: u64,
    /// The victim's process's start, ns of CLOCK_BOOTTIME; 0 if the kernel side knows of it no more than its id. Then the fields
    /// below that speak of the victim are zeros, its uid is all ones, and its process is taken to be named like the thread.
    pub victim_start_ns: u64,
    /// kernfs id of the cgroup whose limit is reached, 0 if there is none.
    pub limit_cgroup_id: u64,
    pub limit_pages: u64,
    /// What was charged to that cgroup when the victim was chosen.
    pub usage_pages: u64,
    /// The victim's own memory, approximately: the kernel counts it per CPU.
    pub anon_pages: u64,
    pub file_pages: u64,
    pub shmem_pages: u64,
    pub swap_pages: u64,
    /// That cgroup's hierarchy, 0 for v2.
    pub limit_hierarchy: u32,
    pub victim_tgid: u32,
    pub victim_tid: u32,
    pub victim_uid: u32,
    /// An [`oom`] scope.
    pub scope: u32,
    pub oom_score_adj: i32,
    pub victim_comm: [u8; 16],
}

/// Who was out of memory.
pub mod oom {
    pub const UNKNOWN: u32 = 0;
    /// A cgroup that has reached its limit.
    pub const CGROUP: u32 = 1;
    /// No cgroup of the victim's has: the host.
    pub const HOST: u32 = 2;
}

/// [`crate::Kind::ForkRefused`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct ForkRefused {
    /// kernfs id of the cgroup that has reached its limit of tasks; 0 if that does not explain it: RLIMIT_NPROC, threads-max, a
    /// pid namespace that is full.
    pub cgroup_id: u64,
    /// Refusals of this container since it was last told of one, this one included.
    pub count: u64,
    /// Tasks in that cgroup.
    pub current: u64,
    pub max: u64,
    /// That cgroup's hierarchy, 0 for v2.
    pub hierarchy: u32,
    pub errno: i32,
}

/// [`crate::Kind::SeccompDenied`] and [`crate::Kind::SeccompKilled`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct Seccomp {
    /// In the table of `arch`.
    pub nr: u32,
    /// What the call returned; 0 with a signal.
    pub errno: u32,
    /// A [`crate::verdict`].
    pub verdict: u32,
    /// An `AUDIT_ARCH_*`.
    pub arch: u32,
    /// The slot that the kernel side counts it by.
    pub slot: u64,
}

assert_size!(
    Fork = 64,
    Exec = 16,
    Exit = 8,
    Cgroup = 40,
    CgroupMove = 88,
    Syscall = 32,
    Root = 24,
    RootChange = 64,
    OomKill = 112,
    ForkRefused = 40,
    Seccomp = 24,
);
