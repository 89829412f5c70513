//! The series of containers' resources: what each uses, what it may use, and how often it met a limit.
//!
//! Values are the kernel's own, shown as they are. A counter that is lower than before is a new cgroup's, and starts anew.

use super::{
    Family, Metrics,
    containers::{ContainerFamily, OfContainer, Read, Tell, container_labels},
};
use crate::{
    limits::ContainerResources,
    model::resources::{Resources, Stall, StallTimes},
};

const fn counter(
    name: &'static str,
    help: &'static str,
    read: fn(&Resources) -> Option<f64>,
) -> ContainerFamily<Resources> {
    let family = Family { name, kind: "counter", labels: container_labels!(), help };
    ContainerFamily { family, read: Read::One(read) }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    read: fn(&Resources) -> Option<f64>,
) -> ContainerFamily<Resources> {
    let family = Family { name, kind: "gauge", labels: container_labels!(), help };
    ContainerFamily { family, read: Read::One(read) }
}

/// In the order in which a person would ask.
pub(super) const FAMILIES: &[ContainerFamily<Resources>] = &[
    gauge(
        "observer_container_memory_usage_bytes",
        "Memory charged to the container, page cache included: memory.current, on v1 memory.usage_in_bytes.",
        |it| number(it.memory.as_ref()?.usage_bytes),
    ),
    gauge(
        "observer_container_memory_working_set_bytes",
        "Memory charged to the container without inactive file pages: memory.current less inactive_file of memory.stat, on v1 memory.usage_in_bytes less total_inactive_file.",
        |it| number(it.memory.as_ref()?.working_set_bytes),
    ),
    gauge(
        "observer_container_memory_limit_bytes",
        "The tightest memory limit from the container's cgroup up to the root: memory.max, on v1 hierarchical_memory_limit of memory.stat. No series without a limit.",
        |it| number(Some(it.memory.as_ref()?.effective_limit.as_ref()?.bytes)),
    ),
    gauge(
        "observer_container_memory_swap_usage_bytes",
        "Swap that the container uses: memory.swap.current, on v1 total_swap of memory.stat.",
        |it| number(it.memory.as_ref()?.swap_usage_bytes),
    ),
    gauge(
        "observer_container_memory_file_bytes",
        "Page cache charged to the container, shared memory and tmpfs included: file of memory.stat, on v1 total_cache.",
        |it| number(it.memory.as_ref()?.file_bytes),
    ),
    ContainerFamily {
        family: Family {
            name: "observer_container_memory_events_total",
            kind: "counter",
            labels: container_labels!("event"),
            help: "Memory events by kind, memory.events: low and high (reclaimed from below memory.low, above memory.high), max (about to go over the limit), oom (out of memory at the limit), oom_kill (processes killed). On v1 oom_kill alone, of memory.oom_control.",
        },
        read: Read::Many(memory_events),
    },
    counter(
        "observer_container_oom_kills_total",
        "Processes of the container that the OOM killer killed: oom_kill of memory.events, on v1 of memory.oom_control (Linux 4.13).",
        |it| number(it.memory.as_ref()?.events.as_ref()?.oom_kill),
    ),
    counter(
        "observer_container_cpu_usage_seconds_total",
        "CPU time that the container has used: usage_usec of cpu.stat, on v1 cpuacct.usage.",
        |it| seconds(it.cpu.as_ref()?.usage_us),
    ),
    gauge(
        "observer_container_cpu_quota_cores",
        "CPUs' worth of time that the container's own quota allows: cpu.max, on v1 cpu.cfs_quota_us by cpu.cfs_period_us. No series without a quota.",
        quota_cores,
    ),
    counter(
        "observer_container_cpu_periods_total",
        "Quota periods in which the container wanted to run: nr_periods of cpu.stat.",
        |it| number(it.cpu.as_ref()?.nr_periods),
    ),
    counter(
        "observer_container_cpu_throttled_periods_total",
        "Quota periods in which the container used up its quota: nr_throttled of cpu.stat.",
        |it| number(it.cpu.as_ref()?.nr_throttled),
    ),
    counter(
        "observer_container_cpu_throttled_seconds_total",
        "Time for which the container was held back by its quota, summed over CPUs: throttled_usec of cpu.stat, on v1 throttled_time.",
        |it| seconds(it.cpu.as_ref()?.throttled_us),
    ),
    gauge(
        "observer_container_pids",
        "Tasks (processes and their threads) in the container: pids.current.",
        |it| number(it.pids.as_ref()?.current),
    ),
    gauge(
        "observer_container_pids_limit",
        "The tightest limit on tasks from the container's cgroup up to the root: pids.max. No series without a limit.",
        |it| number(Some(it.pids.as_ref()?.effective_max.as_ref()?.max)),
    ),
    counter(
        "observer_container_pids_refused_total",
        "Forks and clones refused at a limit on tasks: max of pids.events. Since Linux 6.11 (v2) of the container's own limit, before that of any limit above, too.",
        |it| number(it.pids.as_ref()?.events_max),
    ),
    counter(
        "observer_container_io_read_bytes_total",
        "Bytes read from block devices, summed over devices: rbytes of io.stat, on v1 blkio.throttle.io_service_bytes_recursive, which since Linux 6.10 has only disks for which somebody has set a limit of blkio.throttle.",
        |it| number(it.io.as_ref()?.read_bytes),
    ),
    counter(
        "observer_container_io_written_bytes_total",
        "Bytes written to block devices, summed over devices: wbytes of io.stat, on v1 blkio.throttle.io_service_bytes_recursive, which since Linux 6.10 has only disks for which somebody has set a limit of blkio.throttle.",
        |it| number(it.io.as_ref()?.written_bytes),
    ),
    counter(
        "observer_container_io_reads_total",
        "Read requests to block devices, summed over devices: rios of io.stat, on v1 blkio.throttle.io_serviced_recursive, which since Linux 6.10 has only disks for which somebody has set a limit of blkio.throttle.",
        |it| number(it.io.as_ref()?.reads),
    ),
    counter(
        "observer_container_io_writes_total",
        "Write requests to block devices, summed over devices: wios of io.stat, on v1 blkio.throttle.io_serviced_recursive, which since Linux 6.10 has only disks for which somebody has set a limit of blkio.throttle.",
        |it| number(it.io.as_ref()?.writes),
    ),
    ContainerFamily {
        family: Family {
            name: "observer_container_pressure_waiting_seconds_total",
            kind: "counter",
            labels: container_labels!("resource"),
            help: "Time in which at least one task of the container waited for the resource: total of the line some of cpu.pressure, memory.pressure, io.pressure (v2).",
        },
        read: Read::Many(|it, tell| pressure(it, |stall| stall.some.as_ref(), tell)),
    },
    ContainerFamily {
        family: Family {
            name: "observer_container_pressure_stalled_seconds_total",
            kind: "counter",
            labels: container_labels!("resource"),
            help: "Time in which all tasks of the container waited for the resource: total of the line full of cpu.pressure (Linux 5.13), memory.pressure, io.pressure (v2).",
        },
        read: Read::Many(|it, tell| pressure(it, |stall| stall.full.as_ref(), tell)),
    },
];

fn number(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

fn seconds(us: Option<u64>) -> Option<f64> {
    us.map(|us| us as f64 / 1e6)
}

fn quota_cores(of: &Resources) -> Option<f64> {
    let cpu = of.cpu.as_ref()?;
    let (quota, period) = (cpu.quota_us?, cpu.period_us?);
    (period > 0).then(|| quota as f64 / period as f64)
}

fn memory_events(of: &Resources, tell: &mut Tell<'_>) {
    let Some(events) = of.memory.as_ref().and_then(|memory| memory.events.as_ref()) else { return };
    let kinds = [
        ("low", events.low),
        ("high", events.high),
        ("max", events.max),
        ("oom", events.oom),
        ("oom_kill", events.oom_kill),
    ];
    for (kind, count) in kinds {
        if let Some(count) = number(count) {
            tell(&[kind], count);
        }
    }
}

fn pressure(of: &Resources, which: fn(&Stall) -> Option<&StallTimes>, tell: &mut Tell<'_>) {
    let Some(pressure) = &of.pressure else { return };
    let resources = [("cpu", &pressure.cpu), ("memory", &pressure.memory), ("io", &pressure.io)];
    for (resource, stall) in resources {
        if let Some(total) = seconds(stall.as_ref().and_then(which).map(|times| times.total_us)) {
            tell(&[resource], total);
        }
    }
}

/// Shows containers' resources.
#[derive(Debug)]
pub struct ResourceSeries {
    most_containers: usize,
}

impl OfContainer for ContainerResources {
    fn labels(&self) -> [&str; 4] {
        [&self.id, &self.name, &self.pod, &self.namespace]
    }
}

impl ResourceSeries {
    pub fn new(most_containers: usize) -> Self {
        ResourceSeries { most_containers }
    }

    /// Shows these containers, and no others.
    pub fn show(&mut self, metrics: &Metrics, containers: &[ContainerResources]) {
        let value = |container: &ContainerResources, _: Option<&Resources>| container.resources.clone();
        metrics.inner.resources.show(self.most_containers, containers, value);
    }
}

/// For tests: something in every field that has a series.
#[cfg(test)]
pub(super) fn example(id: &str) -> ContainerResources {
    use crate::model::resources::{Cpu, Io, Memory, MemoryEvents, MemoryLimit, Pids, PidsLimit, Pressure};

    let stall = |some: u64, full: u64| {
        let times = |total_us| Some(StallTimes { total_us, ..StallTimes::default() });
        Some(Stall { some: times(some), full: times(full) })
    };
    ContainerResources {
        id: id.into(),
        name: "web".into(),
        pod: "web-0".into(),
        namespace: "shop".into(),
        resources: Resources {
            memory: Some(Memory {
                usage_bytes: Some(300),
                working_set_bytes: Some(200),
                limit_bytes: Some(1 << 40),
                effective_limit: Some(MemoryLimit { bytes: 1 << 30, ..MemoryLimit::default() }),
                swap_usage_bytes: Some(0),
                file_bytes: Some(100),
                events: Some(MemoryEvents {
                    low: Some(1),
                    high: Some(2),
                    max: Some(3),
                    oom: Some(4),
                    oom_kill: Some(5),
                    oom_group_kill: Some(6),
                }),
                ..Memory::default()
            }),
            cpu: Some(Cpu {
                usage_us: Some(90_061_000_001),
                quota_us: Some(150_000),
                period_us: Some(100_000),
                nr_periods: Some(20),
                nr_throttled: Some(10),
                throttled_us: Some(1_500_000),
                ..Cpu::default()
            }),
            pids: Some(Pids {
                current: Some(7),
                effective_max: Some(PidsLimit { max: 100, ..PidsLimit::default() }),
                events_max: Some(8),
                ..Pids::default()
            }),
            io: Some(Io {
                read_bytes: Some(4096),
                written_bytes: Some(8192),
                reads: Some(1),
                writes: Some(2),
                limits: Vec::new(),
            }),
            pressure: Some(Pressure {
                cpu: stall(1, 2),
                memory: stall(3_000_000, 4_000_000),
                io: stall(5_250_000, 0),
            }),
            ..Resources::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resources::{Cpu, Memory, MemoryEvents, Pids, Pressure};

    const OF: &str = "container=\"c1\",name=\"web\",pod=\"web-0\",namespace=\"shop\"";

    /// The lines about `c1`, without what all have in common.
    fn lines(metrics: &Metrics) -> Vec<String> {
        let text = metrics.expose(true);
        let ours = text.lines().filter_map(|line| line.strip_prefix("observer_container_"));
        ours.filter(|line| line.contains(OF)).map(|line| line.replace(OF, "")).collect()
    }

    fn shown(resources: Resources) -> Vec<String> {
        let (metrics, mut series) = (Metrics::new(), ResourceSeries::new(9));
        series.show(&metrics, &[ContainerResources { resources, ..example("c1") }]);
        lines(&metrics)
    }

    #[test]
    fn every_value_has_its_series() {
        assert_eq!(
            shown(example("c1").resources),
            [
                "memory_usage_bytes{} 300",
                "memory_working_set_bytes{} 200",
                "memory_limit_bytes{} 1073741824",
                "memory_swap_usage_bytes{} 0",
                "memory_file_bytes{} 100",
                "memory_events_total{,event=\"low\"} 1",
                "memory_events_total{,event=\"high\"} 2",
                "memory_events_total{,event=\"max\"} 3",
                "memory_events_total{,event=\"oom\"} 4",
                "memory_events_total{,event=\"oom_kill\"} 5",
                "oom_kills_total{} 5",
                "cpu_usage_seconds_total{} 90061.000001",
                "cpu_quota_cores{} 1.5",
                "cpu_periods_total{} 20",
                "cpu_throttled_periods_total{} 10",
                "cpu_throttled_seconds_total{} 1.5",
                "pids{} 7",
                "pids_limit{} 100",
                "pids_refused_total{} 8",
                "io_read_bytes_total{} 4096",
                "io_written_bytes_total{} 8192",
                "io_reads_total{} 1",
                "io_writes_total{} 2",
                "pressure_waiting_seconds_total{,resource=\"cpu\"} 0.000001",
                "pressure_waiting_seconds_total{,resource=\"memory\"} 3",
                "pressure_waiting_seconds_total{,resource=\"io\"} 5.25",
                "pressure_stalled_seconds_total{,resource=\"cpu\"} 0.000002",
                "pressure_stalled_seconds_total{,resource=\"memory\"} 4",
                "pressure_stalled_seconds_total{,resource=\"io\"} 0",
            ]
        );
    }

    /// Not there, not limited: no series, rather than a zero that would be taken for one.
    #[test]
    fn what_is_absent_has_no_series() {
        let memory = |memory| Resources { memory: Some(memory), ..Resources::default() };
        let cpu = |quota_us, period_us| {
            let cpu = Cpu { usage_us: Some(0), quota_us, period_us, ..Cpu::default() };
            Resources { cpu: Some(cpu), ..Resources::default() }
        };
        let pressure = |cpu| {
            let pressure = Pressure { cpu: Some(cpu), ..Pressure::default() };
            Resources { pressure: Some(pressure), ..Resources::default() }
        };
        let some = Some(StallTimes { avg10_percent: 9.0, total_us: 500_000, ..StallTimes::default() });
        let v1_events = MemoryEvents { oom_kill: Some(2), ..MemoryEvents::default() };
        let cases: &[(&str, Resources, &[&str])] = &[
            ("nothing", Resources::default(), &[]),
            ("no controller says anything", memory(Memory::default()), &[]),
            (
                "unlimited memory",
                memory(Memory { usage_bytes: Some(0), ..Memory::default() }),
                &["memory_usage_bytes{} 0"],
            ),
            (
                "v1 events",
                memory(Memory { events: Some(v1_events), failcnt: Some(9), ..Memory::default() }),
                &["memory_events_total{,event=\"oom_kill\"} 2", "oom_kills_total{} 2"],
            ),
            ("no quota", cpu(None, Some(100_000)), &["cpu_usage_seconds_total{} 0"]),
            ("a quota without its period", cpu(Some(1), None), &["cpu_usage_seconds_total{} 0"]),
            ("a period of nothing", cpu(Some(1), Some(0)), &["cpu_usage_seconds_total{} 0"]),
            (
                "unlimited tasks",
                Resources {
                    pids: Some(Pids { current: Some(3), ..Pids::default() }),
                    ..Resources::default()
                },
                &["pids{} 3"],
            ),
            (
                "no full line",
                pressure(Stall { some, full: None }),
                &["pressure_waiting_seconds_total{,resource=\"cpu\"} 0.5"],
            ),
        ];
        for (name, resources, expected) in cases {
            assert_eq!(shown(resources.clone()), *expected, "{name}");
        }
    }

    #[test]
    fn a_counter_is_the_kernels_in_both_directions() {
        let (metrics, mut series) = (Metrics::new(), ResourceSeries::new(9));
        for usage_us in [0, 5_000_000, 5_000_000, 1_000_000, u64::MAX] {
            let cpu = Cpu { usage_us: Some(usage_us), ..Cpu::default() };
            let resources = Resources { cpu: Some(cpu), ..Resources::default() };
            series.show(&metrics, &[ContainerResources { resources, ..example("c1") }]);
            let expected = format!("cpu_usage_seconds_total{{}} {}", usage_us as f64 / 1e6);
            assert_eq!(lines(&metrics), [expected]);
        }
    }

    #[test]
    fn series_go_with_their_containers_and_change_with_their_names() {
        let (metrics, mut series) = (Metrics::new(), ResourceSeries::new(9));
        let unnamed = ContainerResources { name: String::new(), ..example("c1") };
        series.show(&metrics, &[unnamed, example("c2")]);
        assert!(lines(&metrics).is_empty() && metrics.expose(true).contains("{container=\"c2\""));
        series.show(&metrics, &[example("c1")]);
        assert_eq!(lines(&metrics).len(), 29);
        let text = metrics.expose(true);
        assert_eq!(text.matches("{container=").count(), 29);
        series.show(&metrics, &[]);
        assert!(!metrics.expose(true).contains("observer_container_memory"));
    }

    #[test]
    fn what_is_beyond_the_ceiling_is_counted() {
        let dropped = |metrics: &Metrics| {
            let text = metrics.expose(true);
            let value = text.lines().find_map(|line| line.strip_prefix("observer_container_series_dropped "));
            value.map(str::to_owned)
        };
        let (metrics, mut series) = (Metrics::new(), ResourceSeries::new(2));
        assert_eq!(dropped(&metrics).as_deref(), Some("0"));
        let all: Vec<_> = ["c1", "c2", "c3", "c4", "c5"].map(example).into();
        series.show(&metrics, &all);
        assert_eq!(dropped(&metrics).as_deref(), Some("3"));
        series.show(&metrics, &all[3..]);
        assert_eq!(dropped(&metrics).as_deref(), Some("0"));
    }
}
