//! The CPU quota: it runs out in too many periods.

use super::{SECOND_NS, State, apply, blank};
use crate::{
    config::Thresholds,
    enrich::Finding,
    limits::{Quota, Sample, Strain, StrainKind},
};

pub(super) fn cpu(state: &mut State, sample: &Sample, thresholds: &Thresholds, findings: &mut Vec<Finding>) {
    let share = state.last_window.throttled_percent;
    let threshold = thresholds.cpu.throttled_percent.on();
    let bad = share.zip(threshold).is_some_and(|(share, threshold)| share >= threshold.0);
    let cpu = sample.resources.cpu.as_ref();
    let strain = Strain {
        percent: share,
        cpu: cpu.and_then(|cpu| {
            Some(Quota {
                quota_us: cpu.quota_us?,
                period_us: cpu.period_us?,
                throttled_us: state.last_window.throttled_us.unwrap_or(0),
            })
        }),
        ..blank(StrainKind::CpuThrottled, state)
    };
    let onset_ns = thresholds.cpu.throttled_seconds.saturating_mul(SECOND_NS);
    let resolve_ns = thresholds.resolve_seconds.saturating_mul(SECOND_NS);
    findings.extend(apply(state, strain, bad, sample.time_ns, onset_ns, resolve_ns, sample.container));
}
