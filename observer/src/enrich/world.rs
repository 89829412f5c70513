//! The tables: containers, processes, slots, cgroups, and who owns which namespace. Read-only to detectors.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    rc::Rc,
};

use observer_common::{Host as HostFacts, class};

use super::finding::{Effect, Foreign, Owner, Subject};
use crate::model::{
    Ancestor, CgroupPath, Container, ContainerKey, ContainerRef, Metadata, NsType, PodRef, Process,
    ProcessKey, Runtime, TICK_NS, Tuple,
};

/// What a slot is known to be.
#[derive(Clone, Debug, Default)]
pub struct Slot {
    pub container: Option<ContainerKey>,
    /// The cgroup's path and its last part, while nothing better is known.
    pub leaf: Option<String>,
    pub path: Option<Rc<str>>,
    pub is_host: bool,
    pub seen_ns: u64,
    /// How many cgroups have it.
    pub cgroups: usize,
}

/// A cgroup as the tables have it.
#[derive(Clone, Debug)]
pub struct CgroupEntry {
    pub path: Rc<str>,
    pub slot: u64,
}

/// How many ended processes are remembered, so that news that come late do not bring them back.
const GRAVES: usize = 8192;
/// Ancestors shown.
const MAX_CHAIN: usize = 16;

#[derive(Debug)]
pub struct World {
    pub host: HostFacts,
    pub host_tuple: Tuple,
    pub processes: HashMap<u32, Process>,
    pub containers: BTreeMap<ContainerKey, Container>,
    pub slots: HashMap<u64, Slot>,
    pub cgroups: HashMap<(u32, u64), CgroupEntry>,
    /// Order in which hierarchies are shown: v2 unless it is the root, else pids, memory, name=systemd.
    pub shown: Vec<u32>,
    by_id: HashMap<String, ContainerKey>,
    /// Inode of a namespace (of any type: numbers are unique among all) to the container it belongs to.
    owners: HashMap<u32, ContainerKey>,
    /// Namespaces of threads that differ from their process's, by (pid, tid).
    pub threads: BTreeMap<(u32, u32), Tuple>,
    next_container: u64,
    /// (pid, start in ns): a pid can be given again within the tick that a key counts in.
    graves: VecDeque<(u32, u64)>,
    buried: HashSet<(u32, u64)>,
    pub effects: Vec<Effect>,
    /// Raised with every change of what containers there are, of their cgroups and baselines.
    pub version: u64,
    /// The processes that ended last, oldest first: what the watcher of limits has to say of one comes after its end.
    ended: VecDeque<Process>,
}

/// How many of them are remembered: what ends within some tens of milliseconds.
const ENDED: usize = 512;

impl World {
    pub fn new(host: HostFacts) -> Self {
        World {
            host,
            host_tuple: Tuple(host.inodes),
            processes: HashMap::new(),
            containers: BTreeMap::new(),
            slots: HashMap::new(),
            cgroups: HashMap::new(),
            shown: vec![0],
            by_id: HashMap::new(),
            owners: HashMap::new(),
            threads: BTreeMap::new(),
            next_container: 0,
            graves: VecDeque::new(),
            buried: HashSet::new(),
            effects: Vec::new(),
            version: 0,
            ended: VecDeque::new(),
        }
    }

    // --- containers

    pub fn container(&self, key: Option<ContainerKey>) -> Option<&Container> {
        self.containers.get(&key?)
    }

    pub fn container_of_slot(&self, slot: u64) -> Option<ContainerKey> {
        self.slots.get(&slot)?.container
    }

    pub fn container_by_id(&self, id: &str) -> Option<ContainerKey> {
        self.by_id.get(id).copied()
    }

    /// The container of this id, made if it is new.
    pub fn make_container(&mut self, id: &str, runtime: Runtime, now: u64, late: bool) -> ContainerKey {
        if let Some(key) = self.by_id.get(id) {
            return *key;
        }
        self.next_container += 1;
        let key = ContainerKey(self.next_container);
        self.by_id.insert(id.to_owned(), key);
        self.containers.insert(
            key,
            Container {
                key,
                id: id.to_owned(),
                name: None,
                image: None,
                image_digest: None,
                runtime,
                pod: None,
                metadata: Metadata::of_new(id, runtime),
                cgroups: Vec::new(),
                slots: Vec::new(),
                baseline: None,
                baseline_ns: 0,
                baseline_of_init: false,
                baseline_of: None,
                label: None,
                host_root: false,
                made: Default::default(),
                processes: 0,
                created_ns: now,
                late,
            },
        );
        key
    }

    /// A container that has no cgroup left is only kept for processes that outlived it (they had escaped). If cgroups of
    /// the same id are made, it begins anew: its namespaces were those of its last life.
    pub fn begin_again(&mut self, key: ContainerKey) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        if container.cgroups.is_empty() && container.baseline.is_some() {
            self.version += 1;
            container.baseline = None;
            container.baseline_of_init = false;
            container.baseline_of = None;
            container.label = None;
            container.made.clear();
            self.owners.retain(|_, owner| *owner != key);
        }
    }

    /// Says that a slot is a container's, here and to the kernel side.
    pub fn assign_slot(&mut self, slot: u64, key: ContainerKey) {
        let entry = self.slots.entry(slot).or_default();
        if slot == 0 || entry.container == Some(key) {
            return;
        }
        let Some(container) = self.containers.get_mut(&key) else { return };
        entry.container = Some(key);
        entry.is_host = false;
        container.slots.push(slot);
        let canonical = container.slots[0];
        let class =
            if container.runtime == Runtime::Namespaces { class::NAMESPACES } else { class::CONTAINER };
        self.effects.push(Effect::Describe { slot, class, canonical });
    }

    /// The container's first slot.
    pub fn slot_of_container(&self, key: ContainerKey) -> Option<u64> {
        self.containers.get(&key)?.slots.first().copied()
    }

    pub fn assign_host(&mut self, slot: u64) {
        if slot == 0 {
            return;
        }
        let entry = self.slots.entry(slot).or_default();
        if !entry.is_host {
            entry.is_host = true;
            entry.container = None;
            self.effects.push(Effect::Describe { slot, class: class::HOST, canonical: 0 });
        }
    }

    pub fn add_cgroup(&mut self, key: ContainerKey, hierarchy: u32, id: u64, path: &str) {
        let Some(container) = self.containers.get_mut(&key) else { return };
        // A user's runtimes keep their state in the user's directories, where the agent does not look: they could hang a file
        // system in there that answers when it likes.
        if path.starts_with("/user.slice/") && container.metadata == Metadata::Awaited {
            container.metadata = Metadata::None;
        }
        if !container.cgroups.iter().any(|cgroup| cgroup.hierarchy == hierarchy && cgroup.id == id) {
            self.version += 1;
            container.cgroups.push(CgroupPath { hierarchy, id, path: path.to_owned() });
            container.cgroups.sort();
        }
    }

    /// Sets what a container's processes are held against, and takes the namespaces that are its own.
    pub fn set_baseline(&mut self, key: ContainerKey, tuple: Tuple, now: u64) {
        if self.containers.get(&key).is_some_and(|container| container.baseline.is_some()) {
            // Started again under the same id: the old namespaces are gone.
            self.owners.retain(|_, owner| *owner != key);
        }
        for (ns, inode) in tuple.iter() {
            if inode != 0 && inode != self.host_tuple.get(ns) {
                // Another living container's stays its own: this one shares it.
                self.owners.entry(inode).or_insert(key);
            }
        }
        if let Some(container) = self.containers.get_mut(&key) {
            container.baseline = Some(tuple);
            container.baseline_of = None;
            container.label = None;
            container.baseline_ns = now;
            self.version += 1;
        }
    }

    /// Forgets a container when neither a cgroup nor a process of it is left.
    pub fn drop_if_gone(&mut self, key: ContainerKey) {
        let Some(container) = self.containers.get(&key) else { return };
        if container.processes > 0 || !container.cgroups.is_empty() {
            return;
        }
        let Some(container) = self.containers.remove(&key) else { return };
        self.version += 1;
        self.by_id.remove(&container.id);
        self.disown(key);
        for slot in container.slots {
            self.slots.remove(&slot);
            self.effects.push(Effect::Forget { slot });
        }
        if container.runtime == Runtime::Namespaces
            && let Some(baseline) = container.baseline
        {
            for ns in [NsType::PID, NsType::USER] {
                if baseline.get(ns) != self.host_tuple.get(ns) {
                    self.effects.push(Effect::ForgetNamespace { inode: baseline.get(ns) });
                }
            }
        }
    }

    // --- namespaces

    pub fn owner(&self, ns: NsType, inode: u32) -> Owner {
        if inode == self.host_tuple.get(ns.kind()) {
            return Owner::Host;
        }
        match self.owners.get(&inode) {
            Some(key) => Owner::Container(*key),
            None => Owner::Unknown,
        }
    }

    /// A namespace was made: whoever had that inode before is rid of it. A container's own making is noted.
    pub fn namespace_made(&mut self, inode: u32, by: Option<ContainerKey>, time_ns: u64) {
        if inode == 0 {
            return;
        }
        if let Some(previous) = self.owners.get(&inode).copied() {
            // The rings are not read in the order of time, and a runtime's call may come after the exec that it was made for.
            if self.has(previous, inode, Some(time_ns)) {
                return;
            }
            self.owners.remove(&inode);
            if let Some(container) = self.containers.get_mut(&previous) {
                container.made.remove(&inode);
            }
            if let Some(heir) = self.heir(inode, Some(time_ns)) {
                self.owners.insert(inode, heir);
                return;
            }
        }
        if let Some(key) = by
            && let Some(container) = self.containers.get_mut(&key)
        {
            // Numbers are used again lowest first, so this is about the number of namespaces that live at once; one
            // that keeps more alive than this gets the lowest ones forgotten, and is told as if they were foreign.
            const MOST: usize = 65_536;
            if container.made.len() >= MOST
                && let Some(first) = container.made.pop_first()
            {
                self.owners.remove(&first);
            }
            container.made.insert(inode);
            self.owners.insert(inode, key);
        }
    }

    /// Whether an inode is of a container's baseline, and that was found after this time.
    fn has(&self, key: ContainerKey, inode: u32, after_ns: Option<u64>) -> bool {
        self.containers.get(&key).is_some_and(|container| {
            let mut baseline = container.baseline.iter().flat_map(Tuple::iter);
            after_ns.is_none_or(|time_ns| container.baseline_ns > time_ns)
                && baseline.any(|(ns, own)| own == inode && inode != self.host_tuple.get(ns))
        })
    }

    /// The first container that has an inode in its baseline, now that nobody owns it.
    fn heir(&self, inode: u32, after_ns: Option<u64>) -> Option<ContainerKey> {
        let heirs = self.containers.iter().filter(|(key, _)| self.has(**key, inode, after_ns));
        heirs.min_by_key(|(key, container)| (container.baseline_ns, **key)).map(|(key, _)| *key)
    }

    /// A container's namespaces are nobody's any more, but for those that another one shares.
    fn disown(&mut self, key: ContainerKey) {
        let own: Vec<u32> =
            self.owners.iter().filter(|(_, of)| **of == key).map(|(inode, _)| *inode).collect();
        for inode in own {
            self.owners.remove(&inode);
            if let Some(heir) = self.heir(inode, None) {
                self.owners.insert(inode, heir);
            }
        }
    }

    /// The namespaces of `tuple` that are neither of the container's baseline nor made inside it.
    pub fn foreign(&self, container: &Container, tuple: &Tuple) -> Vec<Foreign> {
        let Some(baseline) = container.baseline else { return Vec::new() };
        baseline
            .differences(tuple)
            .filter(|ns| !container.made.contains(&tuple.get(*ns)))
            // A child's future namespace that is the container's own is a way back, not out.
            .filter(|ns| tuple.get(*ns) != baseline.get(ns.kind()))
            .map(|ns| Foreign { ns, inode: tuple.get(ns), owner: self.owner(ns, tuple.get(ns)) })
            .collect()
    }

    // --- processes

    pub fn is_buried(&self, pid: u32, start_ns: u64) -> bool {
        self.buried.contains(&(pid, start_ns))
    }

    pub fn insert_process(&mut self, process: Process) {
        let pid = process.key.pid;
        if let Some(old) = self.processes.remove(&pid) {
            self.count(old.container, -1);
        }
        self.count(process.container, 1);
        self.processes.insert(pid, process);
    }

    fn count(&mut self, key: Option<ContainerKey>, by: isize) {
        if let Some(container) = key.and_then(|key| self.containers.get_mut(&key)) {
            container.processes = container.processes.saturating_add_signed(by);
        }
    }

    pub fn set_process_container(&mut self, pid: u32, key: Option<ContainerKey>) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if process.container != key {
            let old = std::mem::replace(&mut process.container, key);
            self.count(old, -1);
            self.count(key, 1);
            if let Some(old) = old {
                self.drop_if_gone(old);
            }
        }
    }

    /// A process whose end was seen.
    pub fn bury(&mut self, pid: u32, start_ns: u64) {
        if self.graves.len() == GRAVES
            && let Some(oldest) = self.graves.pop_front()
        {
            self.buried.remove(&oldest);
        }
        if self.buried.insert((pid, start_ns)) {
            self.graves.push_back((pid, start_ns));
        }
        let is_it = |process: &Process| {
            // What the scan at start found has the start in ticks only.
            process.start_ns == start_ns
                || process.start_ns.is_multiple_of(TICK_NS) && process.key == ProcessKey::new(pid, start_ns)
        };
        if self.processes.get(&pid).is_some_and(is_it) {
            self.remove_process(ProcessKey::new(pid, start_ns));
        }
    }

    /// One that is gone, however that is known.
    pub fn remove_process(&mut self, key: ProcessKey) {
        if self.processes.get(&key.pid).is_none_or(|process| process.key != key) {
            return;
        }
        let Some(process) = self.processes.remove(&key.pid) else { return };
        self.forget_threads(key.pid);
        if let Some(container) = process.container {
            self.count(Some(container), -1);
            self.drop_if_gone(container);
        }
        if self.ended.len() == ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(process);
    }

    /// The process that has this pid, or had it last.
    pub fn process_or_ended(&self, pid: u32) -> Option<&Process> {
        self.processes.get(&pid).or_else(|| self.ended.iter().rev().find(|process| process.key.pid == pid))
    }

    /// The process that had this pid at that time (kernel time), if it is there or remembered.
    pub fn process_at(&self, pid: u32, time_ns: u64) -> Option<&Process> {
        let had = |process: &&Process| process.key.pid == pid && process.start_ns <= time_ns;
        self.processes.get(&pid).filter(had).or_else(|| self.ended.iter().rev().find(had))
    }

    /// The threads of a process are gone, or have its namespaces again.
    pub fn forget_threads(&mut self, pid: u32) {
        while let Some(((first, tid), _)) = self.threads.range((pid, 0)..=(pid, u32::MAX)).next() {
            let place = (*first, *tid);
            self.threads.remove(&place);
        }
    }

    /// The last tuple seen of a thread.
    pub fn last_tuple(&self, pid: u32, tid: u32) -> Option<Tuple> {
        if pid != tid
            && let Some(tuple) = self.threads.get(&(pid, tid))
        {
            return Some(*tuple);
        }
        self.processes.get(&pid).map(|process| process.tuple).filter(Tuple::is_known)
    }

    pub fn set_last_tuple(&mut self, pid: u32, tid: u32, tuple: Tuple, now: u64) {
        if pid == tid {
            if let Some(process) = self.processes.get_mut(&pid) {
                process.tuple = tuple;
                process.updated_ns = process.updated_ns.max(now);
            }
            return;
        }
        match self.processes.get(&pid) {
            Some(process) if process.tuple != tuple => {
                // As many threads as a container starts with namespaces of their own, within reason.
                if self.threads.len() < 65_536 {
                    self.threads.insert((pid, tid), tuple);
                }
            }
            _ => {
                self.threads.remove(&(pid, tid));
            }
        }
    }

    /// The way up, nearest first; for a container's process it ends with the container's last process.
    pub fn ancestors(&self, parent: Option<ProcessKey>, container: Option<ContainerKey>) -> Vec<Ancestor> {
        let mut chain = Vec::new();
        let mut next = parent;
        while let Some(key) = next {
            let Some(process) = self.processes.get(&key.pid).filter(|process| process.key == key) else {
                break;
            };
            if container.is_some() && process.container != container {
                break;
            }
            chain.push(Ancestor { pid: key.pid, comm: process.comm.to_string() });
            if chain.len() == MAX_CHAIN || key.pid == 1 {
                break;
            }
            next = process.parent;
        }
        chain
    }

    /// A process of the table, for output.
    pub fn subject(&self, pid: u32, tid: u32) -> Option<Subject> {
        Some(self.subject_of(self.processes.get(&pid)?, tid))
    }

    pub fn subject_of(&self, process: &Process, tid: u32) -> Subject {
        Subject {
            pid: process.key.pid,
            tid,
            start_ns: process.start_ns,
            comm: process.comm.to_string(),
            exe: process.exe.as_deref().map(str::to_owned),
            exe_asked: process.exe_asked,
            args: crate::decode::arguments(&process.args),
            uid: process.uid,
            gid: process.gid,
            ancestors: self.ancestors(process.parent, process.container),
        }
    }

    // --- output

    /// The cgroup that stands for a container: of v2 unless that is the root, else pids, memory, name=systemd.
    pub fn shown_cgroup<'a>(&self, container: &'a Container) -> Option<&'a CgroupPath> {
        self.shown
            .iter()
            .find_map(|hierarchy| container.cgroups.iter().find(|cgroup| cgroup.hierarchy == *hierarchy))
            .or_else(|| container.cgroups.first())
    }

    pub fn container_ref(&self, key: ContainerKey) -> Option<ContainerRef> {
        let container = self.containers.get(&key)?;
        let cgroup = self.shown_cgroup(container);
        Some(ContainerRef {
            id: container.id.clone(),
            name: container.name.clone(),
            image: container.image.clone(),
            image_digest: container.image_digest.clone(),
            runtime: container.runtime.name().to_owned(),
            cgroup_id: cgroup.map(|cgroup| cgroup.id),
            cgroup_path: cgroup.map(|cgroup| cgroup.path.clone()),
            pod: container.pod.clone().map(PodRef::from),
            metadata: None,
        })
    }

    /// True if the tuple is the host's, as far as it is known.
    pub fn is_hosts(&self, tuple: &Tuple) -> bool {
        self.host_tuple.differences(tuple).next().is_none()
    }

    /// True if such namespaces are a container by themselves: a pid namespace of its own,
    /// or a user and a mount namespace.
    pub fn is_own_world(&self, tuple: &Tuple) -> bool {
        self.own_world_inode(tuple).is_some()
    }

    /// The namespace that names such a container: its pid, else its user namespace.
    pub fn own_world_inode(&self, tuple: &Tuple) -> Option<u32> {
        let own = |ns: NsType| tuple.get(ns) != 0 && tuple.get(ns) != self.host_tuple.get(ns);
        if own(NsType::PID) {
            Some(tuple.get(NsType::PID))
        } else if own(NsType::USER) && own(NsType::MNT) {
            Some(tuple.get(NsType::USER))
        } else {
            None
        }
    }

    /// True if all namespaces that are not the host's are containers'. (Of a pod's container, which shares some, the mnt
    /// namespace is its own.)
    pub fn is_visiting(&self, tuple: &Tuple) -> bool {
        let mut others = self.host_tuple.differences(tuple).filter(|ns| ns.kind() == *ns);
        others.all(|ns| matches!(self.owner(ns, tuple.get(ns)), Owner::Container(_)))
    }

    /// True if what runs in a cgroup of no telling name is isolated like a container: in namespaces of its own of
    /// pid, or of at least three types. (A service that systemd sandboxes has a telling name.)
    pub fn looks_contained(&self, tuple: &Tuple) -> bool {
        let own = self.host_tuple.differences(tuple).filter(|ns| ns.kind() == *ns).count();
        self.is_own_world(tuple) || own >= 3
    }
}

/// Nanoseconds of a start time that /proc gave in ticks.
pub fn ticks_to_ns(ticks: u64) -> u64 {
    ticks.saturating_mul(TICK_NS)
}

#[cfg(test)]
mod tests {
    use crate::{
        detect::testing::{other, web, world},
        enrich::Owner,
        model::{NsType, Tuple},
    };

    /// `--network container:db`, and db ends first.
    #[test]
    fn who_shares_a_namespace_inherits_it() {
        let mut world = world();
        let mut shared = world.container(Some(web())).and_then(|it| it.baseline).expect("a baseline");
        shared.0[NsType::NET.index()] = 30;
        world.set_baseline(web(), shared, 5);
        assert_eq!(world.owner(NsType::NET, 30), Owner::Container(other()));
        world.drop_if_gone(other());
        assert_eq!(world.owner(NsType::NET, 30), Owner::Container(web()));
        assert_eq!(world.owner(NsType::MNT, 30), Owner::Container(web()));
        world.drop_if_gone(web());
        assert_eq!(world.owner(NsType::NET, 30), Owner::Unknown);
    }

    /// What is read late takes nothing from who had it afterwards, and from who had it before, whoever comes first.
    #[test]
    fn a_namespace_is_whose_it_was_made_for() {
        let mut world = world();
        world.set_baseline(web(), Tuple([40; _]), 100);
        world.namespace_made(40, None, 90);
        assert_eq!(world.owner(NsType::NET, 40), Owner::Container(web()));
        world.namespace_made(40, None, 110);
        assert_eq!(world.owner(NsType::NET, 40), Owner::Unknown);
        // The old holder's end was not seen yet when the new one's program began.
        world.set_baseline(other(), Tuple([50; _]), 200);
        world.set_baseline(web(), Tuple([50; _]), 300);
        assert_eq!(world.owner(NsType::NET, 50), Owner::Container(other()));
        world.namespace_made(50, None, 290);
        assert_eq!(world.owner(NsType::NET, 50), Owner::Container(web()));
    }
}
