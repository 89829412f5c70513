//! What limits a container has, and which of them are not what they were.

use std::collections::BTreeMap;

use crate::{
    host::Hierarchy,
    model::{
        Container,
        resources::{IoLimit, Resources},
    },
};

/// Which hierarchy has which controller.
#[derive(Clone, Debug, Default)]
pub struct Controllers {
    /// v1 hierarchies by controller; what is not among them is v2's.
    v1: BTreeMap<String, u32>,
}

impl Controllers {
    pub fn new(hierarchies: &[Hierarchy]) -> Self {
        let v1 = hierarchies.iter().filter(|hierarchy| hierarchy.id != 0);
        Controllers {
            v1: v1.flat_map(|it| it.controllers.iter().map(|name| (name.clone(), it.id))).collect(),
        }
    }

    /// 0 is v2.
    pub fn hierarchy(&self, controller: &str) -> u32 {
        self.v1.get(controller).copied().unwrap_or(0)
    }
}

/// A limit by the file that holds it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LimitFile {
    pub hierarchy: u32,
    /// The cgroup, relative to the hierarchy's root.
    pub cgroup: String,
    pub file: String,
}

/// A limit that is another one now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub at: LimitFile,
    pub from: String,
    pub to: String,
}

/// The limits as they were read, in the kernel's own rounding.
pub type Limits = BTreeMap<LimitFile, String>;

/// What a limit that does not limit is called, whatever the kernel's word or number for it.
const UNLIMITED: &str = "unlimited";

/// All limits of a container that were read, and those of the cgroups above it that are the nearest to bind.
pub fn limits(resources: &Resources, container: &Container, controllers: &Controllers) -> Limits {
    let mut found = Found { limits: Limits::new(), container, controllers };
    if let Some(memory) = &resources.memory {
        let v1 = controllers.hierarchy("memory") != 0;
        found.own(
            "memory",
            if v1 { "memory.limit_in_bytes" } else { "memory.max" },
            number(memory.limit_bytes),
        );
        if !v1 {
            found.own("memory", "memory.high", number(memory.high_bytes));
        }
        if let Some(above) = &memory.above {
            let file = if above.hierarchy == 0 { "memory.max" } else { "memory.limit_in_bytes" };
            found.at(above.hierarchy, &above.path, file, above.limit_bytes.to_string());
        }
    }
    if let Some(pids) = &resources.pids {
        found.own("pids", "pids.max", number(pids.max));
        if let Some(above) = &pids.above {
            found.at(above.hierarchy, &above.path, "pids.max", above.max.to_string());
        }
    }
    if let Some(cpu) = &resources.cpu {
        let v1 = controllers.hierarchy("cpu") != 0;
        if v1 {
            found.own("cpu", "cpu.cfs_quota_us", number(cpu.quota_us));
            if let Some(period) = cpu.period_us {
                found.own("cpu", "cpu.cfs_period_us", period.to_string());
            }
        } else if cpu.nr_periods.is_some() {
            // Without the controller there is usage alone.
            let period = cpu.period_us.map(|period| format!(" in {period}")).unwrap_or_default();
            found.own("cpu", "cpu.max", format!("{}{period}", number(cpu.quota_us)));
        }
        if let Some(shares) = cpu.shares {
            found.own("cpu", "cpu.shares", shares.to_string());
        }
        if let Some(weight) = cpu.weight {
            found.own("cpu", "cpu.weight", weight.to_string());
        }
    }
    if let Some(cpuset) = &resources.cpuset {
        let not_set = || "not set".to_owned();
        found.own("cpuset", "cpuset.cpus", cpuset.cpus.clone().unwrap_or_else(not_set));
        found.own("cpuset", "cpuset.mems", cpuset.mems.clone().unwrap_or_else(not_set));
    }
    if let Some(io) = &resources.io {
        let v1 = controllers.hierarchy("blkio") != 0;
        let file = if v1 { "blkio.throttle" } else { "io.max" };
        for limit in &io.limits {
            found.own(if v1 { "blkio" } else { "io" }, &format!("{file} {}", limit.device), of_device(limit));
        }
    }
    found.limits
}

struct Found<'a> {
    limits: Limits,
    container: &'a Container,
    controllers: &'a Controllers,
}

impl Found<'_> {
    fn own(&mut self, controller: &str, file: &str, value: String) {
        let hierarchy = self.controllers.hierarchy(controller);
        // Of several (cgroups that were made below a container's count as its) the uppermost is the container's own.
        let own = self.container.cgroups.iter().filter(|cgroup| cgroup.hierarchy == hierarchy);
        if let Some(own) = own.min_by_key(|cgroup| cgroup.path.len()) {
            let path = own.path.clone();
            self.at(hierarchy, &path, file, value);
        }
    }

    fn at(&mut self, hierarchy: u32, cgroup: &str, file: &str, value: String) {
        let at = LimitFile { hierarchy, cgroup: cgroup.to_owned(), file: file.to_owned() };
        self.limits.insert(at, value);
    }
}

fn number(limit: Option<u64>) -> String {
    limit.map_or_else(|| UNLIMITED.to_owned(), |limit| limit.to_string())
}

fn of_device(limit: &IoLimit) -> String {
    let parts = [
        ("rbps", limit.read_bytes_per_second),
        ("wbps", limit.written_bytes_per_second),
        ("riops", limit.reads_per_second),
        ("wiops", limit.writes_per_second),
    ];
    let set = parts.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?)));
    set.collect::<Vec<_>>().join(" ")
}

/// Those that are not the same. One that is in only one of the two was not read the other time, and that says nothing; unless
/// both are `whole`: then a limit by device (which has no line where there is none) was set, or taken away.
pub fn changes(before: &Limits, after: &Limits, whole: bool) -> Vec<Change> {
    let none = || UNLIMITED.to_owned();
    let by_device = |at: &LimitFile| whole && at.file.contains(' ');
    let mut found = Vec::new();
    for (at, to) in after {
        let from = before.get(at).cloned().or_else(|| by_device(at).then(none));
        if let Some(from) = from.filter(|from| from != to) {
            found.push(Change { at: at.clone(), from, to: to.clone() });
        }
    }
    for (at, from) in before.iter().filter(|(at, _)| by_device(at) && !after.contains_key(at)) {
        found.push(Change { at: at.clone(), from: from.clone(), to: none() });
    }
    found
}

/// What is known of the limits after this look: what it did not read stays as it was.
pub fn update(known: &mut Limits, read: Limits, whole: bool) {
    if whole {
        *known = read;
    } else {
        known.extend(read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        CgroupPath,
        resources::{Cpu, Cpuset, Io, Memory, MemoryAbove, Pids},
    };

    fn container() -> Container {
        let mut container = crate::limits::testing::container();
        container.cgroups = vec![
            CgroupPath { hierarchy: 0, id: 7, path: "/pod/web".into() },
            CgroupPath { hierarchy: 0, id: 9, path: "/pod/web/nested".into() },
            CgroupPath { hierarchy: 4, id: 8, path: "/docker/web".into() },
        ];
        container
    }

    fn resources() -> Resources {
        Resources {
            memory: Some(Memory {
                limit_bytes: Some(4096),
                above: Some(MemoryAbove { limit_bytes: 8192, path: "/pod".into(), ..MemoryAbove::default() }),
                ..Memory::default()
            }),
            pids: Some(Pids { max: None, ..Pids::default() }),
            cpu: Some(Cpu {
                nr_periods: Some(0),
                quota_us: Some(50_000),
                period_us: Some(100_000),
                ..Cpu::default()
            }),
            ..Resources::default()
        }
    }

    fn told(changes: &[Change]) -> Vec<String> {
        changes
            .iter()
            .map(|it| format!("{}:{}/{} {} -> {}", it.at.hierarchy, it.at.cgroup, it.at.file, it.from, it.to))
            .collect()
    }

    #[test]
    fn what_changed_is_told_by_its_file() {
        let (container, v2) = (container(), Controllers::default());
        let before = resources();
        let mut after = before.clone();
        let limits = |resources: &Resources, of: &Controllers| limits(resources, &container, of);
        assert_eq!(told(&changes(&limits(&before, &v2), &limits(&after, &v2), true)), [""; 0]);
        if let (Some(memory), Some(pids), Some(cpu)) = (&mut after.memory, &mut after.pids, &mut after.cpu) {
            memory.limit_bytes = None;
            memory.high_bytes = Some(2048);
            if let Some(above) = &mut memory.above {
                above.limit_bytes = 1 << 20;
            }
            pids.max = Some(50);
            cpu.quota_us = None;
            cpu.period_us = None;
        }
        assert_eq!(
            told(&changes(&limits(&before, &v2), &limits(&after, &v2), true)),
            [
                "0:/pod/memory.max 8192 -> 1048576",
                "0:/pod/web/cpu.max 50000 in 100000 -> unlimited",
                "0:/pod/web/memory.high unlimited -> 2048",
                "0:/pod/web/memory.max 4096 -> unlimited",
                "0:/pod/web/pids.max unlimited -> 50",
            ]
        );
        let v1 = Controllers { v1: [("memory".to_owned(), 4), ("cpu".to_owned(), 4)].into() };
        assert_eq!(
            told(&changes(&limits(&before, &v1), &limits(&after, &v1), true)),
            [
                "0:/pod/memory.max 8192 -> 1048576",
                "0:/pod/web/pids.max unlimited -> 50",
                "4:/docker/web/cpu.cfs_quota_us 50000 -> unlimited",
                "4:/docker/web/memory.limit_in_bytes 4096 -> unlimited",
            ]
        );
    }

    /// A poll does not read all of it: what it leaves out has not changed.
    #[test]
    fn what_was_not_read_says_nothing() {
        let (container, v2) = (container(), Controllers::default());
        let device = |device: &str, rate| IoLimit {
            device: device.into(),
            read_bytes_per_second: Some(rate),
            ..IoLimit::default()
        };
        let io = |limits| Resources {
            io: Some(Io { limits, ..Io::default() }),
            cpuset: Some(Cpuset { cpus: Some("0-1".into()), ..Cpuset::default() }),
            ..resources()
        };
        let whole = limits(&io(vec![device("8:0", 1), device("8:16", 2)]), &container, &v2);
        let poll = limits(&resources(), &container, &v2);
        assert_eq!(told(&changes(&whole, &poll, false)), [""; 0]);
        let mut known = whole.clone();
        update(&mut known, poll, false);
        assert_eq!(known, whole);
        let after = limits(&io(vec![device("8:0", 3), device("8:32", 4)]), &container, &v2);
        assert_eq!(
            told(&changes(&known, &after, true)),
            [
                "0:/pod/web/io.max 8:0 rbps=1 -> rbps=3",
                "0:/pod/web/io.max 8:32 unlimited -> rbps=4",
                "0:/pod/web/io.max 8:16 rbps=2 -> unlimited",
            ]
        );
        update(&mut known, after.clone(), true);
        assert_eq!(known, after);
    }

    /// The controller is not enabled for a cgroup: there is no limit to speak of.
    #[test]
    fn a_controller_that_is_not_there_has_no_limits() {
        let usage =
            Resources { cpu: Some(Cpu { usage_us: Some(1), ..Cpu::default() }), ..Resources::default() };
        assert_eq!(limits(&usage, &container(), &Controllers::default()), Limits::new());
    }
}
