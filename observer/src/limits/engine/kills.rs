//! The counter of OOM kills, held against the events of them.

use super::{
    State,
    memory::{events, own_limit},
};
use crate::{
    enrich::{Fact, Finding},
    limits::{OomKill, OomScope, Sample},
};

/// Of so many kills before the first look it is known when they were.
const EARLY: usize = 64;

/// An event told of a kill.
pub(super) fn told(state: &mut State, time_ns: u64) {
    state.killed += 1;
    if state.kills_base.is_none() && state.killed_early.len() < EARLY {
        state.killed_early.push(time_ns);
    }
}

/// Kills that the counter knows and the kernel's events did not tell of, at two looks one after the other: an event may be on
/// its way when the counter is read.
pub(super) fn kills(state: &mut State, sample: &Sample) -> Option<Finding> {
    let counter = events(sample.resources.memory.as_ref()?).2?;
    let Some(base) = state.kills_base else {
        // Those before the first look are history, whether they were seen or not. Others the counter did not have yet.
        state.kills_base = Some(counter);
        let early = std::mem::take(&mut state.killed_early);
        state.killed = early.iter().filter(|time_ns| **time_ns > sample.time_ns).count() as u64;
        return None;
    };
    if counter < base {
        state.kills_base = Some(counter);
        state.killed = 0;
        state.kills_ahead = 0;
        return None;
    }
    let ahead = (counter - base).saturating_sub(state.killed);
    let sure = ahead.min(state.kills_ahead);
    state.kills_ahead = ahead - sure;
    if sure == 0 {
        return None;
    }
    state.killed += sure;
    let memory = sample.resources.memory.as_ref()?;
    Some(Finding {
        time_ns: sample.time_ns,
        subject: None,
        container: Some(sample.container),
        fact: Fact::OomKill(OomKill {
            scope: OomScope::Unknown,
            at: own_limit(memory),
            usage_bytes: None,
            victim: None,
            others: Vec::new(),
            others_more: 0,
            counted: Some(sure),
        }),
        late: false,
    })
}
