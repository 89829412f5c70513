//! AppArmor's labels of containers' processes, held against that of the container's first process. No hook tells of a change:
//! a label lies in the credentials in a form that is the module's own business. So it is read: at a process's exec, and every
//! few seconds of all, a bounded number at a time.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use observer_common::flags;

use super::{Enricher, finding::*};
use crate::{
    decode::Event,
    host::Host,
    model::{Confinement, ContainerKey, Label, ProcessKey, Standing},
};

/// Reads at execs in [`WINDOW_NS`], of all containers and of one: what is beyond waits for the clock, so that a flood of execs
/// costs the pipeline no more than this.
const AT_EXECS: u32 = 64;
const AT_EXECS_OF_ONE: u32 = 16;
const WINDOW_NS: u64 = 100_000_000;
/// Reads at a tick: some milliseconds.
const AT_A_TICK: usize = 256;
/// Processes that wait because they have executed something. The look at all finds the others.
const WAITING: usize = 4096;

/// What is to be read, and how much has been.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// This host has AppArmor.
    on: bool,
    started_ns: u64,
    window: u64,
    spent: u32,
    spent_by: HashMap<ContainerKey, u32>,
    /// Have executed something.
    executed: VecDeque<ProcessKey>,
    /// Are still to be looked at in this round.
    round: VecDeque<ProcessKey>,
}

impl Labels {
    pub(super) fn start(&mut self, on: bool, now_ns: u64) {
        self.on = on;
        self.started_ns = now_ns;
    }

    fn may_read(&mut self, container: ContainerKey, now_ns: u64) -> bool {
        let window = now_ns / WINDOW_NS;
        if window > self.window {
            self.window = window;
            self.spent = 0;
            self.spent_by.clear();
        }
        let spent_by = self.spent_by.entry(container).or_default();
        if self.spent >= AT_EXECS || *spent_by >= AT_EXECS_OF_ONE {
            return false;
        }
        self.spent += 1;
        *spent_by += 1;
        true
    }
}

impl Enricher {
    /// The labels of those that stand for their containers, as they are at the start.
    pub(super) fn read_first_labels(&mut self, host: &mut dyn Host) {
        if !self.labels.on {
            return;
        }
        let first: Vec<(ContainerKey, ProcessKey)> =
            self.world.containers.values().filter_map(|it| Some((it.key, it.baseline_of?))).collect();
        if first.is_empty() {
            return;
        }
        let asked: Vec<(u32, u64)> = first.iter().map(|(_, of)| (of.pid, of.start_ticks)).collect();
        for ((container, _), label) in first.into_iter().zip(host.labels(&asked)) {
            if let Some(container) = self.world.containers.get_mut(&container) {
                container.label = label;
            }
        }
    }

    /// A process has executed something: whatever label that brought is in place.
    pub(super) fn label_at_exec(&mut self, event: &Event, host: &mut dyn Host) {
        if !self.labels.on || Self::is_entering(event) {
            return;
        }
        let header = &event.header;
        let key = ProcessKey::new(header.tgid, header.start_ns);
        let Some(process) = self.world.processes.get_mut(&header.tgid).filter(|it| it.key == key) else {
            return;
        };
        let Some(container) = process.container else { return };
        let is_newcomer = event.is(flags::JUDGE);
        process.brought_in |= is_newcomer;
        // A newcomer may be the one that stands for its container.
        if !self.labels.may_read(container, header.time_ns) && !is_newcomer {
            if self.labels.executed.len() < WAITING {
                self.labels.executed.push_back(key);
            }
            return;
        }
        self.read_labels(&[key], header.time_ns, host);
    }

    /// All processes of containers are to be looked at. A round that takes longer than the time between two goes on.
    pub fn begin_labels(&mut self) {
        if !self.labels.on || !self.labels.round.is_empty() {
            return;
        }
        let mut all: Vec<ProcessKey> =
            self.world.processes.values().filter(|it| it.container.is_some()).map(|it| it.key).collect();
        // The table has no order of its own; a recording needs one.
        all.sort_unstable();
        self.labels.round = all.into();
    }

    /// Looks at some of those that wait.
    pub fn look_at_labels(&mut self, now_ns: u64, host: &mut dyn Host) -> Vec<Finding> {
        let mut some = Vec::new();
        while some.len() < AT_A_TICK
            && let Some(key) = self.labels.executed.pop_front().or_else(|| self.labels.round.pop_front())
        {
            let is_there = self.world.processes.get(&key.pid).is_some_and(|it| it.key == key && !it.entering);
            if is_there && !some.contains(&key) {
                some.push(key);
            }
        }
        self.read_labels(&some, now_ns, host);
        std::mem::take(&mut self.findings)
    }

    fn read_labels(&mut self, keys: &[ProcessKey], now_ns: u64, host: &mut dyn Host) {
        if keys.is_empty() {
            return;
        }
        let asked: Vec<(u32, u64)> = keys.iter().map(|key| (key.pid, key.start_ticks)).collect();
        for (key, label) in keys.iter().zip(host.labels(&asked)) {
            // One that has ended, most likely.
            if let Some(label) = label {
                self.compare_label(*key, label, now_ns);
            }
        }
    }

    fn compare_label(&mut self, key: ProcessKey, label: Label, now_ns: u64) {
        let Some(process) = self.world.processes.get(&key.pid).filter(|it| it.key == key && !it.entering)
        else {
            return;
        };
        let Some(container_key) = process.container else { return };
        let Some(container) = self.world.containers.get(&container_key) else { return };
        let is_first = container.baseline_of == Some(key);
        let first_is_gone = || {
            let is_it = |of: ProcessKey| self.world.processes.get(&of.pid).is_some_and(|it| it.key == of);
            !container.baseline_of.is_some_and(is_it)
        };
        let stands_for_it = match &container.label {
            None => is_first || first_is_gone(),
            // It was still on its way when it was read: confinement came with its next program.
            Some(expected) => {
                is_first
                    && expected.confinement() == Confinement::None
                    && label.confinement() != Confinement::None
            }
        };
        let expected = if stands_for_it { Some(label.clone()) } else { container.label.clone() };
        let Some(expected) = expected else { return };
        let standing = label.against(&expected);
        let before = process.label.clone();
        // Told already, of it or of its parent.
        let was_told = process.label_told && before.as_deref() == Some(&label);
        let is_news = standing != Standing::Kept && !was_told;
        let fact = is_news.then(|| {
            let change = LabelChange {
                expected: expected.clone(),
                actual: label.clone(),
                standing,
                brought_in: process.brought_in,
            };
            Finding {
                time_ns: now_ns,
                subject: Some(self.world.subject_of(process, key.pid)),
                container: Some(container_key),
                fact: Fact::Label(change),
                late: before.is_none() && process.start_ns < self.labels.started_ns,
            }
        });
        if let Some(container) = self.world.containers.get_mut(&container_key) {
            container.label = Some(expected);
        }
        if let Some(process) = self.world.processes.get_mut(&key.pid) {
            process.label = Some(Rc::new(label));
            process.label_told = standing != Standing::Kept;
            // What it does from now on is its own doing.
            process.brought_in &= is_news;
        }
        self.findings.extend(fact);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use observer_common::{Host as HostFacts, Inodes, NAMESPACES, Root};

    use super::*;
    use crate::{host::RuntimeFacts, limits::testing, model::Runtime};

    /// Processes and their labels; how often it was asked for how many.
    #[derive(Default)]
    struct Labelled {
        labels: HashMap<u32, &'static str>,
        asked: Vec<usize>,
    }

    impl Host for Labelled {
        fn runtime(&mut self, _: &str) -> Option<RuntimeFacts> {
            None
        }
        fn sweep(&mut self, _: &[(u32, u64)]) -> Vec<Option<Inodes>> {
            Vec::new()
        }
        fn image(&mut self, _: u32, _: u64) -> Option<(Option<String>, Vec<String>)> {
            None
        }
        fn cgroup_path(&mut self, _: u32, _: u64) -> Option<String> {
            None
        }
        fn labels(&mut self, pids: &[(u32, u64)]) -> Vec<Option<Label>> {
            self.asked.push(pids.len());
            pids.iter().map(|(pid, _)| Label::parse(self.labels.get(pid)?.as_bytes())).collect()
        }
    }

    const FIRST: u32 = 100;

    /// A container of these processes, the first of which stands for it, and a host that says so of each.
    fn world(processes: &[(u32, &'static str)]) -> (Enricher, Labelled, ContainerKey) {
        let root = Root { mnt_ns: 10, dev: 1, mount_root_ino: 2, ino: 2 };
        let mut enricher = Enricher::new(HostFacts { inodes: [10; NAMESPACES], found: 1, told: 0, root });
        enricher.labels.start(true, 0);
        let container = enricher.world.make_container("web", Runtime::Docker, 1, false);
        enricher.world.containers.get_mut(&container).unwrap().baseline_of = Some(key(FIRST));
        for (pid, _) in processes {
            enricher.world.insert_process(testing::process(key(*pid), Some(container)));
        }
        (enricher, Labelled { labels: processes.iter().copied().collect(), asked: Vec::new() }, container)
    }

    fn key(pid: u32) -> ProcessKey {
        ProcessKey { pid, start_ticks: u64::from(pid) }
    }

    fn round(enricher: &mut Enricher, host: &mut Labelled) -> Vec<Finding> {
        enricher.begin_labels();
        enricher.look_at_labels(7, host)
    }

    fn change(finding: &Finding) -> (u32, String, Standing) {
        let Fact::Label(change) = &finding.fact else { panic!("{finding:?}") };
        (finding.subject.as_ref().unwrap().pid, change.actual.to_string(), change.standing)
    }

    #[test]
    fn who_leaves_the_profile_is_found_once() {
        let (mut enricher, mut host, container) =
            world(&[(FIRST, "p (enforce)"), (101, "p//child (enforce)"), (102, "p (enforce)")]);
        assert!(round(&mut enricher, &mut host).is_empty());
        host.labels.insert(102, "unconfined");
        let found = round(&mut enricher, &mut host);
        assert_eq!(
            found.iter().map(change).collect::<Vec<_>>(),
            [(102, "unconfined".into(), Standing::Unconfined)]
        );
        assert_eq!((found[0].container, found[0].late), (Some(container), false));
        assert!(round(&mut enricher, &mut host).is_empty());
        host.labels.insert(102, "q (enforce)");
        assert_eq!(round(&mut enricher, &mut host).len(), 1);
        // Back, and out again: news.
        host.labels.insert(102, "p (enforce)");
        assert!(round(&mut enricher, &mut host).is_empty());
        host.labels.insert(102, "q (enforce)");
        assert_eq!(round(&mut enricher, &mut host).len(), 1);
    }

    #[test]
    fn an_unconfined_container_has_nothing_to_lose() {
        let (mut enricher, mut host, _) =
            world(&[(FIRST, "unconfined"), (101, "unconfined"), (102, "q (enforce)")]);
        assert!(round(&mut enricher, &mut host).is_empty());
        // Its first process was on its way into its profile.
        host.labels.insert(FIRST, "p (enforce)");
        host.labels.insert(102, "p (enforce)");
        let found = round(&mut enricher, &mut host);
        assert_eq!(
            found.iter().map(change).collect::<Vec<_>>(),
            [(101, "unconfined".into(), Standing::Unconfined)]
        );
    }

    #[test]
    fn nobody_is_judged_before_the_first_process_is_known() {
        let (mut enricher, mut host, container) = world(&[(FIRST, ""), (101, "q (enforce)")]);
        assert!(round(&mut enricher, &mut host).is_empty());
        assert_eq!(enricher.world.containers[&container].label, None);
        host.labels.insert(FIRST, "p (enforce)");
        let found = round(&mut enricher, &mut host);
        assert_eq!(
            found.iter().map(change).collect::<Vec<_>>(),
            [(101, "q (enforce)".into(), Standing::Left)]
        );
    }

    #[test]
    fn where_the_first_is_gone_another_stands_for_it() {
        let (mut enricher, mut host, container) = world(&[(101, "p (enforce)"), (102, "unconfined")]);
        let found = round(&mut enricher, &mut host);
        assert_eq!(
            found.iter().map(change).collect::<Vec<_>>(),
            [(102, "unconfined".into(), Standing::Unconfined)]
        );
        assert_eq!(enricher.world.containers[&container].label, Label::parse(b"p (enforce)"));
    }

    #[test]
    fn what_began_before_the_agent_is_late() {
        let (mut enricher, mut host, _) =
            world(&[(FIRST, "p (enforce)"), (101, "unconfined"), (102, "p (enforce)")]);
        enricher.labels.start(true, u64::MAX);
        enricher.read_first_labels(&mut host);
        let found = round(&mut enricher, &mut host);
        assert_eq!((found.len(), found[0].late), (1, true));
        host.labels.insert(102, "unconfined");
        let found = round(&mut enricher, &mut host);
        assert_eq!((found.len(), found[0].late), (1, false));
    }

    #[test]
    fn looks_are_bounded_and_reach_everybody() {
        let many: Vec<(u32, &'static str)> = (FIRST..FIRST + 600).map(|pid| (pid, "p (enforce)")).collect();
        let (mut enricher, mut host, container) = world(&many);
        enricher.begin_labels();
        let mut found = Vec::new();
        host.labels.insert(FIRST + 599, "unconfined");
        for _ in 0..4 {
            found.extend(enricher.look_at_labels(7, &mut host));
        }
        assert_eq!((host.asked.as_slice(), found.len()), (&[256, 256, 88][..], 1));
        // Of the execs of one container, and of all.
        let reads = (0..100).filter(|_| enricher.labels.may_read(container, 5)).count();
        assert_eq!(reads, AT_EXECS_OF_ONE as usize);
        let reads = (0..1000).filter(|n| enricher.labels.may_read(ContainerKey(n + 10), 5)).count();
        assert_eq!(reads, (AT_EXECS - AT_EXECS_OF_ONE) as usize);
        assert!(enricher.labels.may_read(container, 5 + WINDOW_NS));
    }

    #[test]
    fn a_host_without_apparmor_is_not_asked() {
        let (mut enricher, mut host, _) = world(&[(FIRST, "p (enforce)"), (101, "unconfined")]);
        enricher.labels.start(false, 0);
        enricher.read_first_labels(&mut host);
        assert!(round(&mut enricher, &mut host).is_empty() && host.asked.is_empty());
    }
}
