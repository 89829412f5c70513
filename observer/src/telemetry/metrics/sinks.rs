//! What sinks and the store count.

use prometheus::{IntCounter, IntGauge};

use super::{Metrics, SINK, clamped};

impl Metrics {
    /// A sink's series, from zero.
    pub(crate) fn sink(&self, name: &str, counts_as_loss: bool) -> SinkMetrics {
        let families = &self.inner.families;
        SinkMetrics {
            alerts: families.sink_alerts.with_label_values(&[name]),
            dropped: DropReason::ALL
                .map(|reason| families.sink_dropped.with_label_values(&[name, reason.name()])),
            metrics: counts_as_loss.then(|| self.clone()),
        }
    }

    /// A delivering sink's series besides.
    pub(crate) fn delivery(&self, name: &str) -> DeliveryMetrics {
        let families = &self.inner.families;
        let up = families.sink_up.with_label_values(&[name]);
        up.set(1);
        DeliveryMetrics {
            sink: self.sink(name, false),
            retries: families.sink_retries.with_label_values(&[name]),
            backlog: families.sink_backlog.with_label_values(&[name]),
            up,
        }
    }

    /// A sink that is not configured any more has no series.
    pub(crate) fn forget_sink(&self, name: &str) {
        let families = &self.inner.families;
        // What was never there need not go.
        let _ = families.sink_alerts.remove_label_values(&[name]);
        let _ = families.sink_retries.remove_label_values(&[name]);
        let _ = families.sink_backlog.remove_label_values(&[name]);
        let _ = families.sink_up.remove_label_values(&[name]);
        for reason in DropReason::ALL {
            let _ = families.sink_dropped.remove_label_values(&[name, reason.name()]);
        }
    }

    pub(crate) fn store(&self) -> StoreMetrics {
        let families = &self.inner.families;
        StoreMetrics {
            bytes: families.store_bytes.clone(),
            alerts: families.store_alerts.clone(),
            errors: families.store_errors.clone(),
            damaged: families.store_damaged.clone(),
        }
    }
}

/// Why a sink does not get something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    QueueFull,
    StoreFull,
    MemoryFull,
    Rejected,
    TooLarge,
    Unreadable,
    WriteFailed,
}

impl DropReason {
    pub(crate) const ALL: [DropReason; 7] = [
        DropReason::QueueFull,
        DropReason::StoreFull,
        DropReason::MemoryFull,
        DropReason::Rejected,
        DropReason::TooLarge,
        DropReason::Unreadable,
        DropReason::WriteFailed,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            DropReason::QueueFull => "queue_full",
            DropReason::StoreFull => "store_full",
            DropReason::MemoryFull => "memory_full",
            DropReason::Rejected => "rejected",
            DropReason::TooLarge => "too_large",
            DropReason::Unreadable => "unreadable",
            DropReason::WriteFailed => "write_failed",
        }
    }
}

/// What a sink counts.
#[derive(Clone)]
pub(crate) struct SinkMetrics {
    alerts: IntCounter,
    dropped: [IntCounter; DropReason::ALL.len()],
    metrics: Option<Metrics>,
}

impl SinkMetrics {
    pub(crate) fn written(&self, alerts: u64) {
        self.alerts.inc_by(alerts);
    }

    pub(crate) fn dropped(&self, reason: DropReason, count: u64) {
        self.dropped[reason as usize].inc_by(count);
        if let Some(metrics) = &self.metrics {
            metrics.lose(SINK, count);
        }
    }
}

/// What a sink counts that takes from the store.
#[derive(Clone)]
pub(crate) struct DeliveryMetrics {
    pub(crate) sink: SinkMetrics,
    retries: IntCounter,
    backlog: IntGauge,
    up: IntGauge,
}

impl DeliveryMetrics {
    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    pub(crate) fn backlog(&self, alerts: u64) {
        self.backlog.set(clamped(alerts));
    }

    pub(crate) fn up(&self, well: bool) {
        self.up.set(i64::from(well));
    }
}

/// What the store counts.
#[derive(Clone)]
pub(crate) struct StoreMetrics {
    bytes: IntGauge,
    alerts: IntCounter,
    errors: IntCounter,
    damaged: IntCounter,
}

impl StoreMetrics {
    pub(crate) fn bytes(&self, bytes: u64) {
        self.bytes.set(clamped(bytes));
    }

    pub(crate) fn stored(&self, alerts: usize) {
        self.alerts.inc_by(alerts as u64);
    }

    pub(crate) fn failed(&self) {
        self.errors.inc();
    }

    pub(crate) fn damaged(&self) {
        self.damaged.inc();
    }
}
