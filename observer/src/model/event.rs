//! An event as `observer tail --events` prints it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ContainerRef, NamespaceSet, PathSource, ProcessRef};

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
    /// `chroot`, `pivot_root`, `drift`, `oom_kill`, `fork_refused`, `seccomp_denied` or `seccomp_killed`. Of an `oom_kill`,
    /// container and process are those that asked for the memory; who was chosen is the victim.
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
    /// A path: a cgroup's (of a kill or a refused fork, the one whose limit is reached), or the new root's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Of a root's path: whose word it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_source: Option<PathSource>,
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
    /// Of an OOM kill: who was out of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<OutOfMemory>,
    /// Of an OOM kill: the process that was chosen to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub victim: Option<Victim>,
    /// The limit of the cgroup at `path`, as it was when the kill or the refusal was seen, and what was charged to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
    /// Of a refused fork: how many tasks the cgroup at `path` may have, and how many it had. Without these no such limit
    /// explains it: it is RLIMIT_NPROC, or one of the whole machine or pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_tasks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// Forks that were refused to this container since the last such event, this one included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusals: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutOfMemory {
    /// The cgroup at `path`.
    Cgroup,
    /// No cgroup that the victim is in.
    Host,
}

/// Who was killed for want of memory. Kernels before 6.9 (later releases of 6.1 excepted) tell only the thread id of a victim that did not itself ask for memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Victim {
    /// Process id in the host's pid namespace.
    pub pid: u32,
    /// Thread id in the host's pid namespace.
    pub tid: u32,
    /// When it began, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub start_time: Option<String>,
    /// Its name, at most 15 bytes; chosen by the process itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comm: Option<String>,
    /// Real user id, as the host's user namespace numbers it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uid: Option<u32>,
    /// What its `oom_score_adj` was, -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oom_score_adj: Option<i32>,
    /// The container that it was in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<ContainerRef>,
    /// Resident anonymous memory, in bytes. Like the next three, exact to some pages for each CPU only, and not told by Linux before 6.9 (later releases of 6.1 excepted).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub anon_bytes: Option<u64>,
    /// Resident pages of files, in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file_bytes: Option<u64>,
    /// Resident shared memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shmem_bytes: Option<u64>,
    /// Memory of its own that was swapped out, in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub swap_bytes: Option<u64>,
}
