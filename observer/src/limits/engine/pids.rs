//! The pids limit, as far as its counters tell, and growth.

use super::{SECOND_NS, State, apply, blank, rise};
use crate::{
    config::Thresholds,
    enrich::Finding,
    limits::{LimitAt, Sample, Strain, StrainKind},
};

pub(super) fn pids(
    state: &mut State,
    before: Option<&Sample>,
    sample: &Sample,
    thresholds: &Thresholds,
    findings: &mut Vec<Finding>,
) {
    let Some(pids) = &sample.resources.pids else { return };
    let (key, now) = (sample.container, sample.time_ns);
    let resolve_ns = thresholds.resolve_seconds.saturating_mul(SECOND_NS);

    // What the kernel side saw of the same refusals has been told; this is for what it could not see. Its end is a matter
    // of time: see `Engine::tick`.
    let counted = before.and_then(|before| before.resources.pids.as_ref()).and_then(|it| it.events_max);
    let refused = rise(counted, pids.events_max);
    if refused > 0 && thresholds.pids.at_limit {
        let seen = state.conditions[StrainKind::PidsAtLimit as usize].is_firing();
        state.refused_ns = Some(state.refused_ns.unwrap_or(0).max(now));
        let above =
            pids.above.as_ref().filter(|above| above.current.is_some_and(|current| current >= above.max));
        let own =
            pids.max.filter(|max| above.is_none() || pids.current.is_some_and(|current| current >= *max));
        let at = match (own, above) {
            (Some(max), _) => {
                let effective = pids.effective_max.as_ref().filter(|effective| effective.max == max);
                Some(LimitAt {
                    limit: max,
                    hierarchy: effective.map_or(0, |effective| effective.hierarchy),
                    path: effective.map(|effective| effective.path.clone()),
                    own: true,
                })
            }
            (None, Some(above)) => Some(LimitAt {
                limit: above.max,
                hierarchy: above.hierarchy,
                path: Some(above.path.clone()),
                own: false,
            }),
            (None, None) => None,
        };
        let strain = Strain {
            at,
            usage: pids.current,
            // Those that events counted are not counted twice.
            hits: (!seen).then_some(refused),
            ..blank(StrainKind::PidsAtLimit, state)
        };
        findings.extend(apply(state, strain, true, now, 0, 0, key));
    }

    let growth = state.last_window.growth_per_second;
    let threshold = thresholds.pids.growth_per_second.on();
    let bad = growth.zip(threshold).is_some_and(|(growth, threshold)| growth >= threshold.0);
    let strain =
        Strain { usage: pids.current, growth_per_second: growth, ..blank(StrainKind::PidsGrowth, state) };
    findings.extend(apply(state, strain, bad, now, 0, resolve_ns, key));
}
