//! The memory limit: met, exhausted, or near.

use super::{SECOND_NS, State, Strain, StrainKind, apply, blank, percent, rise};
use crate::{
    config::Thresholds,
    enrich::Finding,
    limits::{LimitAt, Sample},
    model::resources::Memory,
};

/// From this share of it on, a limit that was met is one that is being met: reclaim leaves a little room, and what is charged to
/// CPUs beforehand is in the usage already.
const FULL_PERCENT: u64 = 95;
/// Of a small limit reclaim leaves a larger share: two huge pages, for it frees whole folios, and one is to be charged next. Seen:
/// up to 2 MiB left of 32.
const FULL_BUT_BYTES: u64 = 4 << 20;
const FULL_SMALL_PERCENT: u64 = 75;
/// A container with less than this share of what a limit above it allows is not told that others fill it.
const PART_PERCENT: u64 = 10;
pub(super) fn memory(
    state: &mut State,
    before: Option<&Sample>,
    sample: &Sample,
    thresholds: &Thresholds,
    findings: &mut Vec<Finding>,
) {
    let Some(memory) = &sample.resources.memory else { return };
    let nothing = Memory::default();
    let before = before.and_then(|before| before.resources.memory.as_ref()).unwrap_or(&nothing);
    let (key, now) = (sample.container, sample.time_ns);
    let resolve_ns = thresholds.resolve_seconds.saturating_mul(SECOND_NS);
    let met = met(before, memory);

    let failing = is_failing(before, memory);
    let strain = Strain {
        at: met.as_ref().map(|met| met.at.clone()).or_else(|| own_limit(memory)),
        usage: met.as_ref().map(|met| met.usage).or(memory.usage_bytes),
        hits: met.as_ref().map(|met| met.hits),
        ..blank(StrainKind::MemoryFailing, state)
    };
    let bad = failing && thresholds.memory.at_limit;
    findings.extend(apply(state, strain.clone(), bad, now, 0, resolve_ns, key));

    let bad = met.is_some() && thresholds.memory.at_limit;
    let strain = Strain { kind: StrainKind::MemoryAtLimit, ..strain };
    findings.extend(apply(state, strain, bad, now, 0, resolve_ns, key));

    let limit = memory.effective_limit.as_ref();
    let share = limit.zip(memory.working_set_bytes).map(|(limit, used)| percent(used, limit.bytes));
    let threshold = thresholds.memory.near_percent.on();
    let at_limit = state.conditions[StrainKind::MemoryAtLimit as usize].is_firing();
    let bad = share.zip(threshold).is_some_and(|(share, threshold)| share >= threshold.0) && !at_limit;
    let strain = Strain {
        at: limit.map(|limit| LimitAt {
            limit: limit.bytes,
            hierarchy: limit.hierarchy,
            path: Some(limit.path.clone()),
            own: memory.limit_bytes == Some(limit.bytes),
        }),
        usage: memory.working_set_bytes,
        percent: share,
        ..blank(StrainKind::MemoryNear, state)
    };
    let onset_ns = thresholds.memory.near_seconds.saturating_mul(SECOND_NS);
    findings.extend(apply(state, strain, bad, now, onset_ns, resolve_ns, key));
}

/// A limit that was met since the look before, and is nearly used up now.
struct Met {
    at: LimitAt,
    usage: u64,
    hits: u64,
}

fn met(before: &Memory, memory: &Memory) -> Option<Met> {
    // The own one: v1 counts in failcnt, v2 in memory.events.
    let hits = rise(before.failcnt, memory.failcnt).max(rise(events(before).0, events(memory).0));
    if hits > 0
        && let (Some(at), Some(usage)) = (own_limit(memory), memory.usage_bytes)
        && is_full(usage, at.limit)
    {
        return Some(Met { at, usage, hits });
    }
    let above = memory.above.as_ref()?;
    let usage = above.usage_bytes?;
    let same = before.above.as_ref().filter(|it| it.path == above.path && it.hierarchy == above.hierarchy)?;
    let hits = rise(same.hits, above.hits);
    let has_a_part = percent(memory.usage_bytes.unwrap_or(0), above.limit_bytes) >= PART_PERCENT;
    (hits > 0 && is_full(usage, above.limit_bytes) && has_a_part).then(|| Met {
        at: LimitAt {
            limit: above.limit_bytes,
            hierarchy: above.hierarchy,
            path: Some(above.path.clone()),
            own: false,
        },
        usage,
        hits,
    })
}

fn is_full(usage: u64, limit: u64) -> bool {
    let share = percent(usage, limit);
    share >= FULL_PERCENT || share >= FULL_SMALL_PERCENT && limit.saturating_sub(usage) <= FULL_BUT_BYTES
}

/// The container's own limit; where it stands is where the kernel counts for it.
pub(super) fn own_limit(memory: &Memory) -> Option<LimitAt> {
    let limit = memory.limit_bytes?;
    let effective = memory.effective_limit.as_ref().filter(|effective| effective.bytes == limit);
    Some(LimitAt {
        limit,
        hierarchy: effective.map_or(0, |effective| effective.hierarchy),
        path: effective.map(|effective| effective.path.clone()),
        own: true,
    })
}

/// `max`, `oom`, `oom_kill` of memory.events.
pub(super) fn events(memory: &Memory) -> (Option<u64>, Option<u64>, Option<u64>) {
    memory.events.as_ref().map_or((None, None, None), |events| (events.max, events.oom, events.oom_kill))
}

/// Out of memory, and nobody was killed for it: allocations fail, or wait (v1 with oom_kill_disable).
fn is_failing(before: &Memory, memory: &Memory) -> bool {
    let ((_, oom_before, kill_before), (_, oom, kill)) = (events(before), events(memory));
    memory.under_oom == Some(true) || rise(oom_before, oom) > rise(kill_before, kill)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reclaim_leaves_room() {
        let mib = |mib: u64| mib << 20;
        assert!(is_full(mib(32), mib(32)) && is_full(mib(33), mib(32)), "all of it, and more than the limit");
        assert!(is_full(mib(30), mib(32)) && !is_full(mib(27), mib(32)));
        assert!(is_full(mib(973), mib(1024)) && !is_full(mib(972), mib(1024)), "95 %");
        assert!(is_full(mib(6), mib(8)) && !is_full(mib(5), mib(8)), "75 % of a small one");
        assert!(!is_full(0, mib(4)) && !is_full(mib(2), mib(4)));
    }
}
