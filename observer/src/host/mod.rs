//! What the agent reads of the host outside the rings: /proc, the cgroup file systems, the runtimes' state on disk.
//!
//! All of it goes through [`Host`], so that a recording can hold every answer and a replay needs no host.

mod cgroupfs;
pub mod cri;
pub mod lsm;
mod procfs;
pub mod resources;
mod runtime;

use std::path::PathBuf;

use observer_common::Inodes;
use serde::{Deserialize, Serialize};

use crate::model::Label;

pub use cgroupfs::{from_the_root, hierarchies, walk};
pub use procfs::{own, present_calls, scan, scan_some};
pub use runtime::{DeclaredCalls, RuntimeDetails, SeccompFilter, declared_calls, details as runtime_details};

/// Where things are; all can be moved for tests, and for an agent in a pod.
#[derive(Clone, Debug)]
pub struct Roots {
    pub proc: PathBuf,
    pub cgroup: PathBuf,
    pub run: PathBuf,
    /// Variable state, `/var/lib`.
    pub lib: PathBuf,
    /// docker's data root.
    pub docker: PathBuf,
}

/// One cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hierarchy {
    /// As in the first field of /proc/PID/cgroup; 0 is v2.
    pub id: u32,
    /// Controllers, or `name=...`; empty for v2.
    pub controllers: Vec<String>,
    pub mount: PathBuf,
}

/// A cgroup directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupDir {
    pub hierarchy: u32,
    /// kernfs id: the directory's inode number.
    pub id: u64,
    pub parent_id: u64,
    /// Relative to the hierarchy's root, beginning with `/`.
    pub path: String,
    /// Since it was made, ns.
    pub age_ns: u64,
    /// Filled in by the agent when the kernel side has taken it.
    pub slot: u64,
}

/// A process as /proc shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcFacts {
    pub pid: u32,
    pub ppid: u32,
    pub start_ticks: u64,
    pub comm: String,
    pub exe: Option<String>,
    pub args: Vec<String>,
    pub uid: u32,
    pub gid: u32,
    /// Pid in the innermost pid namespace.
    pub ns_pid: u32,
    /// Zeros where it may not be read.
    pub inodes: Inodes,
    /// (hierarchy, path).
    pub cgroups: Vec<(u32, String)>,
    pub kernel_thread: bool,
}

/// What a runtime's state on disk says about a container. Fields that came later have defaults: recordings hold these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeFacts {
    pub runtime: Option<String>,
    pub id: Option<String>,
    pub name: Option<String>,
    /// The reference by which the image was asked for.
    pub image: Option<String>,
    pub init_pid: Option<u32>,
    pub pod_namespace: Option<String>,
    pub pod_name: Option<String>,
    pub pod_uid: Option<String>,
    /// The container's name in its pod's specification; a sandbox has none.
    pub pod_container: Option<String>,
    /// It holds a pod's namespaces and runs nothing of the pod's own (the pause container).
    #[serde(default)]
    pub pod_sandbox: bool,
    /// The id of the sandbox of its pod.
    #[serde(default)]
    pub pod_sandbox_id: Option<String>,
    /// The hash of the image's configuration, `sha256:...`.
    #[serde(default)]
    pub image_id: Option<String>,
    /// The hash of the image's manifest, `sha256:...`, as after the `@` of a reference.
    #[serde(default)]
    pub image_digest: Option<String>,
    /// When it was created, Unix time.
    #[serde(default)]
    pub created_unix_ns: Option<i64>,
}

impl RuntimeFacts {
    /// What the image's content is known by: its manifest's hash, else its configuration's.
    pub fn image_hash(&self) -> Option<String> {
        self.image_digest.clone().or_else(|| self.image_id.clone())
    }
}

/// The reads that happen while the pipeline runs.
pub trait Host {
    /// A container's facts, by its id or the last part of its cgroup path.
    fn runtime(&mut self, id: &str) -> Option<RuntimeFacts>;
    /// Namespaces of these processes now; `None` for one that is gone. Answers in order.
    fn sweep(&mut self, pids: &[(u32, u64)]) -> Vec<Option<Inodes>>;
    /// Executable and arguments of a living process.
    fn image(&mut self, pid: u32, start_ticks: u64) -> Option<(Option<String>, Vec<String>)>;
    /// AppArmor's labels of these processes now; `None` for one that is gone. Answers in order.
    fn labels(&mut self, pids: &[(u32, u64)]) -> Vec<Option<Label>>;
    /// The path of a cgroup, relative to its hierarchy's root, where the kernel side could not tell it.
    fn cgroup_path(&mut self, hierarchy: u32, id: u64) -> Option<String>;
}

/// The real one.
#[derive(Debug)]
pub struct LiveHost {
    pub roots: Roots,
    pub hierarchies: Vec<Hierarchy>,
    cri: cri::Watch,
}

impl LiveHost {
    /// `cri_sockets` as [`cri::Sockets`] finds or is given them. Waits a moment for their first answer.
    pub fn new(roots: Roots, hierarchies: Vec<Hierarchy>, cri_sockets: cri::Sockets) -> Self {
        LiveHost { roots, hierarchies, cri: cri::Watch::new(cri_sockets) }
    }
}

impl Host for LiveHost {
    fn runtime(&mut self, id: &str) -> Option<RuntimeFacts> {
        let disk = runtime::facts(&self.roots, id);
        self.cri.complete(id, disk)
    }

    fn sweep(&mut self, pids: &[(u32, u64)]) -> Vec<Option<Inodes>> {
        pids.iter().map(|(pid, start)| procfs::sweep_one(&self.roots.proc, *pid, *start)).collect()
    }

    fn image(&mut self, pid: u32, start_ticks: u64) -> Option<(Option<String>, Vec<String>)> {
        procfs::image(&self.roots.proc, pid, start_ticks)
    }

    fn labels(&mut self, pids: &[(u32, u64)]) -> Vec<Option<Label>> {
        pids.iter().map(|(pid, start)| procfs::label(&self.roots.proc, *pid, *start)).collect()
    }

    fn cgroup_path(&mut self, hierarchy: u32, id: u64) -> Option<String> {
        let hierarchy = self.hierarchies.iter().find(|known| known.id == hierarchy)?;
        cgroupfs::path_of(hierarchy, id)
    }
}
