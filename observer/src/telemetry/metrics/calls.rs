//! The series of the audit of calls, one container at a time.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use observer_common::verdict;
use prometheus::IntCounterVec;

use super::Metrics;
use crate::{model::syscall, pipeline::ContainerCalls};

/// Containers that have series; what comes after is not shown until one of them is gone.
const MOST_CONTAINERS: usize = 1024;
/// Characters of a container's name that are shown: names are whatever the runtime was told.
const MOST_NAME: usize = 128;

/// Which series there are, so that they go with their containers.
#[derive(Debug, Default)]
pub struct CallSeries {
    /// By container id.
    known: BTreeMap<String, Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    name: String,
    /// Number and verdict.
    denied: BTreeSet<(u32, u32)>,
}

impl CallSeries {
    /// Shows these containers' counts, and no others'.
    pub fn show(&mut self, metrics: &Metrics, containers: &[ContainerCalls]) {
        let living: HashSet<&str> = containers.iter().map(|container| container.id.as_str()).collect();
        self.known.retain(|id, shown| {
            let lives = living.contains(id.as_str());
            if !lives {
                remove(metrics, id, shown);
            }
            lives
        });
        for container in containers {
            if !self.known.contains_key(&container.id) && self.known.len() >= MOST_CONTAINERS {
                continue;
            }
            let name: String = container.name.chars().take(MOST_NAME).collect();
            let shown = self.known.entry(container.id.clone()).or_default();
            if shown.name != name {
                // A name that came late: the same counts go on under it.
                remove(metrics, &container.id, shown);
                *shown = Shown { name, denied: BTreeSet::new() };
            }
            let labels = [container.id.as_str(), shown.name.as_str()];
            let used = metrics.inner.families.syscalls_used.with_label_values(&labels);
            used.set(container.used.len() as i64);
            // Two verdicts may share a series.
            let mut sums: BTreeMap<(usize, u32), u64> = BTreeMap::new();
            for ((nr, verdict), denial) in &container.denied {
                *sums.entry((family(*verdict), *nr)).or_default() += denial.count;
                shown.denied.insert((*nr, *verdict));
            }
            for ((family, nr), total) in sums {
                let call = syscall::label(nr);
                let labels = [labels[0], labels[1], call.as_ref()];
                let counter = families(metrics)[family].with_label_values(&labels);
                counter.inc_by(total.saturating_sub(counter.get()));
            }
        }
    }
}

fn families(metrics: &Metrics) -> [&IntCounterVec; 3] {
    let families = &metrics.inner.families;
    [&families.seccomp_denied, &families.seccomp_killed, &families.seccomp_unclassified]
}

/// Which of the families above counts it.
fn family(verdict: u32) -> usize {
    match verdict {
        verdict::DENIED => 0,
        verdict::UNCLASSIFIED => 2,
        _ => 1,
    }
}

/// A series that is not there need not be removed.
fn remove(metrics: &Metrics, id: &str, shown: &Shown) {
    let _ = metrics.inner.families.syscalls_used.remove_label_values(&[id, &shown.name]);
    for (nr, verdict) in &shown.denied {
        let labels = [id, &shown.name, &syscall::label(*nr)];
        let _ = families(metrics)[family(*verdict)].remove_label_values(&labels);
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
        ContainerCalls {
            id: id.into(),
            name: name.into(),
            since_ns: 0,
            used: syscall::set(["read", "write"]),
            denied: denied.collect(),
        }
    }

    /// The lines about calls, without the families' common beginning.
    fn lines(metrics: &Metrics) -> Vec<String> {
        let text = metrics.expose(true);
        let ours = text.lines().filter_map(|line| line.strip_prefix("observer_container_"));
        ours.map(str::to_owned).collect()
    }

    #[test]
    fn each_verdict_has_its_family() {
        let (metrics, mut series) = (Metrics::new(), CallSeries::default());
        for count in [1, 5] {
            let denied = [
                ("mount", verdict::DENIED, count),
                ("openat", verdict::UNCLASSIFIED, 2),
                ("bpf", verdict::SIGNALLED, 3),
                ("bpf", verdict::THREAD_KILLED, 4),
            ];
            series.show(&metrics, &[container("c1", "web", &denied)]);
        }
        assert_eq!(
            lines(&metrics),
            [
                "seccomp_denied_total{container=\"c1\",name=\"web\",syscall=\"mount\"} 5",
                "seccomp_killed_total{container=\"c1\",name=\"web\",syscall=\"bpf\"} 7",
                "seccomp_unclassified_total{container=\"c1\",name=\"web\",syscall=\"openat\"} 2",
                "syscalls_used{container=\"c1\",name=\"web\"} 2",
            ]
        );
    }

    #[test]
    fn series_go_with_their_containers_and_change_with_their_names() {
        let (metrics, mut series) = (Metrics::new(), CallSeries::default());
        let denied = [("mount", verdict::DENIED, 9)];
        series.show(&metrics, &[container("c1", "", &denied), container("c2", "db", &denied)]);
        series.show(&metrics, &[container("c1", "late", &denied)]);
        assert_eq!(
            lines(&metrics),
            [
                "seccomp_denied_total{container=\"c1\",name=\"late\",syscall=\"mount\"} 9",
                "syscalls_used{container=\"c1\",name=\"late\"} 2",
            ]
        );
        series.show(&metrics, &[]);
        assert_eq!(lines(&metrics), [""; 0]);
    }

    #[test]
    fn there_is_a_ceiling() {
        let (metrics, mut series) = (Metrics::new(), CallSeries::default());
        let many: Vec<_> = (0..MOST_CONTAINERS + 5)
            .map(|n| container(&format!("c{n}"), &"n".repeat(500), &[("mount", verdict::DENIED, 1)]))
            .collect();
        series.show(&metrics, &many);
        assert_eq!(lines(&metrics).len(), 2 * MOST_CONTAINERS);
        // One goes, the next one comes.
        series.show(&metrics, &many[1..]);
        assert!(lines(&metrics).iter().any(|line| line.contains(&format!("\"c{MOST_CONTAINERS}\""))));
    }
}
