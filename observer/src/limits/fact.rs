//! What the limits engine finds out, for the detectors.

use super::changes::Change;
use crate::model::{Ancestor, ContainerKey, ContainerRef, Victim};

/// A condition of a container's resources began, or ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Strain {
    pub kind: StrainKind,
    /// `None` at the beginning.
    pub ended: Option<Ended>,
    /// The limit that it is about.
    pub at: Option<LimitAt>,
    /// What was used then: bytes, or tasks.
    pub usage: Option<u64>,
    /// Of the limit, or of the periods.
    pub percent: Option<u64>,
    /// How often the limit was met, since the last look.
    pub hits: Option<u64>,
    /// New tasks in a second.
    pub growth_per_second: Option<u64>,
    pub cpu: Option<Quota>,
    /// The container as it was known: at the end it may be gone.
    pub container: ContainerRef,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StrainKind {
    /// The limit was met, and the kernel has to reclaim.
    MemoryAtLimit,
    /// And finds nothing, and does not kill either.
    MemoryFailing,
    MemoryNear,
    CpuThrottled,
    /// A fork was refused.
    PidsAtLimit,
    PidsGrowth,
}

impl StrainKind {
    pub const ALL: [StrainKind; 6] = [
        StrainKind::MemoryAtLimit,
        StrainKind::MemoryFailing,
        StrainKind::MemoryNear,
        StrainKind::CpuThrottled,
        StrainKind::PidsAtLimit,
        StrainKind::PidsGrowth,
    ];

    /// As evidence has it.
    pub fn name(self) -> &'static str {
        match self {
            StrainKind::MemoryAtLimit | StrainKind::PidsAtLimit => "at_limit",
            StrainKind::MemoryFailing => "failing",
            StrainKind::MemoryNear => "near",
            StrainKind::CpuThrottled => "throttled",
            StrainKind::PidsGrowth => "growth",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub lasted_ns: u64,
    /// With the container.
    pub gone: bool,
}

/// A limit and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitAt {
    /// Bytes, or tasks.
    pub limit: u64,
    /// As in /proc/PID/cgroup; 0 is v2.
    pub hierarchy: u32,
    /// `None`: a cgroup that has gone since.
    pub path: Option<String>,
    /// The container's own, not that of a cgroup above it.
    pub own: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub quota_us: u64,
    pub period_us: u64,
    pub throttled_us: u64,
}

/// The kernel killed a process of a container for want of memory.
#[derive(Clone, Debug, PartialEq)]
pub struct OomKill {
    pub scope: OomScope,
    /// The limit that was met, in bytes.
    pub at: Option<LimitAt>,
    pub usage_bytes: Option<u64>,
    /// `None`: only the counter told of it.
    pub victim: Option<Victim>,
    /// Who else is in the container.
    pub others: Vec<Ancestor>,
    /// How many others are not named.
    pub others_more: usize,
    /// Kills that only the counter told of.
    pub counted: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomScope {
    /// A cgroup's limit was met.
    Cgroup,
    /// The machine had no memory left.
    Host,
    Unknown,
}

/// Limits of a running container are not what they were.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitsChanged {
    pub changes: Vec<Change>,
    /// Whoever was seen to write; its process is the finding's subject.
    pub writer: Option<Writer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    pub pid: u32,
    pub comm: Option<String>,
    /// It is a container's; `None`: the host's, or unknown.
    pub container: Option<ContainerKey>,
}
