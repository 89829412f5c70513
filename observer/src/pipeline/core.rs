//! Decode, enrich, detect, fold, write: everything between the rings and the sinks. Deterministic: the same inputs
//! in the same order give the same alerts, ids and all.

use std::collections::BTreeMap;

use observer_common::{ALL_LOSSES, LOSSES};
use serde::{Deserialize, Serialize};

use super::{held, held::Held, write};
use crate::{
    config,
    decode::{DecodeError, Event, decode},
    detect::{self, Draft, Fold, Folded},
    enrich::{
        Access, AccessCount, CapabilityRefusal, DenialCount, Effect, Enricher, Fact, Finding, FirstUse,
        Snapshot, World,
    },
    host::Host,
    limits::{ContainerResources, Engine, Round, rows},
    model::{Alert, AlertState, AppArmorRecord, Clock, ContainerKey, EventRecord},
};

/// What the clock brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// Kernel time, ns.
    pub now_ns: u64,
    pub clock: Clock,
    /// The kernel side's loss counters.
    pub lost: [u64; LOSSES],
    /// Frames that could not be decoded.
    pub undecodable: u64,
    /// Runs of kernel programs that the kernel skipped.
    #[serde(default)]
    pub skipped: u64,
    /// Look at all container tasks.
    pub sweep: bool,
    /// What the kernel side kept of deciding events that found no room, if there are new ones.
    pub displaced: Vec<Displaced>,
    /// What seccomp was counted to have refused, where that has changed.
    #[serde(default)]
    pub denied: Vec<DenialCount>,
    /// Capabilities that containers were counted to have been refused, where that has changed.
    #[serde(default)]
    pub capabilities: Vec<CapabilityRefusal>,
    /// System calls that containers have made for the first time.
    #[serde(default)]
    pub called: Vec<FirstUse>,
    /// Look at the labels of all container processes.
    #[serde(default)]
    pub labels: bool,
    /// Records of the kernel's audit log that found no room.
    #[serde(default)]
    pub audit_log: u64,
}

#[cfg(test)]
impl Tick {
    /// One that tells of nothing, in November 2023.
    pub(super) fn quiet(now_ns: u64) -> Tick {
        Tick {
            now_ns,
            clock: Clock { offset_ns: 1_700_000_000_000_000_000 },
            lost: Default::default(),
            undecodable: 0,
            skipped: 0,
            sweep: false,
            displaced: Vec::new(),
            denied: Vec::new(),
            capabilities: Vec::new(),
            called: Vec::new(),
            labels: false,
            audit_log: 0,
        }
    }
}

/// The state of a slot some of whose deciding events found no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Displaced {
    pub slot: u64,
    /// The number of the kind of event.
    pub kind: u32,
    /// How many, since the agent started.
    pub count: u64,
    pub last_ns: u64,
    pub last_tgid: u32,
    /// Bit per namespace (by index) that was the host's in one of them.
    pub host_mask: u32,
    pub last_inodes: observer_common::Inodes,
}

/// The pipeline's middle.
#[derive(Debug)]
pub struct Core {
    enricher: Enricher,
    limits: Engine,
    fold: Fold<Alert>,
    held: Held,
    node: String,
    clock: Clock,
    lost: BTreeMap<&'static str, u64>,
    /// Something was lost since all processes were last looked at, and when that was.
    lossy: bool,
    swept_ns: u64,
    /// Alerts that were only counted, by rule, since last asked.
    folded: BTreeMap<&'static str, u64>,
}

impl Core {
    pub fn new(node: String, clock: Clock, snapshot: &Snapshot, limits: config::Limits) -> Self {
        Core {
            enricher: Enricher::new(snapshot.host.into()),
            limits: Engine::new(limits, &snapshot.hierarchies),
            fold: Fold::default(),
            held: Held::default(),
            node,
            clock,
            lost: BTreeMap::new(),
            lossy: false,
            swept_ns: 0,
            folded: BTreeMap::new(),
        }
    }

    /// Fills the tables from the start-up scan.
    pub fn start(&mut self, snapshot: &Snapshot, host: &mut dyn Host) -> Vec<Alert> {
        let findings = self.enricher.start(snapshot, host);
        self.alerts(findings)
    }

    /// Which process is whose, now.
    pub fn membership(&self) -> crate::inventory::Membership {
        crate::inventory::of_world(&self.enricher.world, &self.node)
    }

    /// One frame of either ring.
    pub fn frame(&mut self, frame: &[u8], host: &mut dyn Host) -> Result<(Event, Vec<Alert>), DecodeError> {
        let event = decode(frame)?;
        let findings = self.enricher.event(&event, host);
        let findings = self.limits.pass(findings, &self.enricher.world);
        // First what has waited, so that a container's alerts keep their order.
        let mut alerts = self.held.completed(&self.enricher);
        if !findings.is_empty() {
            alerts.extend(self.alerts(findings));
        }
        Ok((event, alerts))
    }

    /// What the watcher of resources read.
    pub fn round(&mut self, round: Round) -> Vec<Alert> {
        let findings = self.limits.round(round, &self.enricher.world);
        self.alerts(findings)
    }

    /// What AppArmor denied, after all events that came before it.
    pub fn denied_access(&mut self, records: &[AppArmorRecord]) -> Vec<Alert> {
        let findings = self.enricher.denied_access(records);
        self.alerts(findings)
    }

    /// What AppArmor was counted to have denied living containers.
    pub fn accesses(&self) -> &BTreeMap<ContainerKey, BTreeMap<Access, AccessCount>> {
        self.enricher.accesses()
    }

    /// What containers used when last looked at.
    pub fn resources(&self) -> Vec<ContainerResources> {
        rows(self.limits.last(), &self.enricher.world)
    }

    /// Time has come for what waits: see [`Core::next_deadline`].
    pub fn expire(&mut self, now_ns: u64, host: &mut dyn Host) -> Vec<Alert> {
        let findings = self.enricher.tick(now_ns);
        let mut alerts = self.alerts(findings);
        alerts.extend(self.held.pass(now_ns, &mut self.enricher, host));
        alerts
    }

    /// Kernel time at which [`Core::expire`] is wanted at the latest.
    pub fn next_deadline(&self) -> Option<u64> {
        self.enricher.next_deadline().into_iter().chain(self.held.next_deadline()).min()
    }

    /// Once a second or so.
    pub fn tick(&mut self, tick: &Tick, host: &mut dyn Host) -> Vec<Alert> {
        self.clock = tick.clock;
        let mut alerts = self.expire(tick.now_ns, host);
        let findings = self.enricher.recheck(host);
        alerts.extend(self.held.completed(&self.enricher));
        alerts.extend(self.alerts(findings));
        let findings = self.enricher.finish_sweep();
        alerts.extend(self.alerts(findings));
        let grown = self.grown(tick);
        let lossy = !grown.is_empty();
        if lossy {
            let fact = Fact::Lost { new: grown };
            let finding = Finding { time_ns: tick.now_ns, subject: None, container: None, fact, late: false };
            alerts.extend(self.alerts(vec![finding]));
        }
        for displaced in &tick.displaced {
            let findings = self.enricher.displaced(displaced);
            alerts.extend(self.alerts(findings));
        }
        let mut findings = self.limits.tick(tick.now_ns, &self.enricher.world);
        findings.extend(self.enricher.denied(&tick.denied));
        findings.extend(self.enricher.capabilities_refused(&tick.capabilities));
        findings.extend(self.enricher.called(tick.now_ns, &tick.called));
        alerts.extend(self.alerts(findings));
        self.enricher.forget_accesses();
        if tick.labels {
            self.enricher.begin_labels();
        }
        let findings = self.enricher.look_at_labels(tick.now_ns, host);
        alerts.extend(self.alerts(findings));
        let due = self.fold.due(tick.now_ns);
        alerts.extend(due.into_iter().map(|due| self.resend(due)));
        // After a loss all processes are looked at, but not more often than this: it takes as long as there are many.
        const AFTER_LOSS_NS: u64 = 10_000_000_000;
        self.lossy |= lossy;
        let all = self.lossy && tick.now_ns.saturating_sub(self.swept_ns) >= AFTER_LOSS_NS;
        if tick.sweep || all {
            if all {
                self.lossy = false;
                self.swept_ns = tick.now_ns;
            }
            self.enricher.begin_sweep(tick.now_ns, all, host);
        }
        alerts
    }

    /// The loss counters that have grown since the last tick, by how much.
    fn grown(&mut self, tick: &Tick) -> BTreeMap<String, u64> {
        let kernel = ALL_LOSSES.iter().map(|(loss, name)| (*name, tick.lost[*loss as usize]));
        let mut grown = BTreeMap::new();
        let own = [
            ("decode", tick.undecodable),
            ("skipped", tick.skipped),
            ("audit_log", tick.audit_log),
            ("unattributed", self.enricher.unattributed()),
        ];
        for (name, now) in kernel.chain(own) {
            let before = self.lost.insert(name, now).unwrap_or(0);
            if now > before {
                grown.insert(name.to_owned(), now - before);
            }
        }
        grown
    }

    /// The end: what waits is told now.
    pub fn finish(&mut self) -> Vec<Alert> {
        let findings = self.enricher.tick(u64::MAX);
        let new = self.alerts(findings);
        let mut alerts = self.held.flush();
        alerts.extend(new);
        let waiting = self.fold.flush();
        alerts.extend(waiting.into_iter().map(|waiting| self.resend(waiting)));
        alerts
    }

    pub fn take_effects(&mut self) -> Vec<Effect> {
        self.enricher.take_effects()
    }

    /// Denials of AppArmor whose process was not known.
    pub fn unattributed(&self) -> u64 {
        self.enricher.unattributed()
    }

    pub fn take_folded(&mut self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.folded)
    }

    /// Living containers by runtime, and processes known.
    pub fn counts(&self) -> (BTreeMap<&'static str, usize>, usize) {
        let mut by_runtime = BTreeMap::new();
        for container in self.enricher.world.containers.values().filter(|c| c.processes > 0) {
            *by_runtime.entry(container.runtime.name()).or_default() += 1;
        }
        (by_runtime, self.enricher.world.processes.len())
    }

    /// The tables.
    pub fn world(&self) -> &World {
        &self.enricher.world
    }

    /// An event as `tail --events` shows it.
    pub fn event_record(&self, event: &Event) -> EventRecord {
        write::event_record(event, &self.enricher.world, &self.node, &self.clock)
    }

    fn alerts(&mut self, findings: Vec<Finding>) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for finding in findings {
            for draft in detect::detect(&finding, &self.enricher.world) {
                alerts.extend(self.finish_draft(&finding, draft));
            }
        }
        alerts
    }

    /// Gives a draft its identity, and sends or counts it.
    fn finish_draft(&mut self, finding: &Finding, draft: Draft) -> Option<Alert> {
        let lost_before = self.lost.values().sum();
        let world = &self.enricher.world;
        let alert = write::alert(finding, &draft, world, &self.node, &self.clock, lost_before);
        // A condition is the container's, whoever's call showed its beginning; so is what the kernel side counts.
        let program = match &finding.subject {
            Some(subject) if finding.state().is_none() && finding.fact.is_of_a_program() => subject.program(),
            _ => "",
        };
        let container = alert.container.as_ref().map_or("", |c| c.id.as_str());
        let key = self.fold.key([container, &alert.rule, draft.severity.name(), program, &draft.subject]);
        let count = finding.fact.count();
        let folded = match alert.state {
            None => self.fold.add_some(key, finding.time_ns, count, &alert.id, || alert.clone()),
            Some(AlertState::Firing) => self.fold.begin(key, finding.time_ns, &alert.id, || alert.clone()),
            Some(AlertState::Resolved) => self.fold.end(key, finding.time_ns),
        };
        match folded {
            Folded::Send { incident, count } => {
                let incident = incident.unwrap_or_else(|| alert.id.clone());
                let alert = Alert { incident, count, ..alert };
                self.held.hold(alert, draft.container, finding.time_ns, world)
            }
            Folded::Counted => {
                *self.folded.entry(draft.definition.id).or_default() += count;
                None
            }
        }
    }

    /// An alert that was only counted so far, with what has become known of its container since.
    fn resend(&self, (mut alert, incident, count): (Alert, String, u64)) -> Alert {
        held::refresh(&mut alert, &self.enricher.world);
        Alert { incident, count, ..alert }
    }
}
