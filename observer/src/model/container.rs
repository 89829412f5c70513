//! Containers.

use std::collections::BTreeSet;

use super::{Label, ProcessKey, Tuple};

/// Number of a container in the agent's table; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ContainerKey(pub u64);

/// Who made it, as far as its cgroup path and the runtimes' state tell.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    Docker,
    Containerd,
    CriO,
    Podman,
    Runc,
    Crun,
    Buildkit,
    Lxc,
    SystemdNspawn,
    /// Namespaces without a container cgroup: unshare, bubblewrap and the like.
    Namespaces,
    /// A container by its cgroup and namespaces, of no runtime known here.
    Unknown,
}

impl Runtime {
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Docker => "docker",
            Runtime::Containerd => "containerd",
            Runtime::CriO => "cri-o",
            Runtime::Podman => "podman",
            Runtime::Runc => "runc",
            Runtime::Crun => "crun",
            Runtime::Buildkit => "buildkit",
            Runtime::Lxc => "lxc",
            Runtime::SystemdNspawn => "systemd-nspawn",
            Runtime::Namespaces => "namespaces",
            Runtime::Unknown => "unknown",
        }
    }

    /// The runtime that a state file names; `None` for a name that is none of these.
    pub fn by_name(name: &str) -> Option<Self> {
        let named = [
            Runtime::Docker,
            Runtime::Containerd,
            Runtime::CriO,
            Runtime::Podman,
            Runtime::Runc,
            Runtime::Crun,
            Runtime::Buildkit,
            Runtime::Lxc,
            Runtime::SystemdNspawn,
        ];
        named.into_iter().find(|runtime| runtime.name() == name)
    }
}

/// Whether what a runtime's state says of a container (its name, image, pod) is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// No runtime keeps state of such a container, or not where the agent looks.
    None,
    /// It is to be expected, and was not there when last looked for.
    Awaited,
    /// There is some of it, from which the rest is missing that runtimes write before it: it is somewhere else.
    Partial,
    Known,
}

impl Metadata {
    /// What to expect of a new container. One that is called by its path is none that a runtime's state could be told to
    /// describe; LXC, systemd-nspawn and buildkit may have none on disk.
    pub fn of_new(id: &str, runtime: Runtime) -> Self {
        match runtime {
            _ if id.contains('/') => Metadata::None,
            Runtime::Docker
            | Runtime::Containerd
            | Runtime::CriO
            | Runtime::Podman
            | Runtime::Runc
            | Runtime::Crun
            | Runtime::Unknown => Metadata::Awaited,
            Runtime::Buildkit | Runtime::Lxc | Runtime::SystemdNspawn | Runtime::Namespaces => Metadata::None,
        }
    }
}

/// A cgroup of a container in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CgroupPath {
    /// As in /proc/PID/cgroup; 0 is v2.
    pub hierarchy: u32,
    pub id: u64,
    /// Relative to the hierarchy's root.
    pub path: String,
}

/// The first twelve characters of a long hexadecimal id, as docker shows it; other names whole.
pub fn short(id: &str) -> &str {
    id.get(..12).filter(|_| id.len() == 64).unwrap_or(id)
}

/// What a Kubernetes pod's labels say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub container: String,
}

/// A container as the agent's table has it.
#[derive(Clone, Debug)]
pub struct Container {
    pub key: ContainerKey,
    /// The runtime's full id; `ns-<inode>` for plain namespaces.
    pub id: String,
    pub name: Option<String>,
    pub image: Option<String>,
    /// The hash of the image's manifest, else of its configuration: `sha256:...`.
    pub image_digest: Option<String>,
    pub runtime: Runtime,
    pub pod: Option<Pod>,
    pub metadata: Metadata,
    pub cgroups: Vec<CgroupPath>,
    /// Its slots on the kernel side; the first stands for all.
    pub slots: Vec<u64>,
    /// The namespaces that its processes should be in; `None` until its first process has executed something.
    pub baseline: Option<Tuple>,
    /// Kernel time of that, ns; 0 for one that was there before the agent.
    pub baseline_ns: u64,
    /// The baseline is that of the first process of the container's own pid namespace.
    pub baseline_of_init: bool,
    /// The process whose namespaces these are.
    pub baseline_of: Option<ProcessKey>,
    /// AppArmor's label of that process when it was first read: what the others' are held against. `None` where there is no
    /// AppArmor, too.
    pub label: Option<Label>,
    /// Its processes have the host's root from the start (`unshare`, `bwrap --bind / /`).
    pub host_root: bool,
    /// Inodes of namespaces that its own processes made. No type is kept: the kernel hands out one number to one
    /// namespace of any type (proc_alloc_inum), so a number says it all, and used again it replaces itself.
    pub made: BTreeSet<u32>,
    /// Living processes of it.
    pub processes: usize,
    /// Kernel time at which it was first seen, ns.
    pub created_ns: u64,
    /// It was there before the agent.
    pub late: bool,
}

/// What the labels `name`, `pod` and `namespace` of a container's series say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeriesLabels {
    pub name: String,
    /// Empty without a pod.
    pub pod: String,
    pub namespace: String,
}

impl Container {
    /// A name that a person can tell it by: in a pod, that of the pod's specification, which is what the runtimes of Kubernetes call
    /// it, too (cri-dockerd puts it into a long one). Without any name, what an alert calls it: the short form of its id.
    pub fn series_labels(&self) -> SeriesLabels {
        let specified = self.pod.as_ref().map(|pod| pod.container.as_str()).filter(|name| !name.is_empty());
        let name = specified.or(self.name.as_deref()).filter(|name| !name.is_empty());
        let (pod, namespace) = match &self.pod {
            Some(pod) => (pod.name.clone(), pod.namespace.clone()),
            None => Default::default(),
        };
        SeriesLabels { name: name.unwrap_or_else(|| short(&self.id)).to_owned(), pod, namespace }
    }
}
