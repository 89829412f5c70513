//! The kernel's own events about limits: a kill for want of memory, a refused fork.

use observer_common::oom;

use super::{Enricher, Fact, Finding, RefusedFork, World};
use crate::{
    decode::{Event, Payload, text},
    host::Host,
    limits::{LimitAt, OomKill, OomScope},
    model::{Ancestor, Container, ContainerKey, Process, ProcessKey, Victim},
};

/// The kernel side counts in pages of this size: x86-64's.
pub const PAGE: u64 = 4096;
/// Others of the container that an alert names.
const OTHERS: usize = 10;

impl Enricher {
    pub(super) fn oom_kill(&mut self, event: &Event, host: &mut dyn Host) {
        // Who asked for the memory may be a kernel thread, whose end is never told.
        if self.container(event).is_some() {
            self.know_process(event);
        }
        let Payload::OomKill(kill) = &event.payload else { return };
        let (process, container, victim) = victim(kill, &self.world);
        let subject = process.map(|process| self.world.subject_of(process, kill.victim_tid));
        // A process of the host is nobody's concern here.
        let Some(container) = container else { return };
        let at = self
            .limit_at(kill.limit_hierarchy, kill.limit_cgroup_id, container, host)
            .map(|limit| LimitAt { limit: kill.limit_pages.saturating_mul(PAGE), ..limit });
        let (others, others_more) = others(&self.world, container, kill.victim_tgid);
        self.findings.push(Finding {
            time_ns: event.header.time_ns,
            subject,
            container: Some(container),
            fact: Fact::OomKill(OomKill {
                scope: match kill.scope {
                    oom::CGROUP => OomScope::Cgroup,
                    oom::HOST => OomScope::Host,
                    _ => OomScope::Unknown,
                },
                usage_bytes: at.as_ref().map(|_| kill.usage_pages.saturating_mul(PAGE)),
                at,
                victim: Some(victim),
                others,
                others_more,
                counted: None,
            }),
            late: false,
        });
    }

    pub(super) fn fork_refused(&mut self, event: &Event, host: &mut dyn Host) {
        self.know_process(event);
        let Payload::ForkRefused(refused) = &event.payload else { return };
        // No pids limit explains it: RLIMIT_NPROC, or a limit of the machine. That is no limit of the container's cgroups.
        if refused.cgroup_id == 0 {
            return;
        }
        let Some(container) = self.container_or_known(event) else { return };
        let Some(at) = self.limit_at(refused.hierarchy, refused.cgroup_id, container, host) else { return };
        let fact = Fact::ForkRefused(RefusedFork {
            at: LimitAt { limit: refused.max, ..at },
            current: refused.current,
            count: refused.count,
        });
        let subject = self.subject(event, host);
        self.find(event, Some(subject), Some(container), fact);
    }

    /// A cgroup whose limit was met; the limit itself is the caller's to fill in.
    fn limit_at(
        &self,
        hierarchy: u32,
        id: u64,
        container: ContainerKey,
        host: &mut dyn Host,
    ) -> Option<LimitAt> {
        if id == 0 {
            return None;
        }
        let path = match self.world.cgroups.get(&(hierarchy, id)) {
            Some(cgroup) => Some(cgroup.path.to_string()),
            None => host.cgroup_path(hierarchy, id),
        };
        let own = self
            .world
            .container(Some(container))
            .is_some_and(|it| is_below(it, hierarchy, id, path.as_deref()));
        Some(LimitAt { limit: 0, hierarchy, path, own })
    }
}

/// The container's own cgroup, or one that was made below it.
fn is_below(container: &Container, hierarchy: u32, id: u64, path: Option<&str>) -> bool {
    container.cgroups.iter().filter(|cgroup| cgroup.hierarchy == hierarchy).any(|cgroup| {
        cgroup.id == id
            || path.is_some_and(|path| {
                path.strip_prefix(cgroup.path.as_str()).is_some_and(|rest| rest.starts_with('/'))
            })
    })
}

/// Whom the kernel chose, as the event and the tables have it: its process and its container, if they are known.
pub fn victim<'a>(
    kill: &observer_common::OomKill,
    world: &'a World,
) -> (Option<&'a Process>, Option<ContainerKey>, Victim) {
    // Older kernels tell a victim's id alone.
    let is_known = kill.victim_start_ns != 0;
    let key = ProcessKey::new(kill.victim_tgid, kill.victim_start_ns);
    let process = world.processes.get(&kill.victim_tgid).filter(|process| !is_known || process.key == key);
    let of_process = process.and_then(|process| process.container);
    let pages = [kill.anon_pages, kill.file_pages, kill.shmem_pages, kill.swap_pages];
    // Who has nothing at all is one whose memory was not to be read.
    let is_counted = pages.iter().any(|pages| *pages != 0);
    let bytes = |pages: u64| is_counted.then(|| pages.saturating_mul(PAGE));
    let victim = Victim {
        pid: kill.victim_tgid,
        tid: kill.victim_tid,
        comm: if is_known { Some(text(&kill.victim_comm)) } else { process.map(|it| it.comm.to_string()) },
        uid: if is_known { Some(kill.victim_uid) } else { process.map(|process| process.uid) },
        oom_score_adj: is_known.then_some(kill.oom_score_adj),
        anon_bytes: bytes(kill.anon_pages),
        file_bytes: bytes(kill.file_pages),
        shmem_bytes: bytes(kill.shmem_pages),
        swap_bytes: bytes(kill.swap_pages),
        ..Victim::default()
    };
    (process, world.container_of_slot(kill.victim_slot).or(of_process), victim)
}

/// The other processes of a container, some of them by name, and how many more there are.
fn others(world: &World, container: ContainerKey, victim: u32) -> (Vec<Ancestor>, usize) {
    let is_other = |process: &&Process| process.container == Some(container) && process.key.pid != victim;
    let mut others: Vec<&Process> = world.processes.values().filter(is_other).collect();
    // The table has no order of its own.
    others.sort_unstable_by_key(|process| process.key.pid);
    let more = others.len().saturating_sub(OTHERS);
    let named = others.iter().take(OTHERS);
    (named.map(|process| Ancestor { pid: process.key.pid, comm: process.comm.to_string() }).collect(), more)
}
