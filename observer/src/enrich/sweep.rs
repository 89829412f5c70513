//! Every few seconds all container tasks are looked at: what no hook saw is late then, and not lost.

use observer_common::Inodes;

use super::{Enricher, finding::*};
use crate::{
    host::Host,
    model::{NsType, ProcessKey, Tuple},
    pipeline::Displaced,
};

/// What /proc said, held back until the rings have been read up to then: what they explain is no surprise.
#[derive(Debug)]
pub struct Look {
    time_ns: u64,
    answers: Vec<(ProcessKey, Option<Inodes>)>,
}

impl Enricher {
    /// Reads the namespaces of all container tasks (of all processes after a loss, to find those whose end was
    /// missed). [`Enricher::finish_sweep`] judges them at the next tick.
    pub fn begin_sweep(&mut self, now_ns: u64, all: bool, host: &mut dyn Host) {
        let mut asked: Vec<(u32, u64)> = self
            .world
            .processes
            .values()
            .filter(|p| all || p.container.is_some())
            .map(|p| (p.key.pid, p.key.start_ticks))
            .collect();
        // The table has no order of its own; a recording needs one.
        asked.sort_unstable();
        let answers = host.sweep(&asked);
        let keys = asked.into_iter().map(|(pid, start_ticks)| ProcessKey { pid, start_ticks });
        self.looked = Some(Look { time_ns: now_ns, answers: keys.zip(answers).collect() });
    }

    /// Holds what the last sweep read against the tables.
    pub fn finish_sweep(&mut self) -> Vec<Finding> {
        if let Some(look) = self.looked.take() {
            for (key, answer) in look.answers {
                match answer {
                    // Gone, and its exit not heard of.
                    None => self.world.remove_process(key),
                    Some(inodes) => {
                        let tuple = Tuple(inodes).as_far_as(&self.world.host_tuple);
                        self.compare(key, tuple, look.time_ns);
                    }
                }
            }
        }
        std::mem::take(&mut self.findings)
    }

    /// A container's own flood has displaced deciding events of its own: what they showed is told all the same.
    pub fn displaced(&mut self, displaced: &Displaced) -> Vec<Finding> {
        let told = self.displaced.insert((displaced.slot, displaced.kind), displaced.count).unwrap_or(0);
        if displaced.count <= told {
            return Vec::new();
        }
        let container = self.world.container_of_slot(displaced.slot);
        let Some(expected) = self.world.container(container).and_then(|c| c.baseline) else {
            return Vec::new();
        };
        // Only what is the host's and should not be.
        let host: Vec<NsType> = NsType::all()
            .filter(|ns| displaced.host_mask & (1 << ns.index()) != 0)
            .filter(|ns| expected.get(*ns) != self.world.host_tuple.get(*ns))
            .collect();
        let actual = Tuple(displaced.last_inodes);
        let fact = Fact::Displaced { count: displaced.count, host, actual, expected };
        let subject = self.world.subject(displaced.last_tgid, displaced.last_tgid);
        vec![Finding { time_ns: displaced.last_ns, subject, container, fact, late: false }]
    }

    fn compare(&mut self, key: ProcessKey, seen: Tuple, seen_ns: u64) {
        let Some(process) = self.world.processes.get(&key.pid).filter(|p| p.key == key) else { return };
        let Some(container) = process.container else { return };
        // The rings may have brought newer news than the look.
        if process.entering || process.updated_ns > seen_ns || !seen.is_known() {
            return;
        }
        let last = process.tuple;
        if last.is_known() && last.differences(&seen).next().is_none() {
            return;
        }
        self.world.set_last_tuple(key.pid, key.pid, seen, seen_ns);
        if last.is_known()
            && let Some(subject) = self.world.subject(key.pid, key.pid)
        {
            self.judge(seen_ns, subject, container, Some(last), seen, Vec::new(), Door::Unseen);
        }
    }
}
