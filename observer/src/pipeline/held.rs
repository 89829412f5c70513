//! Alerts about containers so young that their runtime may not have written yet what they are called. They wait, for a
//! bounded time and in a bounded number, and then go out as they are: nothing is dropped, and nobody waits for them.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use crate::{
    enrich::{Enricher, World, complete},
    host::{Host, RuntimeFacts},
    model::{Alert, ContainerKey, ContainerRef, Metadata, MetadataMark},
};

/// No alert waits longer than this after its event.
const PATIENCE_NS: u64 = 500_000_000;
/// Older containers are not waited for: what is not written by now is somewhere else.
const YOUNG_NS: u64 = 5_000_000_000;
/// How often the runtime's state is looked for meanwhile.
const ASK_NS: u64 = 50_000_000;
/// More alerts do not wait: some 2 KiB each.
const MOST: usize = 512;
/// More containers are not asked for at once: the rings wait meanwhile.
const MOST_ASKED: usize = 8;

#[derive(Debug)]
struct Entry {
    alert: Alert,
    /// By the container's id: it may be gone before its state has been read.
    id: String,
    until_ns: u64,
    /// There is nothing more to wait for.
    settled: bool,
}

#[derive(Debug, Default)]
pub struct Held {
    entries: VecDeque<Entry>,
    next_ask_ns: u64,
    /// Containers asked for in vain at the last time, so that others get their turn when they are many.
    asked: BTreeSet<String>,
    /// [`Enricher::named`] when last looked at.
    named: u64,
}

impl Held {
    /// Keeps an alert of this time if its container's metadata may still come; else gives it back.
    pub fn hold(
        &mut self,
        alert: Alert,
        key: Option<ContainerKey>,
        time_ns: u64,
        world: &World,
    ) -> Option<Alert> {
        let Some(container) = world.container(key) else { return Some(alert) };
        let young = !container.late && time_ns.saturating_sub(container.created_ns) < YOUNG_NS;
        if container.metadata != Metadata::Awaited || !young || self.entries.len() >= MOST {
            return Some(alert);
        }
        if self.entries.is_empty() {
            self.next_ask_ns = time_ns.saturating_add(ASK_NS);
        }
        let until_ns = time_ns.saturating_add(PATIENCE_NS);
        self.entries.push_back(Entry { alert, id: container.id.clone(), until_ns, settled: false });
        None
    }

    /// Kernel time at which [`Held::pass`] is wanted at the latest.
    pub fn next_deadline(&self) -> Option<u64> {
        let first = self.entries.iter().map(|entry| entry.until_ns).min()?;
        Some(first.min(self.next_ask_ns))
    }

    /// Asks again if it is time, and gives what is complete or has waited long enough.
    pub fn pass(&mut self, now_ns: u64, enricher: &mut Enricher, host: &mut dyn Host) -> Vec<Alert> {
        if self.entries.is_empty() {
            return Vec::new();
        }
        if now_ns >= self.next_ask_ns {
            self.next_ask_ns = now_ns.saturating_add(ASK_NS);
            for id in self.whose_turn() {
                if let Some(facts) = enricher.ask_again(&id, host) {
                    self.answer(&id, &facts);
                }
            }
        }
        self.take(|entry| entry.until_ns <= now_ns)
    }

    /// What has become complete otherwise: a newcomer's exec made the agent look, too.
    pub fn completed(&mut self, enricher: &Enricher) -> Vec<Alert> {
        // Asked after every event: it must cost nothing unless there is news.
        if self.named == enricher.named || self.entries.is_empty() {
            return Vec::new();
        }
        self.named = enricher.named;
        for entry in &mut self.entries {
            refresh(&mut entry.alert, &enricher.world);
            let container = enricher.world.container(enricher.world.container_by_id(&entry.id));
            entry.settled |= container.is_some_and(|container| container.metadata != Metadata::Awaited);
        }
        self.take(|_| false)
    }

    /// All, as they are.
    pub fn flush(&mut self) -> Vec<Alert> {
        self.take(|_| true)
    }

    fn whose_turn(&mut self) -> Vec<String> {
        let all: BTreeSet<&String> = self.entries.iter().map(|entry| &entry.id).collect();
        self.asked.retain(|id| all.contains(id));
        if self.asked.len() == all.len() {
            self.asked.clear();
        }
        let fresh = all.into_iter().filter(|id| !self.asked.contains(*id));
        let fresh: Vec<String> = fresh.take(MOST_ASKED).cloned().collect();
        self.asked.extend(fresh.iter().cloned());
        fresh
    }

    fn answer(&mut self, id: &str, facts: &RuntimeFacts) {
        for entry in self.entries.iter_mut().filter(|entry| entry.id == id) {
            let settled = &mut entry.settled;
            fill(&mut entry.alert, |container| *settled |= complete(container, facts) != Metadata::Awaited);
        }
    }

    /// Those that have nothing more to wait for, and those that are due; in the order in which they came.
    fn take(&mut self, due: impl Fn(&Entry) -> bool) -> Vec<Alert> {
        let mut out = Vec::new();
        let mut rest = VecDeque::new();
        for entry in self.entries.drain(..) {
            if entry.settled || due(&entry) {
                out.push(entry.alert);
            } else {
                rest.push_back(entry);
            }
        }
        self.entries = rest;
        out
    }
}

fn is_missing(alert: &Alert) -> bool {
    alert.container.as_ref().is_some_and(|container| container.metadata == Some(MetadataMark::Missing))
}

/// Takes over what the tables have learnt of the container since the alert was written.
pub fn refresh(alert: &mut Alert, world: &World) {
    let Some(id) =
        alert.container.as_ref().filter(|_| is_missing(alert)).map(|container| container.id.clone())
    else {
        return;
    };
    let key = world.container_by_id(&id);
    let known = world.container(key).is_some_and(|container| container.metadata == Metadata::Known);
    if let Some(new) = key.filter(|_| known).and_then(|key| world.container_ref(key)) {
        fill(alert, |container| *container = new);
    }
}

/// Changes what is said of the container, and what the message calls it.
fn fill(alert: &mut Alert, change: impl FnOnce(&mut ContainerRef)) {
    let Some(container) = &mut alert.container else { return };
    let before = container.called().to_owned();
    change(container);
    let now = container.called();
    if before != now {
        alert.message = alert.message.replace(&format!("container {before}"), &format!("container {now}"));
    }
}
