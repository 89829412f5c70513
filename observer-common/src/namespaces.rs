//! The namespace tuple: the ten names of /proc/PID/ns, in their alphabetical order.

/// How many entries /proc/PID/ns has: eight types, and for pid and time also the one that children will get.
pub const NAMESPACES: usize = 10;

pub const NS_CGROUP: usize = 0;
pub const NS_IPC: usize = 1;
pub const NS_MNT: usize = 2;
pub const NS_NET: usize = 3;
pub const NS_PID: usize = 4;
pub const NS_PID_FOR_CHILDREN: usize = 5;
pub const NS_TIME: usize = 6;
pub const NS_TIME_FOR_CHILDREN: usize = 7;
pub const NS_USER: usize = 8;
pub const NS_UTS: usize = 9;

/// The names as /proc/PID/ns has them, by index.
pub const NAMESPACE_NAMES: [&str; NAMESPACES] =
    ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"];

/// Inode numbers of a task's namespaces; 0 where the kernel showed none (an exiting task).
pub type Inodes = [u32; NAMESPACES];

/// A hash of the tuple (and of whether the root is the host's) that the kernel side keeps for each thread, to see
/// that it changed (`host_root` is 1 or 0). Never 0: 0 means "not yet seen". Not meant against an adversary: inode numbers are the kernel's choice, not the attacker's.
#[inline(always)]
pub fn tuple_hash(inodes: &Inodes, host_root: u64) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325 ^ host_root;
    let mut i = 0;
    while i < NAMESPACES {
        hash = (hash ^ inodes[i] as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
        i += 1;
    }
    hash | 1
}
