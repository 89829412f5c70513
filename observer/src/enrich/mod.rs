//! From events to findings: who did it, whose container is it, what changed against what it should be.
//!
//! Keeps the tables ([`World`]) and decides nothing about severity: detectors read findings and the tables.
//! News may come late (two rings) or never (loss), so every event is usable by itself and only fills gaps.

mod apparmor;
mod calls;
mod capabilities;
mod cgroups;
mod finding;
mod identity;
mod joins;
mod labels;
mod limits;
mod namespaces;
mod naming;
mod privileges;
mod process;
mod seccomp;
mod snapshot;
mod sweep;
mod world;

use std::rc::Rc;

use observer_common::{Host as HostFacts, Kind, flags};

pub use apparmor::{Access, AccessCount};
pub use calls::FirstUse;
pub use capabilities::CapabilityRefusal;
pub use finding::{
    CapabilityFact, CgroupChange, Door, Effect, Fact, Finding, Foreign, LabelChange, NamespaceChange, Owner,
    RefusedFork, RootVerdict, SeccompFact, Subject,
};
pub use identity::{Identity, identify};
pub use limits::{PAGE, victim};
pub use namespaces::types_of_mask;
pub use naming::complete;
pub use seccomp::DenialCount;
pub use snapshot::{HostRecord, Snapshot, inherits};
pub use world::{CgroupEntry, World};

use crate::{
    decode::{Event, Payload, text},
    host::Host,
    model::{Ancestor, ContainerKey, Process, ProcessKey, Tuple},
};

/// The stage.
#[derive(Debug)]
pub struct Enricher {
    pub world: World,
    joins: joins::Joins,
    looked: Option<sweep::Look>,
    suspects: Vec<snapshot::Suspect>,
    /// Displaced events already told, by slot and kind.
    displaced: std::collections::HashMap<(u64, u32), u64>,
    /// Denials already told.
    denials: seccomp::Told,
    refused_capabilities: capabilities::Told,
    labels: labels::Labels,
    accesses: apparmor::Accesses,
    /// When the tables were filled, kernel time.
    started_ns: u64,
    findings: Vec<Finding>,
    /// How many containers' metadata have become known.
    pub named: u64,
}

impl Enricher {
    pub fn new(host: HostFacts) -> Self {
        Enricher {
            world: World::new(host),
            joins: joins::Joins::default(),
            looked: None,
            suspects: Vec::new(),
            displaced: Default::default(),
            denials: Default::default(),
            refused_capabilities: Default::default(),
            labels: labels::Labels::default(),
            accesses: apparmor::Accesses::default(),
            started_ns: 0,
            findings: Vec::new(),
            named: 0,
        }
    }

    /// What one event showed.
    pub fn event(&mut self, event: &Event, host: &mut dyn Host) -> Vec<Finding> {
        match event.kind {
            Kind::Fork => {
                self.fork(event);
                self.privileges_of_child(event);
            }
            Kind::Exec => {
                self.exec(event, host);
                self.label_at_exec(event, host);
            }
            Kind::Exit => {
                self.privileges(event, host);
                self.exit(event);
            }
            Kind::CgroupMkdir => self.cgroup_made(event, host),
            Kind::CgroupRmdir => self.cgroup_removed(event),
            Kind::CgroupMove => self.cgroup_move(event, host),
            Kind::Setns => self.setns(event, host),
            Kind::Unshare => self.unshare(event, host),
            Kind::Clone => self.refused(event, host),
            Kind::Chroot | Kind::PivotRoot => self.root(event, host),
            Kind::Drift => self.drift(event, host),
            Kind::OomKill => self.oom_kill(event, host),
            Kind::ForkRefused => self.fork_refused(event, host),
            Kind::SeccompDenied | Kind::SeccompKilled => self.seccomp(event, host),
        }
        // In others' events a task may have put on credentials that are not its own.
        if matches!(
            event.kind,
            Kind::Exec | Kind::Setns | Kind::Unshare | Kind::Chroot | Kind::PivotRoot | Kind::Drift
        ) {
            self.privileges(event, host);
        }
        std::mem::take(&mut self.findings)
    }

    /// Time has passed: sets of joins may be due.
    pub fn tick(&mut self, now_ns: u64) -> Vec<Finding> {
        for join in self.joins.due(now_ns) {
            self.close_join(join);
        }
        std::mem::take(&mut self.findings)
    }

    /// Until when, at the latest, [`Enricher::tick`] wants to be called (kernel time).
    pub fn next_deadline(&self) -> Option<u64> {
        self.joins.next_deadline()
    }

    /// What the kernel side is to be told, since the last call.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.world.effects)
    }

    /// The container that the event's task is of, by its mark.
    fn container(&self, event: &Event) -> Option<ContainerKey> {
        self.world.container_of_slot(event.header.slot)
    }

    /// The same; for a task that has no mark (yet), what the table has found out of its process.
    fn container_or_known(&self, event: &Event) -> Option<ContainerKey> {
        let key = ProcessKey::new(event.header.tgid, event.header.start_ns);
        let known = || self.world.processes.get(&event.header.tgid).filter(|p| p.key == key)?.container;
        self.container(event).or_else(known)
    }

    /// The event's process in the table, put there from the event itself if it is not yet known.
    fn know_process(&mut self, event: &Event) {
        let header = &event.header;
        let key = ProcessKey::new(header.tgid, header.start_ns);
        let container = self.container(event);
        match self.world.processes.get_mut(&header.tgid) {
            Some(process) if process.key == key => {
                process.start_ns = header.start_ns;
                process.entering = Self::is_entering(event);
                if container.is_some() && process.container != container {
                    self.world.set_process_container(header.tgid, container);
                }
            }
            _ => {
                if self.world.is_buried(header.tgid, header.start_ns) {
                    return;
                }
                let parent = event
                    .ancestors
                    .first()
                    .map(|a| ProcessKey::new(a.tgid, a.start_ns))
                    .or_else(|| self.world.processes.get(&header.ppid).map(|p| p.key));
                self.world.insert_process(Process {
                    key,
                    start_ns: header.start_ns,
                    parent,
                    comm: text(&header.comm).into(),
                    exe: None,
                    exe_asked: false,
                    args: Rc::from([]),
                    uid: header.uid,
                    gid: header.gid,
                    ns_pid: header.ns_pid,
                    tuple: Tuple::default(),
                    container,
                    host_root: false,
                    privileges: None,
                    label: None,
                    label_told: false,
                    brought_in: false,
                    entering: Self::is_entering(event),
                    updated_ns: 0,
                });
            }
        }
    }

    /// The process as the event and the table have it; executable and arguments of a process older than the agent
    /// are read from /proc.
    fn subject(&mut self, event: &Event, host: &mut dyn Host) -> Subject {
        let header = &event.header;
        let key = ProcessKey::new(header.tgid, header.start_ns);
        if let Some(process) = self.world.processes.get_mut(&header.tgid)
            && process.key == key
            && process.exe.is_none()
            && event.kind != Kind::Exit
            && let Some((exe, args)) = host.image(key.pid, key.start_ticks)
        {
            process.exe = exe.map(Into::into);
            process.exe_asked = true;
            process.args = args.join("\0").into_bytes().into();
        }
        self.subject_known(event)
    }

    fn subject_known(&self, event: &Event) -> Subject {
        let header = &event.header;
        let key = ProcessKey::new(header.tgid, header.start_ns);
        let process = self.world.processes.get(&header.tgid).filter(|process| process.key == key);
        let container = self.container(event).or_else(|| process.and_then(|p| p.container));
        Subject {
            pid: header.tgid,
            tid: header.tid,
            start_ns: header.start_ns,
            comm: text(&header.comm),
            exe: process.and_then(|p| p.exe.as_deref()).map(str::to_owned),
            exe_asked: process.is_some_and(|p| p.exe_asked),
            args: process.map(|p| crate::decode::arguments(&p.args)).unwrap_or_default(),
            uid: header.uid,
            gid: header.gid,
            ancestors: self.chain(event, process.and_then(|p| p.parent), container),
        }
    }

    /// The kernel side's own walk where the event has it, else the table's.
    fn chain(
        &self,
        event: &Event,
        parent: Option<ProcessKey>,
        container: Option<ContainerKey>,
    ) -> Vec<Ancestor> {
        if event.ancestors.is_empty() {
            return self.world.ancestors(parent, container);
        }
        let inside = |a: &&observer_common::Ancestor| {
            let key = ProcessKey::new(a.tgid, a.start_ns);
            // One that the table does not know (yet) is shown rather than hidden.
            container.is_none()
                || self.world.processes.get(&a.tgid).is_none_or(|p| p.key != key || p.container == container)
        };
        event
            .ancestors
            .iter()
            .take_while(inside)
            .map(|a| Ancestor { pid: a.tgid, comm: text(&a.comm) })
            .collect()
    }

    fn find(&mut self, event: &Event, subject: Option<Subject>, container: Option<ContainerKey>, fact: Fact) {
        self.findings.push(Finding { time_ns: event.header.time_ns, subject, container, fact, late: false });
    }

    /// True if the task is on its way into a container: nothing that it does is an escape.
    fn is_entering(event: &Event) -> bool {
        event.is(flags::ENTERING)
    }
}

/// The syscall payload of an event, if it has one.
fn call_of(event: &Event) -> Option<&observer_common::Syscall> {
    match &event.payload {
        Payload::Syscall(call) => Some(call),
        Payload::RootChange { change, .. } => Some(&change.call),
        _ => None,
    }
}

/// EPERM and EACCES: the kernel said no, rather than "that makes no sense".
fn is_refusal(ret: i64) -> bool {
    ret == -i64::from(libc::EPERM) || ret == -i64::from(libc::EACCES)
}
