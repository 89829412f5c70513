//! What the containers of this host are made of, read when a person asks.
//!
//! Two steps. *Whose is each process?* is answered by the agent, which saw every process begin ([`Membership`] over its
//! socket), or, where none runs, by the same start-up scan that an agent makes. *What is it like?* is then read from
//! /proc, the cgroup file systems and the runtimes' state, as far as the question needs ([`Wanted`]).
//!
//! Whatever cannot be read is left out and told in [`unread`](Look#structfield.unread); processes that end meanwhile are no error.

mod collect;
mod deeds;
mod details;
mod find;
mod judge;
mod membership;
mod sharing;
#[cfg(test)]
pub(crate) mod testing;

use serde::{Deserialize, Serialize};

use crate::model::{CapSet, Label, NamespaceSet, PodRef, resources::Resources};

pub use collect::collect;
pub use deeds::{AppArmorDeeds, CallDeeds, CapabilityDeeds, Deeds};
pub use details::{Mount, environment_names, mounts};
pub use find::{FindError, Found, find};
pub use judge::{host_mounts, judge, judge_host};
pub use membership::{Member, MemberCgroup, Membership, by_scan, of_world};
pub use sharing::{Namespace, Share, ask_owners, sharing};

/// Schema of the JSON that the listing verbs write.
pub const SCHEMA: &str = "observer.inventory/1";

/// What a verb needs beyond the processes' places in the tree. Each of them costs reads per process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Processes outside containers, too.
    pub host_processes: bool,
    /// Executable, arguments and pids of inner namespaces of every process.
    pub programs: bool,
    /// Seccomp, capabilities and labels: of every process, not only of each container's first.
    pub every_security: bool,
    /// What the mount table of each container's first process shows.
    pub mounts: bool,
    /// What the runtimes' state on disk declares, and the image's digest.
    pub details: bool,
    /// Use and limits of each container.
    pub resources: bool,
}

/// Who said which process is whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The running agent: by origin, so processes that left their container are still its.
    Agent,
    /// A scan of this moment: by cgroup and namespaces.
    Scan,
}

/// All that was read.
#[derive(Clone, Debug, Serialize)]
pub struct Look {
    pub schema: &'static str,
    pub time: String,
    pub node: String,
    pub source: Source,
    pub host: HostView,
    /// By start of the first process.
    pub containers: Vec<ContainerView>,
    /// By start, so parents come before children.
    pub processes: Vec<ProcessView>,
    /// What could not be read, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<Unread>,
}

/// Something that was asked for and could not be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unread {
    pub what: String,
    pub why: String,
    /// How often.
    pub count: usize,
}

/// What all containers are held against.
#[derive(Clone, Debug, Serialize)]
pub struct HostView {
    /// Those of pid 1.
    pub namespaces: NamespaceSet,
    pub cpus: usize,
    pub memory_bytes: u64,
    /// Linux security modules that are active, as in /sys/kernel/security/lsm; absent where that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsm: Option<Vec<String>>,
    /// AppArmor labels processes here.
    #[serde(skip)]
    pub apparmor: bool,
    /// SELinux does.
    #[serde(skip)]
    pub selinux: bool,
    pub hierarchies: Vec<HierarchyView>,
    /// Every capability that this kernel has (/proc/sys/kernel/cap_last_cap).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapSet>,
    /// The host's mount table, if mounts are wanted.
    #[serde(skip)]
    pub mounts: Vec<Mount>,
}

/// A cgroup hierarchy.
#[derive(Clone, Debug, Serialize)]
pub struct HierarchyView {
    pub id: u32,
    /// `v2`, or the controllers of a v1 hierarchy, or `name=...`.
    pub controllers: Vec<String>,
    pub mount: String,
}

/// A container.
#[derive(Clone, Debug, Serialize)]
pub struct ContainerView {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    pub runtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// Its first process: the init of its pid namespace, else the one that started first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When that was started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// Seconds since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// How many processes it has.
    pub processes: usize,
    /// What its processes should be in; empty while it is not known.
    pub namespaces: NamespaceSet,
    pub cgroups: Vec<CgroupView>,
    /// Use and limits, from its cgroups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Of its first process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// What the runtime's state on disk declares.
    #[serde(skip)]
    pub details: Option<crate::host::RuntimeDetails>,
    /// The mount table of its first process.
    #[serde(skip)]
    pub mounts: Option<Vec<Mount>>,
}

/// A container's cgroup in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CgroupView {
    pub hierarchy: u32,
    pub controllers: Vec<String>,
    pub id: u64,
    pub path: String,
    /// On disk.
    pub directory: String,
}

/// A process.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessView {
    pub pid: u32,
    pub ppid: u32,
    pub started: String,
    #[serde(skip)]
    pub start_ticks: u64,
    pub comm: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// Of container processes only, bounded as in alerts: what the host's own are told is nobody's business here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    pub uid: u32,
    pub gid: u32,
    /// Its pid in each pid namespace, the host's first, its own last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ns_pids: Vec<u32>,
    /// The container's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Empty where they may not be read.
    pub namespaces: NamespaceSet,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    #[serde(skip)]
    pub cgroups: Vec<(u32, String)>,
    #[serde(skip)]
    pub kernel_thread: bool,
}

/// What a process may do, as /proc/PID/status and /proc/PID/attr say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Security {
    /// 0 disabled, 1 strict, 2 filter; absent on a kernel without seccomp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp_mode: Option<u32>,
    /// Since Linux 5.9.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp_filters: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_new_privs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Real, effective, saved and file system user ids, as the host has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uids: Option<[u32; 4]>,
    /// Absent where no AppArmor is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux: Option<String>,
    /// `user` namespace's map of uid 0 inside to the host's uid, where the process is in one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_is_uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
}

/// The five sets of capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    pub effective: CapSet,
    pub permitted: CapSet,
    pub inheritable: CapSet,
    pub bounding: CapSet,
    pub ambient: CapSet,
}

impl Look {
    pub fn container(&self, id: &str) -> Option<&ContainerView> {
        self.containers.iter().find(|container| container.id == id)
    }

    /// The processes of a container, by start.
    pub fn members<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a ProcessView> {
        self.processes.iter().filter(move |process| process.container.as_deref() == Some(id))
    }

    /// Says that something could not be read.
    pub(crate) fn unread(&mut self, what: &str, why: &str) {
        note(&mut self.unread, what, why);
    }
}

fn note(unread: &mut Vec<Unread>, what: &str, why: &str) {
    match unread.iter_mut().find(|it| it.what == what && it.why == why) {
        Some(known) => known.count += 1,
        None => unread.push(Unread { what: what.to_owned(), why: why.to_owned(), count: 1 }),
    }
}
