//! What has to be measured over a while.

use super::{SECOND_NS, State, percent, rise};
use crate::limits::Sample;

/// Shares of periods and growth are only told of a time as long as this: an event makes the watcher look twice within 100 ms,
/// in which one period is all there is.
const WINDOW_NS: u64 = SECOND_NS * 9 / 10;
/// Where what is measured over a while began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    since_ns: u64,
    periods: Option<u64>,
    throttled: Option<u64>,
    throttled_us: Option<u64>,
    tasks: Option<u64>,
}

/// What the last whole window said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    pub(super) throttled_percent: Option<u64>,
    pub(super) throttled_us: Option<u64>,
    pub(super) growth_per_second: Option<u64>,
}

/// Closes the window if it is long enough.
pub(super) fn measure(state: &mut State, sample: &Sample) {
    let resources = &sample.resources;
    let cpu = resources.cpu.as_ref().filter(|cpu| cpu.quota_us.is_some());
    let now = Window {
        since_ns: sample.time_ns,
        periods: cpu.and_then(|cpu| cpu.nr_periods),
        throttled: cpu.and_then(|cpu| cpu.nr_throttled),
        throttled_us: cpu.and_then(|cpu| cpu.throttled_us),
        tasks: resources.pids.as_ref().and_then(|pids| pids.current),
    };
    let Some(then) = state.window else {
        state.window = Some(now);
        return;
    };
    let elapsed_ns = now.since_ns.saturating_sub(then.since_ns);
    if elapsed_ns < WINDOW_NS {
        return;
    }
    let periods = rise(then.periods, now.periods);
    state.last_window = Measured {
        // Nothing ran, so nothing was held back.
        throttled_percent: then.periods.zip(now.periods).map(|_| {
            if periods == 0 { 0 } else { percent(rise(then.throttled, now.throttled), periods).min(100) }
        }),
        throttled_us: Some(rise(then.throttled_us, now.throttled_us)),
        growth_per_second: then.tasks.zip(now.tasks).map(|(then, now)| {
            (u128::from(now.saturating_sub(then)) * u128::from(SECOND_NS) / u128::from(elapsed_ns)) as u64
        }),
    };
    state.window = Some(now);
}
