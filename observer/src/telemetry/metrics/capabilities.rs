//! The series of capability checks, one container at a time.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::Metrics;
use crate::{model::CAPABILITIES, pipeline::ContainerChecks};

/// Containers that have series; what comes after is not shown until one of them is gone.
const MOST_CONTAINERS: usize = 1024;
/// Characters of a container's name that are shown: names are whatever the runtime was told.
const MOST_NAME: usize = 128;

/// Which series there are, so that they go with their containers.
#[derive(Debug, Default)]
pub struct CapabilitySeries {
    /// By container id.
    known: BTreeMap<String, Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    name: String,
    capabilities: BTreeSet<u32>,
}

impl CapabilitySeries {
    /// Shows these containers' counts, and no others'. Where checks that mean no use are not told apart (`classified`), no
    /// count is taken for a use or a denial.
    pub fn show(&mut self, metrics: &Metrics, containers: &[ContainerChecks], classified: bool) {
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
                *shown = Shown { name, capabilities: BTreeSet::new() };
            }
            for (number, count) in &container.checks {
                shown.capabilities.insert(*number);
                let labels = [&container.id, &shown.name, &label(*number)];
                let families = &metrics.inner.families;
                if classified {
                    families.capability_used.with_label_values(&labels).set(i64::from(count.granted > 0));
                    let denied = families.capability_denied.with_label_values(&labels);
                    denied.inc_by(count.denied.saturating_sub(denied.get()));
                } else {
                    for (result, total) in [(GRANTED, count.granted), (DENIED, count.denied)] {
                        let [id, name, capability] = labels.map(String::as_str);
                        let labels = [id, name, capability, result];
                        let counter = families.capability_unclassified.with_label_values(&labels);
                        counter.inc_by(total.saturating_sub(counter.get()));
                    }
                }
            }
        }
    }
}

const GRANTED: &str = "granted";
const DENIED: &str = "denied";

/// Its name; the number of one that is newer than the table.
fn label(number: u32) -> String {
    let known = CAPABILITIES.iter().find(|capability| u32::from(capability.number) == number);
    known.map_or_else(|| number.to_string(), |capability| capability.name.to_owned())
}

/// A series that is not there need not be removed.
fn remove(metrics: &Metrics, id: &str, shown: &Shown) {
    let families = &metrics.inner.families;
    for number in &shown.capabilities {
        let capability = label(*number);
        let labels = [id, &shown.name, &capability];
        let _ = families.capability_used.remove_label_values(&labels);
        let _ = families.capability_denied.remove_label_values(&labels);
        for result in [GRANTED, DENIED] {
            let labels = [id, &shown.name, &capability, result];
            let _ = families.capability_unclassified.remove_label_values(&labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use observer_common::CapabilityCount;

    use super::*;

    fn container(id: &str, name: &str, checks: &[(u32, u64, u64)]) -> ContainerChecks {
        let count = |granted, denied| CapabilityCount { granted, denied, speculative: 3 };
        let checks = checks.iter().map(|(number, granted, denied)| (*number, count(*granted, *denied)));
        ContainerChecks { id: id.into(), name: name.into(), checks: checks.collect() }
    }

    /// The lines about capabilities, without the families' common beginning.
    fn lines(metrics: &Metrics) -> Vec<String> {
        let text = metrics.expose(true);
        let ours = text.lines().filter_map(|line| line.strip_prefix("observer_container_capability_"));
        ours.map(str::to_owned).collect()
    }

    #[test]
    fn uses_and_denials_are_told_where_they_are_known() {
        let (metrics, mut series) = (Metrics::new(), CapabilitySeries::default());
        series.show(&metrics, &[container("c1", "web", &[(0, 2, 0), (21, 0, 4), (60, 0, 0)])], true);
        series.show(&metrics, &[container("c1", "web", &[(0, 2, 0), (21, 0, 6), (60, 0, 0)])], true);
        assert_eq!(
            lines(&metrics),
            [
                "denied_total{capability=\"60\",container=\"c1\",name=\"web\"} 0",
                "denied_total{capability=\"CAP_CHOWN\",container=\"c1\",name=\"web\"} 0",
                "denied_total{capability=\"CAP_SYS_ADMIN\",container=\"c1\",name=\"web\"} 6",
                "used{capability=\"60\",container=\"c1\",name=\"web\"} 0",
                "used{capability=\"CAP_CHOWN\",container=\"c1\",name=\"web\"} 1",
                "used{capability=\"CAP_SYS_ADMIN\",container=\"c1\",name=\"web\"} 0",
            ]
        );
    }

    #[test]
    fn without_the_options_nothing_is_taken_for_a_use_or_a_denial() {
        let (metrics, mut series) = (Metrics::new(), CapabilitySeries::default());
        series.show(&metrics, &[container("c1", "", &[(21, 5, 4)])], false);
        assert_eq!(
            lines(&metrics),
            [
                "unclassified_total{capability=\"CAP_SYS_ADMIN\",container=\"c1\",name=\"\",result=\"denied\"} 4",
                "unclassified_total{capability=\"CAP_SYS_ADMIN\",container=\"c1\",name=\"\",result=\"granted\"} 5",
            ]
        );
        series.show(&metrics, &[], false);
        assert_eq!(lines(&metrics), [""; 0]);
    }

    #[test]
    fn series_go_with_their_containers_and_change_with_their_names() {
        let (metrics, mut series) = (Metrics::new(), CapabilitySeries::default());
        series.show(
            &metrics,
            &[container("c1", "", &[(0, 1, 9)]), container("c2", "db", &[(0, 1, 0)])],
            true,
        );
        series.show(&metrics, &[container("c1", "late", &[(0, 1, 9)])], true);
        assert_eq!(
            lines(&metrics),
            [
                "denied_total{capability=\"CAP_CHOWN\",container=\"c1\",name=\"late\"} 9",
                "used{capability=\"CAP_CHOWN\",container=\"c1\",name=\"late\"} 1",
            ]
        );
    }

    #[test]
    fn there_is_a_ceiling() {
        let (metrics, mut series) = (Metrics::new(), CapabilitySeries::default());
        let many: Vec<_> = (0..MOST_CONTAINERS + 5)
            .map(|n| container(&format!("c{n}"), &"n".repeat(500), &[(0, 1, 0)]))
            .collect();
        series.show(&metrics, &many, true);
        let shown = lines(&metrics);
        assert_eq!(shown.len(), 2 * MOST_CONTAINERS);
        assert!(shown.iter().all(|line| line.len() < 250));
        // One goes, the next one comes.
        series.show(&metrics, &many[1..], true);
        assert!(lines(&metrics).iter().any(|line| line.contains(&format!("\"c{MOST_CONTAINERS}\""))));
    }
}
