//! When a target is read next, besides the poll.

use std::time::{Duration, Instant};

use super::files::Touch;

/// From an event to the read: `echo` truncates the file before it writes, runtimes write several limits in a row, and the
/// kernel tells of an OOM before it kills.
const SETTLE: Duration = Duration::from_millis(5);
/// Between two reads of one target.
pub(super) const GAP: Duration = Duration::from_millis(100);
/// The gap grows until here while the kernel keeps telling: a container that lives at its limit makes it do so a hundred
/// times a second, for as long as it runs.
const MAX_GAP: Duration = Duration::from_millis(1600);
/// From a read that v1's eventfd asked for to another one: it tells that memory has run out, not when the kill is done.
const FOLLOW_UP: Duration = Duration::from_millis(250);

/// One target's.
#[derive(Debug)]
pub(super) struct Due {
    last: Option<Instant>,
    /// To be read then.
    at: Option<Instant>,
    /// Because of a limit.
    limit: bool,
    /// Because of a notice.
    notice: bool,
    /// All limits are to be read.
    whole: bool,
    follow_up: bool,
    gap: Duration,
}

impl Due {
    /// A new target is read at once.
    pub(super) fn new(now: Instant) -> Self {
        Due {
            last: None,
            at: Some(now),
            limit: false,
            notice: false,
            whole: true,
            follow_up: false,
            gap: GAP,
        }
    }

    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    pub(super) fn is_at(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    /// A write to a limit waits for this read.
    pub(super) fn owes_limit(&self) -> bool {
        self.limit
    }

    pub(super) fn touch(&mut self, touch: Touch, now: Instant) {
        let gap = match touch {
            Touch::Limit => {
                (self.limit, self.whole) = (true, true);
                GAP
            }
            Touch::Notice => {
                self.notice = true;
                self.gap
            }
        };
        let settled = now + SETTLE;
        let at = self.last.map_or(settled, |last| settled.max(last + gap));
        self.at = Some(self.at.map_or(at, |other| other.min(at)));
    }

    /// As a notice, and to be read once more later.
    pub(super) fn touch_twice(&mut self, now: Instant) {
        self.touch(Touch::Notice, now);
        self.follow_up = true;
    }

    /// Whatever happened was not heard.
    pub(super) fn touch_unheard(&mut self, now: Instant) {
        self.touch(Touch::Notice, now);
        self.whole = true;
    }

    /// It is read now, for whatever reason. True if all limits are to be read.
    pub(super) fn read(&mut self, now: Instant) -> bool {
        if self.notice {
            let again = self.last.is_some_and(|last| now < last + self.gap * 2);
            self.gap = if again { (self.gap * 2).min(MAX_GAP) } else { GAP };
        }
        self.at = std::mem::take(&mut self.follow_up).then_some(now + FOLLOW_UP);
        self.last = Some(now);
        (self.limit, self.notice) = (false, false);
        std::mem::take(&mut self.whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// When a target is read whose last read is `start`, with these touches: (ms, what).
    fn reads(touches: &[(u64, Touch)], until: u64) -> Vec<u64> {
        let start = Instant::now();
        let mut due = Due::new(start);
        due.read(start);
        let mut read = Vec::new();
        for now in 0..until {
            touches
                .iter()
                .filter(|(at, _)| *at == now)
                .for_each(|(_, touch)| due.touch(*touch, start + ms(now)));
            if due.is_at(start + ms(now)) {
                due.read(start + ms(now));
                read.push(now);
            }
        }
        read
    }

    #[test]
    fn a_new_target_is_read_at_once_and_then_not_by_itself() {
        let now = Instant::now();
        let mut due = Due::new(now);
        assert!(due.is_at(now));
        assert!(due.read(now), "whole");
        assert_eq!(due.at(), None);
        assert!(!due.read(now), "a poll");
    }

    #[test]
    fn limits_are_read_after_they_may_have_changed() {
        let now = Instant::now();
        let mut due = Due::new(now);
        due.read(now);
        due.touch(Touch::Notice, now);
        assert!(!due.read(now + GAP));
        due.touch(Touch::Limit, now + GAP);
        due.touch(Touch::Notice, now + GAP);
        assert!(due.owes_limit() && due.read(now + GAP * 2) && !due.owes_limit());
        due.touch_unheard(now + GAP * 2);
        assert!(!due.owes_limit() && due.read(now + GAP * 3));
    }

    #[test]
    fn one_read_follows_whatever_was_written() {
        use Touch::{Limit, Notice};
        assert_eq!(reads(&[(500, Limit)], 1000), [505]);
        // Written in a row: one read.
        assert_eq!(reads(&[(500, Limit), (502, Limit), (505, Limit)], 1000), [505]);
        // What comes after the read is not lost, and waits for the gap.
        assert_eq!(reads(&[(500, Limit), (506, Limit), (590, Limit)], 1000), [505, 605]);
        assert_eq!(reads(&[(50, Limit)], 1000), [100]);
        assert_eq!(reads(&[(500, Notice), (510, Limit)], 1000), [505, 605]);
    }

    #[test]
    fn a_flood_of_notices_is_read_less_and_less_often_and_a_limit_is_not() {
        use Touch::{Limit, Notice};
        let mut flood: Vec<_> = (1000..9000).step_by(10).map(|at| (at, Notice)).collect();
        let read = reads(&flood, 12_000);
        assert_eq!(read[..6], [1005, 1105, 1305, 1705, 2505, 4105]);
        assert_eq!(read.len(), 10, "{read:?}");
        // The last one is after the last notice.
        assert!(read[9] >= 8990, "{read:?}");
        flood.push((2600, Limit));
        assert_eq!(reads(&flood, 12_000)[5], 2605);
        // After a rest all is as before.
        flood.push((11_900, Notice));
        assert!(reads(&flood, 12_000).ends_with(&[11_905]));
    }

    #[test]
    fn a_second_look_where_one_is_asked_for() {
        let now = Instant::now();
        let mut due = Due::new(now);
        due.read(now);
        due.touch_twice(now + ms(1000));
        assert!(due.is_at(now + ms(1005)) && !due.is_at(now + ms(1004)));
        due.read(now + ms(1005));
        assert_eq!(due.at(), Some(now + ms(1255)));
        due.read(now + ms(1255));
        assert_eq!(due.at(), None);
    }
}
