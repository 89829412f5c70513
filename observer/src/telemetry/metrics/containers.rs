//! Families whose series belong to containers: which containers have them, what their labels are, and their text.
//!
//! They are no vectors of the `prometheus` crate, for three reasons. A vector finds a series by a hash of its label values put one
//! after the other with nothing between them, so a container `we` named `b` would share the series of a container `web` without
//! a name; and names are whatever a runtime was told. Its counters can only be raised, so that one that follows the kernel's
//! would pass through zero where a scrape may see it. And it is locked while a scrape copies it: the pipeline must not wait.
//! Here all values are one snapshot, which is replaced whole. It becomes text at the first scrape that asks for it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use prometheus::{
    TextEncoder,
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

use super::Family;

/// Characters of a name that are shown: names are whatever the runtime was told.
const MOST_NAME: usize = 128;
/// Characters of an id that are shown: one of 64 digits, or a cgroup's path, which can be as long as its maker liked.
const MOST_ID: usize = 256;

/// The label names of a container's series, with those of one family after them.
macro_rules! container_labels {
    ($($own:literal),*) => { &["container", "name", "pod", "namespace" $(, $own)*] };
}
pub(super) use container_labels;

/// Something that is shown of a container: whose it is.
pub(super) trait OfContainer {
    /// The values of `container`, `name`, `pod`, `namespace`; empty where there is none.
    fn labels(&self) -> [&str; 4];
}

/// Takes one series: the values of the family's own labels, and its value.
pub(super) type Tell<'a> = dyn FnMut(&[&str], f64) + 'a;

/// How a family's series follow from what is known of one container.
#[derive(Debug)]
pub(super) enum Read<T: 'static> {
    /// One series without labels of its own, or none.
    One(fn(&T) -> Option<f64>),
    Many(fn(&T, &mut Tell<'_>)),
}

/// A family, and where its values come from.
#[derive(Debug)]
pub(super) struct ContainerFamily<T: 'static> {
    pub family: Family,
    pub read: Read<T>,
}

/// A container that has series.
#[derive(Debug)]
struct Row<T> {
    /// Name, pod, namespace.
    labels: [String; 3],
    value: T,
}

/// What is shown until the next snapshot.
#[derive(Debug)]
pub(super) struct Snapshot<T> {
    /// By container id.
    rows: BTreeMap<String, Row<T>>,
    /// Containers that are not shown.
    dropped: usize,
    /// Made once: anyone on the node may ask as often as they like.
    text: OnceLock<String>,
}

impl<T> Snapshot<T> {
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// The exposition of these families, without those that have no series.
    pub fn text(&self, families: &[ContainerFamily<T>]) -> &str {
        self.text.get_or_init(|| {
            let mut text = String::new();
            // One at a time, because their structures are several times as large as their text.
            for family in families {
                let family = self.family(family);
                if family.get_metric().is_empty() {
                    continue;
                }
                if let Err(error) = TextEncoder::new().encode_utf8(&[family], &mut text) {
                    super::super::log::warn!("cannot write the containers' metrics", error);
                }
            }
            text
        })
    }

    fn family(&self, of: &ContainerFamily<T>) -> MetricFamily {
        let kind = if of.family.kind == "counter" { MetricType::COUNTER } else { MetricType::GAUGE };
        let mut series = Vec::new();
        for (id, row) in &self.rows {
            let [name, pod, namespace] = row.labels.each_ref().map(String::as_str);
            let of_container = [id.as_str(), name, pod, namespace];
            let mut tell = |own: &[&str], value: f64| {
                let values = of_container.iter().chain(own);
                let pairs = of.family.labels.iter().zip(values).map(|(label, value)| {
                    let mut pair = LabelPair::default();
                    pair.set_name((*label).to_owned());
                    pair.set_value((*value).to_owned());
                    pair
                });
                let mut metric = Metric::from_label(pairs.collect());
                if kind == MetricType::COUNTER {
                    let mut counter = Counter::default();
                    counter.set_value(value);
                    metric.set_counter(counter);
                } else {
                    let mut gauge = Gauge::default();
                    gauge.set_value(value);
                    metric.set_gauge(gauge);
                }
                series.push(metric);
            };
            match of.read {
                Read::One(read) => {
                    if let Some(value) = read(&row.value) {
                        tell(&[], value);
                    }
                }
                Read::Many(read) => read(&row.value, &mut tell),
            }
        }
        let mut family = MetricFamily::default();
        family.set_name(of.family.name.to_owned());
        family.set_help(of.family.help.to_owned());
        family.set_field_type(kind);
        family.set_metric(series);
        family
    }
}

/// The snapshot that is shown. Its lock is held for as long as it takes to copy a pointer.
#[derive(Debug)]
pub(super) struct Latest<T>(Mutex<Arc<Snapshot<T>>>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        let none = Snapshot { rows: BTreeMap::new(), dropped: 0, text: OnceLock::new() };
        Latest(Mutex::new(Arc::new(none)))
    }
}

impl<T> Latest<T> {
    pub fn get(&self) -> Arc<Snapshot<T>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows these containers and no others, at most `ceiling` of them. Who has series keeps them; new ones come in, in the
    /// order given, where there is room. Of several with one id the first is shown: two series with the same labels would cost
    /// the whole scrape. `value` is given what was shown of the container before.
    pub fn show<C: OfContainer>(
        &self,
        ceiling: usize,
        containers: &[C],
        value: impl Fn(&C, Option<&T>) -> T,
    ) {
        let before = self.get();
        let ids: Vec<String> =
            containers.iter().map(|container| bounded(container.labels()[0], MOST_ID)).collect();
        let staying: HashSet<&String> = ids.iter().filter(|id| before.rows.contains_key(*id)).collect();
        let mut room = ceiling.saturating_sub(staying.len());
        let mut rows = BTreeMap::new();
        let mut dropped = 0;
        for (container, id) in containers.iter().zip(&ids) {
            let old = before.rows.get(id);
            if rows.contains_key(id) || (old.is_none() && room == 0) {
                dropped += 1;
                continue;
            }
            if old.is_none() {
                room -= 1;
            }
            let [_, name, pod, namespace] = container.labels();
            let labels = [name, pod, namespace].map(|text| bounded(text, MOST_NAME));
            rows.insert(id.clone(), Row { labels, value: value(container, old.map(|row| &row.value)) });
        }
        let next = Arc::new(Snapshot { rows, dropped, text: OnceLock::new() });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }
}

fn bounded(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing<'a>([&'a str; 4], f64);

    impl OfContainer for Thing<'_> {
        fn labels(&self) -> [&str; 4] {
            self.0
        }
    }

    const FAMILIES: &[ContainerFamily<f64>] = &[
        ContainerFamily {
            family: Family { name: "a", kind: "gauge", labels: container_labels!(), help: "A." },
            read: Read::One(|value| (*value >= 0.0).then_some(*value)),
        },
        ContainerFamily {
            family: Family { name: "b_total", kind: "counter", labels: container_labels!("way"), help: "B." },
            read: Read::Many(|value, tell| {
                if *value > 9.0 {
                    tell(&["in"], *value);
                    tell(&["out"], -value);
                }
            }),
        },
    ];

    /// What is shown of things, one after the other, where one more raises what was shown before.
    fn shown(latest: &Latest<f64>, ceiling: usize, things: &[Thing<'_>]) -> (Vec<String>, usize) {
        latest.show(ceiling, things, |thing, before| thing.1 + before.copied().unwrap_or_default());
        let snapshot = latest.get();
        (snapshot.text(FAMILIES).lines().map(str::to_owned).collect(), snapshot.dropped())
    }

    fn ids(lines: &[String]) -> Vec<&str> {
        lines.iter().filter_map(|line| line.strip_prefix("a{container=\"")?.split('"').next()).collect()
    }

    #[test]
    fn a_family_has_the_series_that_there_are() {
        let latest = Latest::default();
        assert_eq!(shown(&latest, 9, &[]).0, [""; 0]);
        let things = [Thing(["c1", "web", "p", "default"], 10.5), Thing(["c0", "", "", ""], -1.0)];
        assert_eq!(
            shown(&latest, 9, &things).0,
            [
                "# HELP a A.",
                "# TYPE a gauge",
                "a{container=\"c1\",name=\"web\",pod=\"p\",namespace=\"default\"} 10.5",
                "# HELP b_total B.",
                "# TYPE b_total counter",
                "b_total{container=\"c1\",name=\"web\",pod=\"p\",namespace=\"default\",way=\"in\"} 10.5",
                "b_total{container=\"c1\",name=\"web\",pod=\"p\",namespace=\"default\",way=\"out\"} -10.5",
            ]
        );
    }

    #[test]
    fn the_value_before_is_known_under_another_name_and_gone_with_the_container() {
        let latest = Latest::default();
        shown(&latest, 9, &[Thing(["c", "", "", ""], 1.0)]);
        let (lines, _) = shown(&latest, 9, &[Thing(["c", "late", "", ""], 2.0)]);
        assert_eq!(lines[2..], ["a{container=\"c\",name=\"late\",pod=\"\",namespace=\"\"} 3"]);
        shown(&latest, 9, &[]);
        let (lines, _) = shown(&latest, 9, &[Thing(["c", "", "", ""], 2.0)]);
        assert_eq!(lines[2..], ["a{container=\"c\",name=\"\",pod=\"\",namespace=\"\"} 2"]);
    }

    #[test]
    fn who_is_shown_stays_and_who_waits_comes_in_when_there_is_room() {
        fn things<'a>(ids: &[&'a str]) -> Vec<Thing<'a>> {
            ids.iter().map(|id| Thing([id, "", "", ""], 0.0)).collect()
        }
        let latest = Latest::default();
        let rounds: [(&[&str], &[&str], usize); 6] = [
            (&["c", "d"], &["c", "d"], 0),
            (&["a", "b", "c", "d"], &["c", "d"], 2),
            (&["a", "b", "d"], &["a", "d"], 1),
            (&["b", "a"], &["a", "b"], 0),
            // Of three with one id, one.
            (&["a", "a", "a", "z"], &["a", "z"], 2),
            (&[], &[], 0),
        ];
        for (living, expected, dropped) in rounds {
            let (lines, told) = shown(&latest, 2, &things(living));
            assert_eq!((ids(&lines), told), (expected.to_vec(), dropped), "{living:?}");
        }
        let (lines, told) = shown(&latest, 0, &things(&["a", "b"]));
        assert_eq!((lines.len(), told), (0, 2));
    }

    /// In a vector of the crate these two would be one series.
    #[test]
    fn labels_that_read_the_same_are_not_the_same() {
        let things = [Thing(["web", "", "", ""], 1.0), Thing(["we", "b", "", ""], 2.0)];
        let (lines, _) = shown(&Latest::default(), 9, &things);
        assert_eq!(
            lines[2..],
            [
                "a{container=\"we\",name=\"b\",pod=\"\",namespace=\"\"} 2",
                "a{container=\"web\",name=\"\",pod=\"\",namespace=\"\"} 1",
            ]
        );
    }

    #[test]
    fn hostile_names_are_bounded_and_stay_in_their_quotes() {
        let long = "ä".repeat(500);
        let things = [Thing([&long, &long, &long, &long], 1.0), Thing(["c", "\"} 7\n# \\", "", ""], 2.0)];
        let (lines, _) = shown(&Latest::default(), 9, &things);
        assert_eq!(lines[2], "a{container=\"c\",name=\"\\\"} 7\\n# \\\\\",pod=\"\",namespace=\"\"} 2");
        assert_eq!(lines[3].matches('ä').count(), MOST_ID + 3 * MOST_NAME);
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn the_text_is_made_once_for_each_snapshot() {
        let latest = Latest::default();
        shown(&latest, 9, &[Thing(["c", "", "", ""], 1.0)]);
        let snapshot = latest.get();
        assert!(std::ptr::eq(snapshot.text(FAMILIES), latest.get().text(FAMILIES)));
        shown(&latest, 9, &[Thing(["c", "", "", ""], 1.0)]);
        assert_ne!(snapshot.text(FAMILIES), latest.get().text(FAMILIES));
    }
}
