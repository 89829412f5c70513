//! The pids limit, as far as its counters tell, and growth.

use super::{SECOND_NS, State, apply, blank, rise};
use crate::{
    config::Thresholds,
    enrich::Finding,
    limits::{LimitAt, Sample, Strain, StrainKind},
};

/// Refused forks, which two tell of: the kernel side's events, at once and with the process, and the kernel's counter, which
/// misses none and comes with the next look.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Kernel time of the last that is known.
    pub(super) last_ns: Option<u64>,
    /// Those that events told of, and by how much the counter rose, since the container was first looked at.
    events: u64,
    counter: u64,
    /// How far the counter was ahead of the events at most.
    ahead: u64,
    /// `events` and `counter` when the condition began.
    began: (u64, u64),
}

impl Refusals {
    /// By an event.
    pub(super) fn told(&mut self, now_ns: u64, count: u64, is_firing: bool) {
        if !is_firing {
            self.began = (self.events, self.counter);
        }
        self.events = self.events.saturating_add(count);
        self.last_ns = self.last_ns.max(Some(now_ns));
    }

    /// The counter rose; true if by more than the events have told or are known not to tell.
    fn counted(&mut self, now_ns: u64, rise: u64, is_firing: bool) -> bool {
        let before = self.counter;
        self.counter = self.counter.saturating_add(rise);
        let ahead = self.counter.saturating_sub(self.events);
        let is_news = ahead > self.ahead;
        self.ahead = self.ahead.max(ahead);
        if is_news {
            if !is_firing {
                self.began = (self.events, before);
            }
            self.last_ns = self.last_ns.max(Some(now_ns));
        }
        is_news
    }

    /// Since the condition began.
    pub(super) fn in_all(&self) -> u64 {
        (self.events - self.began.0).max(self.counter - self.began.1)
    }
}

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

    // What the kernel side saw of the same refusals has been told; this is for what it did not see. Its end is a matter of
    // time: see `Engine::tick`.
    let counted = before.and_then(|before| before.resources.pids.as_ref()).and_then(|it| it.events_max);
    let refused = rise(counted, pids.events_max);
    let is_firing = state.is_firing(StrainKind::PidsAtLimit);
    if thresholds.pids.at_limit && state.refusals.counted(now, refused, is_firing) {
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
        let strain =
            Strain { at, usage: pids.current, hits: Some(refused), ..blank(StrainKind::PidsAtLimit, state) };
        findings.extend(apply(state, strain, true, now, 0, 0, key));
    }

    let growth = state.last_window.growth_per_second;
    let threshold = thresholds.pids.growth_per_second.on();
    let bad = growth.zip(threshold).is_some_and(|(growth, threshold)| growth >= threshold.0);
    let strain =
        Strain { usage: pids.current, growth_per_second: growth, ..blank(StrainKind::PidsGrowth, state) };
    findings.extend(apply(state, strain, bad, now, 0, resolve_ns, key));
}
