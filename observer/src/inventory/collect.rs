//! Puts a look together.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use super::{
    CgroupView, ContainerView, HierarchyView, HostView, Look, Member, MemberCgroup, Membership, ProcessView,
    SCHEMA, Security, Source, Unread, Wanted, details, details::Status, note,
};
use crate::{
    host::{
        self, Hierarchy, ProcFacts, Roots, lsm,
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
        None => {
            let mut read = if wanted.host_processes {
                host::scan(&roots.proc)?
            } else {
                let pids = membership.processes.iter().map(|(pid, ..)| *pid).collect();
                // Whose they are is known already, and so what they are needs not be read.
                host::scan_some(&roots.proc, pids, wanted.programs || wanted.every_security)
            };
            host::from_the_root(&roots.proc, hierarchies, &mut read)?;
            read
        }
    };
    let clock = Clock::now();
    let now = Clock::boot_ns();
    let mut unread = Vec::new();
    let lsm = lsm::active();
    let (apparmor, selinux) = (lsm::has_apparmor(&roots.proc), lsm::has_selinux(&roots.proc));
    let host = HostView {
        namespaces: membership.host.clone(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: memory_bytes(&roots.proc),
        lsm,
        apparmor,
        selinux,
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
        if wanted.host_processes && !Tuple(facts.inodes).is_known() && !facts.kernel_thread && facts.pid != 1
        {
            note(&mut unread, "namespaces of processes", "/proc/PID/ns may not be read");
        }
        let id = container.and_then(|at| membership.containers.get(at)).map(|member| member.id.clone());
        processes.push(process(facts, id, &clock));
    }
    let reader = Reader { proc: &roots.proc, apparmor, selinux };
    if wanted.programs || wanted.every_security {
        in_parallel(&mut processes, |process| reader.fill(process, wanted));
    }
    let asked: Vec<Asked<'_>> = membership
        .containers
        .into_iter()
        .enumerate()
        .map(|(at, member)| {
            let own = members.remove(&at).unwrap_or_default();
            let first = first_process(&own, &processes, &member, &host).and_then(|at| processes.get(at));
            Asked { member, processes: own.len(), first }
        })
        .collect();
    let part = asked.len().div_ceil(threads()).max(1);
    let mut parts = Vec::new();
    let mut rest = asked;
    while !rest.is_empty() {
        let further = rest.split_off(part.min(rest.len()));
        parts.push(std::mem::replace(&mut rest, further));
    }
    let viewer = Viewer { reader: &reader, roots, hierarchies, wanted, now };
    let viewed: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> = parts.into_iter().map(|part| scope.spawn(|| viewer.view(part))).collect();
        // A panic there is a panic here.
        others
            .into_iter()
            .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut containers: Vec<(u64, ContainerView)> = Vec::new();
    for (views, missing) in viewed {
        containers.extend(views);
        for it in missing {
            (0..it.count).for_each(|_| note(&mut unread, &it.what, &it.why));
        }
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

/// A container that is to be looked at.
struct Asked<'a> {
    member: Member,
    processes: usize,
    first: Option<&'a ProcessView>,
}

/// Looks at containers.
struct Viewer<'a> {
    reader: &'a Reader<'a>,
    roots: &'a Roots,
    hierarchies: &'a [Hierarchy],
    wanted: Wanted,
    now: u64,
}

impl Viewer<'_> {
    fn view(&self, asked: Vec<Asked<'_>>) -> (Vec<(u64, ContainerView)>, Vec<Unread>) {
        let mut resources = resources::Reader::new(self.hierarchies);
        let mut unread = Vec::new();
        let views = asked.into_iter().map(|asked| self.one(asked, &mut resources, &mut unread)).collect();
        (views, unread)
    }

    fn one(
        &self,
        Asked { member, processes, first }: Asked<'_>,
        resources: &mut resources::Reader,
        unread: &mut Vec<Unread>,
    ) -> (u64, ContainerView) {
        let wanted = self.wanted;
        let security = first.and_then(|first| match &first.security {
            Some(security) => Some(security.clone()),
            None => self.reader.security(first.pid),
        });
        let paths: Vec<(u32, String)> =
            member.cgroups.iter().map(|cgroup| (cgroup.hierarchy, cgroup.path.clone())).collect();
        let resources = (wanted.resources && !paths.is_empty()).then(|| {
            let parts = if wanted.details { Parts::ALL } else { Parts::LIST };
            let (resources, missing) = resources.read(&paths, parts);
            missing.iter().for_each(|it| note(unread, &it.what, &it.why));
            resources
        });
        let mounts = first.filter(|_| wanted.mounts).and_then(|first| {
            let read = details::mounts(&self.roots.proc.join(first.pid.to_string()));
            // One that is gone by now has no mounts.
            let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
            read.inspect_err(|error| {
                if !gone(error) {
                    note(unread, "mount tables", &error.to_string());
                }
            })
            .ok()
        });
        let start_ns = first.map(|first| first.start_ticks.saturating_mul(TICK_NS));
        let view = ContainerView {
            details: wanted.details.then(|| host::runtime_details(self.roots, &member.id)).flatten(),
            id: member.id,
            name: member.name,
            image: member.image,
            runtime: member.runtime,
            pod: member.pod,
            pid: first.map(|first| first.pid),
            started: first.map(|first| first.started.clone()),
            age_seconds: start_ns.map(|start| self.now.saturating_sub(start) / 1_000_000_000),
            processes,
            namespaces: member.namespaces,
            cgroups: member.cgroups.into_iter().map(|cgroup| self.cgroup(cgroup)).collect(),
            resources,
            security,
            mounts,
        };
        (start_ns.unwrap_or(u64::MAX), view)
    }

    fn cgroup(&self, cgroup: MemberCgroup) -> CgroupView {
        let hierarchy = self.hierarchies.iter().find(|known| known.id == cgroup.hierarchy);
        CgroupView {
            controllers: hierarchy.map(controllers).unwrap_or_default(),
            directory: hierarchy.map(|h| format!("{}{}", h.mount.display(), cgroup.path)).unwrap_or_default(),
            hierarchy: cgroup.hierarchy,
            id: cgroup.id,
            path: cgroup.path,
        }
    }
}

fn controllers(hierarchy: &Hierarchy) -> Vec<String> {
    if hierarchy.id == 0 { vec!["v2".to_owned()] } else { hierarchy.controllers.clone() }
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

/// The one that the membership names, if it is still there; else the init of the container's own pid namespace, else the
/// one that started first.
fn first_process(
    own: &[usize],
    processes: &[ProcessView],
    member: &Member,
    host: &HostView,
) -> Option<usize> {
    let of = |at: &&usize| processes.get(**at);
    let pid_ns = member.namespaces.get(NsType::PID.name());
    let has_own = pid_ns.is_some() && pid_ns != host.namespaces.get(NsType::PID.name());
    let named = |at: &&usize| of(at).is_some_and(|process| Some(process.pid) == member.first_pid);
    let inside = |at: &&usize| of(at).is_some_and(|p| p.namespaces.get(NsType::PID.name()) == pid_ns);
    // They are by start, and nothing in a pid namespace is older than its init.
    let by_namespace = || own.iter().find(|at| !has_own || inside(at));
    own.iter().find(named).or_else(by_namespace).or(own.first()).copied()
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

/// As many as there are CPUs, within reason.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(4)
}

fn in_parallel<T: Send>(items: &mut [T], work: impl Fn(&mut T) + Sync) {
    let part = items.len().div_ceil(threads()).max(1);
    std::thread::scope(|scope| {
        for part in items.chunks_mut(part) {
            let work = &work;
            scope.spawn(move || part.iter_mut().for_each(work));
        }
    });
}
