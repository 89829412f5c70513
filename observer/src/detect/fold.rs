//! Repeats are counted instead of repeated: the first alert goes out at once, then at most one line a minute says
//! how often it has been seen. Nothing is dropped silently: the count is in the next line, and in the metrics.

use std::collections::HashMap;

use crate::model::fnv1a;

/// At most one line of the same kind in this time.
const INTERVAL_NS: u64 = 60_000_000_000;
/// Not seen for so long: the next one is news again.
const FORGET_NS: u64 = 600_000_000_000;
/// More different alerts than this at once are not folded but sent.
const MOST: usize = 16_384;

/// What became of an alert.
#[derive(Debug, PartialEq, Eq)]
pub enum Folded {
    /// Send it. `incident` is `None` for the first of its kind: its own id becomes the incident.
    Send { incident: Option<String>, count: u64 },
    /// Seen within the last minute: counted, and part of a later line.
    Counted,
}

#[derive(Debug)]
struct Entry<T> {
    incident: String,
    count: u64,
    sent_count: u64,
    sent_ns: u64,
    seen_ns: u64,
    container: u64,
    /// The newest alert that was only counted, with its kernel time.
    waiting: Option<(u64, T)>,
    /// A condition that has begun and not ended: not forgotten, however long it lasts.
    open: bool,
}

/// The counting. `T` is what is sent late.
#[derive(Debug)]
pub struct Fold<T> {
    entries: HashMap<u64, Entry<T>>,
    /// Entries by container, while they live.
    of: HashMap<u64, usize>,
}

/// More kinds of one container than this are told apart by rule and severity only: names of programs and paths are the
/// container's choice, and it shall not fill the table for others.
const MOST_OF_ONE: usize = 256;

impl<T> Default for Fold<T> {
    fn default() -> Self {
        Fold { entries: HashMap::new(), of: HashMap::new() }
    }
}

impl<T> Fold<T> {
    /// Which alerts are the same: (container, rule, severity, program, subject). Returns the key and the container's.
    pub fn key(&self, parts: [&str; 5]) -> (u64, u64) {
        let parts = parts.map(str::as_bytes);
        let container = fnv1a(&parts[..1]);
        let key = fnv1a(&parts);
        let full = self.of.get(&container).is_some_and(|count| *count >= MOST_OF_ONE);
        if full && !self.entries.contains_key(&key) {
            (fnv1a(&parts[..3]), container)
        } else {
            (key, container)
        }
    }

    /// A condition began.
    pub fn begin(&mut self, key: (u64, u64), now_ns: u64, id: &str, make: impl FnOnce() -> T) -> Folded {
        let folded = self.add(key, now_ns, id, make);
        if let Some(entry) = self.entries.get_mut(&key.0) {
            entry.open = true;
        }
        folded
    }

    /// A condition ended. Where its beginning was told, so is its end; one whose beginning still waits to be told, because it
    /// came back within a minute, stays counted: the last word about it was that it had ended.
    pub fn end(&mut self, key: (u64, u64), now_ns: u64) -> Folded {
        let Some(entry) = self.entries.get_mut(&key.0) else {
            return Folded::Send { incident: None, count: 1 };
        };
        entry.open = false;
        entry.seen_ns = entry.seen_ns.max(now_ns);
        match entry.waiting.take() {
            Some(_) => Folded::Counted,
            None => Folded::Send { incident: Some(entry.incident.clone()), count: entry.count },
        }
    }

    /// One more. `id` is the id that it would have.
    pub fn add(&mut self, key: (u64, u64), now_ns: u64, id: &str, make: impl FnOnce() -> T) -> Folded {
        self.add_some(key, now_ns, 1, id, make)
    }

    /// The same of something that was counted before it came here.
    pub fn add_some(
        &mut self,
        (key, container): (u64, u64),
        now_ns: u64,
        count: u64,
        id: &str,
        make: impl FnOnce() -> T,
    ) -> Folded {
        if let Some(entry) = self.entries.get_mut(&key)
            && (entry.open || now_ns.saturating_sub(entry.seen_ns) < FORGET_NS)
        {
            entry.count += count;
            entry.seen_ns = entry.seen_ns.max(now_ns);
            if now_ns.saturating_sub(entry.sent_ns) < INTERVAL_NS {
                entry.waiting = Some((now_ns, make()));
                return Folded::Counted;
            }
            entry.waiting = None;
            entry.sent_ns = now_ns;
            entry.sent_count = entry.count;
            return Folded::Send { incident: Some(entry.incident.clone()), count: entry.count };
        }
        if self.entries.len() < MOST || self.entries.contains_key(&key) {
            let entry = Entry {
                incident: id.to_owned(),
                count,
                sent_count: count,
                sent_ns: now_ns,
                seen_ns: now_ns,
                waiting: None,
                container,
                open: false,
            };
            if self.entries.insert(key, entry).is_none() {
                *self.of.entry(container).or_default() += 1;
            }
        }
        Folded::Send { incident: None, count }
    }

    /// Counted alerts whose minute is over: what to send, with incident and count; oldest first. Forgets what has
    /// not been seen for long.
    pub fn due(&mut self, now_ns: u64) -> Vec<(T, String, u64)> {
        self.take(now_ns, false)
    }

    /// All that is still only counted, for the end.
    pub fn flush(&mut self) -> Vec<(T, String, u64)> {
        self.take(u64::MAX, true)
    }

    fn take(&mut self, now_ns: u64, all: bool) -> Vec<(T, String, u64)> {
        let mut due = Vec::new();
        self.entries.retain(|key, entry| {
            if (all || now_ns.saturating_sub(entry.sent_ns) >= INTERVAL_NS)
                && let Some((time, waiting)) = entry.waiting.take()
            {
                entry.sent_ns = now_ns;
                entry.sent_count = entry.count;
                due.push((time, *key, waiting, entry.incident.clone(), entry.count));
            }
            let keep = entry.open || now_ns.saturating_sub(entry.seen_ns) < FORGET_NS;
            if !keep && let Some(count) = self.of.get_mut(&entry.container) {
                *count -= 1;
                if *count == 0 {
                    self.of.remove(&entry.container);
                }
            }
            keep
        });
        // The table has no order of its own; a replay needs one.
        due.sort_by_key(|(time, key, ..)| (*time, *key));
        due.into_iter().map(|(_, _, waiting, incident, count)| (waiting, incident, count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_first_goes_out_and_repeats_are_told_within_a_minute() {
        let mut fold = Fold::default();
        assert_eq!(fold.add((1, 0), 0, "a", || "x"), Folded::Send { incident: None, count: 1 });
        assert_eq!(fold.add((1, 0), SECOND, "b", || "y"), Folded::Counted);
        assert_eq!(fold.add((1, 0), 2 * SECOND, "c", || "z"), Folded::Counted);
        assert_eq!(fold.add((2, 0), 2 * SECOND, "d", || "w"), Folded::Send { incident: None, count: 1 });
        assert!(fold.due(30 * SECOND).is_empty());
        assert_eq!(fold.due(61 * SECOND), [("z", "a".to_owned(), 3)]);
        assert!(fold.due(200 * SECOND).is_empty());
        let again = Folded::Send { incident: Some("a".into()), count: 4 };
        assert_eq!(fold.add((1, 0), 200 * SECOND, "e", || "v"), again);
    }

    #[test]
    fn what_comes_counted_adds_its_count() {
        let mut fold = Fold::default();
        let first = fold.add_some((1, 0), 0, 40, "a", || "x");
        assert_eq!(first, Folded::Send { incident: None, count: 40 });
        assert_eq!(fold.add_some((1, 0), SECOND, 7, "b", || "y"), Folded::Counted);
        assert_eq!(fold.due(61 * SECOND), [("y", "a".to_owned(), 47)]);
    }

    #[test]
    fn what_was_quiet_for_long_is_news_again() {
        let mut fold = Fold::default();
        fold.add((1, 0), 0, "a", || ());
        assert_eq!(fold.add((1, 0), 700 * SECOND, "b", || ()), Folded::Send { incident: None, count: 1 });
        fold.due(2000 * SECOND);
        assert!(fold.entries.is_empty());
    }

    #[test]
    fn a_condition_has_one_beginning_and_one_end() {
        let mut fold = Fold::default();
        let told = |count| Folded::Send { incident: Some("a".into()), count };
        assert_eq!(fold.begin((1, 0), 0, "a", || ()), Folded::Send { incident: None, count: 1 });
        // However long it lasts.
        assert!(fold.due(2000 * SECOND).is_empty());
        assert_eq!(fold.end((1, 0), 3000 * SECOND), told(1));
        // It comes and goes: one line for all of that, and none that leaves it open.
        assert_eq!(fold.begin((1, 0), 3001 * SECOND, "b", || ()), told(2));
        assert_eq!(fold.end((1, 0), 3002 * SECOND), told(2));
        for second in [3004, 3006, 3008] {
            assert_eq!(fold.begin((1, 0), second * SECOND, "c", || ()), Folded::Counted);
            assert_eq!(fold.end((1, 0), (second + 1) * SECOND), Folded::Counted);
        }
        assert!(fold.due(3100 * SECOND).is_empty());
        // One that stays is told when its minute is over, and so is its end.
        assert_eq!(fold.begin((1, 0), 3101 * SECOND, "d", || ()), told(6));
        assert_eq!(fold.end((1, 0), 3102 * SECOND), told(6));
        assert_eq!(fold.begin((1, 0), 3103 * SECOND, "e", || ()), Folded::Counted);
        assert_eq!(fold.due(3170 * SECOND), [((), "a".to_owned(), 7)]);
        assert_eq!(fold.end((1, 0), 3171 * SECOND), told(7));
        fold.due(4000 * SECOND);
        assert!(fold.entries.is_empty());
        // The end of what nobody remembers is told all the same.
        assert_eq!(fold.end((1, 0), 4001 * SECOND), Folded::Send { incident: None, count: 1 });
    }

    #[test]
    fn one_container_cannot_fill_the_table() {
        let mut fold = Fold::default();
        for i in 0..10_000 {
            let key = fold.key(["web", "rule", "critical", &format!("/./{i}"), ""]);
            fold.add(key, 0, "a", || ());
        }
        assert_eq!(fold.entries.len(), MOST_OF_ONE + 1);
        let other = fold.key(["db", "rule", "critical", "x", ""]);
        assert_eq!(fold.add(other, 0, "b", || ()), Folded::Send { incident: None, count: 1 });
        fold.due(FORGET_NS + 1);
        assert!(fold.of.is_empty());
    }

    #[test]
    fn the_end_tells_what_was_only_counted() {
        let mut fold = Fold::default();
        fold.add((1, 0), 0, "a", || 1);
        fold.add((1, 0), 1, "b", || 2);
        assert_eq!(fold.flush(), [(2, "a".to_owned(), 2)]);
        assert!(fold.flush().is_empty());
    }
}
