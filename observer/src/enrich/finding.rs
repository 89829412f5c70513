//! What enrichment hands to the detectors.

use std::collections::BTreeMap;

use observer_common::Kind;

use crate::{
    enrich::FirstUse,
    limits,
    model::{
        AlertState, Ancestor, AppArmorRecord, ContainerKey, ContainerRef, Gain, Label, NsType, RootPath,
        Standing, Tuple,
    },
};

/// Something that a detector may care about, with all it needs to know.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Kernel time, ns.
    pub time_ns: u64,
    pub subject: Option<Subject>,
    /// By origin.
    pub container: Option<ContainerKey>,
    pub fact: Fact,
    /// It happened before the agent started.
    pub late: bool,
}

impl Finding {
    /// Of a condition: whether it began or ended.
    pub fn state(&self) -> Option<AlertState> {
        match &self.fact {
            Fact::Strain(strain) if strain.ended.is_some() => Some(AlertState::Resolved),
            Fact::Strain(_) => Some(AlertState::Firing),
            _ => None,
        }
    }

    /// A container that may be gone from the tables.
    pub fn known_container(&self) -> Option<&ContainerRef> {
        match &self.fact {
            Fact::Strain(strain) => Some(&strain.container),
            _ => None,
        }
    }
}

/// The process at the time.
#[derive(Clone, Debug)]
pub struct Subject {
    pub pid: u32,
    pub tid: u32,
    pub start_ns: u64,
    pub comm: String,
    pub exe: Option<String>,
    /// See `Process::exe_asked`.
    pub exe_asked: bool,
    pub args: Vec<String>,
    pub uid: u32,
    pub gid: u32,
    pub ancestors: Vec<Ancestor>,
}

impl Subject {
    /// By what repeats are told to be by the same program: its file, or, where the kernel does not say it at the exec
    /// and whether it is known depends on who was faster, its comm.
    pub fn program(&self) -> &str {
        self.exe.as_deref().filter(|_| !self.exe_asked).unwrap_or(&self.comm)
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub enum Fact {
    /// The namespaces of a container's task changed.
    Namespaces(NamespaceChange),
    /// A call that would have changed namespaces or the root was refused.
    Refused { call: Kind, errno: i32, types: Vec<NsType>, path: Option<RootPath> },
    /// A task of the host executes something in a container's namespaces.
    Entered { owner: ContainerKey, expected: Tuple, actual: Tuple, types: Vec<NsType>, door: Door },
    /// A container's task is in a cgroup outside its container.
    Cgroup(CgroupChange),
    /// A container's task has a root directory that is not its container's.
    Root { door: Door, verdict: RootVerdict, path: Option<RootPath> },
    /// A call that seccomp refused.
    SeccompDenied(SeccompFact),
    /// A call for which seccomp sent SIGSYS or ended a thread.
    SeccompKilled(SeccompFact),
    /// A capability that the container has not been given, and was refused.
    CapabilityDenied(CapabilityFact),
    /// A process may do more than it could have come to.
    CapabilitiesGained(Gain),
    /// A system call that the container had not made before.
    FirstUse(FirstUse),
    /// AppArmor's label of a container's process is not its container's.
    Label(LabelChange),
    /// AppArmor denied something.
    AppArmorDenied(AppArmorRecord),
    /// Events were lost: why and how many since the last time.
    Lost { new: BTreeMap<String, u64> },
    /// Events of a container that would have decided something found no room.
    Displaced { count: u64, host: Vec<NsType>, actual: Tuple, expected: Tuple },
    /// Forks of a container's task were refused because a pids limit was met. The limits engine makes a condition of it.
    ForkRefused(RefusedFork),
    /// A condition of a container's resources began or ended.
    Strain(limits::Strain),
    /// The kernel killed for want of memory.
    OomKill(limits::OomKill),
    /// Limits of a running container are not what they were.
    LimitsChanged(limits::LimitsChanged),
}

/// Forks that a pids limit refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFork {
    pub at: limits::LimitAt,
    /// Tasks there.
    pub current: u64,
    /// Since the last time that this was told.
    pub count: u64,
}

impl Fact {
    /// How many times it has been seen.
    pub fn count(&self) -> u64 {
        match self {
            Fact::SeccompDenied(fact) | Fact::SeccompKilled(fact) => fact.count,
            Fact::CapabilityDenied(fact) => fact.count,
            Fact::AppArmorDenied(record) => record.count,
            _ => 1,
        }
    }

    /// Whether repeats by another program are another alert. What the kernel side counts is by container, and a profile is a
    /// container's.
    pub fn is_of_a_program(&self) -> bool {
        match self {
            Fact::SeccompDenied(_)
            | Fact::SeccompKilled(_)
            | Fact::CapabilityDenied(_)
            | Fact::AppArmorDenied(_)
            | Fact::FirstUse(_) => false,
            // A profile that was put into another mode, which all its processes feel.
            Fact::Label(change) => change.standing != Standing::Weakened,
            _ => true,
        }
    }
}

/// A capability that was asked for and refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilityFact {
    /// Its number.
    pub capability: u32,
    /// The inode number of the user namespace in which it was first asked for.
    pub user_ns: u32,
    pub count: u64,
}

/// How a process is confined, and how its container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelChange {
    /// Of the container's first process.
    pub expected: Label,
    pub actual: Label,
    pub standing: Standing,
    /// It came from outside, and had this label from its first program in the container on.
    pub brought_in: bool,
}

/// What seccomp did about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeccompFact {
    /// Of the 64-bit table, or `OTHER_CALLS`.
    pub nr: u32,
    /// What the program got.
    pub errno: i32,
    /// Only the thread was stopped.
    pub is_thread: bool,
    pub count: u64,
}

/// How something came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// A watched call.
    Call(Kind),
    /// No watched call explains it.
    Unseen,
}

impl Door {
    pub fn name(self) -> &'static str {
        match self {
            Door::Call(Kind::Fork) => "clone",
            Door::Call(kind) => kind.name(),
            Door::Unseen => "unseen",
        }
    }
}

/// Whose a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Host,
    Container(ContainerKey),
    /// Made by nobody we saw.
    Unknown,
}

/// A namespace that is neither in the container's baseline nor made inside the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    pub ns: NsType,
    pub inode: u32,
    pub owner: Owner,
}

#[derive(Clone, Debug)]
pub struct NamespaceChange {
    pub expected: Tuple,
    pub actual: Tuple,
    /// All foreign namespaces that the task is in now; at least one of them is new, or the list is empty.
    pub foreign: Vec<Foreign>,
    /// Types that the task (or its clone) made anew.
    pub made: Vec<NsType>,
    pub door: Door,
}

impl NamespaceChange {
    /// The gravest owner among the foreign namespaces.
    pub fn has_known_owner(&self) -> bool {
        self.foreign.iter().any(|foreign| foreign.owner != Owner::Unknown)
    }
}

#[derive(Clone, Debug)]
pub struct CgroupChange {
    pub hierarchy: u32,
    pub from: Option<String>,
    pub to: Option<String>,
    pub to_id: u64,
    /// The other container it is in now.
    pub target: Option<ContainerKey>,
    pub mover: Ancestor,
    /// The mover is of the same container, or of another one: not the host.
    pub mover_in_container: bool,
    /// See `observer_common::door`.
    pub door: u32,
}

/// Why a root directory is not the container's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootVerdict {
    /// The mount shows the whole file system that is the host's root.
    HostRoot,
    /// The mount belongs to another mount namespace than the task is in.
    ForeignMountNamespace,
}

/// What the kernel side is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Describe {
        slot: u64,
        class: u32,
        canonical: u64,
    },
    /// `moved`: it is outside its container's cgroups.
    Mark {
        pid: u32,
        slot: u64,
        moved: bool,
    },
    AdoptNamespace {
        inode: u32,
        slot: u64,
    },
    Forget {
        slot: u64,
    },
    ForgetNamespace {
        inode: u32,
    },
}
