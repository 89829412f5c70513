//! Forks, execs, exits.

use std::{collections::BTreeSet, rc::Rc};

use observer_common::{Kind, flags};

use super::{Enricher, finding::*, world::CgroupEntry};
use crate::{
    decode::{Event, Payload, arguments, text},
    host::{Host, RuntimeFacts},
    model::{ContainerKey, NsType, Process, ProcessKey, Runtime, TICK_NS, Tuple},
};

impl Enricher {
    pub(super) fn fork(&mut self, event: &Event) {
        let Payload::Fork(fork) = &event.payload else { return };
        let header = &event.header;
        self.close_joins(fork.parent_tgid, Some(fork.parent_tid));
        let container = self.container(event);
        let tuple = Tuple(header.inodes);
        let parent_tuple = Tuple(fork.parent_inodes);
        let before = self.world.last_tuple(fork.parent_tgid, fork.parent_tid);
        let drifted = event.is(flags::PARENT_CHANGED)
            || before.is_some_and(|before| before.differences(&parent_tuple).next().is_some());
        if drifted
            && !Self::is_entering(event)
            && self.is_news(fork.parent_tgid, header.time_ns)
            && let Some(container) = container
        {
            let mut subject = self.subject_known(event);
            subject.pid = fork.parent_tgid;
            subject.tid = fork.parent_tid;
            subject.start_ns = fork.parent_start_ns;
            // The parent is its child's nearest ancestor; its own come behind.
            if subject.ancestors.first().is_some_and(|a| a.pid == fork.parent_tgid) {
                subject.ancestors.remove(0);
            }
            if let Some(parent) = self.world.processes.get(&fork.parent_tgid) {
                subject.exe = parent.exe.as_deref().map(str::to_owned);
                subject.exe_asked = parent.exe_asked;
                subject.args = arguments(&parent.args);
            }
            self.world.set_last_tuple(fork.parent_tgid, fork.parent_tid, parent_tuple, header.time_ns);
            self.judge(header.time_ns, subject, container, before, parent_tuple, Vec::new(), Door::Unseen);
        }
        let is_process = header.tgid == header.tid;
        if is_process {
            self.know_fork(event, fork, container);
        }
        let made = self.made_by_clone(&parent_tuple, &tuple);
        let by = container.filter(|_| !Self::is_entering(event));
        for ns in &made {
            let shown =
                if *ns == NsType::PID && tuple.get(*ns) == 0 { NsType::PID_FOR_CHILDREN } else { *ns };
            self.world.namespace_made(tuple.get(shown), by, header.time_ns);
        }
        if !is_process {
            self.world.set_last_tuple(header.tgid, header.tid, tuple, header.time_ns);
        }
        if event.is(flags::CHANGED)
            && let Some(container) = by
        {
            let subject = self.subject_known(event);
            self.judge(
                header.time_ns,
                subject,
                container,
                Some(parent_tuple),
                tuple,
                made,
                Door::Call(Kind::Fork),
            );
        }
    }

    /// Types in which a clone made new namespaces, rather than handing on those meant for children.
    fn made_by_clone(&self, parent: &Tuple, child: &Tuple) -> Vec<NsType> {
        parent
            .differences(child)
            // Where the pid namespace itself is not read, what its children get says the same: a fork alone never
            // changes that.
            .filter(|ns| ns.kind() == *ns || ns.kind() == NsType::PID && child.get(NsType::PID) == 0)
            .filter(|ns| {
                let handed_on = match ns.name() {
                    "pid" => NsType::by_name("pid_for_children").map(|c| parent.get(c)),
                    "time" => NsType::by_name("time_for_children").map(|c| parent.get(c)),
                    _ => None,
                };
                handed_on != Some(child.get(*ns))
            })
            .map(NsType::kind)
            .collect()
    }

    fn know_fork(&mut self, event: &Event, fork: &observer_common::Fork, container: Option<ContainerKey>) {
        let header = &event.header;
        let key = ProcessKey::new(header.tgid, header.start_ns);
        let parent_key = ProcessKey::new(fork.parent_tgid, fork.parent_start_ns);
        if self.world.is_buried(header.tgid, header.start_ns) {
            return;
        }
        if let Some(known) = self.world.processes.get_mut(&header.tgid)
            && known.key == key
            && (known.start_ns == header.start_ns || known.start_ns.is_multiple_of(TICK_NS))
        {
            // Newer news came first by the other ring; only the parent may be missing.
            known.parent = Some(parent_key);
            return;
        }
        let parent = self.world.processes.get(&fork.parent_tgid).filter(|p| p.key == parent_key);
        let (exe, exe_asked, args) = match parent {
            Some(parent) => (parent.exe.clone(), parent.exe_asked, parent.args.clone()),
            None => (None, false, Rc::from([])),
        };
        // What was told of its parent is not told of it again.
        let alike = parent.filter(|parent| parent.container == container);
        let (label, label_told) =
            alike.map_or((None, false), |parent| (parent.label.clone(), parent.label_told));
        let process = Process {
            key,
            start_ns: header.start_ns,
            parent: Some(parent_key),
            comm: text(&header.comm).into(),
            exe,
            exe_asked,
            args,
            uid: header.uid,
            gid: header.gid,
            ns_pid: header.ns_pid,
            tuple: Tuple(header.inodes),
            container,
            host_root: event.is(flags::HOST_ROOT),
            privileges: None,
            label,
            label_told,
            brought_in: false,
            entering: Self::is_entering(event),
            updated_ns: header.time_ns,
        };
        self.world.insert_process(process);
    }

    pub(super) fn exec(&mut self, event: &Event, host: &mut dyn Host) {
        let Payload::Exec { exec, filename, args } = &event.payload else { return };
        let header = &event.header;
        // All other threads are gone, and with them their namespaces.
        self.close_joins(header.tgid, None);
        self.world.forget_threads(header.tgid);
        let before = self.world.last_tuple(header.tgid, exec.old_tid);
        let fresh = self.is_news(header.tgid, header.time_ns);
        let tuple = Tuple(header.inodes);
        // Or by somebody whose arrival was missed: the agent started in the middle of it.
        let unsettled = !Self::is_entering(event)
            && self.world.container(self.container(event)).is_some_and(|c| c.baseline.is_none());
        if event.is(flags::JUDGE) || unsettled {
            self.settle(event, &tuple, host);
        }
        self.know_process(event);
        let container = self.container(event);
        let known = ProcessKey::new(header.tgid, header.start_ns);
        if let Some(process) = self.world.processes.get_mut(&header.tgid)
            && process.key == known
            && process.updated_ns <= header.time_ns
        {
            process.comm = text(&header.comm).into();
            process.exe = (!filename.is_empty()).then(|| String::from_utf8_lossy(filename).into());
            process.exe_asked = false;
            process.args = args.as_slice().into();
            process.uid = header.uid;
            process.gid = header.gid;
            process.tuple = tuple;
            process.entering = Self::is_entering(event);
            process.updated_ns = header.time_ns;
        }
        if event.is(flags::JUDGE) {
            match container {
                Some(_) => self.note_root(event),
                None => self.entered(event, &tuple, host),
            }
            return;
        }
        if fresh {
            self.watch_root(event, host);
        }
        if fresh
            && !Self::is_entering(event)
            && before.is_none_or(|before| before.differences(&tuple).next().is_some())
            && let Some(container) = container
        {
            let subject = self.subject(event, host);
            self.judge(header.time_ns, subject, container, before, tuple, Vec::new(), Door::Unseen);
        }
    }

    /// False for an event that is older than what the table already knows of the process: the other ring was faster.
    fn is_news(&self, pid: u32, time_ns: u64) -> bool {
        self.world.processes.get(&pid).is_none_or(|process| process.updated_ns <= time_ns)
    }

    /// A newcomer's first exec: it may make a container known, and give one its baseline.
    fn settle(&mut self, event: &Event, tuple: &Tuple, host: &mut dyn Host) {
        let header = &event.header;
        if header.slot == 0 {
            return;
        }
        let slot = self.world.slots.get(&header.slot).cloned().unwrap_or_default();
        if slot.is_host {
            return;
        }
        let key = match slot.container {
            Some(key) => key,
            None => match slot.leaf {
                Some(leaf) => {
                    let facts = host.runtime(&leaf).filter(names_any_cgroup);
                    // A process of the host that entered a container's namespaces makes no container of its job's cgroup.
                    if facts.is_none()
                        && (!self.world.looks_contained(tuple) || self.world.is_visiting(tuple))
                    {
                        return;
                    }
                    self.container_of_leaf(header.slot, &leaf, header.time_ns, facts)
                }
                None => match self.container_of_namespaces(header.slot, tuple, header.time_ns) {
                    Some(key) => key,
                    None => return,
                },
            },
        };
        // The container's init has the last word: a runtime's hook may have executed something before all was in place.
        let is_init = header.ns_pid == 1 && tuple.get(NsType::PID) != self.world.host_tuple.get(NsType::PID);
        let set = self.world.containers.get(&key).is_some_and(|c| match c.baseline {
            None => true,
            // Also an init in a new pid namespace: the container was started again.
            Some(old) => is_init && (!c.baseline_of_init || old.get(NsType::PID) != tuple.get(NsType::PID)),
        });
        if set {
            self.world.set_baseline(key, *tuple, header.time_ns);
            if let Some(container) = self.world.containers.get_mut(&key) {
                container.baseline_of_init = is_init;
                container.baseline_of = Some(ProcessKey::new(header.tgid, header.start_ns));
                container.host_root = event.is(flags::HOST_ROOT);
            }
        }
        self.name_container(key, host);
        // What was put in place before its container was known is known now.
        if self.world.processes.get(&header.tgid).is_some_and(|p| p.container.is_none()) {
            self.world.set_process_container(header.tgid, Some(key));
        }
    }

    /// A container whose cgroups have an arbitrary name: those of the same path that were made at about the same time
    /// are its, one in each hierarchy.
    fn container_of_leaf(
        &mut self,
        slot: u64,
        leaf: &str,
        now: u64,
        facts: Option<RuntimeFacts>,
    ) -> ContainerKey {
        const TOGETHER_NS: u64 = 60_000_000_000;
        let (path, made) = match self.world.slots.get(&slot) {
            Some(slot) => (slot.path.clone(), slot.seen_ns),
            None => (None, now),
        };
        // Two of the same name at different places are two: the second is called by its path.
        let by_path = path.as_deref().unwrap_or(leaf).trim_start_matches('/').to_owned();
        let taken = self.world.container_by_id(leaf).and_then(|key| self.world.container(Some(key)));
        let id = if taken.is_some_and(|c| !c.cgroups.is_empty()) { by_path.as_str() } else { leaf };
        let key = self.world.make_container(id, Runtime::Unknown, now, false);
        self.world.begin_again(key);
        let mut slots: Vec<u64> = self
            .world
            .slots
            .iter()
            .filter(|(number, other)| {
                **number == slot
                    || other.container.is_none()
                        && !other.is_host
                        && other.path == path
                        && other.seen_ns.abs_diff(made) < TOGETHER_NS
            })
            .map(|(number, _)| *number)
            .collect();
        slots.sort_unstable();
        let mut cgroups: Vec<_> = self
            .world
            .cgroups
            .iter()
            .filter(|(_, cgroup)| slots.contains(&cgroup.slot) && Some(&cgroup.path) == path.as_ref())
            .map(|((hierarchy, id), cgroup)| (*hierarchy, *id, cgroup.path.clone()))
            .collect();
        cgroups.sort();
        // What was made below it meanwhile, before anybody knew that it is a container, is part of it.
        let below = path.map(|path| format!("{path}/"));
        let is_below =
            |cgroup: &CgroupEntry| below.as_ref().is_some_and(|below| cgroup.path.starts_with(below));
        let made: BTreeSet<u64> =
            self.world.cgroups.values().filter(|cgroup| is_below(cgroup)).map(|cgroup| cgroup.slot).collect();
        for slot in slots {
            self.world.assign_slot(slot, key);
        }
        for slot in made {
            if self.world.slots.get(&slot).is_some_and(|slot| slot.container.is_none()) {
                self.world.assign_slot(slot, key);
            }
        }
        for (hierarchy, id, path) in cgroups {
            self.world.add_cgroup(key, hierarchy, id, &path);
        }
        if let Some(facts) = facts {
            self.apply_runtime(key, &facts);
        }
        key
    }

    /// A container without cgroup. If its namespaces are another container's, it is a visitor of that one and no
    /// container: the slot is the host's.
    fn container_of_namespaces(&mut self, slot: u64, tuple: &Tuple, now: u64) -> Option<ContainerKey> {
        let inode = self.world.own_world_inode(tuple)?;
        let ns = if tuple.get(NsType::PID) == inode { NsType::PID } else { NsType::USER };
        if let Owner::Container(owner) = self.world.owner(ns, inode) {
            // The start-up scan was faster than the ring.
            if self.world.container(Some(owner)).is_some_and(|c| c.runtime == Runtime::Namespaces) {
                self.world.assign_slot(slot, owner);
                return Some(owner);
            }
            self.world.assign_host(slot);
            return None;
        }
        let key = self.world.make_container(&format!("ns-{inode}"), Runtime::Namespaces, now, false);
        self.world.assign_slot(slot, key);
        Some(key)
    }

    /// A host task that joined namespaces executes something: in a container's?
    fn entered(&mut self, event: &Event, tuple: &Tuple, host: &mut dyn Host) {
        let mut types = Vec::new();
        let mut into = None;
        for (ns, inode) in tuple.iter().filter(|(_, inode)| *inode != 0) {
            if let Owner::Container(key) = self.world.owner(ns, inode) {
                types.push(ns);
                into.get_or_insert(key);
            }
        }
        let Some(owner) = into else { return };
        // The plain namespaces of a process's own making (bubblewrap, unshare) are no container's it entered.
        let subject = self.subject(event, host);
        let expected = self.world.host_tuple;
        let door = Door::Call(Kind::Setns);
        let fact = Fact::Entered { owner, expected, actual: *tuple, types, door };
        self.find(event, Some(subject), Some(owner), fact);
    }

    pub(super) fn exit(&mut self, event: &Event) {
        let header = &event.header;
        self.close_joins(header.tgid, None);
        let container = self.container(event);
        let before = self.world.last_tuple(header.tgid, header.tid);
        let differs = before.is_some_and(|before| before.differences(&Tuple(header.inodes)).next().is_some());
        if (differs || event.is(flags::CHANGED))
            && !Self::is_entering(event)
            && self.is_news(header.tgid, header.time_ns)
            && let Some(container) = container
        {
            let subject = self.subject_known(event);
            self.judge(
                header.time_ns,
                subject,
                container,
                before,
                Tuple(header.inodes),
                Vec::new(),
                Door::Unseen,
            );
        }
        self.world.bury(header.tgid, header.start_ns);
        if let Some(container) = container {
            self.world.drop_if_gone(container);
        }
    }
}

/// True if a cgroup of any name may be the container's that these facts are of. LXC's and systemd-nspawn's say what they
/// are; a job's cgroup that happens to be called like such a container is not it.
pub(super) fn names_any_cgroup(facts: &RuntimeFacts) -> bool {
    !matches!(facts.runtime.as_deref(), Some("lxc" | "systemd-nspawn"))
}
