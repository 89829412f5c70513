//! Whose is each process.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    enrich::{Enricher, HostRecord, Snapshot, World, inherits},
    host::{
        self, CgroupDir, Hierarchy, LiveHost, ProcFacts, Roots,
        cri::{self, Sockets},
    },
    model::{Clock, NamespaceSet, NsType, PodRef, Tuple},
};

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Membership {
    pub node: String,
    /// The host's namespaces.
    pub host: NamespaceSet,
    pub containers: Vec<Member>,
    /// (pid, start in ticks of USER_HZ, index into `containers`) of every process of a container.
    pub processes: Vec<(u32, u64, usize)>,
}

/// A container, as far as its identity goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Member {
    pub id: String,
    pub name: Option<String>,
    pub image: Option<String>,
    pub runtime: String,
    pub pod: Option<PodRef>,
    /// What its processes are held against; empty while it is not known.
    pub namespaces: NamespaceSet,
    pub cgroups: Vec<MemberCgroup>,
    /// The init of its own pid namespace, else the process that started first.
    pub first_pid: Option<u32>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberCgroup {
    pub hierarchy: u32,
    pub id: u64,
    pub path: String,
}

/// What the tables of a running pipeline say.
pub fn of_world(world: &World, node: &str) -> Membership {
    let mut index = HashMap::new();
    let mut containers = Vec::new();
    for (key, container) in &world.containers {
        index.insert(*key, containers.len());
        let shown = world.container_ref(*key);
        containers.push(Member {
            id: container.id.clone(),
            name: container.name.clone(),
            image: container.image.clone(),
            runtime: container.runtime.name().to_owned(),
            pod: shown.and_then(|shown| shown.pod),
            namespaces: container.baseline.map(|tuple| tuple.to_set()).unwrap_or_default(),
            first_pid: None,
            cgroups: container
                .cgroups
                .iter()
                .map(|cgroup| MemberCgroup {
                    hierarchy: cgroup.hierarchy,
                    id: cgroup.id,
                    path: cgroup.path.clone(),
                })
                .collect(),
        });
    }
    let mut processes: Vec<_> = world
        .processes
        .values()
        .filter_map(|process| {
            Some((process.key.pid, process.key.start_ticks, *index.get(&process.container?)?))
        })
        .collect();
    processes.sort_unstable();
    let mut first: Vec<Option<(bool, u64, u32)>> = vec![None; containers.len()];
    for (pid, start, at) in &processes {
        let Some(process) = world.processes.get(pid) else { continue };
        let baseline = process.container.and_then(|key| world.container(Some(key))?.baseline);
        let is_init = process.ns_pid == 1
            && baseline.is_some_and(|own| own.get(NsType::PID) == process.tuple.get(NsType::PID));
        let rank = (!is_init, *start, *pid);
        if let Some(best) = first.get_mut(*at)
            && best.is_none_or(|best| rank < best)
        {
            *best = Some(rank);
        }
    }
    for (container, first) in containers.iter_mut().zip(first) {
        container.first_pid = first.map(|(.., pid)| pid);
    }
    Membership { node: node.to_owned(), host: world.host_tuple.to_set(), containers, processes }
}

/// Asks the host itself, as an agent does at its start. Returns the scan, too: it needs not be made twice.
pub fn by_scan(
    roots: &Roots,
    node: &str,
    own_host: bool,
    hierarchies: &[Hierarchy],
    sockets: &[PathBuf],
) -> std::io::Result<(Membership, Vec<ProcFacts>, bool)> {
    let mut cgroups = Vec::new();
    // Numbers of our own in place of the kernel side's slots: one for each cgroup that is not inside a container's.
    let mut next = 0;
    for hierarchy in hierarchies {
        let mut of: HashMap<u64, (u64, bool)> = HashMap::new();
        for dir in host::walk(hierarchy) {
            let slot = match of.get(&dir.parent_id) {
                Some((slot, true)) => *slot,
                _ => {
                    next += 1;
                    next
                }
            };
            of.insert(dir.id, (slot, inherits(&dir.path)));
            cgroups.push(CgroupDir { slot, ..dir });
        }
    }
    let mut processes = host::scan(&roots.proc)?;
    host::from_the_root(&roots.proc, hierarchies, &mut processes)?;
    // Those of pid 1, where they may be read; else our own have to do, and that is told.
    let first = processes.iter().find(|facts| facts.pid == 1).map(|facts| facts.inodes);
    let first = first.filter(|inodes| Tuple(*inodes).is_known() && !own_host);
    let own = host::own(&roots.proc)?;
    let record = HostRecord { inodes: first.unwrap_or(own.inodes), ..HostRecord::from(own) };
    let snapshot = Snapshot {
        time_ns: Clock::boot_ns(),
        host: record,
        hierarchies: hierarchies.to_vec(),
        cgroups,
        processes,
        // What a process is allowed is not asked here.
        apparmor: false,
    };
    let mut enricher = Enricher::new(snapshot.host.into());
    // The CRI sockets are asked afterwards, and only if there is something to ask.
    let mut live = LiveHost::new(roots.clone(), hierarchies.to_vec(), Sockets::new(Some(&[]), &roots.run));
    // What it finds wrong is the agent's to tell.
    enricher.start(&snapshot, &mut live);
    let mut membership = of_world(&enricher.world, node);
    ask_runtimes(&mut membership, sockets);
    Ok((membership, snapshot.processes, first.is_some() || own_host))
}

/// Names that the disk does not tell, of containers that a CRI runtime may have made. Who does not answer in time is not
/// waited for; the container is listed with what is known.
fn ask_runtimes(membership: &mut Membership, sockets: &[PathBuf]) {
    const PATIENCE: Duration = Duration::from_millis(500);
    let is_asked = |member: &Member| {
        member.pod.is_none()
            && !["docker", "podman"].contains(&member.runtime.as_str())
            && member.id.len() == 64
            && member.id.bytes().all(|b| b.is_ascii_hexdigit())
    };
    if sockets.is_empty() || !membership.containers.iter().any(is_asked) {
        return;
    }
    let (mut known, _) = cri::ask_all(sockets, PATIENCE);
    for member in membership.containers.iter_mut().filter(|member| is_asked(member)) {
        let Some(facts) = known.remove(&member.id) else { continue };
        member.image = member.image.take().or(facts.image);
        member.name = facts.name.or(member.name.take());
        member.pod = facts.pod_name.map(|name| PodRef {
            namespace: facts.pod_namespace.unwrap_or_default(),
            name,
            uid: facts.pod_uid.unwrap_or_default(),
            container: facts.pod_container.unwrap_or_default(),
        });
    }
}
