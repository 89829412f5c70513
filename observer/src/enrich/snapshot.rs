//! What is there when the agent starts, and what went wrong before.

use std::collections::{BTreeMap, HashMap};

use observer_common::{Host as HostFacts, Inodes, NAMESPACES, NS_PID, NS_PID_FOR_CHILDREN, Root};
use serde::{Deserialize, Serialize};

use super::{
    Enricher,
    finding::*,
    identity::{Identity, identify},
    process::names_any_cgroup,
    world::{World, ticks_to_ns},
};
use crate::{
    host::{CgroupDir, Hierarchy, Host, ProcFacts},
    model::{Ancestor, Container, ContainerKey, NsType, Process, ProcessKey, Runtime, Tuple},
};

/// The start-up scan, as a recording holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Kernel time, ns.
    pub time_ns: u64,
    pub host: HostRecord,
    pub hierarchies: Vec<Hierarchy>,
    /// Parents before children; slots as the kernel side has them.
    pub cgroups: Vec<CgroupDir>,
    /// By start.
    pub processes: Vec<ProcFacts>,
    /// AppArmor labels processes here. Recordings that are older know nothing of it.
    #[serde(default)]
    pub apparmor: bool,
}

/// [`HostFacts`], in a form that can be written down.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HostRecord {
    pub inodes: Inodes,
    /// It is what the agent was told.
    pub told: bool,
    pub root_mnt_ns: u32,
    pub root_dev: u32,
    pub root_mount_ino: u64,
    pub root_ino: u64,
}

impl From<HostFacts> for HostRecord {
    fn from(host: HostFacts) -> Self {
        let mut inodes = host.inodes;
        if inodes[NS_PID] == 0 {
            // Not shown by this kernel; pid 1 has its children in its own.
            inodes[NS_PID] = inodes[NS_PID_FOR_CHILDREN];
        }
        HostRecord {
            inodes,
            told: host.told != 0,
            root_mnt_ns: host.root.mnt_ns,
            root_dev: host.root.dev,
            root_mount_ino: host.root.mount_root_ino,
            root_ino: host.root.ino,
        }
    }
}

impl From<HostRecord> for HostFacts {
    fn from(record: HostRecord) -> Self {
        HostFacts {
            inodes: record.inodes,
            found: 1,
            told: u32::from(record.told),
            root: Root {
                mnt_ns: record.root_mnt_ns,
                dev: record.root_dev,
                mount_root_ino: record.root_mount_ino,
                ino: record.root_ino,
            },
        }
    }
}

/// A container's process with the namespaces of the host, found at start.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    facts: ProcFacts,
    container: ContainerKey,
}

/// Whether a cgroup found at start gets its parent's slot: only below a container's.
pub fn inherits(parent_path: &str) -> bool {
    matches!(identify(parent_path), Identity::Container { .. })
}

impl Enricher {
    /// Fills the tables, and finds what escaped before.
    pub fn start(&mut self, snapshot: &Snapshot, host: &mut dyn Host) -> Vec<Finding> {
        self.world.shown = shown_order(&snapshot.hierarchies);
        for dir in &snapshot.cgroups {
            let inherited = self
                .world
                .cgroups
                .get(&(dir.hierarchy, dir.parent_id))
                .is_some_and(|parent| parent.slot == dir.slot);
            self.know_cgroup(dir.hierarchy, dir.id, &dir.path, dir.slot, inherited, snapshot.time_ns, true);
        }
        let ids: HashMap<(u32, &str), u64> =
            snapshot.cgroups.iter().map(|dir| ((dir.hierarchy, dir.path.as_str()), dir.id)).collect();
        self.name_by_processes(snapshot, host);

        self.leave_the_rest_to_the_host(snapshot);

        // Whose each process is: by its cgroups, else by namespaces of its own.
        let mut of: BTreeMap<u32, ContainerKey> = BTreeMap::new();
        for facts in &snapshot.processes {
            if let Some(key) = self.by_cgroups(facts, &ids) {
                of.insert(facts.pid, key);
            }
        }
        let members = |of: &BTreeMap<u32, ContainerKey>| {
            let mut members: BTreeMap<ContainerKey, Vec<&ProcFacts>> = BTreeMap::new();
            for facts in &snapshot.processes {
                if let Some(key) = of.get(&facts.pid) {
                    members.entry(*key).or_default().push(facts);
                }
            }
            members
        };
        // When the process that gave each container its baseline was started.
        let mut begun: HashMap<ContainerKey, u64> = HashMap::new();
        for (key, members) in members(&of) {
            let init = host.runtime(&self.world.containers[&key].id).and_then(|facts| {
                self.apply_runtime(key, &facts);
                facts.init_pid
            });
            if let Some(first) = baseline(&self.world, &members, init) {
                self.world.set_baseline(key, Tuple(first.inodes), 0);
                self.stands_for(key, first);
                begun.insert(key, first.start_ticks);
            }
        }
        self.mark_members(snapshot, &of);
        self.plain_namespaces(snapshot, &mut of);
        let outside = self.outside(snapshot, &of);
        for facts in &snapshot.processes {
            let container = of.get(&facts.pid).or_else(|| outside.get(&facts.pid)).copied();
            self.insert_found(facts, container, snapshot);
        }
        for facts in &snapshot.processes {
            if let Some(key) = of.get(&facts.pid) {
                // A supervisor (systemd-nspawn's, a virtual machine's) was there before the container, and stays outside.
                let supervises = self.world.is_hosts(&Tuple(facts.inodes))
                    && begun.get(key).is_none_or(|begun| facts.start_ticks < *begun);
                if supervises {
                    continue;
                }
                self.late_cgroup(facts, *key, &ids, snapshot.time_ns, host);
                self.late_namespaces(facts, *key, snapshot.time_ns, host);
            } else if let Some(key) = outside.get(&facts.pid) {
                self.late_cgroup(facts, *key, &ids, snapshot.time_ns, host);
                self.late_namespaces(facts, *key, snapshot.time_ns, host);
            } else {
                self.late_visitor(facts, snapshot.time_ns, host);
            }
        }
        self.labels.start(snapshot.apparmor, snapshot.time_ns);
        self.started_ns = snapshot.time_ns;
        self.read_first_labels(host);
        std::mem::take(&mut self.findings)
    }

    fn stands_for(&mut self, key: ContainerKey, first: &ProcFacts) {
        if let Some(container) = self.world.containers.get_mut(&key) {
            container.baseline_of = Some(ProcessKey { pid: first.pid, start_ticks: first.start_ticks });
        }
    }

    /// Cgroups whose name tells nothing: they are containers if a runtime knows them, or if their oldest process is
    /// isolated (any other may be a sandbox that a job has started). What is below a container's is the container's.
    fn name_by_processes(&mut self, snapshot: &Snapshot, host: &mut dyn Host) {
        let mut oldest: HashMap<(u32, &str), &ProcFacts> = HashMap::new();
        for facts in &snapshot.processes {
            for (hierarchy, path) in &facts.cgroups {
                oldest.entry((*hierarchy, path.as_str())).or_insert(facts);
            }
        }
        for dir in &snapshot.cgroups {
            let above = self.world.cgroups.get(&(dir.hierarchy, dir.parent_id)).map(|parent| parent.slot);
            if let Some(key) = above.and_then(|slot| self.world.container_of_slot(slot)) {
                self.world.assign_slot(dir.slot, key);
                continue;
            }
            let slot = self.world.slots.get(&dir.slot).filter(|s| s.container.is_none() && !s.is_host);
            let Some(leaf) = slot.and_then(|s| s.leaf.clone()) else { continue };
            let isolated = oldest
                .get(&(dir.hierarchy, dir.path.as_str()))
                .is_some_and(|facts| self.world.looks_contained(&Tuple(facts.inodes)));
            if !isolated && host.runtime(&leaf).filter(names_any_cgroup).is_none() {
                continue;
            }
            // The same path in another hierarchy is the same container; the same name elsewhere is not.
            let by_path = dir.path.trim_start_matches('/');
            let same = |known: &Container| known.cgroups.iter().all(|cgroup| cgroup.path == dir.path);
            let known = self.world.container_by_id(&leaf).and_then(|key| self.world.container(Some(key)));
            let id = if known.is_none_or(same) { leaf.as_str() } else { by_path };
            let key = self.world.make_container(id, Runtime::Unknown, snapshot.time_ns, true);
            self.world.assign_slot(dir.slot, key);
            self.world.add_cgroup(key, dir.hierarchy, dir.id, &dir.path);
        }
    }

    /// Cgroups of no telling name that are no container's are the host's, unless they are so new that a container
    /// may be on its way into them.
    fn leave_the_rest_to_the_host(&mut self, snapshot: &Snapshot) {
        const NEW_NS: u64 = 10_000_000_000;
        let new: std::collections::HashSet<u64> =
            snapshot.cgroups.iter().filter(|dir| dir.age_ns < NEW_NS).map(|dir| dir.slot).collect();
        let mut rest: Vec<u64> = self
            .world
            .slots
            .iter()
            .filter(|(number, slot)| slot.container.is_none() && !slot.is_host && !new.contains(number))
            .map(|(number, _)| *number)
            .collect();
        rest.sort_unstable();
        for slot in rest {
            self.world.assign_host(slot);
        }
    }

    /// Hands the kernel side the marks of processes that are older than it. Who still has all of the host's namespaces
    /// and is no member's child may be on its way in, and gets none: its cgroup will say so.
    fn mark_members(&mut self, snapshot: &Snapshot, of: &BTreeMap<u32, ContainerKey>) {
        for facts in &snapshot.processes {
            let Some(key) = of.get(&facts.pid) else { continue };
            let entering = self.world.is_hosts(&Tuple(facts.inodes)) && of.get(&facts.ppid) != Some(key);
            if let Some(slot) = self.world.slot_of_container(*key).filter(|_| !entering) {
                self.world.effects.push(Effect::Mark { pid: facts.pid, slot, moved: false });
            }
        }
    }

    fn by_cgroups(&self, facts: &ProcFacts, ids: &HashMap<(u32, &str), u64>) -> Option<ContainerKey> {
        facts.cgroups.iter().find_map(|(hierarchy, path)| {
            let id = ids.get(&(*hierarchy, path.as_str()))?;
            let slot = self.world.cgroups.get(&(*hierarchy, *id))?.slot;
            self.world.container_of_slot(slot)
        })
    }

    /// Processes in pid (or user and mnt) namespaces of their own that are in no container's cgroup.
    fn plain_namespaces(&mut self, snapshot: &Snapshot, of: &mut BTreeMap<u32, ContainerKey>) {
        let mut groups: BTreeMap<u32, Vec<&ProcFacts>> = BTreeMap::new();
        for facts in snapshot.processes.iter().filter(|p| !of.contains_key(&p.pid) && !p.kernel_thread) {
            let tuple = Tuple(facts.inodes);
            let Some(inode) = self.world.own_world_inode(&tuple) else { continue };
            let ns = if tuple.get(NsType::PID) == inode { NsType::PID } else { NsType::USER };
            if self.world.owner(ns, inode) == Owner::Unknown {
                groups.entry(inode).or_default().push(facts);
            }
        }
        for (inode, members) in groups {
            let id = format!("ns-{inode}");
            let key = self.world.make_container(&id, Runtime::Namespaces, snapshot.time_ns, true);
            let slot = observer_common::SLOT_AGENT | u64::from(inode) | 1 << 35;
            self.world.assign_slot(slot, key);
            self.world.effects.push(Effect::AdoptNamespace { inode, slot });
            if let Some(first) = baseline(&self.world, &members, None) {
                self.world.set_baseline(key, Tuple(first.inodes), 0);
                self.stands_for(key, first);
            }
            for facts in members {
                of.insert(facts.pid, key);
                self.world.effects.push(Effect::Mark { pid: facts.pid, slot, moved: false });
            }
        }
    }

    /// Processes outside all container cgroups that descend from a container's process.
    fn outside(
        &mut self,
        snapshot: &Snapshot,
        of: &BTreeMap<u32, ContainerKey>,
    ) -> BTreeMap<u32, ContainerKey> {
        let mut outside = BTreeMap::new();
        // By start, so parents come before children, except where pids were used again: those link up to none.
        for facts in snapshot.processes.iter().filter(|p| !of.contains_key(&p.pid)) {
            if let Some(key) = of.get(&facts.ppid).or_else(|| outside.get(&facts.ppid)).copied() {
                outside.insert(facts.pid, key);
                if let Some(slot) = self.world.slot_of_container(key) {
                    self.world.effects.push(Effect::Mark { pid: facts.pid, slot, moved: true });
                }
            }
        }
        outside
    }

    fn insert_found(&mut self, facts: &ProcFacts, container: Option<ContainerKey>, snapshot: &Snapshot) {
        let parent = self.world.processes.get(&facts.ppid).map(|p| p.key);
        self.world.insert_process(Process {
            key: ProcessKey { pid: facts.pid, start_ticks: facts.start_ticks },
            start_ns: ticks_to_ns(facts.start_ticks),
            parent,
            comm: facts.comm.as_str().into(),
            exe: facts.exe.as_deref().map(Into::into),
            exe_asked: false,
            args: facts.args.join("\0").into_bytes().into(),
            uid: facts.uid,
            gid: facts.gid,
            ns_pid: facts.ns_pid,
            tuple: Tuple(facts.inodes),
            container,
            host_root: false,
            privileges: None,
            label: None,
            label_told: false,
            brought_in: false,
            entering: false,
            updated_ns: snapshot.time_ns,
        });
    }

    fn late(&mut self, facts: &ProcFacts, key: ContainerKey, time_ns: u64, fact: Fact, host: &mut dyn Host) {
        if let Some((exe, args)) = host.image(facts.pid, facts.start_ticks)
            && let Some(process) = self.world.processes.get_mut(&facts.pid)
        {
            process.exe = exe.map(Into::into);
            process.args = args.join("\0").into_bytes().into();
        }
        let subject = self.world.subject(facts.pid, facts.pid);
        self.findings.push(Finding { time_ns, subject, container: Some(key), fact, late: true });
    }

    /// A process in its container's cgroups and in somebody else's namespaces.
    fn late_namespaces(&mut self, facts: &ProcFacts, key: ContainerKey, time_ns: u64, host: &mut dyn Host) {
        let tuple = Tuple(facts.inodes);
        let Some(container) = self.world.containers.get(&key) else { return };
        let Some(expected) = container.baseline else { return };
        let foreign = self.world.foreign(container, &tuple);
        // What belongs to nobody we know was made inside, as far as anybody can tell now.
        let (foreign, inside): (Vec<_>, Vec<_>) =
            foreign.into_iter().partition(|f| f.owner != Owner::Unknown);
        for f in inside {
            self.world.namespace_made(f.inode, Some(key), time_ns);
        }
        if foreign.is_empty() {
            return;
        }
        // A child that inherited it from its parent is the same escape.
        let inherited = self
            .world
            .processes
            .get(&facts.ppid)
            .is_some_and(|parent| parent.container == Some(key) && parent.tuple == tuple);
        if inherited {
            return;
        }
        // A runtime's own helper on its way in still has the host's namespaces, all of them: look again later.
        if self.world.is_hosts(&tuple) {
            self.suspects.push(Suspect { facts: facts.clone(), container: key });
            return;
        }
        self.late_escape(facts, key, time_ns, expected, foreign, host);
    }

    fn late_escape(
        &mut self,
        facts: &ProcFacts,
        key: ContainerKey,
        time_ns: u64,
        expected: Tuple,
        foreign: Vec<Foreign>,
        host: &mut dyn Host,
    ) {
        if let Some(slot) = self.world.slot_of_container(key) {
            self.world.effects.push(Effect::Mark { pid: facts.pid, slot, moved: false });
        }
        let actual = Tuple(facts.inodes);
        let change = NamespaceChange { expected, actual, foreign, made: Vec::new(), door: Door::Unseen };
        self.late(facts, key, time_ns, Fact::Namespaces(change), host);
    }

    /// Looks again at those that may have been on their way in: who still is as it was, is out.
    pub fn recheck(&mut self, host: &mut dyn Host) -> Vec<Finding> {
        let suspects = std::mem::take(&mut self.suspects);
        if suspects.is_empty() {
            return Vec::new();
        }
        let asked: Vec<(u32, u64)> = suspects.iter().map(|s| (s.facts.pid, s.facts.start_ticks)).collect();
        for (suspect, answer) in suspects.into_iter().zip(host.sweep(&asked)) {
            let key = suspect.container;
            let Some(process) = self.world.processes.get(&suspect.facts.pid) else { continue };
            let time_ns = process.updated_ns;
            if answer != Some(suspect.facts.inodes) || process.tuple != Tuple(suspect.facts.inodes) {
                continue;
            }
            let Some(container) = self.world.containers.get(&key) else { continue };
            let Some(expected) = container.baseline else { continue };
            let foreign = self.world.foreign(container, &process.tuple);
            self.late_escape(&suspect.facts, key, time_ns, expected, foreign, host);
        }
        std::mem::take(&mut self.findings)
    }

    fn late_cgroup(
        &mut self,
        facts: &ProcFacts,
        key: ContainerKey,
        ids: &HashMap<(u32, &str), u64>,
        time_ns: u64,
        host: &mut dyn Host,
    ) {
        let parent_is_outside = self.world.processes.get(&facts.ppid).is_some_and(|parent| {
            parent.container == Some(key) && snapshot_cgroups_differ(&self.world, parent.key.pid, key)
        });
        if parent_is_outside {
            return;
        }
        for (hierarchy, path) in &facts.cgroups {
            let id = ids.get(&(*hierarchy, path.as_str())).copied().unwrap_or(0);
            let now_in =
                self.world.cgroups.get(&(*hierarchy, id)).and_then(|c| self.world.container_of_slot(c.slot));
            // One made since the hierarchies were walked: by its path.
            let below = self.world.container(Some(key)).is_some_and(|container| {
                container.cgroups.iter().any(|c| {
                    c.hierarchy == *hierarchy
                        && path
                            .strip_prefix(&c.path)
                            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
            });
            if below {
                continue;
            }
            if let Some(from) = self.left(key, *hierarchy, now_in) {
                let mover = Ancestor { pid: facts.pid, comm: facts.comm.clone() };
                let change = CgroupChange {
                    hierarchy: *hierarchy,
                    from: Some(from),
                    to: Some(path.clone()),
                    to_id: id,
                    target: now_in,
                    mover,
                    mover_in_container: true,
                    door: 0,
                };
                self.late(facts, key, time_ns, Fact::Cgroup(change), host);
                return;
            }
        }
    }

    /// A process of the host in a container's namespaces.
    fn late_visitor(&mut self, facts: &ProcFacts, time_ns: u64, host: &mut dyn Host) {
        let tuple = Tuple(facts.inodes);
        let mut types = Vec::new();
        let mut into = None;
        for (ns, inode) in tuple.iter().filter(|(ns, inode)| *inode != 0 && ns.kind() == *ns) {
            if let Owner::Container(key) = self.world.owner(ns, inode) {
                types.push(ns);
                into.get_or_insert(key);
            }
        }
        let Some(owner) = into else { return };
        let expected = self.world.host_tuple;
        let fact = Fact::Entered { owner, expected, actual: tuple, types, door: Door::Unseen };
        self.late(facts, owner, time_ns, fact, host);
    }
}

/// A late cgroup escape is told for the topmost process only: its children came out with it.
fn snapshot_cgroups_differ(world: &World, pid: u32, key: ContainerKey) -> bool {
    world
        .effects
        .iter()
        .any(|effect| matches!(effect, Effect::Mark { pid: marked, moved: true, .. } if *marked == pid))
        && world.containers.contains_key(&key)
}

/// What the container's processes are held against: the namespaces of the runtime's init, else of the first
/// process of its pid namespace, else of the oldest that is not simply the host's.
fn baseline<'a>(world: &World, members: &[&'a ProcFacts], init: Option<u32>) -> Option<&'a ProcFacts> {
    let known = |p: &&&ProcFacts| p.inodes != [0; NAMESPACES];
    let by_init = members.iter().find(|p| Some(p.pid) == init).filter(known);
    let by_pid_ns = || {
        members
            .iter()
            .filter(known)
            .find(|p| p.ns_pid == 1 && Tuple(p.inodes).get(NsType::PID) != world.host_tuple.get(NsType::PID))
    };
    let by_age = || {
        members.iter().filter(known).find(|p| world.host_tuple.differences(&Tuple(p.inodes)).next().is_some())
    };
    by_init.or_else(by_pid_ns).or_else(by_age).copied()
}

/// v2 first, then pids, memory and name=systemd of v1, then the rest.
fn shown_order(hierarchies: &[Hierarchy]) -> Vec<u32> {
    let rank = |h: &Hierarchy| {
        let has = |name: &str| h.controllers.iter().any(|c| c == name);
        match () {
            () if h.id == 0 => 0,
            () if has("pids") => 1,
            () if has("memory") => 2,
            () if has("name=systemd") => 3,
            () => 4,
        }
    };
    let mut order: Vec<&Hierarchy> = hierarchies.iter().collect();
    order.sort_by_key(|h| (rank(h), h.id));
    let mut ids: Vec<u32> = order.iter().map(|h| h.id).collect();
    if !ids.contains(&0) {
        ids.insert(0, 0);
    }
    ids
}
