//! Puts a look together.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use super::{
    CgroupView, ContainerView, HierarchyView, HostView, Look, Membership, ProcessView, SCHEMA, Security,
    Source, Wanted, details, details::Status, note,
};
use crate::{
    host::{
        self, Hierarchy, ProcFacts, Roots,
        resources::{self, Parts},
    },
    model::{CapSet, Clock, NsType, TICK_NS, Tuple},
};

/// Reads what is wanted. `scanned` are the processes, if the membership came of a scan.
pub fn collect(
    membership: Membership,
    source: Source,
    scanned: Option<Vec<ProcFacts>>,
    roots: &Roots,
    hierarchies: &[Hierarchy],
    wanted: Wanted,
) -> std::io::Result<Look> {
    let scanned = match scanned {
        Some(scanned) => scanned,
        None if wanted.host_processes => host::scan(&roots.proc)?,
        None => host::scan_some(&roots.proc, membership.processes.iter().map(|(pid, ..)| *pid).collect()),
    };
    let clock = Clock::now();
    let now = Clock::boot_ns();
    let mut unread = Vec::new();
    let lsm = active_lsm();
    if lsm.is_none() && wanted.mounts && std::path::Path::new("/sys/module/apparmor").exists() {
        note(&mut unread, "which security modules are active", "/sys/kernel/security/lsm cannot be read");
    }
    let host = HostView {
        namespaces: membership.host.clone(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: memory_bytes(&roots.proc),
        lsm,
        hierarchies: hierarchies
            .iter()
            .map(|hierarchy| HierarchyView {
                id: hierarchy.id,
                controllers: controllers(hierarchy),
                mount: hierarchy.mount.display().to_string(),
            })
            .collect(),
        capabilities: capabilities(&roots.proc),
        mounts: if wanted.mounts { host_mounts(&roots.proc) } else { Vec::new() },
    };
    let of: HashMap<(u32, u64), usize> =
        membership.processes.iter().map(|(pid, start, at)| ((*pid, *start), *at)).collect();
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut processes = Vec::with_capacity(scanned.len());
    for facts in scanned {
        let container = of.get(&(facts.pid, facts.start_ticks)).copied();
        if container.is_none() && !wanted.host_processes {
            continue;
        }
        if let Some(at) = container {
            members.entry(at).or_default().push(processes.len());
        }
        // That of pid 1 is told elsewhere: it decides what the host's are.
        if !Tuple(facts.inodes).is_known() && !facts.kernel_thread && facts.pid != 1 {
            note(&mut unread, "namespaces of processes", "/proc/PID/ns may not be read");
        }
        let id = container.and_then(|at| membership.containers.get(at)).map(|member| member.id.clone());
        processes.push(process(facts, id, &clock));
    }
    let reader =
        Reader { proc: &roots.proc, apparmor: has(&host, "apparmor"), selinux: has(&host, "selinux") };
    if wanted.programs || wanted.every_security {
        in_parallel(&mut processes, |process| reader.fill(process, wanted));
    }
    let mut containers: Vec<(u64, ContainerView)> = Vec::new();
    let mut resources = resources::Reader::new(hierarchies);
    for (at, member) in membership.containers.into_iter().enumerate() {
        let own = members.remove(&at).unwrap_or_default();
        let first = first_process(&own, &processes, &member.namespaces, &host);
        let first = first.and_then(|at| processes.get(at));
        let security = first.and_then(|first| match &first.security {
            Some(security) => Some(security.clone()),
            None => reader.security(first.pid),
        });
        let paths: Vec<(u32, String)> =
            member.cgroups.iter().map(|cgroup| (cgroup.hierarchy, cgroup.path.clone())).collect();
        let resources = (wanted.resources && !paths.is_empty()).then(|| {
            let parts = if wanted.details { Parts::ALL } else { Parts::LIST };
            let (resources, missing) = resources.read(&paths, parts);
            missing.iter().for_each(|it| note(&mut unread, &it.what, &it.why));
            resources
        });
        let directory = |hierarchy: u32, path: &str| {
            let hierarchy = hierarchies.iter().find(|known| known.id == hierarchy);
            hierarchy.map(|h| format!("{}{path}", h.mount.display())).unwrap_or_default()
        };
        let mounts = first.filter(|_| wanted.mounts).and_then(|first| {
            let read = details::mounts(&roots.proc.join(first.pid.to_string()));
            read.inspect_err(|error| note(&mut unread, "mount tables", &error.to_string())).ok()
        });
        let start_ns = first.map(|first| first.start_ticks.saturating_mul(TICK_NS));
        let view = ContainerView {
            details: wanted.details.then(|| host::runtime_details(roots, &member.id)).flatten(),
            id: member.id,
            name: member.name,
            image: member.image,
            runtime: member.runtime,
            pod: member.pod,
            pid: first.map(|first| first.pid),
            started: first.map(|first| first.started.clone()),
            age_seconds: start_ns.map(|start| now.saturating_sub(start) / 1_000_000_000),
            processes: own.len(),
            namespaces: member.namespaces,
            cgroups: member
                .cgroups
                .into_iter()
                .map(|cgroup| CgroupView {
                    controllers: hierarchies
                        .iter()
                        .find(|known| known.id == cgroup.hierarchy)
                        .map(controllers)
                        .unwrap_or_default(),
                    directory: directory(cgroup.hierarchy, &cgroup.path),
                    hierarchy: cgroup.hierarchy,
                    id: cgroup.id,
                    path: cgroup.path,
                })
                .collect(),
            resources,
            security,
            mounts,
        };
        containers.push((start_ns.unwrap_or(u64::MAX), view));
    }
    containers.sort_by(|(a, one), (b, other)| a.cmp(b).then_with(|| one.id.cmp(&other.id)));
    Ok(Look {
        schema: SCHEMA,
        time: clock.rfc3339(now),
        node: membership.node,
        source,
        host,
        containers: containers.into_iter().map(|(_, container)| container).collect(),
        processes,
        unread,
    })
}

fn has(host: &HostView, lsm: &str) -> bool {
    // Where it is not known, the files are tried.
    host.has_lsm(lsm).unwrap_or(lsm == "apparmor")
}

fn controllers(hierarchy: &Hierarchy) -> Vec<String> {
    if hierarchy.id == 0 { vec!["v2".to_owned()] } else { hierarchy.controllers.clone() }
}

/// `lockdown,capability,landlock,yama,apparmor,bpf`
fn active_lsm() -> Option<Vec<String>> {
    let text = std::fs::read_to_string("/sys/kernel/security/lsm").ok()?;
    Some(text.trim().split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// MemTotal of /proc/meminfo; 0 where that cannot be read.
fn memory_bytes(proc: &Path) -> u64 {
    let text = std::fs::read_to_string(proc.join("meminfo")).unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.map_or(0, |kib: u64| kib.saturating_mul(1024))
}

fn capabilities(proc: &Path) -> Option<CapSet> {
    let last: u8 = std::fs::read_to_string(proc.join("sys/kernel/cap_last_cap")).ok()?.trim().parse().ok()?;
    Some(CapSet(u64::MAX >> 63u8.checked_sub(last)?))
}

/// Of pid 1, else our own, which is the same unless we are in a container.
fn host_mounts(proc: &Path) -> Vec<details::Mount> {
    let read = |process: &str| details::mounts(&proc.join(process)).ok().filter(|mounts| !mounts.is_empty());
    read("1").or_else(|| read("self")).unwrap_or_default()
}

fn process(facts: ProcFacts, container: Option<String>, clock: &Clock) -> ProcessView {
    ProcessView {
        pid: facts.pid,
        ppid: facts.ppid,
        started: clock.rfc3339(facts.start_ticks.saturating_mul(TICK_NS)),
        start_ticks: facts.start_ticks,
        comm: facts.comm,
        exe: None,
        args: Vec::new(),
        uid: facts.uid,
        gid: facts.gid,
        ns_pids: Vec::new(),
        container,
        namespaces: Tuple(facts.inodes).to_set(),
        security: None,
        cgroups: facts.cgroups,
        kernel_thread: facts.kernel_thread,
    }
}

/// The init of the container's own pid namespace, else the one that started first.
fn first_process(
    own: &[usize],
    processes: &[ProcessView],
    expected: &crate::model::NamespaceSet,
    host: &HostView,
) -> Option<usize> {
    let pid_ns = expected.get(NsType::PID.name());
    let has_own = pid_ns.is_some() && pid_ns != host.namespaces.get(NsType::PID.name());
    let inside = |at: &&usize| {
        let process = processes.get(**at);
        process.is_some_and(|process| process.namespaces.get(NsType::PID.name()) == pid_ns)
    };
    // They are by start, and nothing in a pid namespace is older than its init.
    own.iter().find(|at| !has_own || inside(at)).or(own.first()).copied()
}

struct Reader<'a> {
    proc: &'a Path,
    apparmor: bool,
    selinux: bool,
}

impl Reader<'_> {
    fn fill(&self, process: &mut ProcessView, wanted: Wanted) {
        if process.kernel_thread {
            return;
        }
        let dir = self.proc.join(process.pid.to_string());
        let inside = process.container.is_some();
        if wanted.programs {
            let (exe, args) = details::program(&dir);
            process.exe = exe;
            if inside {
                process.args = args;
            }
        }
        if let Ok(status) = Status::read(&dir) {
            if wanted.every_security && inside {
                process.security = Some(details::security(&dir, &status, self.apparmor, self.selinux));
            }
            process.ns_pids = status.ns_pids;
        }
    }

    fn security(&self, pid: u32) -> Option<Security> {
        let dir = self.proc.join(pid.to_string());
        let status = Status::read(&dir).ok()?;
        Some(details::security(&dir, &status, self.apparmor, self.selinux))
    }
}

/// By as many threads as there are CPUs, within reason.
fn in_parallel<T: Send>(items: &mut [T], work: impl Fn(&mut T) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let part = items.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for part in items.chunks_mut(part) {
            let work = &work;
            scope.spawn(move || part.iter_mut().for_each(work));
        }
    });
}
