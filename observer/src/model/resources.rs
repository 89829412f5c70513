//! What a container uses of its node, and what it may use: the cgroup controllers' numbers in one shape for v1 and v2.
//!
//! A field that is absent was not there to be read (the controller is not in use, or the kernel is older than the
//! file) or, for limits, does not limit; what failed to be read is told beside it, as [`Unread`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All of it, by controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<Pids>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Io>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpuset: Option<Cpuset>,
    /// One for each huge page size of this machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hugetlb: Vec<Hugetlb>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// The memory controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    /// Everything charged, page cache included: v2 memory.current, v1 memory.usage_in_bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
    /// Usage without inactive file pages, which the kernel gives back when it needs room: what `docker stats` and
    /// `kubectl top` show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_set_bytes: Option<u64>,
    /// This cgroup's own limit: v2 memory.max, v1 memory.limit_in_bytes. Absent: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// The tightest limit from this cgroup up to the root: what is met first. Absent: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_limit: Option<MemoryLimit>,
    /// Of the cgroups above that have a limit, the one with the least room: what all below it share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<MemoryAbove>,
    /// Above this, processes are slowed and reclaimed from: v2 memory.high.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_bytes: Option<u64>,
    /// Spared from reclaim up to this: v2 memory.low, v1 memory.soft_limit_in_bytes, which is the nearest to it (and
    /// what runtimes set for the same request).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_bytes: Option<u64>,
    /// v2 memory.swap.current, v1 total_swap of memory.stat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_usage_bytes: Option<u64>,
    /// v2 memory.swap.max; v1 has one limit for memory and swap together, and this is what that leaves for swap when
    /// memory is at its own limit. Absent: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap_limit_bytes: Option<u64>,
    /// The limit for memory and swap together, v1 only: memory.memsw.limit_in_bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_and_swap_limit_bytes: Option<u64>,
    /// Highest usage so far: v2 memory.peak (Linux 5.19), v1 memory.max_usage_in_bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// Page cache, shared memory and tmpfs included: v2 `file`, v1 `total_cache` of memory.stat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// v2 `inactive_file`, v1 `total_inactive_file` of memory.stat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactive_file_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<MemoryEvents>,
    /// How often a charge met the limit, v1 only: memory.failcnt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failcnt: Option<u64>,
    /// Tasks wait for memory, v1 with oom_kill_disable only: under_oom of memory.oom_control.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_oom: Option<bool>,
}

/// A memory limit and the cgroup that it stands at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryLimit {
    pub bytes: u64,
    /// Relative to the hierarchy's root.
    pub path: String,
    /// As in /proc/PID/cgroup; 0 is v2.
    pub hierarchy: u32,
}

/// A cgroup above a container, with a limit of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryAbove {
    /// Of all that are below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
    pub limit_bytes: u64,
    /// How often a charge met this limit: v2 `max` of memory.events.local (Linux 5.2), v1 memory.failcnt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits: Option<u64>,
    /// Relative to the hierarchy's root.
    pub path: String,
    /// As in /proc/PID/cgroup; 0 is v2.
    pub hierarchy: u32,
}

/// v2 memory.events, which counts descendants too (unless the hierarchy is mounted with memory_localevents). v1 has
/// oom_kill only (Linux 4.13, in memory.oom_control), and for this cgroup alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryEvents {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom: Option<u64>,
    /// Processes killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kill: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_group_kill: Option<u64>,
}

/// The cpu controller, and v1's cpuacct.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cpu {
    /// CPU time consumed: v2 cpu.stat, v1 cpuacct.usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_us: Option<u64>,
    /// v1 tells these two in steps of 10 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_us: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_us: Option<u64>,
    /// CPU time allowed in each period. Absent: no quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_us: Option<u64>,
    /// Absent without a quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_us: Option<u64>,
    /// v1 cpu.shares; the default is 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    /// v2 cpu.weight; the default is 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u64>,
    /// Periods in which something wanted to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nr_periods: Option<u64>,
    /// Those of them in which the quota ran out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nr_throttled: Option<u64>,
    /// Time that CPUs' run queues were held back, summed over CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_us: Option<u64>,
}

/// The pids controller; it counts tasks, that is threads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pids {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// This cgroup's own limit, pids.max. Absent: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u64>,
    /// The tightest limit from this cgroup up to the root. Absent: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_max: Option<PidsLimit>,
    /// Of the cgroups above that have a limit, the one with the least room: what all below it share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<PidsAbove>,
    /// Forks refused, `max` of pids.events. v1, and v2 before Linux 6.11, count them at the cgroup in which the fork
    /// was; since then v2 counts them at the cgroup whose limit was met, and at its ancestors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_max: Option<u64>,
}

/// A limit on tasks and the cgroup that it stands at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PidsLimit {
    pub max: u64,
    /// Relative to the hierarchy's root.
    pub path: String,
    /// As in /proc/PID/cgroup; 0 is v2.
    pub hierarchy: u32,
}

/// A cgroup above a container, with a limit on tasks of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PidsAbove {
    /// Of all that are below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    pub max: u64,
    /// Relative to the hierarchy's root.
    pub path: String,
    /// As in /proc/PID/cgroup; 0 is v2.
    pub hierarchy: u32,
}

/// The io controller, v1's blkio. Sums over all block devices, as `docker stats` has them: what passes through stacked
/// devices (device mapper, md) is counted at each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Io {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<u64>,
    /// Read requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<u64>,
    /// Write requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<u64>,
    /// By device, those with a limit only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<IoLimit>,
}

/// v2 io.max, v1 blkio.throttle.*_device. Absent: unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IoLimit {
    /// `major:minor`.
    pub device: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_second: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes_per_second: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads_per_second: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes_per_second: Option<u64>,
}

/// The cpuset controller; lists as the kernel writes them, `0-3,8`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cpuset {
    /// As set; absent: not set here (v2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// As set; absent: not set here (v2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mems: Option<String>,
    /// What is left of it after the parents' sets and CPUs that are offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_cpus: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_mems: Option<String>,
}

/// The hugetlb controller, for one page size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hugetlb {
    pub page_size_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
    /// Absent: unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
}

/// Pressure stall information: the share of time in which work waited for a resource. Kept by v2 hierarchies only,
/// also by one without controllers beside v1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pressure {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Stall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Stall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Stall>,
}

/// Pressure on one resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stall {
    /// At least one task waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub some: Option<StallTimes>,
    /// All tasks waited. (For cpu since Linux 5.13.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<StallTimes>,
}

/// Shares of the last 10, 60 and 300 s, and the time since the cgroup was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StallTimes {
    pub avg10_percent: f64,
    pub avg60_percent: f64,
    pub avg300_percent: f64,
    pub total_us: u64,
}

/// Something that should have been readable and was not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unread {
    /// The file. It holds names that a container may have chosen.
    pub what: String,
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_ever_null() {
        assert_eq!(serde_json::to_string(&Resources::default()).expect("JSON"), "{}");
        let all = Resources {
            memory: Some(Memory { events: Some(MemoryEvents::default()), ..Memory::default() }),
            cpu: Some(Cpu::default()),
            pids: Some(Pids { current: Some(0), ..Pids::default() }),
            io: Some(Io::default()),
            cpuset: Some(Cpuset::default()),
            hugetlb: vec![Hugetlb { page_size_bytes: 2 << 20, ..Hugetlb::default() }],
            pressure: Some(Pressure { cpu: Some(Stall::default()), ..Pressure::default() }),
        };
        let text = serde_json::to_string(&all).expect("JSON");
        assert!(!text.contains("null") && text.contains(r#""pids":{"current":0}"#), "{text}");
        assert_eq!(serde_json::from_str::<Resources>(&text).expect("what was written"), all);
    }
}
