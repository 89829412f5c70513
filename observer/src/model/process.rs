//! Processes.

use std::rc::Rc;

use super::{Label, Tuple};

/// A process for good: pids are used again. The start is kept in clock ticks of 10 ms, the grain of
/// /proc/PID/stat, so that what the kernel side says and what /proc says name the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ProcessKey {
    pub pid: u32,
    pub start_ticks: u64,
}

/// ns per clock tick of /proc (USER_HZ is 100 on every architecture that Linux gives to userspace).
pub const TICK_NS: u64 = 10_000_000;

impl ProcessKey {
    pub fn new(pid: u32, start_ns: u64) -> Self {
        ProcessKey { pid, start_ticks: start_ns / TICK_NS }
    }
}

/// One step up the tree.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Ancestor {
    pub pid: u32,
    pub comm: String,
}

/// A process as the agent's table has it.
#[derive(Clone, Debug)]
pub struct Process {
    pub key: ProcessKey,
    pub start_ns: u64,
    pub parent: Option<ProcessKey>,
    pub comm: Rc<str>,
    pub exe: Option<Rc<str>>,
    /// `exe` was asked from /proc when it was needed, for want of the kernel's own word: another process of the same
    /// program may have been gone by then.
    pub exe_asked: bool,
    /// NUL-separated, as the kernel has them, bounded: split only when shown.
    pub args: Rc<[u8]>,
    pub uid: u32,
    pub gid: u32,
    /// Pid in its innermost pid namespace.
    pub ns_pid: u32,
    /// Namespaces of the process (its leader) when last seen.
    pub tuple: Tuple,
    /// Index of its container in the table, by origin: it stays after an escape.
    pub container: Option<super::ContainerKey>,
    /// Its root directory shows the host's root tree, as far as it was seen.
    pub host_root: bool,
    /// What it may do, as far as it was seen in its container.
    pub privileges: Option<super::Privileges>,
    /// AppArmor's, when last read and held against its container's; its parent's while it has not been.
    pub label: Option<Rc<Label>>,
    /// That this is not its container's was told.
    pub label_told: bool,
    /// It came into its container from outside, and has done nothing about its label since.
    pub brought_in: bool,
    /// Being brought into a container, and nothing executed there yet.
    pub entering: bool,
    /// Kernel time of the newest news, so that older ones do not overwrite them.
    pub updated_ns: u64,
}
