//! Capabilities that a container was refused. The kernel side counts them, and the clock tells.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Enricher, finding::*};
use crate::model::ProcessKey;

/// What the kernel side has counted of refusals of one capability to one slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityRefusal {
    pub slot: u64,
    pub capability: u32,
    pub count: u64,
    pub last_ns: u64,
    /// The user namespace in which it was first asked for.
    pub user_ns: u32,
    /// The process that was the first.
    pub tgid: u32,
    pub start_ns: u64,
    pub uid: u32,
    pub gid: u32,
    pub comm: String,
}

/// How many of each (slot, capability) have been told, while the slot lives.
pub(super) type Told = HashMap<(u64, u32), u64>;

impl Enricher {
    /// What was refused beyond what was told.
    pub fn capabilities_refused(&mut self, refusals: &[CapabilityRefusal]) -> Vec<Finding> {
        let slots = &self.world.slots;
        self.refused_capabilities.retain(|(slot, _), _| slots.contains_key(slot));
        for refusal in refusals {
            let Some(container) = self.world.container_of_slot(refusal.slot) else { continue };
            let told = self.refused_capabilities.entry((refusal.slot, refusal.capability)).or_default();
            let new = refusal.count.saturating_sub(*told);
            if new == 0 {
                continue;
            }
            *told = refusal.count;
            let fact =
                CapabilityFact { capability: refusal.capability, user_ns: refusal.user_ns, count: new };
            self.findings.push(Finding {
                time_ns: refusal.last_ns,
                subject: Some(self.first_refused(refusal)),
                container: Some(container),
                fact: Fact::CapabilityDenied(fact),
                late: false,
            });
        }
        std::mem::take(&mut self.findings)
    }

    /// The process that was the first: as the tables know it, also if it has ended, else as the kernel side noted it.
    fn first_refused(&self, refusal: &CapabilityRefusal) -> Subject {
        let key = ProcessKey::new(refusal.tgid, refusal.start_ns);
        let known = self.world.process_or_ended(refusal.tgid).filter(|process| process.key == key);
        let mut subject = known.map_or_else(
            || Subject {
                pid: refusal.tgid,
                tid: refusal.tgid,
                start_ns: refusal.start_ns,
                comm: refusal.comm.clone(),
                exe: None,
                exe_asked: false,
                args: Vec::new(),
                uid: refusal.uid,
                gid: refusal.gid,
                ancestors: Vec::new(),
            },
            |process| self.world.subject_of(process, refusal.tgid),
        );
        // It may have executed another program since, or become another user.
        if subject.comm != refusal.comm {
            (subject.exe, subject.args) = (None, Vec::new());
            subject.comm.clone_from(&refusal.comm);
        }
        (subject.uid, subject.gid) = (refusal.uid, refusal.gid);
        subject
    }
}
