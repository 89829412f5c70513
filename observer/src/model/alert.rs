//! The alert: what a SIEM reads, one JSON line each. Absent parts are left out, never null.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Ancestor, NamespaceSet, PathSource, Pod, Severity, Victim};

/// Names this format; a change that breaks readers raises the number.
pub const SCHEMA: &str = "observer.alert/1";

/// Only where a condition can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    Firing,
    Resolved,
}

/// Whether the agent saw it happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Attribution {
    /// Seen when it happened.
    Exact,
    /// Found afterwards: it happened before the agent started.
    Late,
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    /// Always `observer.alert/1`.
    pub schema: String,
    /// UUID v7 of the event's time and content: a replay gives the same.
    pub id: String,
    /// The id of the first alert about the same thing.
    pub incident: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<AlertState>,
    /// When it happened: RFC 3339, UTC, nanoseconds.
    pub time: String,
    pub node: String,
    /// A rule id, such as `namespace.escape`.
    pub rule: String,
    pub severity: Severity,
    /// The rule in a few words; the same for all its alerts.
    pub title: String,
    /// This alert in one sentence for a person.
    pub message: String,
    /// MITRE ATT&CK techniques.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub mitre: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<ContainerRef>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<ProcessRef>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub namespaces: Option<NamespaceView>,
    /// What the rule saw.
    #[serde(skip_serializing_if = "Evidence::is_empty", default)]
    pub evidence: Evidence,
    pub attribution: Attribution,
    /// Events lost since the agent started and before this one.
    pub events_lost_before: u64,
    /// How often the same thing has been seen, this time included.
    pub count: u64,
}

/// The container an alert is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContainerRef {
    /// The runtime's full id.
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image: Option<String>,
    /// The hash of the image's manifest, else of its configuration: `sha256:...`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub image_digest: Option<String>,
    pub runtime: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cgroup_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cgroup_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pod: Option<PodRef>,
    /// Only where something is wrong with the above.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub metadata: Option<MetadataMark>,
}

impl ContainerRef {
    /// As a message names it: its name, else the short form of its id.
    pub fn called(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| super::container::short(&self.id))
    }
}

/// What is to be known of a container's name, image and pod besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MetadataMark {
    /// The runtime's state was not found, though such a container has one: it was not written in time, or is not where
    /// the agent looks.
    Missing,
}

/// The Kubernetes pod a container belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// A sandbox has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
}

impl From<Pod> for PodRef {
    fn from(pod: Pod) -> Self {
        PodRef { namespace: pod.namespace, name: pod.name, uid: pod.uid, container: pod.container }
    }
}

/// The process that did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessRef {
    /// In the initial pid namespace.
    pub pid: u32,
    pub tid: u32,
    /// RFC 3339.
    pub start_time: String,
    pub comm: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exe: Option<String>,
    /// Bounded; invalid UTF-8 replaced.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub args: Vec<String>,
    pub uid: u32,
    pub gid: u32,
    /// Nearest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub ancestors: Vec<Ancestor>,
}

/// Inode numbers by the names of /proc/PID/ns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NamespaceView {
    /// The container's baseline.
    #[serde(skip_serializing_if = "NamespaceSet::is_empty", default)]
    pub expected: NamespaceSet,
    pub actual: NamespaceSet,
    /// The names in which they differ, sorted.
    pub changed: Vec<String>,
    /// Those of `changed` that are now the host's, sorted.
    pub host: Vec<String>,
}

/// What the rule saw. Every field is optional; which ones a rule fills is in its reference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Evidence {
    /// The watched call, such as `setns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscall: Option<String>,
    /// Of a failed attempt, such as `EPERM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// How it came about: a system call's name, `cgroup.procs`, `CLONE_INTO_CGROUP`,
    /// `unseen` if no watched call explains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub door: Option<String>,
    /// The capability that was refused, such as `CAP_SYS_TIME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// The inode number of the user namespace in which it was first asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_namespace: Option<u32>,
    /// Capabilities that a process has come to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapabilitiesEvidence>,
    /// Namespace types asked for or made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Cgroup path before; of AppArmor, the label of the container's first process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Cgroup path or root directory after. Of a root directory, in the mount namespace that its mount belongs to; of
    /// a refused attempt, what was asked for. Of AppArmor, the process's label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Of a root directory: whose word `to` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_source: Option<PathSource>,
    /// The other container whose namespace or cgroup it now is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_container: Option<ContainerRef>,
    /// The process that moved this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mover: Option<Ancestor>,
    /// What the new root is: `host_root` or `foreign_mount_namespace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Why events were lost, with the number of each.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub lost: std::collections::BTreeMap<String, u64>,
    /// The AppArmor profile, or the stack of them, that denied it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The profile's mode: `enforce`, or `kill`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// What AppArmor calls the attempt, such as `open`, `exec`, `capable`, `mount`, `ptrace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// What AppArmor calls its kind, such as `file`, `cap`, `net`, `mount`; kernels before 6.0 do not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// What it was to: a path; of a socket, its family and type; of a signal or a resource limit, which one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What was asked for, such as `r`, `wc`, `send`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// What of it was denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied: Option<String>,
    /// The AppArmor label of whom it was to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Events of this container that found no room and were folded into this alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub displaced: Option<u64>,
    /// Of a resource: `at_limit`, `failing`, `near`, `throttled` or `growth`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The limit that was met, or is near.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitEvidence>,
    /// Memory in use at the limit's cgroup then (of `near`: the working set).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
    /// Tasks (threads count) at the limit's cgroup then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// Of `near`: use in percent of the limit. Of `throttled`: the share of the periods in which the quota ran out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u64>,
    /// How often the limit was met: allocations that had to reclaim, or forks refused. At the end: in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hits: Option<u64>,
    /// Of `growth`: new tasks in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_per_second: Option<u64>,
    /// CPU time allowed in each period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_us: Option<u64>,
    /// How long a period is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_us: Option<u64>,
    /// For how long a condition lasted that has ended, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lasted_ms: Option<u64>,
    /// What ran out of memory: `cgroup`, `host` or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The process that the kernel killed; of the alert's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub victim: Option<Victim>,
    /// Other processes of the container then; at most ten.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Ancestor>,
    /// How many more others there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others_more: Option<u64>,
    /// Limits that were changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangeEvidence>,
    /// Of a first use: for how long the container's system calls have been kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_seconds: Option<u64>,
    /// Of a first use: how many different system calls the container had made by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_syscalls: Option<u32>,
    /// The container whose process changed them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer_container: Option<ContainerRef>,
}

/// What a process may do that it could not have come to. Names as in the kernel's header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CapabilitiesEvidence {
    /// What `before` is: `held`, its permitted set when last seen; `granted`, all that it could come to by executing files,
    /// as it was when it (or who it is descended from) was brought into the container.
    pub against: String,
    pub before: Vec<String>,
    /// Its permitted set.
    pub after: Vec<String>,
    /// What is in `after` and not in `before`.
    pub gained: Vec<String>,
}

/// A limit and the cgroup that it stands at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LimitEvidence {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Threads count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// Relative to the hierarchy's root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_path: Option<String>,
    /// As in /proc/PID/cgroup; 0 is v2.
    pub hierarchy: u32,
    /// `container`: its own; `above`: that of a cgroup above it, which others may share.
    pub of: String,
}

/// A limit that is another one now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ChangeEvidence {
    /// The file, and of limits by device the device.
    pub file: String,
    /// Relative to the hierarchy's root.
    pub cgroup_path: String,
    /// As in /proc/PID/cgroup; 0 is v2.
    pub hierarchy: u32,
    /// As the kernel has it, in the file's unit; `unlimited` for what does not limit.
    pub from: String,
    pub to: String,
}

impl Evidence {
    pub fn is_empty(&self) -> bool {
        *self == Evidence::default()
    }
}
