//! The series of capability checks, one container at a time.

use std::collections::BTreeMap;

use super::{
    Family, Metrics,
    containers::{ContainerFamily, OfContainer, Read, container_labels},
};
use crate::{
    model::capability_label,
    pipeline::{CheckCount, ContainerChecks},
};

/// What is shown of one container.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Checks that mean no use are told apart.
    classified: bool,
    /// By the capability's number.
    counts: BTreeMap<u32, CheckCount>,
}

pub(super) const FAMILIES: &[ContainerFamily<Checks>] = &[
    ContainerFamily {
        family: Family {
            name: "observer_container_capability_used",
            kind: "gauge",
            labels: container_labels!("capability"),
            help: "1 if a process of the container has used the capability, 0 if it was only denied; no series if it was never asked for (checks that the kernel makes speculatively do not count). With audit.capabilities.",
        },
        read: Read::Many(|checks, tell| {
            if checks.classified {
                for (number, count) in &checks.counts {
                    tell(&[&capability_label(*number)], f64::from(u8::from(count.granted > 0)));
                }
            }
        }),
    },
    ContainerFamily {
        family: Family {
            name: "observer_container_capability_denied_total",
            kind: "counter",
            labels: container_labels!("capability"),
            help: "Checks of a capability that the container's processes did not have, without those that the kernel makes speculatively.",
        },
        read: Read::Many(|checks, tell| {
            if checks.classified {
                for (number, count) in &checks.counts {
                    tell(&[&capability_label(*number)], count.denied as f64);
                }
            }
        }),
    },
    ContainerFamily {
        family: Family {
            name: "observer_container_capability_unclassified_total",
            kind: "counter",
            labels: container_labels!("capability", "result"),
            help: "Checks of a capability, granted or denied, where this kernel does not show which of them are speculative (tier tp_btf): instead of the two families above.",
        },
        read: Read::Many(|checks, tell| {
            if !checks.classified {
                for (number, count) in &checks.counts {
                    tell(&[&capability_label(*number), "denied"], count.denied as f64);
                    tell(&[&capability_label(*number), "granted"], count.granted as f64);
                }
            }
        }),
    },
];

/// Shows containers' checks of capabilities.
#[derive(Debug)]
pub struct CapabilitySeries {
    most_containers: usize,
}

impl OfContainer for ContainerChecks {
    fn labels(&self) -> [&str; 4] {
        [&self.id, &self.name, &self.pod, &self.namespace]
    }
}

impl CapabilitySeries {
    pub fn new(most_containers: usize) -> Self {
        CapabilitySeries { most_containers }
    }

    /// Shows these containers' counts, and no others'. Where checks that mean no use are not told apart (`classified`), no
    /// count is taken for a use or a denial.
    pub fn show(&mut self, metrics: &Metrics, containers: &[ContainerChecks], classified: bool) {
        metrics.inner.capabilities.show(self.most_containers, containers, |container, before| {
            let mut counts = container.checks.clone();
            // A sum over slots, of which one may go before the container does: what was counted stays counted.
            for (number, old) in before.map(|checks| &checks.counts).into_iter().flatten() {
                let count = counts.entry(*number).or_default();
                count.granted = count.granted.max(old.granted);
                count.denied = count.denied.max(old.denied);
            }
            Checks { classified, counts }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, name: &str, checks: &[(u32, u64, u64)]) -> ContainerChecks {
        let count = |granted, denied| CheckCount { granted, denied, ..CheckCount::default() };
        let checks = checks.iter().map(|(number, granted, denied)| (*number, count(*granted, *denied)));
        let (pod, namespace) = if name.is_empty() { ("", "") } else { ("pod-0", "default") };
        ContainerChecks {
            id: id.into(),
            name: name.into(),
            pod: pod.into(),
            namespace: namespace.into(),
            since_ns: 0,
            checks: checks.collect(),
        }
    }

    /// The lines about capabilities, without the families' common beginning.
    fn lines(metrics: &Metrics) -> Vec<String> {
        let text = metrics.expose(true);
        let ours = text.lines().filter_map(|line| line.strip_prefix("observer_container_capability_"));
        ours.map(str::to_owned).collect()
    }

    fn started() -> (Metrics, CapabilitySeries) {
        (Metrics::new(), CapabilitySeries::new(4))
    }

    #[test]
    fn uses_and_denials_are_told_where_they_are_known() {
        let (metrics, mut series) = started();
        series.show(&metrics, &[container("c1", "web", &[(0, 2, 0), (21, 0, 4), (60, 0, 0)])], true);
        series.show(&metrics, &[container("c1", "web", &[(0, 2, 0), (21, 0, 6), (60, 0, 0)])], true);
        let of = "container=\"c1\",name=\"web\",pod=\"pod-0\",namespace=\"default\"";
        assert_eq!(
            lines(&metrics),
            [
                format!("used{{{of},capability=\"CAP_CHOWN\"}} 1"),
                format!("used{{{of},capability=\"CAP_SYS_ADMIN\"}} 0"),
                format!("used{{{of},capability=\"60\"}} 0"),
                format!("denied_total{{{of},capability=\"CAP_CHOWN\"}} 0"),
                format!("denied_total{{{of},capability=\"CAP_SYS_ADMIN\"}} 6"),
                format!("denied_total{{{of},capability=\"60\"}} 0"),
            ]
        );
    }

    #[test]
    fn without_the_options_nothing_is_taken_for_a_use_or_a_denial() {
        let (metrics, mut series) = started();
        series.show(&metrics, &[container("c1", "", &[(21, 5, 4)])], false);
        let of = "container=\"c1\",name=\"\",pod=\"\",namespace=\"\"";
        assert_eq!(
            lines(&metrics),
            [
                format!("unclassified_total{{{of},capability=\"CAP_SYS_ADMIN\",result=\"denied\"}} 4"),
                format!("unclassified_total{{{of},capability=\"CAP_SYS_ADMIN\",result=\"granted\"}} 5"),
            ]
        );
        series.show(&metrics, &[], false);
        assert_eq!(lines(&metrics), [""; 0]);
    }

    #[test]
    fn series_go_with_their_containers_and_change_with_their_names() {
        let (metrics, mut series) = started();
        let both = [container("c1", "", &[(0, 1, 9)]), container("c2", "db", &[(0, 1, 0)])];
        series.show(&metrics, &both, true);
        assert_eq!(lines(&metrics).len(), 4);
        series.show(&metrics, &[container("c1", "late", &[(0, 1, 9)])], true);
        let of =
            "container=\"c1\",name=\"late\",pod=\"pod-0\",namespace=\"default\",capability=\"CAP_CHOWN\"";
        assert_eq!(lines(&metrics), [format!("used{{{of}}} 1"), format!("denied_total{{{of}}} 9")]);
    }

    #[test]
    fn no_count_falls_and_none_goes_while_its_container_lives() {
        let (metrics, mut series) = started();
        series.show(&metrics, &[container("c1", "", &[(0, 1, 9), (21, 0, 2)])], true);
        series.show(&metrics, &[container("c1", "", &[(0, 0, 3)])], true);
        let values: Vec<_> =
            lines(&metrics).iter().filter_map(|line| line.rsplit(' ').next().map(str::to_owned)).collect();
        assert_eq!(values, ["1", "0", "9", "2"]);
    }

    #[test]
    fn there_is_a_ceiling() {
        let (metrics, mut series) = started();
        let many: Vec<_> = (0..7).map(|n| container(&format!("c{n}"), "", &[(0, 1, 0)])).collect();
        series.show(&metrics, &many, true);
        assert_eq!(lines(&metrics).len(), 2 * 4);
        assert!(metrics.expose(true).contains("\nobserver_container_series_dropped 3\n"));
    }
}
