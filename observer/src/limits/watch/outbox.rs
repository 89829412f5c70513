//! What waits for the pipeline to take it. It is bounded whatever the pipeline does.

use std::collections::HashMap;

use crate::limits::{LimitWrite, Round, Sample};

/// Samples of so many containers wait; more than any node has.
pub(super) const MAX_SAMPLES: usize = 8192;
/// Writes that wait.
pub(super) const MAX_WRITES: usize = 256;

/// What found no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) samples: u64,
    pub(super) writes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Round,
}

impl Outbox {
    /// Newer samples of a container take the place of older ones: what is told is how things are now. (A whole one stays beside
    /// one that is not: it has limits that the other one does not speak of.) Writes are told one by one, as many as there is
    /// room for.
    pub(super) fn push(&mut self, round: Round) -> Dropped {
        let mut dropped = Dropped::default();
        let newer: HashMap<_, _> =
            round.samples.iter().map(|sample| (sample.container, sample.whole)).collect();
        let samples: &mut Vec<Sample> = &mut self.waiting.samples;
        samples.retain(|sample| newer.get(&sample.container).is_none_or(|whole| sample.whole && !whole));
        samples.extend(round.samples);
        if let Some(excess) = samples.len().checked_sub(MAX_SAMPLES).filter(|excess| *excess > 0) {
            samples.drain(..excess);
            dropped.samples = excess as u64;
        }
        dropped.writes = extend(&mut self.waiting.writes, round.writes);
        dropped
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.samples.is_empty() && self.waiting.writes.is_empty()
    }

    pub(super) fn take(&mut self) -> Option<Round> {
        (!self.is_empty()).then(|| std::mem::take(&mut self.waiting))
    }
}

/// Adds as many as there is room for; the oldest ones tell who began. Returns how many were too many.
pub(super) fn extend(writes: &mut Vec<LimitWrite>, more: Vec<LimitWrite>) -> u64 {
    let room = MAX_WRITES.saturating_sub(writes.len());
    let excess = more.len().saturating_sub(room);
    writes.extend(more.into_iter().take(room));
    excess as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ContainerKey, resources::Resources};

    fn samples(of: impl IntoIterator<Item = (u64, u64)>) -> Round {
        let sample = |(container, time_ns)| Sample {
            container: ContainerKey(container),
            time_ns,
            whole: false,
            resources: Resources::default(),
        };
        Round { samples: of.into_iter().map(sample).collect(), writes: Vec::new() }
    }

    fn write(time_ns: u64) -> LimitWrite {
        LimitWrite { time_ns, pid: None, hierarchy: 0, path: "/a".into(), file: "pids.max".into() }
    }

    fn kept(round: &Round) -> Vec<(u64, u64)> {
        round.samples.iter().map(|sample| (sample.container.0, sample.time_ns)).collect()
    }

    #[test]
    fn newer_samples_take_the_place_of_older_ones() {
        let mut outbox = Outbox::default();
        assert!(outbox.is_empty() && outbox.take().is_none());
        assert_eq!(outbox.push(samples([(1, 10), (2, 11), (3, 12)])), Dropped::default());
        assert_eq!(outbox.push(samples([(2, 20)])), Dropped::default());
        assert_eq!(kept(&outbox.take().expect("a round")), [(1, 10), (3, 12), (2, 20)]);
        assert!(outbox.take().is_none());
    }

    #[test]
    fn a_whole_sample_stays_until_there_is_another_one() {
        let mut outbox = Outbox::default();
        let push = |outbox: &mut Outbox, time_ns, whole| {
            let mut round = samples([(1, time_ns)]);
            round.samples[0].whole = whole;
            outbox.push(round);
        };
        for (time_ns, whole) in [(1, false), (2, true), (3, false), (4, false)] {
            push(&mut outbox, time_ns, whole);
        }
        assert_eq!(kept(&outbox.waiting), [(1, 2), (1, 4)]);
        push(&mut outbox, 5, true);
        assert_eq!(kept(&outbox.take().expect("a round")), [(1, 5)]);
    }

    #[test]
    fn a_pipeline_that_does_not_take_costs_no_more_than_this() {
        let mut outbox = Outbox::default();
        for time in 0..10 {
            assert_eq!(outbox.push(samples((0..500).map(|key| (key, time)))), Dropped::default());
        }
        let excess = outbox.push(samples((500..MAX_SAMPLES as u64 + 7).map(|key| (key, 10))));
        assert_eq!(excess, Dropped { samples: 7, writes: 0 });
        let many = (0..MAX_WRITES as u64 + 5).map(write).collect();
        assert_eq!(outbox.push(Round { samples: Vec::new(), writes: many }).writes, 5);
        assert_eq!(outbox.push(Round { samples: Vec::new(), writes: vec![write(999)] }).writes, 1);
        let round = outbox.take().expect("a round");
        assert_eq!((round.samples.len(), round.writes.len()), (MAX_SAMPLES, MAX_WRITES));
        assert_eq!(kept(&round)[0], (7, 9), "the oldest went");
        assert_eq!((round.writes[0].time_ns, round.writes[255].time_ns), (0, 255));
    }
}
