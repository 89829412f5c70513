//! System calls that a container makes for the first time. Nothing but the clock tells of them: the kernel side keeps which calls
//! are made, and not by whom.

use serde::{Deserialize, Serialize};

use super::{Enricher, finding::*};

/// A call that was not among those that a container had made by the last reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstUse {
    /// The container's first.
    pub slot: u64,
    pub nr: u32,
    /// For how long the container's calls have been kept.
    pub observed_ns: u64,
    /// How many different calls it had made by the last reading.
    pub known: u32,
}

impl Enricher {
    /// What has been read of calls at `now_ns`. They were made since the last reading.
    pub fn called(&mut self, now_ns: u64, uses: &[FirstUse]) -> Vec<Finding> {
        let finding = |it: &FirstUse| {
            let container = Some(self.world.container_of_slot(it.slot)?);
            let fact = Fact::FirstUse(it.clone());
            Some(Finding { time_ns: now_ns, subject: None, container, fact, late: false })
        };
        uses.iter().filter_map(finding).collect()
    }
}
