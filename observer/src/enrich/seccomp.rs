//! Calls that seccomp refused. The kernel side counts them, and sends an event of the first of each kind; what came after that
//! is told by the clock.

use std::collections::HashMap;

use observer_common::{DenialKey, Kind, verdict};
use serde::{Deserialize, Serialize};

use super::{Enricher, finding::*};
use crate::{
    decode::{Event, Payload},
    host::Host,
    model::ProcessKey,
};

/// What the kernel side has counted of one call by one slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialCount {
    pub slot: u64,
    pub nr: u32,
    /// See [`verdict`].
    pub verdict: u32,
    pub count: u64,
    pub errno: u32,
    pub last_ns: u64,
    /// The process that was the first.
    pub tgid: u32,
    pub start_ns: u64,
}

/// How many of each have been told, while the slot lives.
pub(super) type Told = HashMap<DenialKey, u64>;

impl Enricher {
    pub(super) fn seccomp(&mut self, event: &Event, host: &mut dyn Host) {
        let Payload::Seccomp(what) = &event.payload else { return };
        self.know_process(event);
        if what.verdict == verdict::UNCLASSIFIED {
            return;
        }
        // The clock tells it as soon as it is known whose the slot is.
        let Some(container) = self.world.container_of_slot(what.slot) else { return };
        let in_table =
            what.arch == observer_common::ARCH_X86_64 && what.nr < observer_common::SYSCALLS as u32;
        let nr = if in_table { what.nr } else { observer_common::OTHER_CALLS };
        let key = DenialKey { slot: what.slot, nr, verdict: what.verdict };
        let told = self.denials.entry(key).or_default();
        if *told > 0 {
            // The clock was faster.
            return;
        }
        *told = 1;
        let subject = self.subject(event, host);
        let fact = SeccompFact {
            nr,
            errno: what.errno as i32,
            is_thread: what.verdict == verdict::THREAD_KILLED,
            count: 1,
        };
        let fact = match event.kind {
            Kind::SeccompKilled => Fact::SeccompKilled(fact),
            _ => Fact::SeccompDenied(fact),
        };
        self.find(event, Some(subject), Some(container), fact);
    }

    /// What the kernel side has counted beyond what was told.
    pub fn denied(&mut self, counts: &[DenialCount]) -> Vec<Finding> {
        let slots = &self.world.slots;
        self.denials.retain(|key, _| slots.contains_key(&key.slot));
        for count in counts.iter().filter(|count| count.verdict != verdict::UNCLASSIFIED) {
            let Some(container) = self.world.container_of_slot(count.slot) else { continue };
            let key = DenialKey { slot: count.slot, nr: count.nr, verdict: count.verdict };
            let told = self.denials.entry(key).or_default();
            let new = count.count.saturating_sub(*told);
            if new == 0 {
                continue;
            }
            *told = count.count;
            let fact = SeccompFact {
                nr: count.nr,
                errno: count.errno as i32,
                is_thread: count.verdict == verdict::THREAD_KILLED,
                count: new,
            };
            let fact = match count.verdict {
                verdict::DENIED => Fact::SeccompDenied(fact),
                _ => Fact::SeccompKilled(fact),
            };
            let subject = self.first_of(count);
            self.findings.push(Finding {
                time_ns: count.last_ns,
                subject,
                container: Some(container),
                fact,
                late: false,
            });
        }
        std::mem::take(&mut self.findings)
    }

    /// The process that was the first, if it is still known.
    fn first_of(&self, count: &DenialCount) -> Option<Subject> {
        let key = ProcessKey::new(count.tgid, count.start_ns);
        let known = self.world.processes.get(&count.tgid).is_some_and(|process| process.key == key);
        known.then(|| self.world.subject(count.tgid, count.tgid)).flatten()
    }
}
