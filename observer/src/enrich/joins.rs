//! Several setns in quick succession are one change: `nsenter` makes one call per namespace.

use std::collections::BTreeMap;

use crate::model::Tuple;

/// How long after its first setns a set is closed at the latest.
pub const WINDOW_NS: u64 = 10_000_000;

/// Sets being waited for, as many as there are threads joining; bounded, the oldest goes first.
const MOST: usize = 4096;

/// Joins of one thread that have not yet been judged.
#[derive(Clone, Debug)]
pub struct Join {
    pub pid: u32,
    pub tid: u32,
    pub first_ns: u64,
    /// The thread's namespaces before the first.
    pub before: Option<Tuple>,
    pub after: Tuple,
    pub subject: super::finding::Subject,
    pub container: crate::model::ContainerKey,
}

#[derive(Debug, Default)]
pub struct Joins {
    waiting: BTreeMap<(u32, u32), Join>,
}

impl Joins {
    /// The set of a thread, if it has one open.
    pub fn of(&self, pid: u32, tid: u32) -> Option<&Join> {
        self.waiting.get(&(pid, tid))
    }

    /// Adds a call to its thread's set. Returns a set that had to make room.
    pub fn add(&mut self, join: Join) -> Option<Join> {
        let key = (join.pid, join.tid);
        if let Some(known) = self.waiting.get_mut(&key) {
            known.after = join.after;
            return None;
        }
        let displaced = if self.waiting.len() >= MOST {
            let oldest =
                self.waiting.iter().min_by_key(|(key, join)| (join.first_ns, **key)).map(|(key, _)| *key);
            oldest.and_then(|key| self.waiting.remove(&key))
        } else {
            None
        };
        self.waiting.insert(key, join);
        displaced
    }

    /// Closes the sets of a process, or of one thread of it.
    pub fn take(&mut self, pid: u32, tid: Option<u32>) -> Vec<Join> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let keys: Vec<_> = self
            .waiting
            .range((pid, 0)..=(pid, u32::MAX))
            .map(|(key, _)| *key)
            .filter(|(_, t)| tid.is_none_or(|tid| *t == tid))
            .collect();
        keys.iter().filter_map(|key| self.waiting.remove(key)).collect()
    }

    /// Closes the sets whose time is up.
    pub fn due(&mut self, now_ns: u64) -> Vec<Join> {
        let keys: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, join)| now_ns.saturating_sub(join.first_ns) >= WINDOW_NS)
            .map(|(key, _)| *key)
            .collect();
        keys.iter().filter_map(|key| self.waiting.remove(key)).collect()
    }

    /// When the next set is due, kernel time.
    pub fn next_deadline(&self) -> Option<u64> {
        self.waiting.values().map(|join| join.first_ns + WINDOW_NS).min()
    }
}
