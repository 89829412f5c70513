//! What follows the header, by kind.

use crate::{Inodes, assert_size};

/// Longest file name of an exec that is carried, in bytes.
pub const MAX_FILENAME: usize = 256;
/// Longest argument block of an exec that is carried, in bytes.
pub const MAX_ARGS: usize = 1024;
/// Longest path carried: a cgroup's, or the one given to chroot or pivot_root.
pub const MAX_PATH: usize = 512;

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

/// [`crate::Kind::Chroot`] and [`crate::Kind::PivotRoot`]; `path_len` bytes of the path as given follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
pub struct RootChange {
    pub call: Syscall,
    pub root: Root,
    pub path_len: u32,
    pub reserved: u32,
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
    Seccomp = 24,
);
