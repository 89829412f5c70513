//! Which files of a cgroup are worth listening to.

/// What a change of a file means for its cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    /// Somebody wrote to a limit.
    Limit,
    /// The kernel counted something: an OOM kill, a refused fork.
    Notice,
}

/// Limits with fixed names, v2 and v1.
const LIMITS: [&str; 18] = [
    "memory.max",
    "memory.high",
    "memory.low",
    "memory.min",
    "memory.swap.max",
    "memory.limit_in_bytes",
    "memory.soft_limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "cpu.max",
    "cpu.weight",
    "cpu.weight.nice",
    "cpu.shares",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "pids.max",
    "io.max",
    "cpuset.cpus",
    "cpuset.mems",
];

/// `None` for what is not a matter of resources: cgroup.procs, cgroup.freeze, counters that are reset.
pub(super) fn touch(name: &str) -> Option<Touch> {
    let (controller, rest) = name.split_once('.')?;
    if LIMITS.contains(&name) {
        return Some(Touch::Limit);
    }
    match controller {
        "blkio" if rest.starts_with("throttle.") && rest.ends_with("_device") => Some(Touch::Limit),
        "hugetlb" if rest.ends_with(".max") || rest.ends_with(".limit_in_bytes") => Some(Touch::Limit),
        "memory" | "pids" | "hugetlb"
            if rest == "events"
                || rest == "events.local"
                || rest.ends_with(".events")
                || rest.ends_with(".events.local") =>
        {
            Some(Touch::Notice)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_notices_are_told_from_the_rest() {
        for (name, expected) in [
            ("memory.max", Some(Touch::Limit)),
            ("memory.swap.max", Some(Touch::Limit)),
            ("memory.limit_in_bytes", Some(Touch::Limit)),
            ("memory.memsw.limit_in_bytes", Some(Touch::Limit)),
            ("cpu.max", Some(Touch::Limit)),
            ("cpu.cfs_quota_us", Some(Touch::Limit)),
            ("pids.max", Some(Touch::Limit)),
            ("io.max", Some(Touch::Limit)),
            ("blkio.throttle.read_bps_device", Some(Touch::Limit)),
            ("blkio.throttle.write_iops_device", Some(Touch::Limit)),
            ("cpuset.cpus", Some(Touch::Limit)),
            ("hugetlb.2MB.max", Some(Touch::Limit)),
            ("hugetlb.1GB.rsvd.limit_in_bytes", Some(Touch::Limit)),
            ("memory.events", Some(Touch::Notice)),
            ("memory.events.local", Some(Touch::Notice)),
            ("memory.swap.events", Some(Touch::Notice)),
            ("pids.events", Some(Touch::Notice)),
            ("pids.events.local", Some(Touch::Notice)),
            ("hugetlb.2MB.events", Some(Touch::Notice)),
            ("cgroup.events", None),
            ("cgroup.procs", None),
            ("cgroup.max.depth", None),
            ("tasks", None),
            ("memory.oom_control", None),
            ("memory.max_usage_in_bytes", None),
            ("blkio.throttle.io_serviced", None),
            ("blkio.reset_stats", None),
            ("hugetlb.2MB.failcnt", None),
            ("cpuset.sched_load_balance", None),
            // The kernel itself tells of this one.
            ("cpuset.cpus.partition", None),
            ("memory.", None),
            (".max", None),
            ("", None),
        ] {
            assert_eq!(touch(name), expected, "{name}");
        }
    }
}
