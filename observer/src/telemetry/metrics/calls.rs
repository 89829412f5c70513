//! The series of the audit of calls, one container at a time.

use std::collections::BTreeMap;

use observer_common::verdict;

use super::{
    Family, Metrics,
    containers::{ContainerFamily, OfContainer, Read, Tell, container_labels},
};
use crate::{model::syscall, pipeline::ContainerCalls};

/// What is shown of one container.
#[derive(Debug, Default)]
pub(super) struct Calls {
    used: usize,
    /// By the call's number.
    refused: BTreeMap<u32, Refused>,
}

/// How often a call was refused, by the family that shows it.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    denied: u64,
    killed: u64,
    unclassified: u64,
}

impl Refused {
    fn of(&mut self, verdict: u32) -> &mut u64 {
        match verdict {
            verdict::DENIED => &mut self.denied,
            verdict::UNCLASSIFIED => &mut self.unclassified,
            _ => &mut self.killed,
        }
    }
}

pub(super) const FAMILIES: &[ContainerFamily<Calls>] = &[
    ContainerFamily {
        family: Family {
            name: "observer_container_syscalls_used",
            kind: "gauge",
            labels: container_labels!(),
            help: "How many different system calls the container has made since the agent knows it. With audit.syscalls or audit.seccomp.",
        },
        read: Read::One(|calls| Some(calls.used as f64)),
    },
    ContainerFamily {
        family: Family {
            name: "observer_container_seccomp_denied_total",
            kind: "counter",
            labels: container_labels!("syscall"),
            help: "System calls that the container's seccomp filter answered with an error. With audit.seccomp.",
        },
        read: Read::Many(|calls, tell| refused(calls, |it| it.denied, tell)),
    },
    ContainerFamily {
        family: Family {
            name: "observer_container_seccomp_killed_total",
            kind: "counter",
            labels: container_labels!("syscall"),
            help: "System calls for which the container's seccomp filter sent SIGSYS or ended the thread. With audit.seccomp.",
        },
        read: Read::Many(|calls, tell| refused(calls, |it| it.killed, tell)),
    },
    ContainerFamily {
        family: Family {
            name: "observer_container_seccomp_unclassified_total",
            kind: "counter",
            labels: container_labels!("syscall"),
            help: "Errors of system calls in tasks with a seccomp filter that may have been the filter's: seen before the agent watched the beginnings of that call. With audit.seccomp.",
        },
        read: Read::Many(|calls, tell| refused(calls, |it| it.unclassified, tell)),
    },
];

/// A call that was never refused in this way has no series.
fn refused(calls: &Calls, count: fn(&Refused) -> u64, tell: &mut Tell<'_>) {
    for (nr, refused) in &calls.refused {
        let count = count(refused);
        if count > 0 {
            tell(&[&syscall::label(*nr)], count as f64);
        }
    }
}

/// Shows the audit of containers' calls.
#[derive(Debug)]
pub struct CallSeries {
    most_containers: usize,
}

impl OfContainer for ContainerCalls {
    fn labels(&self) -> [&str; 4] {
        [&self.id, &self.name, &self.pod, &self.namespace]
    }
}

impl CallSeries {
    pub fn new(most_containers: usize) -> Self {
        CallSeries { most_containers }
    }

    /// Shows these containers' counts, and no others'.
    pub fn show(&mut self, metrics: &Metrics, containers: &[ContainerCalls]) {
        metrics.inner.calls.show(self.most_containers, containers, |container, before| {
            let mut refused: BTreeMap<u32, Refused> = BTreeMap::new();
            // Two verdicts may share a family.
            for ((nr, verdict), denial) in &container.denied {
                *refused.entry(*nr).or_default().of(*verdict) += denial.count;
            }
            // The kernel side's entries may go before the container does: what was counted stays counted.
            for (nr, old) in before.map(|calls| &calls.refused).into_iter().flatten() {
                let count = refused.entry(*nr).or_default();
                count.denied = count.denied.max(old.denied);
                count.killed = count.killed.max(old.killed);
                count.unclassified = count.unclassified.max(old.unclassified);
            }
            Calls { used: container.used.len(), refused }
        });
    }
}

#[cfg(test)]
pub(super) fn example(id: &str) -> ContainerCalls {
    let verdicts = [verdict::DENIED, verdict::SIGNALLED, verdict::UNCLASSIFIED];
    let denial = observer_common::Denial { count: 1, ..Default::default() };
    ContainerCalls {
        id: id.into(),
        name: String::new(),
        pod: String::new(),
        namespace: String::new(),
        since_ns: 0,
        used: syscall::set(["read"]),
        denied: verdicts.map(|verdict| ((0, verdict), denial)).into(),
    }
}

#[cfg(test)]
mod tests {
    use observer_common::Denial;

    use super::*;

    fn container(id: &str, name: &str, denied: &[(&str, u32, u64)]) -> ContainerCalls {
        let denied = denied.iter().map(|(call, verdict, count)| {
            let nr = syscall::number(call).expect("a call");
            ((nr, *verdict), Denial { count: *count, ..Denial::default() })
        });
        let (pod, namespace) = if name.is_empty() { ("", "") } else { ("pod-0", "default") };
        ContainerCalls {
            name: name.into(),
            pod: pod.into(),
            namespace: namespace.into(),
            used: syscall::set(["read", "write"]),
            denied: denied.collect(),
            ..example(id)
        }
    }

    /// The lines about calls, without the families' common beginning.
    fn lines(metrics: &Metrics) -> Vec<String> {
        let text = metrics.expose(true);
        let ours = text.lines().filter_map(|line| line.strip_prefix("observer_container_"));
        ours.filter(|line| line.starts_with('s') && line.contains("{container=")).map(str::to_owned).collect()
    }

    fn started() -> (Metrics, CallSeries) {
        (Metrics::new(), CallSeries::new(4))
    }

    #[test]
    fn each_verdict_has_its_family() {
        let (metrics, mut series) = started();
        for count in [1, 5] {
            let denied = [
                ("mount", verdict::DENIED, count),
                ("openat", verdict::UNCLASSIFIED, 2),
                ("bpf", verdict::SIGNALLED, 3),
                ("bpf", verdict::THREAD_KILLED, 4),
            ];
            series.show(&metrics, &[container("c1", "web", &denied)]);
        }
        let of = "container=\"c1\",name=\"web\",pod=\"pod-0\",namespace=\"default\"";
        assert_eq!(
            lines(&metrics),
            [
                format!("syscalls_used{{{of}}} 2"),
                format!("seccomp_denied_total{{{of},syscall=\"mount\"}} 5"),
                format!("seccomp_killed_total{{{of},syscall=\"bpf\"}} 7"),
                format!("seccomp_unclassified_total{{{of},syscall=\"openat\"}} 2"),
            ]
        );
    }

    #[test]
    fn series_go_with_their_containers_and_change_with_their_names() {
        let (metrics, mut series) = started();
        let denied = [("mount", verdict::DENIED, 9)];
        series.show(&metrics, &[container("c1", "", &denied), container("c2", "db", &denied)]);
        assert_eq!(lines(&metrics).len(), 4);
        series.show(&metrics, &[container("c1", "late", &denied)]);
        let of = "container=\"c1\",name=\"late\",pod=\"pod-0\",namespace=\"default\"";
        assert_eq!(
            lines(&metrics),
            [format!("syscalls_used{{{of}}} 2"), format!("seccomp_denied_total{{{of},syscall=\"mount\"}} 9"),]
        );
        series.show(&metrics, &[]);
        assert_eq!(lines(&metrics), [""; 0]);
    }

    #[test]
    fn no_count_falls_and_none_goes_while_its_container_lives() {
        let (metrics, mut series) = started();
        let before = [("mount", verdict::DENIED, 9), ("bpf", verdict::SIGNALLED, 2)];
        series.show(&metrics, &[container("c1", "", &before)]);
        series.show(&metrics, &[container("c1", "", &[("mount", verdict::DENIED, 3)])]);
        let values: Vec<_> =
            lines(&metrics).iter().filter_map(|line| line.rsplit(' ').next().map(str::to_owned)).collect();
        assert_eq!(values, ["2", "9", "2"]);
    }

    #[test]
    fn there_is_a_ceiling() {
        let (metrics, mut series) = started();
        let many: Vec<_> =
            (0..7).map(|n| container(&format!("c{n}"), "", &[("mount", verdict::DENIED, 1)])).collect();
        series.show(&metrics, &many);
        assert_eq!(lines(&metrics).len(), 2 * 4);
        assert!(metrics.expose(true).contains("\nobserver_container_series_dropped 3\n"));
    }
}
