//! The live loop: one thread that waits for the rings and the clock, and never for a sink.

use std::{io, os::fd::AsRawFd, path::PathBuf, sync::Arc, time::Duration};

use observer_common::{CgroupKey, Loss, SlotInfo, verdict};

use super::{
    apparmor::{AppArmorAudit, ContainerAccesses},
    calls::{CallAudit, ContainerCalls},
    capabilities::{CapabilityAudit, ContainerChecks},
    core::{Core, Displaced, Tick},
    observed,
    record::{RecordError, Recorder, RecordingHost},
    resources::{Resources, WatchStatus},
    wake::{StopSignal, epoll, wait_for},
};
use crate::{
    config,
    decode::{Event, Payload},
    enrich::{Effect, HostRecord, Snapshot, inherits},
    host::{self, Host, LiveHost, Roots},
    inventory::Membership,
    kernel::{Kernel, KernelError, LossCounters, Rings, Skipped, SlotTable},
    limits::{ContainerResources, watch::WatchError},
    memory,
    model::{Alert, Clock, EventRecord, Observed, Tuple},
};

/// Ordinary events wait no longer than this.
const FLUSH: Duration = Duration::from_millis(20);
const TICK_NS: u64 = 1_000_000_000;
/// Ordinary frames handled before the priority ring is looked at again.
const BATCH: usize = 2048;

/// What the loop hands things to. Must not block.
pub trait Output {
    fn alert(&mut self, alert: Arc<Alert>, latency_ns: u64);
    fn event(&mut self, event: Arc<EventRecord>);
    fn wants_events(&self) -> bool;
    /// Somebody wants to know which process is whose.
    fn is_asked(&self) -> bool {
        false
    }
    /// The answer, after `is_asked` said so.
    fn answer(&mut self, _membership: Membership) {}
    /// Somebody wants to know what containers were seen to do.
    fn is_asked_observed(&self) -> bool {
        false
    }
    /// The answer, after `is_asked_observed` said so.
    fn answer_observed(&mut self, _observed: Observed) {}
    /// One event, by kind; called for every one.
    fn count(&mut self, kind: &'static str);
    /// After each reading of the rings, at least every 20 ms.
    fn rings_read(&mut self) {}
    /// Living containers by runtime and known processes, when they may have changed; at most every 100 ms.
    fn counts(&mut self, _containers: &std::collections::BTreeMap<&'static str, usize>, _processes: usize) {}
    /// What was counted of checks of capabilities, if they are counted: all living containers of which there is something, about
    /// once a second. `classified`: checks that meant no use are told apart.
    fn capabilities(&mut self, _containers: &[ContainerChecks], _classified: bool) {}
    /// What living containers used when last looked at; about once a second where anything has been read.
    fn resources(&mut self, _containers: &[ContainerResources]) {}
    /// What is known of the calls of all living containers, if they are audited, about once a second.
    fn calls(&mut self, _containers: &[ContainerCalls]) {}
    /// What AppArmor denied all living containers, if that is read, about once a second.
    fn accesses(&mut self, _containers: &[ContainerAccesses]) {}
    /// About once a second.
    fn status(&mut self, status: &Status<'_>);
    /// False ends the loop.
    fn goes_on(&self) -> bool {
        true
    }
}

/// What the loop knows of itself.
#[derive(Debug)]
pub struct Status<'a> {
    pub tick: &'a Tick,
    pub folded: std::collections::BTreeMap<&'static str, u64>,
    /// Absent where resources are not read.
    pub resources: Option<WatchStatus>,
    /// Bytes of the ordinary and of the priority ring read in one go, the most since the last time.
    pub ring_used: [u64; 2],
    /// Denials of AppArmor whose process was not known.
    pub unattributed: u64,
}

#[derive(Clone, Debug)]
pub struct LiveOptions {
    pub node: String,
    pub roots: Roots,
    pub cri_sockets: host::cri::Sockets,
    pub sweep_seconds: u64,
    pub limits: config::Limits,
    /// Take the agent's own namespaces for the host's.
    pub own_host: bool,
    /// For how long a container's system calls settle before a new one is told.
    pub first_use_after: Option<Duration>,
    pub record: Option<PathBuf>,
}

/// A loop that is ready to run: hooks attached, tables filled.
pub struct Live {
    /// The programs run as long as this lives.
    kernel: Kernel,
    /// The kernel side can look at all threads by itself.
    iterates: bool,
    rings: Rings,
    slots: SlotTable,
    losses: LossCounters,
    capabilities: Option<CapabilityAudit>,
    calls: Option<CallAudit>,
    apparmor: Option<AppArmorAudit>,
    core: Core,
    host: Box<dyn Host>,
    recorder: Option<Recorder>,
    resources: Option<Resources>,
    /// There are samples that the metrics do not show yet.
    sampled: bool,
    /// The tables' version that the metrics show: containers go without a sample.
    shown: u64,
    options: LiveOptions,
    undecodable: u64,
    skipped: Skipped,
    ring_used: [u64; 2],
    /// The kernel side's count of displaced events when last looked at.
    displaced: u64,
    started: Vec<Alert>,
    arena: Vec<u8>,
    frames: Vec<(u64, usize, usize)>,
}

/// Why the loop could not be made or ended.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("cannot read the host: {0}")]
    Host(io::Error),
    #[error("recording: {0}")]
    Record(#[from] RecordError),
    #[error("cannot wait for the rings: {0}")]
    Wait(io::Error),
    #[error(transparent)]
    Watch(#[from] WatchError),
}

impl Live {
    /// Takes a loaded kernel side, scans the host, and finds what was wrong before.
    pub fn start(mut kernel: Kernel, options: LiveOptions) -> Result<Self, LiveError> {
        kernel.require()?;
        let found = if options.own_host {
            let own = host::own(&options.roots.proc).map_err(LiveError::Host)?;
            kernel.set_host(own)?;
            own
        } else {
            kernel.host()?
        };
        // Notes the namespaces of every thread that is older than the agent.
        let iterates = kernel.sweep();
        let mut slots = kernel.slots()?;
        let losses = kernel.losses()?;
        let since_ns = Clock::boot_ns();
        let capabilities = kernel.capabilities()?.map(|table| CapabilityAudit::new(table, since_ns));
        let calls = kernel
            .calls()?
            .map(|table| CallAudit::new(table, options.roots.clone(), options.first_use_after));
        let apparmor = kernel.audit_log().map(|log| AppArmorAudit::new(log, since_ns));
        let skipped = kernel.skipped()?;
        let rings = kernel.rings()?;
        let hierarchies =
            host::hierarchies(&options.roots.proc, &options.roots.cgroup).map_err(LiveError::Host)?;
        let mut cgroups = Vec::new();
        for hierarchy in &hierarchies {
            adopt_all(&mut slots, host::walk(hierarchy), &mut cgroups)?;
        }
        let record = HostRecord::from(found);
        let mut processes = host::scan(&options.roots.proc).map_err(LiveError::Host)?;
        host::from_the_root(&options.roots.proc, &hierarchies, &mut processes).map_err(LiveError::Host)?;
        for process in &mut processes {
            // /proc may show types that the kernel side does not.
            process.inodes = Tuple(process.inodes).as_far_as(&Tuple(record.inodes)).0;
        }
        let snapshot = Snapshot {
            time_ns: Clock::boot_ns(),
            host: record,
            hierarchies: hierarchies.clone(),
            cgroups,
            processes,
            apparmor: host::lsm::has_apparmor(&options.roots.proc),
        };
        let clock = Clock::now();
        let recorder = options.record.as_deref().map(Recorder::create).transpose()?;
        let resources = Resources::start(&options.limits, &hierarchies)?;
        let live = LiveHost::new(options.roots.clone(), hierarchies, options.cri_sockets.clone());
        let mut host: Box<dyn Host> = match &recorder {
            Some(recorder) => {
                recorder.start(&options.node, clock, &snapshot, &options.limits);
                Box::new(RecordingHost { host: live, recorder: recorder.clone() })
            }
            None => Box::new(live),
        };
        let mut core = Core::new(options.node.clone(), clock, &snapshot, options.limits.clone());
        let started = core.start(&snapshot, host.as_mut());
        let mut live = Live {
            kernel,
            iterates,
            rings,
            slots,
            losses,
            capabilities,
            calls,
            apparmor,
            core,
            host,
            recorder,
            resources,
            sampled: false,
            shown: 0,
            options,
            undecodable: 0,
            skipped,
            ring_used: [0; 2],
            displaced: 0,
            started,
            arena: Vec::new(),
            frames: Vec::new(),
        };
        live.apply_effects();
        if let Some(calls) = &mut live.calls {
            calls.start(&mut live.kernel)?;
            calls.learn(live.core.world(), &mut live.kernel, Clock::boot_ns())?;
        }
        Ok(live)
    }

    /// Runs until it is stopped or the output has had enough; then reads the rings empty and tells what waits.
    pub fn run(mut self, stop: &StopSignal, output: &mut impl Output) -> Result<(), LiveError> {
        // Only now that everything is armed: nobody need wait for it.
        memory::give_back();
        let mut wake = vec![
            (self.rings.priority.as_raw_fd(), 0),
            // Edge-triggered: woken by the kernel side's own wake-ups only, not by every event that is there.
            (self.rings.events.as_raw_fd(), libc::EPOLLET as u32),
            (stop.as_raw_fd(), 0),
        ];
        // Edge-triggered as well: while the watcher puts something in, there is nothing to take.
        wake.extend(self.resources.as_ref().map(|resources| (resources.fd(), libc::EPOLLET as u32)));
        // The same: how much of it is read at once is bounded.
        wake.extend(self.apparmor.as_ref().map(|log| (log.as_raw_fd(), libc::EPOLLET as u32)));
        let epoll = epoll(&wake).map_err(LiveError::Wait)?;
        for alert in std::mem::take(&mut self.started) {
            output.alert(Arc::new(alert), 0);
        }
        let mut next_tick = Clock::boot_ns() + TICK_NS;
        let mut next_counts = 0;
        let mut ticks = 0;
        let mut empty = false;
        while !stop.is_set() && output.goes_on() {
            let now = Clock::boot_ns();
            let mut wait = if empty { FLUSH.as_nanos() as u64 } else { 0 };
            if let Some(deadline) = self.core.next_deadline() {
                wait = wait.min(deadline.saturating_sub(now));
            }
            wait_for(&epoll, wait.div_ceil(1_000_000) as i32).map_err(LiveError::Wait)?;
            empty = self.drain(output);
            output.rings_read();
            if output.is_asked() {
                output.answer(self.core.membership());
            }
            if output.is_asked_observed() {
                output.answer_observed(self.observed());
            }
            self.take_round(output);
            self.take_denied_access(output);
            let now = Clock::boot_ns();
            if self.core.next_deadline().is_some_and(|deadline| deadline <= now) {
                if let Some(recorder) = &self.recorder {
                    recorder.expire(now);
                }
                let alerts = self.core.expire(now, self.host.as_mut());
                send(output, alerts, now);
                self.apply_effects();
            }
            if now >= next_counts {
                next_counts = now + TICK_NS / 10;
                let (containers, processes) = self.core.counts();
                output.counts(&containers, processes);
            }
            if now >= next_tick {
                next_tick = now + TICK_NS;
                ticks += 1;
                // Two readings, a second apart: see the kernel side's sweep.
                let period = self.options.sweep_seconds.max(1);
                if self.iterates && (ticks % period == 0 || ticks % period == 1 % period) {
                    self.iterates = self.kernel.sweep();
                }
                let due = ticks % period == 0;
                self.tick(now, !self.iterates && due, due, output)?;
            }
        }
        // What was there when the end came; a flood goes on, so not for ever.
        let last = Clock::boot_ns() + TICK_NS;
        while !self.drain(output) && Clock::boot_ns() < last {}
        output.rings_read();
        self.take_denied_access(output);
        self.tick(Clock::boot_ns(), false, false, output)?;
        let alerts = self.core.finish();
        send(output, alerts, Clock::boot_ns());
        if let Some(recorder) = &self.recorder {
            recorder.finish()?;
        }
        Ok(())
    }

    fn tick(
        &mut self,
        now_ns: u64,
        sweep: bool,
        labels: bool,
        output: &mut impl Output,
    ) -> Result<(), LiveError> {
        let lost = self.losses.lost()?;
        let full = lost[Loss::PriorityFull as usize];
        let displaced = if full > self.displaced { self.losses.displaced() } else { Vec::new() };
        self.displaced = full;
        let displaced = displaced
            .into_iter()
            .map(|(key, budget)| Displaced {
                slot: key.slot,
                kind: key.kind,
                count: budget.displaced,
                last_ns: budget.last_ns,
                last_tgid: budget.last_tgid,
                host_mask: budget.host_mask,
                last_inodes: budget.last_inodes,
            })
            .collect();
        let (mut undecodable, skipped, mut audit_log) = (self.undecodable, self.skipped.count(), 0);
        if let Some(apparmor) = &mut self.apparmor {
            undecodable += apparmor.undecodable();
            audit_log = apparmor.lost();
        }
        let (denied, called) = match &mut self.calls {
            Some(calls) => {
                calls.learn(self.core.world(), &mut self.kernel, now_ns)?;
                let denied = calls.denials(self.core.world(), &mut self.kernel)?;
                (denied, calls.first_uses(self.core.world(), now_ns))
            }
            None => (Vec::new(), Vec::new()),
        };
        let clock = Clock::now();
        let capabilities = match &mut self.capabilities {
            Some(audit) => audit.refusals(self.core.world(), now_ns),
            None => Vec::new(),
        };
        let tick = Tick {
            now_ns,
            clock,
            lost,
            undecodable,
            skipped,
            sweep,
            displaced,
            denied,
            capabilities,
            called,
            labels,
            audit_log,
        };
        if let Some(recorder) = &self.recorder {
            recorder.tick(&tick);
        }
        let alerts = self.core.tick(&tick, self.host.as_mut());
        send(output, alerts, now_ns);
        self.apply_effects();
        let ring_used = std::mem::take(&mut self.ring_used);
        if let Some(audit) = &mut self.capabilities {
            let containers = audit.settle(self.core.world());
            output.capabilities(&containers, audit.classified());
        }
        if let Some(calls) = &mut self.calls {
            output.calls(&calls.read(self.core.world()));
        }
        if let Some(apparmor) = &self.apparmor {
            output.accesses(&apparmor.all(self.core.world(), self.core.accesses()));
        }
        let version = self.core.world().version;
        if std::mem::take(&mut self.sampled) || std::mem::replace(&mut self.shown, version) != version {
            output.resources(&self.core.resources());
        }
        output.status(&Status {
            tick: &tick,
            folded: self.core.take_folded(),
            resources: self.resources.as_ref().map(Resources::status),
            ring_used,
            unattributed: self.core.unattributed(),
        });
        Ok(())
    }

    /// What the watcher of resources read, after the rings have been read: they hold the processes that it tells of.
    fn take_round(&mut self, output: &mut impl Output) {
        let Some(resources) = &mut self.resources else { return };
        resources.update(self.core.world());
        let Some(round) = resources.take() else { return };
        if let Some(recorder) = &self.recorder {
            recorder.round(&round);
        }
        // The oldest thing that it is about: what was polled has no time at which it happened.
        let since_ns = round.writes.first().map_or_else(Clock::boot_ns, |write| write.time_ns);
        let alerts = self.core.round(round);
        self.sampled = true;
        send(output, alerts, since_ns);
    }

    /// What AppArmor denied, after the rings have been read: they hold the processes that it tells of.
    fn take_denied_access(&mut self, output: &mut impl Output) {
        let Some(apparmor) = &mut self.apparmor else { return };
        let records = apparmor.take(Clock::boot_ns());
        let Some(first) = records.first() else { return };
        if let Some(recorder) = &self.recorder {
            recorder.denied_access(&records);
        }
        let since_ns = first.time_ns;
        let alerts = self.core.denied_access(&records);
        send(output, alerts, since_ns);
    }

    /// What is known now of what containers do.
    fn observed(&mut self) -> Observed {
        let (world, now_ns) = (self.core.world(), Clock::boot_ns());
        let checks = self.capabilities.as_mut().map(|audit| (audit.classified(), audit.all(world)));
        let calls = self.calls.as_mut().map(|audit| (audit.counts_denials(), audit.read(world)));
        let accesses = self.apparmor.as_ref().map(|log| log.all(self.core.world(), self.core.accesses()));
        observed::put_together(checks, calls, accesses, now_ns, &Clock::now())
    }

    /// Reads both rings until they are empty, or for so long that the clock must be looked at: a flood fills them as
    /// fast as they are read. True if they are empty. The priority ring first, then a batch of the ordinary one, in the order
    /// of their times: what decides waits for a batch at most.
    fn drain(&mut self, output: &mut impl Output) -> bool {
        let until = Clock::boot_ns() + FLUSH.as_nanos() as u64 / 2;
        let mut read = [0; 2];
        loop {
            self.arena.clear();
            self.frames.clear();
            while self.frames.len() < BATCH
                && let Some(frame) = self.rings.priority.next()
            {
                take(&mut self.arena, &mut self.frames, &frame);
            }
            read[1] += self.arena.len() as u64;
            let priority = self.arena.len();
            let end = self.frames.len() + BATCH;
            while self.frames.len() < end
                && let Some(frame) = self.rings.events.next()
            {
                take(&mut self.arena, &mut self.frames, &frame);
            }
            read[0] += (self.arena.len() - priority) as u64;
            for (used, read) in self.ring_used.iter_mut().zip(read) {
                *used = (*used).max(read);
            }
            if self.frames.is_empty() {
                return true;
            }
            // Stable, and nearly sorted already.
            self.frames.sort_by_key(|(time, ..)| *time);
            for i in 0..self.frames.len() {
                let (_, at, len) = self.frames[i];
                let frame = &self.arena[at..at + len];
                if let Some(recorder) = &self.recorder {
                    recorder.frame(frame);
                }
                match self.core.frame(frame, self.host.as_mut()) {
                    Ok((event, alerts)) => {
                        self.arm(&event);
                        output.count(event.kind.name());
                        if output.wants_events() {
                            output.event(Arc::new(self.core.event_record(&event)));
                        }
                        if !alerts.is_empty() {
                            send(output, alerts, event.header.time_ns);
                        }
                    }
                    Err(_) => self.undecodable += 1,
                }
                self.apply_effects();
            }
            // A flood must not leave a flood's memory behind.
            self.arena.shrink_to(1 << 20);
            if Clock::boot_ns() >= until {
                return false;
            }
        }
    }

    /// A call may have been refused whose beginnings are not seen: they are from now on.
    fn arm(&mut self, event: &Event) {
        if let (Some(calls), Payload::Seccomp(what)) = (&mut self.calls, &event.payload)
            && what.verdict == verdict::UNCLASSIFIED
        {
            // What cannot be told to the kernel side now is tried again by the clock.
            let _ = calls.seen(what.slot, what.nr, event.header.time_ns, &mut self.kernel);
        }
    }

    /// Tells the kernel side what enrichment found out.
    fn apply_effects(&mut self) {
        for effect in self.core.take_effects() {
            // A full table is the only way to fail; then the kernel side decides without it, and userspace still
            // knows.
            let _ = match effect {
                Effect::Describe { slot, class, canonical } => {
                    let info = SlotInfo { class, audit: 0, canonical };
                    describe(&mut self.slots, self.calls.as_mut(), slot, info)
                }
                Effect::Mark { pid, slot, moved } => self.slots.mark(pid, slot, moved),
                Effect::AdoptNamespace { inode, slot } => self.slots.adopt_namespace(inode, slot),
                Effect::Forget { slot } => {
                    self.slots.forget(slot);
                    if let Some(calls) = &mut self.calls {
                        calls.forget(slot);
                    }
                    Ok(())
                }
                Effect::ForgetNamespace { inode } => {
                    self.slots.forget_namespace(inode);
                    Ok(())
                }
            };
        }
        // At once, before it calls what is then taken for unexpected.
        if let Some(calls) = self.calls.as_mut().filter(|calls| calls.has_fresh()) {
            let _ = calls.learn(self.core.world(), &mut self.kernel, Clock::boot_ns());
        }
    }
}

/// Says what a slot is, and where its calls are kept.
fn describe(
    slots: &mut SlotTable,
    mut calls: Option<&mut CallAudit>,
    slot: u64,
    mut info: SlotInfo,
) -> Result<(), KernelError> {
    if let Some(calls) = &mut calls {
        info.audit = calls.index(&info, Clock::boot_ns())?;
    }
    slots.describe(slot, info)?;
    calls.map_or(Ok(()), |calls| calls.described(slot, &info))
}

/// Gives every cgroup that is there a slot: below a container's, the same.
fn adopt_all(
    slots: &mut SlotTable,
    found: Vec<host::CgroupDir>,
    into: &mut Vec<host::CgroupDir>,
) -> Result<(), KernelError> {
    let mut of: std::collections::HashMap<u64, (u64, bool)> = Default::default();
    for mut dir in found {
        let key = CgroupKey { hierarchy: dir.hierarchy, reserved: 0, id: dir.id };
        let slot = match of.get(&dir.parent_id) {
            Some((slot, true)) => *slot,
            _ => slots.new_slot(),
        };
        dir.slot = slots.adopt(key, slot)?;
        of.insert(dir.id, (dir.slot, inherits(&dir.path)));
        into.push(dir);
    }
    Ok(())
}

fn send(output: &mut impl Output, alerts: Vec<Alert>, since_ns: u64) {
    for alert in alerts {
        let latency = Clock::boot_ns().saturating_sub(since_ns);
        output.alert(Arc::new(alert), latency);
    }
}

/// Copies a frame out of its ring; the time is where every header has it.
fn take(arena: &mut Vec<u8>, frames: &mut Vec<(u64, usize, usize)>, frame: &[u8]) {
    let time = frame.get(8..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes);
    frames.push((time, arena.len(), frame.len()));
    arena.extend_from_slice(frame);
}
