//! Containers' resources over time: who reads them, when, and what it means.
//!
//! The watcher (`watch`) is a thread of its own: it reads the cgroups of containers on a timer, and at once when the kernel says that
//! something happened there. What it read goes to the pipeline as a [`Round`], which is recorded like everything else that the
//! core is told.

mod changes;
mod condition;
mod engine;
mod fact;
mod rows;
#[cfg(test)]
pub mod testing;
pub mod watch;

pub use changes::{Change, LimitFile};
pub use engine::Engine;
pub use fact::{Ended, LimitAt, LimitsChanged, OomKill, OomScope, Quota, Strain, StrainKind, Writer};
pub use rows::rows;

use serde::{Deserialize, Serialize};

use crate::model::{ContainerKey, resources::Resources};

/// A container to be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub container: ContainerKey,
    /// (hierarchy, path), as in /proc/PID/cgroup.
    pub cgroups: Vec<(u32, String)>,
}

/// What the watcher tells the pipeline at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// In the order in which they were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Sample>,
    /// Writes to limit files that were seen, oldest first. The samples are younger than these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<LimitWrite>,
}

/// A container's resources, read once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub container: ContainerKey,
    /// Kernel time (CLOCK_BOOTTIME, as events have it), ns.
    pub time_ns: u64,
    /// All limits were read (`Parts::ALL`): at the first look at a container, and after writes to its limits. The polls between read
    /// use and the limits that it is measured against (`Parts::USAGE`).
    #[serde(default)]
    pub whole: bool,
    pub resources: Resources,
}

/// Somebody wrote to a file that holds a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitWrite {
    /// When it was noticed: kernel time, ns.
    pub time_ns: u64,
    /// The writer (thread group id, initial pid namespace), where the kernel tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// As in /proc/PID/cgroup; 0 is v2.
    pub hierarchy: u32,
    /// The cgroup, relative to the hierarchy's root.
    pub path: String,
    /// Such as `memory.max`.
    pub file: String,
}

/// How the watcher is set up.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    pub poll_seconds: u64,
    /// Share of the memory limit, in percent, at which v1 is asked to say so by itself.
    pub memory_near_percent: u64,
}

/// What metrics show of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerResources {
    pub id: String,
    /// As [`SeriesLabels`](crate::model::SeriesLabels) has it.
    pub name: String,
    /// Empty without a pod.
    pub pod: String,
    pub namespace: String,
    pub resources: Resources,
}
