//! The series of what AppArmor denies, one container at a time.

use std::collections::BTreeMap;

use super::{
    Family, Metrics,
    containers::{ContainerFamily, OfContainer, Read, Tell, container_labels},
};
use crate::{model::AppArmorVerdict, pipeline::ContainerAccesses};

/// Operations of one container that have series: the kernel has some eighty, and says which.
const MOST_OPERATIONS: usize = 64;
/// Those that are beyond.
const OTHER: &str = "other";

/// How often each operation was denied, and how often it would have been, as far as records say it.
#[derive(Debug, Default)]
pub(super) struct Accesses(BTreeMap<String, (u64, u64)>);

pub(super) const FAMILIES: &[ContainerFamily<Accesses>] = &[
    ContainerFamily {
        family: Family {
            name: "observer_container_apparmor_denied_total",
            kind: "counter",
            labels: container_labels!("operation"),
            help: "Accesses that AppArmor denied the container's processes, as the kernel's audit log has them. With audit.apparmor.",
        },
        read: Read::Many(|accesses, tell| counts(accesses, |(denied, _)| denied, tell)),
    },
    ContainerFamily {
        family: Family {
            name: "observer_container_apparmor_allowed_total",
            kind: "counter",
            labels: container_labels!("operation"),
            help: "Accesses that AppArmor would have denied, were the profile not in complain mode. With audit.apparmor.",
        },
        read: Read::Many(|accesses, tell| counts(accesses, |(_, allowed)| allowed, tell)),
    },
];

/// An operation that was never answered so has no series.
fn counts(accesses: &Accesses, count: fn((u64, u64)) -> u64, tell: &mut Tell<'_>) {
    for (operation, both) in &accesses.0 {
        let count = count(*both);
        if count > 0 {
            tell(&[operation], count as f64);
        }
    }
}

/// Shows what AppArmor denies containers.
#[derive(Debug)]
pub struct AppArmorSeries {
    most_containers: usize,
}

impl OfContainer for ContainerAccesses {
    fn labels(&self) -> [&str; 4] {
        [&self.id, &self.name, &self.pod, &self.namespace]
    }
}

impl AppArmorSeries {
    pub fn new(most_containers: usize) -> Self {
        AppArmorSeries { most_containers }
    }

    /// Shows these containers' counts, and no others'.
    pub fn show(&mut self, metrics: &Metrics, containers: &[ContainerAccesses]) {
        metrics.inner.apparmor.show(self.most_containers, containers, |container, before| {
            // Who has a series keeps it: a counter that moves to another one falls.
            let mut sums: BTreeMap<String, (u64, u64)> =
                before.into_iter().flat_map(|it| it.0.keys()).map(|it| (it.clone(), (0, 0))).collect();
            for (access, count) in &container.accesses {
                let full = sums.len() >= MOST_OPERATIONS && !sums.contains_key(&access.operation);
                let operation = if full { OTHER } else { &access.operation };
                let sum = sums.entry(operation.to_owned()).or_default();
                match access.verdict {
                    AppArmorVerdict::Denied | AppArmorVerdict::Killed => sum.0 += count.count,
                    AppArmorVerdict::Allowed => sum.1 += count.count,
                }
            }
            Accesses(sums)
        });
    }
}

#[cfg(test)]
pub(super) fn example(id: &str) -> ContainerAccesses {
    use crate::enrich::{Access, AccessCount};

    let access = |verdict| Access {
        verdict,
        operation: "open".into(),
        what: "/etc/shadow".into(),
        profile: "web".into(),
    };
    let count = AccessCount { count: 2, ..AccessCount::default() };
    ContainerAccesses {
        id: id.into(),
        name: String::new(),
        pod: String::new(),
        namespace: String::new(),
        since_ns: 0,
        accesses: [AppArmorVerdict::Denied, AppArmorVerdict::Killed, AppArmorVerdict::Allowed]
            .map(|verdict| (access(verdict), count.clone()))
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::{Access, AccessCount};

    fn lines(metrics: &Metrics) -> Vec<String> {
        let text = metrics.expose(true);
        let ours = text.lines().filter_map(|line| line.strip_prefix("observer_container_apparmor_"));
        ours.map(str::to_owned).collect()
    }

    #[test]
    fn denials_are_added_up_by_operation_and_go_with_their_container() {
        let (metrics, mut series) = (Metrics::new(), AppArmorSeries::new(4));
        series.show(&metrics, &[example("c1")]);
        let of = "container=\"c1\",name=\"\",pod=\"\",namespace=\"\",operation=\"open\"";
        assert_eq!(lines(&metrics), [format!("denied_total{{{of}}} 4"), format!("allowed_total{{{of}}} 2")]);
        series.show(&metrics, &[]);
        assert_eq!(lines(&metrics), [""; 0]);
    }

    #[test]
    fn operations_are_bounded_and_who_has_a_series_keeps_it() {
        let (metrics, mut series) = (Metrics::new(), AppArmorSeries::new(4));
        let mut container = ContainerAccesses { accesses: BTreeMap::new(), ..example("c1") };
        let mut add = |operation: String| {
            let access = Access {
                verdict: AppArmorVerdict::Denied,
                operation,
                what: String::new(),
                profile: String::new(),
            };
            container.accesses.insert(access, AccessCount { count: 1, ..AccessCount::default() });
            series.show(&metrics, std::slice::from_ref(&container));
        };
        // What comes later and sorts first takes nobody's place.
        for n in (0..MOST_OPERATIONS + 5).rev() {
            add(format!("op{n:03}"));
        }
        let lines = lines(&metrics);
        assert_eq!(lines.len(), MOST_OPERATIONS + 1);
        assert!(lines.iter().any(|line| line.contains("operation=\"other\"") && line.ends_with(" 5")));
        assert!(lines.iter().any(|line| line.contains("operation=\"op068\"") && line.ends_with(" 1")));
    }
}
