//! An event as `observer tail --events` prints it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ContainerRef, NamespaceSet, ProcessRef};

/// Names this format.
pub const SCHEMA: &str = "observer.event/1";

/// One event, enriched. Absent parts are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventRecord {
    /// Always `observer.event/1`.
    pub schema: String,
    pub time: String,
    pub node: String,
    /// `fork`, `exec`, `exit`, `cgroup_mkdir`, `cgroup_rmdir`, `cgroup_move`, `setns`, `unshare`, `clone`,
    /// `chroot`, `pivot_root`, `drift`, `seccomp_denied` or `seccomp_killed`.
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<ContainerRef>,
    pub process: ProcessRef,
    pub cpu: u32,
    /// The thread's namespaces afterwards.
    pub namespaces: NamespaceSet,
    /// The last tuple seen before, where it differs.
    #[serde(skip_serializing_if = "NamespaceSet::is_empty", default)]
    pub namespaces_before: NamespaceSet,
    /// The task is being brought into a container by its runtime.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub entering: bool,
    #[serde(flatten)]
    pub detail: Detail,
}

/// What differs by kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Detail {
    /// Of a system call: what it returned, or the name of its errno.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Of a system call: its arguments, decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
    /// A path: a cgroup's, or the new root's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// Cgroup hierarchy as in /proc/PID/cgroup, 0 for v2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hierarchy: Option<u32>,
    /// Of a move: the pid of the process that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mover_pid: Option<u32>,
    /// The call that seccomp refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscall: Option<String>,
    /// Of an exit: the signal or the code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<String>,
}
