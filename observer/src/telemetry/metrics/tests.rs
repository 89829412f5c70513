use super::*;
use crate::pipeline::ContainerChecks;

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn show_a_container(metrics: &Metrics, classified: bool) {
    let checks = [ContainerChecks {
        id: "c".into(),
        name: String::new(),
        pod: String::new(),
        namespace: String::new(),
        since_ns: 0,
        checks: [(0, Default::default())].into(),
    }];
    CapabilitySeries::new(1).show(metrics, &checks, classified);
    CallSeries::new(1).show(metrics, &[calls::example("c")]);
    AppArmorSeries::new(1).show(metrics, &[apparmor::example("c")]);
    ResourceSeries::new(1).show(metrics, &[resources::example("c")]);
}

#[test]
fn every_family_of_the_table_is_exposed() {
    let metrics = Metrics::new();
    metrics.feature("processes", "tp_btf", true);
    show_a_container(&metrics, true);
    let classified = metrics.expose(true);
    show_a_container(&metrics, false);
    metrics.sink("stdout", true);
    metrics.delivery("siem");
    metrics.exception("e", 0);
    let text = metrics.expose(true);
    let mut heads = std::collections::BTreeSet::new();
    for family in families() {
        for head in [
            format!("# TYPE {} {}\n", family.name, family.kind),
            format!("# HELP {} {}\n", family.name, family.help),
        ] {
            assert!(text.contains(&head) || classified.contains(&head), "{head}");
            heads.insert(head);
        }
    }
    assert_eq!(heads.len(), 2 * families().count());
    let told = [&text, &classified].map(|text| text.lines().filter(|line| line.starts_with('#')));
    assert!(told.into_iter().flatten().all(|line| heads.contains(&format!("{line}\n"))));
    assert_eq!(value(&text, "observer_ready"), Some(1.0));
    assert!(value(&text, "process_resident_memory_bytes").is_some_and(|bytes| bytes > 100_000.0));
}

#[test]
fn known_series_start_at_zero() {
    let text = Metrics::new().expose(false);
    for reason in [
        "ring_full",
        "priority_ring_full",
        "nested",
        "table_full",
        "decode",
        "skipped",
        "sink",
        "audit_log",
        "unattributed",
    ] {
        assert_eq!(value(&text, &format!("observer_events_lost_total{{reason=\"{reason}\"}}")), Some(0.0));
    }
    assert_eq!(value(&text, "observer_events_total{kind=\"pivot_root\"}"), Some(0.0));
    assert_eq!(
        value(&text, "observer_alerts_total{rule=\"namespace.escape\",severity=\"critical\"}"),
        Some(0.0)
    );
    assert_eq!(value(&text, "observer_containers{runtime=\"docker\"}"), Some(0.0));
}

#[test]
fn a_total_only_ever_raises_its_counter() {
    let metrics = Metrics::new();
    for total in [3, 3, 2, 7] {
        metrics.lost("ring_full", total);
    }
    metrics.lost("no such reason", 9);
    metrics.lost("decode", 1);
    metrics.sink("stdout", true).dropped(DropReason::WriteFailed, 1);
    metrics.sink("socket", false).dropped(DropReason::QueueFull, 1);
    let text = metrics.expose(false);
    assert_eq!(value(&text, "observer_events_lost_total{reason=\"ring_full\"}"), Some(7.0));
    assert_eq!(value(&text, "observer_events_lost_total{reason=\"decode\"}"), Some(1.0));
    assert_eq!(value(&text, "observer_events_lost_total{reason=\"sink\"}"), Some(1.0));
    assert_eq!(value(&text, "observer_sink_dropped_total{reason=\"queue_full\",sink=\"socket\"}"), Some(1.0));
    assert_eq!(metrics.lost_total(), 9);
}

#[test]
fn each_kind_has_its_own_counter() {
    let metrics = Metrics::new();
    for (n, kind) in ALL_KINDS.into_iter().enumerate() {
        metrics.events(kind.name(), n as u64 + 1);
    }
    let text = metrics.expose(false);
    for (n, kind) in ALL_KINDS.into_iter().enumerate() {
        let series = format!("observer_events_total{{kind=\"{}\"}}", kind.name());
        assert_eq!(value(&text, &series), Some(n as f64 + 1.0), "{series}");
    }
}

#[test]
fn runtimes_without_containers_go_back_to_zero() {
    let metrics = Metrics::new();
    metrics.containers([("docker", 2), ("cri-o", 1), ("jail", 3)]);
    metrics.containers([("cri-o", 4)]);
    let text = metrics.expose(false);
    assert_eq!(value(&text, "observer_containers{runtime=\"docker\"}"), Some(0.0));
    assert_eq!(value(&text, "observer_containers{runtime=\"cri-o\"}"), Some(4.0));
}

/// A new runtime does not compile here until it is in [`RUNTIMES`], too.
#[test]
fn every_runtime_is_listed() {
    let place = |runtime| match runtime {
        Runtime::Docker => 0,
        Runtime::Containerd => 1,
        Runtime::CriO => 2,
        Runtime::Podman => 3,
        Runtime::Runc => 4,
        Runtime::Crun => 5,
        Runtime::Buildkit => 6,
        Runtime::Lxc => 7,
        Runtime::SystemdNspawn => 8,
        Runtime::Namespaces => 9,
        Runtime::Unknown => 10,
    };
    assert_eq!(RUNTIMES.map(place), std::array::from_fn(|n| n));
}

#[test]
fn promtool_finds_nothing_to_say() {
    let metrics = Metrics::new();
    metrics.feature("namespace_calls", "fentry", true);
    metrics.sink("stdout", true).written(1);
    metrics.latency(Duration::from_millis(2));
    for classified in [true, false] {
        show_a_container(&metrics, classified);
        let (fine, words) = rules::promtool(&["check", "metrics"], &metrics.expose(true));
        assert!(fine && words.is_empty(), "{words}");
    }
}
