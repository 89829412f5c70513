//! Metrics. Every family stands in a table, from which it is exposed and docs/metrics.md is made: the agent's own here, those that
//! belong to containers in `apparmor`, `calls`, `capabilities` and `resources`.
//!
//! Label values come from closed lists (kinds, reasons, rules, sinks, hooks), so that no attacker can make series. Those of
//! containers go with them, and there is a ceiling (`containers`).

mod apparmor;
mod calls;
mod capabilities;
mod containers;
mod resources;
#[cfg(test)]
mod rules;
mod sinks;

use std::{sync::Arc, time::Duration};

use observer_common::{ALL_KINDS, ALL_LOSSES, KINDS, LOSSES};
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

pub use apparmor::AppArmorSeries;
pub use calls::CallSeries;
pub use capabilities::CapabilitySeries;
pub use resources::ResourceSeries;
pub(crate) use sinks::{DeliveryMetrics, DropReason, SinkMetrics, StoreMetrics};

use self::containers::Latest;
use super::process;
use crate::{
    detect::DEFINITIONS,
    limits::watch::Counts,
    model::{Runtime, Severity, resources::Resources},
    pipeline::WatchStatus,
};

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub name: &'static str,
    /// As in the exposition's TYPE line.
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

impl Family {
    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }
}

/// A kind of metric that the table can hold.
trait Instrument: Sized + Clone + prometheus::core::Collector + 'static {
    const KIND: &'static str;
    fn build(family: &Family) -> prometheus::Result<Self>;
}

macro_rules! instruments {
    ($($type:ty: $kind:literal, $family:ident => $build:expr;)+) => {
        $(impl Instrument for $type {
            const KIND: &'static str = $kind;
            fn build($family: &Family) -> prometheus::Result<Self> { $build }
        })+
    };
}

instruments! {
    IntCounter: "counter", family => IntCounter::with_opts(family.opts());
    IntCounterVec: "counter", family => IntCounterVec::new(family.opts(), family.labels);
    Counter: "counter", family => Counter::with_opts(family.opts());
    IntGauge: "gauge", family => IntGauge::with_opts(family.opts());
    IntGaugeVec: "gauge", family => IntGaugeVec::new(family.opts(), family.labels);
    Gauge: "gauge", family => Gauge::with_opts(family.opts());
    Histogram: "histogram", family =>
        Histogram::with_opts(HistogramOpts::from(family.opts()).buckets(LATENCY_BUCKETS.to_vec()));
}

/// From half a millisecond, below which nobody minds, to a second, which is a fault.
const LATENCY_BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

macro_rules! families {
    ($($field:ident: $type:ty = $name:literal, $labels:expr, $help:literal;)+) => {
        /// Every family that is not containers'.
        const FAMILIES: &[Family] = &[$(Family {
            name: $name,
            kind: <$type as Instrument>::KIND,
            labels: &$labels,
            help: $help,
        }),+];

        struct Families { $($field: $type,)+ }

        impl Families {
            fn register(registry: &Registry) -> prometheus::Result<Families> {
                $(let $field = <$type>::build(&Family {
                    name: $name,
                    kind: <$type as Instrument>::KIND,
                    labels: &$labels,
                    help: $help,
                })?;
                registry.register(Box::new($field.clone()))?;)+
                Ok(Families { $($field,)+ })
            }
        }
    };
}

families! {
    events: IntCounterVec = "observer_events_total", ["kind"],
        "Events that came from the kernel and were decoded, by kind.";
    lost: IntCounterVec = "observer_events_lost_total", ["reason"],
        "Events lost, by reason: ring_full and priority_ring_full (no room in the ring), nested (a program interrupted by another on its CPU), table_full (a mark in the kernel may be missing, or a check of a capability or a denial was not counted), decode (a frame, or a record of the audit log, that was not understood), skipped (a program that the kernel did not run because it was already running on that CPU), sink (an alert that standard output did not take in time), audit_log (records of the kernel's audit log that found no room) and unattributed (denials of AppArmor whose process was not known).";
    alerts: IntCounterVec = "observer_alerts_total", ["rule", "severity"],
        "Alerts given to the sinks, by rule and severity.";
    alerts_folded: IntCounterVec = "observer_alerts_folded_total", ["rule"],
        "Repeats that were folded into the count of a later line of the same alert, by rule.";
    containers: IntGaugeVec = "observer_containers", ["runtime"],
        "Containers that the agent knows and that still live, by runtime.";
    processes: IntGauge = "observer_processes", [],
        "Processes in the agent's table.";
    latency: Histogram = "observer_pipeline_latency_seconds", [],
        "Time from an event in the kernel to its alert being given to the sinks.";
    ring_bytes: IntGaugeVec = "observer_ring_bytes", ["ring"],
        "Size of a ring between the kernel and the agent.";
    ring_used_bytes: IntGaugeVec = "observer_ring_used_bytes", ["ring"],
        "Bytes of a ring that were read in one go, the most within the last second.";
    sink_alerts: IntCounterVec = "observer_sink_alerts_total", ["sink"],
        "Alerts that a sink wrote; for the socket, once for each subscriber.";
    sink_dropped: IntCounterVec = "observer_sink_dropped_total", ["sink", "reason"],
        "Alerts and events that a sink did not get, by reason: queue_full (its queue, or that of the store, took no more; for the socket, once for each subscriber), store_full and memory_full (the oldest, that it had not taken by then), rejected (its receiver refuses them for good), too_large, unreadable (damaged in the store), write_failed (standard output).";
    sink_retries: IntCounterVec = "observer_sink_retries_total", ["sink"],
        "Deliveries that failed and were to be repeated.";
    sink_backlog: IntGaugeVec = "observer_sink_backlog", ["sink"],
        "Alerts that wait for the sink, those included that its filter will pass over.";
    sink_up: IntGaugeVec = "observer_sink_up", ["sink"],
        "1 if the sink's last delivery went well, or none was tried yet; 0 while it fails.";
    exceptions: IntCounterVec = "observer_exceptions_total", ["exception"],
        "Alerts that were hidden by an exception of the configuration, by its name.";
    config_reloads: IntCounterVec = "observer_config_reloads_total", ["result"],
        "Times that the configuration was read again: taken, or refused (a mistake in it; the old one stays in use).";
    store_bytes: IntGauge = "observer_store_bytes", [],
        "Alerts in the store, in bytes; at most two fifths of store.max_bytes, because pages are not always full.";
    store_alerts: IntCounter = "observer_store_alerts_total", [],
        "Alerts that were written to the store, and are on the disk.";
    store_errors: IntCounter = "observer_store_errors_total", [],
        "Times that alerts could not be written to the store, or it could not be opened; they are in memory then.";
    store_damaged: IntCounter = "observer_store_damaged_total", [],
        "Times that the store was found damaged and made anew from what could be found in it.";
    container_series_dropped: IntGauge = "observer_container_series_dropped", [],
        "Living containers that have no series in the families observer_container_*, because there are more than metrics.max_containers, or because an older one has the same id.";
    limit_writers_known: IntGauge = "observer_limit_writers_known", [],
        "1 if the kernel tells who writes to containers' limits (fanotify), 0 if only that somebody did, or nothing.";
    watch_missed: IntCounterVec = "observer_resource_watch_missed_total", ["what"],
        "What the watcher of containers' resources did not hear or hand over: overflow (the kernel's queue of changed files was full, so all containers were read), write and sample (the pipeline did not take it in time), directory (one that could not be listened to).";
    feature_enabled: IntGaugeVec = "observer_feature_enabled", ["feature", "tier"],
        "1 if this tier serves the feature, 0 if a better one does or this kernel refuses it; all 0 means that the feature is off.";
    ready: IntGauge = "observer_ready", [],
        "1 when armed: the hooks are attached and the scan at start is done.";
    build_info: IntGaugeVec = "observer_build_info", ["version", "commit"],
        "Always 1; the labels say what runs.";
    cpu_seconds: Counter = "process_cpu_seconds_total", [],
        "User and system CPU time that the agent has spent.";
    open_fds: IntGauge = "process_open_fds", [],
        "File descriptors that the agent has open.";
    max_fds: IntGauge = "process_max_fds", [],
        "File descriptors that the agent may have open.";
    virtual_memory: IntGauge = "process_virtual_memory_bytes", [],
        "Virtual memory of the agent.";
    resident_memory: IntGauge = "process_resident_memory_bytes", [],
        "Resident memory of the agent.";
    start_time: Gauge = "process_start_time_seconds", [],
        "Start of the agent, in seconds of Unix time.";
    threads: IntGauge = "process_threads", [],
        "Threads of the agent.";
}

fn missed(counts: &Counts) -> [(&'static str, u64); 4] {
    [
        ("overflow", counts.overflows),
        ("write", counts.writes_dropped),
        ("sample", counts.samples_dropped),
        ("directory", counts.unheard),
    ]
}

/// Every family there is.
pub fn families() -> impl Iterator<Item = &'static Family> {
    let capabilities = capabilities::FAMILIES.iter().map(|it| &it.family);
    let calls = calls::FAMILIES.iter().map(|it| &it.family);
    let apparmor = apparmor::FAMILIES.iter().map(|it| &it.family);
    let resources = resources::FAMILIES.iter().map(|it| &it.family);
    FAMILIES.iter().chain(capabilities).chain(calls).chain(apparmor).chain(resources)
}

/// Why events are lost on this side of the rings.
const DECODE: &str = "decode";
const SKIPPED: &str = "skipped";
const SINK: &str = "sink";
const AUDIT_LOG: &str = "audit_log";
const UNATTRIBUTED: &str = "unattributed";

/// Every reason for a loss, the kernel side's first; all of them exist from the start.
pub fn loss_reasons() -> [&'static str; LOSSES + 5] {
    let mut reasons = [DECODE; LOSSES + 5];
    for (place, (_, name)) in reasons.iter_mut().zip(ALL_LOSSES) {
        *place = name;
    }
    reasons[LOSSES + 1] = SKIPPED;
    reasons[LOSSES + 2] = SINK;
    reasons[LOSSES + 3] = AUDIT_LOG;
    reasons[LOSSES + 4] = UNATTRIBUTED;
    reasons
}

/// The two ways from the kernel to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    Events,
    Priority,
}

impl Ring {
    pub fn name(self) -> &'static str {
        match self {
            Ring::Events => "events",
            Ring::Priority => "priority",
        }
    }
}

const RUNTIMES: [Runtime; 11] = [
    Runtime::Docker,
    Runtime::Containerd,
    Runtime::CriO,
    Runtime::Podman,
    Runtime::Runc,
    Runtime::Crun,
    Runtime::Buildkit,
    Runtime::Lxc,
    Runtime::SystemdNspawn,
    Runtime::Namespaces,
    Runtime::Unknown,
];

struct Inner {
    registry: Registry,
    families: Families,
    /// Looked up once: they are touched for every event.
    events: [(&'static str, IntCounter); KINDS - 1],
    lost: [(&'static str, IntCounter); LOSSES + 5],
    boot_time: Option<f64>,
    capabilities: Latest<capabilities::Checks>,
    calls: Latest<calls::Calls>,
    apparmor: Latest<apparmor::Accesses>,
    resources: Latest<Resources>,
}

/// All metrics of one agent; a clone is the same ones.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// All families, with every series that is known beforehand at zero: a rate needs the zero before the one.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let families = Families::register(&registry).expect("the table's names are valid and different");
        for definition in DEFINITIONS {
            families.alerts_folded.with_label_values(&[definition.id]);
            for severity in Severity::ALL.into_iter().filter(|it| *it <= definition.severity) {
                families.alerts.with_label_values(&[definition.id, severity.name()]);
            }
        }
        for result in [ReloadResult::Taken, ReloadResult::Refused] {
            families.config_reloads.with_label_values(&[result.name()]);
        }
        for runtime in RUNTIMES {
            families.containers.with_label_values(&[runtime.name()]);
        }
        for ring in [Ring::Events, Ring::Priority] {
            families.ring_bytes.with_label_values(&[ring.name()]);
            families.ring_used_bytes.with_label_values(&[ring.name()]);
        }
        for (what, _) in missed(&Counts::default()) {
            families.watch_missed.with_label_values(&[what]);
        }
        let commit = env!("OBSERVER_GIT_COMMIT");
        families.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), commit]).set(1);
        let events = ALL_KINDS.map(|kind| (kind.name(), families.events.with_label_values(&[kind.name()])));
        let lost = loss_reasons().map(|reason| (reason, families.lost.with_label_values(&[reason])));
        Metrics {
            inner: Arc::new(Inner {
                registry,
                families,
                events,
                lost,
                boot_time: process::boot_time(),
                capabilities: Latest::default(),
                calls: Latest::default(),
                apparmor: Latest::default(),
                resources: Latest::default(),
            }),
        }
    }

    /// An event was decoded. Takes a kind's name; what is none is not counted.
    pub fn event(&self, kind: &str) {
        self.events(kind, 1);
    }

    pub fn events(&self, kind: &str, count: u64) {
        if let Some((_, counter)) = self.inner.events.iter().find(|(name, _)| *name == kind) {
            counter.inc_by(count);
        }
    }

    /// Raises a reason's counter to the total that the kernel side has counted. A total that is lower than the
    /// last one changes nothing: the counter never falls.
    pub fn lost(&self, reason: &str, total: u64) {
        if let Some((_, counter)) = self.inner.lost.iter().find(|(name, _)| *name == reason) {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// The watcher of resources, as it says of itself.
    pub fn resource_watch(&self, status: &WatchStatus) {
        let families = &self.inner.families;
        families.limit_writers_known.set(status.sees_writers.into());
        for (what, total) in missed(&status.counts) {
            let counter = families.watch_missed.with_label_values(&[what]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    fn lose(&self, reason: &str, count: u64) {
        if let Some((_, counter)) = self.inner.lost.iter().find(|(name, _)| *name == reason) {
            counter.inc_by(count);
        }
    }

    /// Events lost so far, of all reasons.
    pub fn lost_total(&self) -> u64 {
        self.inner.lost.iter().map(|(_, counter)| counter.get()).sum()
    }

    /// An alert was given to the sinks.
    pub fn alert(&self, rule: &str, severity: Severity) {
        self.inner.families.alerts.with_label_values(&[rule, severity.name()]).inc();
    }

    /// A repeat was folded into an alert's count.
    pub fn alert_folded(&self, rule: &str) {
        self.alerts_folded(rule, 1);
    }

    pub fn alerts_folded(&self, rule: &str, count: u64) {
        self.inner.families.alerts_folded.with_label_values(&[rule]).inc_by(count);
    }

    /// Living containers by [`Runtime::name`]; what is not named has none.
    pub fn containers<'a>(&self, counts: impl IntoIterator<Item = (&'a str, usize)>) {
        let mut all = RUNTIMES.map(|runtime| (runtime.name(), 0));
        for (runtime, count) in counts {
            if let Some((_, place)) = all.iter_mut().find(|(it, _)| *it == runtime) {
                *place += count;
            }
        }
        for (runtime, count) in all {
            self.inner.families.containers.with_label_values(&[runtime]).set(count as i64);
        }
    }

    pub fn processes(&self, count: usize) {
        self.inner.families.processes.set(count as i64);
    }

    /// From an event's kernel time to its alert being given to the sinks.
    pub fn latency(&self, time: Duration) {
        self.inner.families.latency.observe(time.as_secs_f64());
    }

    pub fn ring_bytes(&self, ring: Ring, bytes: u64) {
        self.inner.families.ring_bytes.with_label_values(&[ring.name()]).set(bytes as i64);
    }

    pub fn ring_used_bytes(&self, ring: Ring, bytes: u64) {
        self.inner.families.ring_used_bytes.with_label_values(&[ring.name()]).set(bytes as i64);
    }

    /// Whether a tier of a feature serves it.
    pub fn feature(&self, name: &str, tier: &str, enabled: bool) {
        self.inner.families.feature_enabled.with_label_values(&[name, tier]).set(i64::from(enabled));
    }

    /// So many alerts were hidden by an exception.
    pub(crate) fn exception(&self, name: &str, count: u64) {
        self.inner.families.exceptions.with_label_values(&[name]).inc_by(count);
    }

    pub(crate) fn forget_exception(&self, name: &str) {
        // What was never there need not go.
        let _ = self.inner.families.exceptions.remove_label_values(&[name]);
    }

    pub(crate) fn config_reload(&self, result: ReloadResult) {
        self.inner.families.config_reloads.with_label_values(&[result.name()]).inc();
    }

    /// The exposition, in Prometheus' text format. Reads /proc/self.
    pub fn expose(&self, ready: bool) -> String {
        let families = &self.inner.families;
        families.ready.set(i64::from(ready));
        match process::read(self.inner.boot_time) {
            Ok(stats) => {
                families.cpu_seconds.inc_by((stats.cpu_seconds - families.cpu_seconds.get()).max(0.0));
                families.open_fds.set(clamped(stats.open_fds));
                families.max_fds.set(clamped(stats.max_fds));
                families.virtual_memory.set(clamped(stats.virtual_bytes));
                families.resident_memory.set(clamped(stats.resident_bytes));
                families.start_time.set(stats.start_seconds);
                families.threads.set(clamped(stats.threads));
            }
            Err(error) => super::log::debug!("cannot read /proc/self for the metrics", error),
        }
        let (capabilities, calls) = (self.inner.capabilities.get(), self.inner.calls.get());
        let (apparmor, resources) = (self.inner.apparmor.get(), self.inner.resources.get());
        // Not the sum: a container that several tables leave out is one.
        let dropped =
            capabilities.dropped().max(calls.dropped()).max(apparmor.dropped()).max(resources.dropped());
        families.container_series_dropped.set(clamped(dropped as u64));
        let of_containers = [
            capabilities.text(capabilities::FAMILIES),
            calls.text(calls::FAMILIES),
            apparmor.text(apparmor::FAMILIES),
            resources.text(resources::FAMILIES),
        ];
        let length: usize = of_containers.iter().map(|text| text.len()).sum();
        let mut text = String::with_capacity((16 << 10) + length);
        if let Err(error) = TextEncoder::new().encode_utf8(&self.inner.registry.gather(), &mut text) {
            super::log::warn!("cannot write the metrics", error);
        }
        text.extend(of_containers);
        text
    }
}

fn clamped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// How it went to read the configuration again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadResult {
    Taken,
    Refused,
}

impl ReloadResult {
    fn name(self) -> &'static str {
        match self {
            ReloadResult::Taken => "taken",
            ReloadResult::Refused => "refused",
        }
    }
}

#[cfg(test)]
mod tests;
