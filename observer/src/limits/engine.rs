//! From samples and the kernel's events to what began, ended and changed. Pure: the same rounds, events and ticks give the same
//! findings.

use std::collections::{BTreeMap, VecDeque, btree_map::Entry};

mod cpu;
mod kills;
mod memory;
mod pids;
#[cfg(test)]
mod tests;
mod window;

use super::{
    Ended, LimitWrite, LimitsChanged, Round, Sample, Strain, StrainKind, Writer,
    changes::{self, Change, Controllers, Limits},
    condition::{Condition, Step},
};
use crate::{
    config::{self, Thresholds},
    enrich::{Fact, Finding, RefusedFork, World},
    host::Hierarchy,
    model::{Container, ContainerKey, ContainerRef},
};

const SECOND_NS: u64 = 1_000_000_000;
/// Writes that no look at the limits has explained yet.
const MOST_WRITES: usize = 256;
/// How long a write may have been before the look that shows what it did.
const WRITE_NS: u64 = 10 * SECOND_NS;

/// The state of all containers.
#[derive(Debug)]
pub struct Engine {
    config: config::Limits,
    controllers: Controllers,
    states: BTreeMap<ContainerKey, State>,
    writes: VecDeque<LimitWrite>,
    findings: Vec<Finding>,
}

#[derive(Debug)]
struct State {
    /// As it was last known: at the end it may be gone.
    name: ContainerRef,
    last: Option<Sample>,
    limits: Option<Limits>,
    /// `limits` holds all of them: see `Sample::whole`.
    limits_whole: bool,
    /// By `StrainKind`.
    conditions: [Condition; StrainKind::ALL.len()],
    /// What began, for its end.
    told: BTreeMap<StrainKind, Strain>,
    window: Option<window::Window>,
    last_window: window::Measured,
    refusals: pids::Refusals,
    /// Kills that the kernel's events told of, and the counter's value at the first look less those before it.
    killed: u64,
    /// When those before the first look were: it may have been taken before them, and come after.
    killed_early: Vec<u64>,
    kills_base: Option<u64>,
    /// The counter was ahead of the events at the last look, by this.
    kills_ahead: u64,
}

impl State {
    fn new(name: ContainerRef) -> Self {
        State {
            name,
            last: None,
            limits: None,
            limits_whole: false,
            conditions: Default::default(),
            told: BTreeMap::new(),
            window: None,
            last_window: window::Measured::default(),
            refusals: pids::Refusals::default(),
            killed: 0,
            killed_early: Vec::new(),
            kills_base: None,
            kills_ahead: 0,
        }
    }
}

impl State {
    fn is_firing(&self, kind: StrainKind) -> bool {
        self.conditions[kind as usize].is_firing()
    }
}

impl Engine {
    pub fn new(config: config::Limits, hierarchies: &[Hierarchy]) -> Self {
        Engine {
            config,
            controllers: Controllers::new(hierarchies),
            states: BTreeMap::new(),
            writes: VecDeque::new(),
            findings: Vec::new(),
        }
    }

    /// What the watcher read.
    pub fn round(&mut self, round: Round, world: &World) -> Vec<Finding> {
        self.writes.extend(round.writes);
        self.writes.drain(..self.writes.len().saturating_sub(MOST_WRITES));
        for sample in round.samples {
            self.sample(sample, world);
        }
        std::mem::take(&mut self.findings)
    }

    /// What enrichment found goes through here: refused forks make a condition, and kills are held against the counters.
    pub fn pass(&mut self, findings: Vec<Finding>, world: &World) -> Vec<Finding> {
        // Nearly always: nothing of these.
        if !findings.iter().any(|finding| matches!(finding.fact, Fact::ForkRefused(_) | Fact::OomKill(_))) {
            return findings;
        }
        let mut passed = Vec::with_capacity(findings.len());
        for finding in findings {
            match &finding.fact {
                Fact::ForkRefused(refused) => {
                    let refused = refused.clone();
                    self.fork_refused(&finding, &refused, world);
                    passed.append(&mut self.findings);
                }
                Fact::OomKill(_) => {
                    if let Some(state) = self.state(finding.container, world) {
                        kills::told(state, finding.time_ns);
                    }
                    passed.push(finding);
                }
                _ => passed.push(finding),
            }
        }
        passed
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ns: u64, world: &World) -> Vec<Finding> {
        let gone: Vec<ContainerKey> =
            self.states.keys().filter(|key| !lives(world, **key)).copied().collect();
        for key in gone {
            let Some(mut state) = self.states.remove(&key) else { continue };
            for kind in StrainKind::ALL {
                let step = state.conditions[kind as usize].end(now_ns);
                self.findings.extend(ended(&mut state, kind, step, true, now_ns, None));
            }
        }
        for (key, state) in &mut self.states {
            let Some(refused_ns) = state.refusals.last_ns else { continue };
            let resolve = world.container(Some(*key)).map_or(0, |it| self.config.of(it).resolve_seconds);
            // The counter may be a poll late.
            let resolve_ns = resolve.max(self.config.poll_seconds + 1).saturating_mul(SECOND_NS);
            if now_ns.saturating_sub(refused_ns) >= resolve_ns {
                let step = state.conditions[StrainKind::PidsAtLimit as usize].end(refused_ns);
                state.refusals.last_ns = None;
                self.findings.extend(ended(state, StrainKind::PidsAtLimit, step, false, now_ns, Some(*key)));
            }
        }
        let old = now_ns.saturating_sub(WRITE_NS);
        self.writes.retain(|write| write.time_ns >= old);
        std::mem::take(&mut self.findings)
    }

    /// The last look at each container that has been looked at.
    pub fn last(&self) -> impl Iterator<Item = &Sample> {
        self.states.values().filter_map(|state| state.last.as_ref())
    }

    fn state(&mut self, key: Option<ContainerKey>, world: &World) -> Option<&mut State> {
        match self.states.entry(key?) {
            Entry::Occupied(state) => Some(state.into_mut()),
            Entry::Vacant(place) => Some(place.insert(State::new(world.container_ref(key?)?))),
        }
    }

    fn fork_refused(&mut self, finding: &Finding, refused: &RefusedFork, world: &World) {
        let Some(key) = finding.container else { return };
        let Some(container) = world.container(Some(key)) else { return };
        if !self.config.of(container).pids.at_limit {
            return;
        }
        let Some(state) = self.state(Some(key), world) else { return };
        state.refusals.told(finding.time_ns, refused.count, state.is_firing(StrainKind::PidsAtLimit));
        let strain = Strain {
            at: Some(refused.at.clone()),
            usage: Some(refused.current),
            hits: Some(refused.count),
            ..blank(StrainKind::PidsAtLimit, state)
        };
        if let Some(mut found) = apply(state, strain, true, finding.time_ns, 0, 0, key) {
            found.subject = finding.subject.clone();
            self.findings.push(found);
        }
    }

    fn sample(&mut self, sample: Sample, world: &World) {
        let key = sample.container;
        let Some(container) = world.container(Some(key)) else { return };
        let thresholds = self.config.of(container);
        let Some(state) = self.state(Some(key), world) else { return };
        if state.last.as_ref().is_some_and(|last| last.time_ns > sample.time_ns) {
            return;
        }
        if let Some(name) = world.container_ref(key) {
            state.name = name;
        }
        let before = state.last.take();
        let mut findings = Vec::new();
        memory::memory(state, before.as_ref(), &sample, &thresholds, &mut findings);
        window::measure(state, &sample);
        cpu::cpu(state, &sample, &thresholds, &mut findings);
        pids::pids(state, before.as_ref(), &sample, &thresholds, &mut findings);
        findings.extend(kills::kills(state, &sample));
        self.findings.append(&mut findings);
        self.compare(&sample, container, &thresholds, world);
        if let Some(state) = self.states.get_mut(&key) {
            state.last = Some(sample);
        }
    }

    /// Holds the limits against those of the look before.
    fn compare(&mut self, sample: &Sample, container: &Container, thresholds: &Thresholds, world: &World) {
        let Some(state) = self.states.get_mut(&sample.container) else { return };
        // What the runtime sets before the container's first program is the setting, not a change of it.
        if container.baseline.is_none() || sample.time_ns < container.baseline_ns {
            state.limits = None;
            return;
        }
        let read = changes::limits(&sample.resources, container, &self.controllers);
        let Some(known) = &mut state.limits else {
            (state.limits, state.limits_whole) = (Some(read), sample.whole);
            return;
        };
        let found = changes::changes(known, &read, sample.whole && state.limits_whole);
        changes::update(known, read, sample.whole);
        state.limits_whole |= sample.whole;
        if found.is_empty() || !thresholds.changes {
            return;
        }
        let write = self.writes.iter().rev().find(|write| found.iter().any(|change| is_of(write, change)));
        let process = write.and_then(|write| world.process_or_ended(write.pid?));
        let writer = write.and_then(|write| {
            Some(Writer {
                pid: write.pid?,
                comm: process.map(|process| process.comm.to_string()),
                container: process.and_then(|process| process.container),
            })
        });
        self.findings.push(Finding {
            time_ns: write.map_or(sample.time_ns, |write| write.time_ns),
            subject: process.map(|process| world.subject_of(process, process.key.pid)),
            container: Some(sample.container),
            fact: Fact::LimitsChanged(LimitsChanged { changes: found, writer }),
            late: false,
        });
    }
}

/// A container whose cgroups are gone has no resources, even if a process of it lives on elsewhere.
fn lives(world: &World, key: ContainerKey) -> bool {
    world.container(Some(key)).is_some_and(|container| !container.cgroups.is_empty())
}

/// Whether a write was to the file that a changed limit is in. Limits by device have theirs in several.
fn is_of(write: &LimitWrite, change: &Change) -> bool {
    let file = change.at.file.split(' ').next().unwrap_or_default();
    // `cpu.max` stands for quota and period of v2; on v1 both files are told by their names.
    write.hierarchy == change.at.hierarchy
        && write.path == change.at.cgroup
        && (write.file == file || file == "blkio.throttle" && write.file.starts_with(file))
}

fn blank(kind: StrainKind, state: &State) -> Strain {
    Strain {
        kind,
        ended: None,
        at: None,
        usage: None,
        percent: None,
        hits: None,
        growth_per_second: None,
        cpu: None,
        container: state.name.clone(),
    }
}

/// Moves a condition on, and tells if it began or ended.
fn apply(
    state: &mut State,
    strain: Strain,
    bad: bool,
    now_ns: u64,
    onset_ns: u64,
    resolve_ns: u64,
    key: ContainerKey,
) -> Option<Finding> {
    let kind = strain.kind;
    match state.conditions[kind as usize].step(bad, now_ns, onset_ns, resolve_ns) {
        Step::Began => {
            state.told.insert(kind, strain.clone());
            Some(finding(now_ns, Some(key), strain))
        }
        Step::Nothing => {
            // For its end: how often in all. (Of refused forks two count, see `Refusals`.)
            if bad && let Some(told) = state.told.get_mut(&kind) {
                told.hits =
                    told.hits.zip(strain.hits).map(|(sum, more)| sum.saturating_add(more)).or(told.hits);
            }
            None
        }
        step @ Step::Ended(_) => ended(state, kind, step, false, now_ns, Some(key)),
    }
}

/// The end of what was told, if it ended.
fn ended(
    state: &mut State,
    kind: StrainKind,
    step: Step,
    gone: bool,
    now_ns: u64,
    key: Option<ContainerKey>,
) -> Option<Finding> {
    let Step::Ended(lasted_ns) = step else { return None };
    let mut told = state.told.remove(&kind)?;
    if kind == StrainKind::PidsAtLimit {
        told.hits = Some(state.refusals.in_all());
    }
    let strain = Strain { ended: Some(Ended { lasted_ns, gone }), container: state.name.clone(), ..told };
    Some(finding(now_ns, key, strain))
}

fn finding(time_ns: u64, container: Option<ContainerKey>, strain: Strain) -> Finding {
    Finding { time_ns, subject: None, container, fact: Fact::Strain(strain), late: false }
}

fn percent(part: u64, whole: u64) -> u64 {
    if whole == 0 { 100 } else { (u128::from(part) * 100 / u128::from(whole)) as u64 }
}

/// How much a counter rose; one that fell is another cgroup's.
fn rise(before: Option<u64>, after: Option<u64>) -> u64 {
    before.zip(after).and_then(|(before, after)| after.checked_sub(before)).unwrap_or(0)
}
