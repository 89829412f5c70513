//! Findings and events in the words of their JSON.

use observer_common::{ForkRefused, Kind, OomKill, flags, oom};

use crate::{
    decode::{Event, Payload, text},
    detect::Draft,
    enrich::{Finding, PAGE, World, victim},
    model::{
        ALERT_SCHEMA, Alert, AlertState, Attribution, Clock, Detail, EVENT_SCHEMA, EventRecord, Metadata,
        MetadataMark, NsType, OutOfMemory, ProcessKey, ProcessRef, Tuple, Victim, syscall, uuid_v7,
    },
};

pub fn alert(
    finding: &Finding,
    draft: &Draft,
    world: &World,
    node: &str,
    clock: &Clock,
    events_lost_before: u64,
) -> Alert {
    let unix_ns = clock.unix_ns(finding.time_ns);
    let known = || finding.known_container().cloned();
    let mut container = draft.container.and_then(|key| world.container_ref(key)).or_else(known);
    let state = finding.state();
    // Its beginning and its end may have the same time.
    let ended: &[u8] = if state == Some(AlertState::Resolved) { b"resolved" } else { b"" };
    if let Some(container) = &mut container
        && world
            .container(draft.container)
            .is_some_and(|known| matches!(known.metadata, Metadata::Awaited | Metadata::Partial))
    {
        container.metadata = Some(MetadataMark::Missing);
    }
    let process = finding.subject.as_ref().map(|subject| ProcessRef {
        pid: subject.pid,
        tid: subject.tid,
        start_time: clock.rfc3339(subject.start_ns),
        comm: subject.comm.clone(),
        exe: subject.exe.clone(),
        args: subject.args.clone(),
        uid: subject.uid,
        gid: subject.gid,
        ancestors: subject.ancestors.clone(),
    });
    let (pid, start) = finding.subject.as_ref().map_or((0, 0), |s| (s.pid, s.start_ns));
    let id = uuid_v7(
        unix_ns,
        &[
            node.as_bytes(),
            draft.definition.id.as_bytes(),
            draft.severity.name().as_bytes(),
            container.as_ref().map_or("", |c| c.id.as_str()).as_bytes(),
            &pid.to_le_bytes(),
            &start.to_le_bytes(),
            draft.subject.as_bytes(),
            ended,
        ][..if ended.is_empty() { 7 } else { 8 }],
    );
    Alert {
        schema: ALERT_SCHEMA.into(),
        incident: id.clone(),
        id,
        state,
        time: crate::model::rfc3339(unix_ns),
        node: node.to_owned(),
        rule: draft.definition.id.into(),
        severity: draft.severity,
        title: draft.definition.title.into(),
        message: draft.message.clone(),
        mitre: draft.definition.mitre.iter().map(|id| (*id).to_owned()).collect(),
        container,
        process,
        namespaces: draft.namespaces.clone(),
        evidence: draft.evidence.clone(),
        attribution: if finding.late { Attribution::Late } else { Attribution::Exact },
        events_lost_before,
        count: 1,
    }
}

pub fn event_record(event: &Event, world: &World, node: &str, clock: &Clock) -> EventRecord {
    let header = &event.header;
    let key = ProcessKey::new(header.tgid, header.start_ns);
    let process = world.processes.get(&header.tgid).filter(|p| p.key == key);
    let container = world.container_of_slot(header.slot).or_else(|| process.and_then(|p| p.container));
    let before = match &event.payload {
        Payload::Fork(fork) => Some(Tuple(fork.parent_inodes)),
        _ => None,
    };
    let tuple = Tuple(header.inodes);
    EventRecord {
        schema: EVENT_SCHEMA.into(),
        time: clock.rfc3339(header.time_ns),
        node: node.to_owned(),
        kind: event.kind.name().into(),
        container: container.and_then(|key| world.container_ref(key)),
        process: ProcessRef {
            pid: header.tgid,
            tid: header.tid,
            start_time: clock.rfc3339(header.start_ns),
            comm: text(&header.comm),
            exe: process.and_then(|p| p.exe.as_deref()).map(str::to_owned),
            args: process.map(|p| crate::decode::arguments(&p.args)).unwrap_or_default(),
            uid: header.uid,
            gid: header.gid,
            ancestors: world.ancestors(process.and_then(|p| p.parent), container),
        },
        cpu: header.cpu,
        namespaces: tuple.to_set(),
        namespaces_before: before
            .filter(|before| before.differences(&tuple).next().is_some())
            .map(|before| before.to_set())
            .unwrap_or_default(),
        entering: event.is(flags::ENTERING),
        detail: detail(event, world, clock),
    }
}

fn detail(event: &Event, world: &World, clock: &Clock) -> Detail {
    let mut detail = Detail::default();
    match &event.payload {
        Payload::Syscall(call) => {
            detail.result = Some(result(call.ret));
            detail.arguments = Some(match event.kind {
                Kind::Setns => format!("fd={} nstype={}", call.args[0], types(call.args[1])),
                _ => format!("flags={}", types(call.args[0])),
            });
        }
        Payload::RootChange { change, path } => {
            detail.result = Some(result(change.call.ret));
            detail.path = path.as_ref().map(|path| path.text.clone());
            detail.path_source = path.as_ref().map(|path| path.source);
        }
        Payload::Cgroup { cgroup, path } => {
            detail.path = Some(String::from_utf8_lossy(path).into_owned());
            detail.cgroup_id = Some(cgroup.id);
            detail.hierarchy = Some(cgroup.hierarchy);
        }
        Payload::CgroupMove { change, path } => {
            detail.path = Some(String::from_utf8_lossy(path).into_owned());
            detail.cgroup_id = Some(change.to.id);
            detail.hierarchy = Some(change.to.hierarchy);
            detail.mover_pid = Some(change.mover_tgid);
        }
        Payload::Exit(exit) => {
            let signal = exit.status & 0x7f;
            detail.exit = Some(if signal != 0 {
                format!("signal {signal}")
            } else {
                format!("code {}", exit.status >> 8 & 0xff)
            });
        }
        Payload::OomKill(kill) => oom_kill(&mut detail, kill, world, clock),
        Payload::ForkRefused(refused) => fork_refused(&mut detail, refused, world),
        Payload::Seccomp(what) => {
            detail.syscall = Some(match what.arch {
                observer_common::ARCH_X86_64 => syscall::label(what.nr).into_owned(),
                // Another table's.
                _ => what.nr.to_string(),
            });
            detail.result = (what.errno != 0).then(|| result(-i64::from(what.errno)));
        }
        Payload::Fork(_) | Payload::Exec { .. } | Payload::Nothing => {}
    }
    detail
}

/// The cgroup whose limit is reached, if it is one's.
fn limited(detail: &mut Detail, hierarchy: u32, id: u64, world: &World) {
    if id != 0 {
        detail.cgroup_id = Some(id);
        detail.hierarchy = Some(hierarchy);
        detail.path = world.cgroups.get(&(hierarchy, id)).map(|cgroup| cgroup.path.to_string());
    }
}

fn oom_kill(detail: &mut Detail, kill: &OomKill, world: &World, clock: &Clock) {
    detail.out_of_memory = match kill.scope {
        oom::CGROUP => Some(OutOfMemory::Cgroup),
        oom::HOST => Some(OutOfMemory::Host),
        _ => None,
    };
    limited(detail, kill.limit_hierarchy, kill.limit_cgroup_id, world);
    if kill.limit_cgroup_id != 0 {
        detail.limit_bytes = Some(kill.limit_pages.saturating_mul(PAGE));
        detail.usage_bytes = Some(kill.usage_pages.saturating_mul(PAGE));
    }
    let (_, container, victim) = victim(kill, world);
    detail.victim = Some(Victim {
        start_time: (kill.victim_start_ns != 0).then(|| clock.rfc3339(kill.victim_start_ns)),
        container: container.and_then(|key| world.container_ref(key)),
        ..victim
    });
}

fn fork_refused(detail: &mut Detail, refused: &ForkRefused, world: &World) {
    detail.result = Some(result(-i64::from(refused.errno)));
    limited(detail, refused.hierarchy, refused.cgroup_id, world);
    if refused.cgroup_id != 0 {
        detail.tasks = Some(refused.current);
        detail.limit_tasks = Some(refused.max);
    }
    detail.refusals = Some(refused.count);
}

fn result(ret: i64) -> String {
    match ret {
        0.. => ret.to_string(),
        _ => match -ret as i32 {
            libc::EAGAIN => "EAGAIN".into(),
            libc::EPERM => "EPERM".into(),
            libc::EACCES => "EACCES".into(),
            libc::ENOSYS => "ENOSYS".into(),
            libc::EINVAL => "EINVAL".into(),
            libc::ENOENT => "ENOENT".into(),
            libc::EBADF => "EBADF".into(),
            libc::ENOSPC => "ENOSPC".into(),
            libc::ENOMEM => "ENOMEM".into(),
            libc::ENOTDIR => "ENOTDIR".into(),
            libc::EUSERS => "EUSERS".into(),
            other => format!("errno {other}"),
        },
    }
}

/// CLONE_NEW* bits by name; the rest of the mask in hexadecimal.
fn types(mask: u64) -> String {
    let names: Vec<&str> = crate::enrich::types_of_mask(mask).iter().map(|ns: &NsType| ns.name()).collect();
    if names.is_empty() { format!("{mask:#x}") } else { names.join("|") }
}

#[cfg(test)]
mod tests {
    use observer_common::Header;

    use super::*;
    use crate::{
        decode::build::{fork_refused, header, oom_kill},
        detect::testing::{self, web},
        enrich::CgroupEntry,
        model::Process,
    };

    const SLOT: u64 = 5;

    /// `web` has a slot, and the cgroup that the payloads speak of.
    fn world() -> World {
        let mut world = testing::world();
        world.assign_slot(SLOT, web());
        for hierarchy in [3, 4] {
            world.cgroups.insert((hierarchy, 7), CgroupEntry { path: "/pods/web".into(), slot: SLOT });
        }
        world
    }

    fn written(kind: Kind, payload: Payload, world: &World) -> Detail {
        let header = Header { slot: SLOT, ..header(kind) };
        let event = Event { header, kind, payload, ancestors: Vec::new() };
        event_record(&event, world, "node", &Clock { offset_ns: 0 }).detail
    }

    #[test]
    fn an_oom_kill_tells_victim_and_limit() {
        let kill = OomKill { victim_slot: SLOT, ..oom_kill() };
        let detail = written(Kind::OomKill, Payload::OomKill(kill), &world());
        assert_eq!(detail.out_of_memory, Some(OutOfMemory::Cgroup));
        assert_eq!(
            (detail.path.as_deref(), detail.cgroup_id, detail.hierarchy),
            (Some("/pods/web"), Some(7), Some(4))
        );
        assert_eq!((detail.limit_bytes, detail.usage_bytes), (Some(32 << 20), Some(8190 * 4096)));
        let victim = detail.victim.unwrap();
        assert_eq!(
            (victim.pid, victim.tid, victim.comm.as_deref(), victim.uid),
            (100, 101, Some("hog"), Some(1000))
        );
        assert_eq!((victim.anon_bytes, victim.swap_bytes), (Some(8000 * 4096), Some(0)));
        assert_eq!(victim.container.unwrap().id, "web-id");
        assert!(victim.start_time.is_some());
    }

    /// What an older kernel does not hand over is left out, or taken from what is known of that process.
    #[test]
    fn a_victim_by_its_id_alone_is_looked_up() {
        let kill = OomKill {
            victim_start_ns: 0,
            victim_uid: u32::MAX,
            oom_score_adj: 0,
            anon_pages: 0,
            file_pages: 0,
            shmem_pages: 0,
            victim_comm: [0; 16],
            ..oom_kill()
        };
        let mut world = world();
        let unknown = written(Kind::OomKill, Payload::OomKill(kill), &world).victim.unwrap();
        let expected = Victim { pid: 100, tid: 101, ..Victim::default() };
        assert_eq!(unknown, expected);
        world.insert_process(Process {
            key: ProcessKey::new(100, 1),
            start_ns: 1,
            parent: None,
            comm: "cache".into(),
            exe: None,
            exe_asked: false,
            args: std::rc::Rc::from([]),
            uid: 33,
            gid: 33,
            ns_pid: 1,
            tuple: Tuple::default(),
            container: Some(web()),
            host_root: false,
            privileges: None,
            label: None,
            label_told: false,
            brought_in: false,
            entering: false,
            updated_ns: 0,
        });
        let victim = written(Kind::OomKill, Payload::OomKill(kill), &world).victim.unwrap();
        assert_eq!((victim.comm.as_deref(), victim.uid), (Some("cache"), Some(33)));
        assert_eq!(victim.container.unwrap().id, "web-id");
        assert_eq!((victim.anon_bytes, victim.start_time), (None, None));
        // One whose start is known is not taken for another of that id.
        let kill = OomKill { victim_start_ns: 900_000_000, ..kill };
        let other = written(Kind::OomKill, Payload::OomKill(kill), &world).victim.unwrap();
        assert!(other.container.is_none());
    }

    #[test]
    fn no_limit_is_told_where_there_is_none() {
        let none = OomKill {
            scope: oom::HOST,
            limit_cgroup_id: 0,
            limit_hierarchy: 0,
            limit_pages: 0,
            usage_pages: 0,
            ..oom_kill()
        };
        let detail = written(Kind::OomKill, Payload::OomKill(none), &world());
        assert_eq!(detail.out_of_memory, Some(OutOfMemory::Host));
        assert_eq!((detail.path, detail.limit_bytes, detail.usage_bytes), (None, None, None));
        let unread = OomKill { scope: oom::UNKNOWN, ..none };
        assert_eq!(written(Kind::OomKill, Payload::OomKill(unread), &world()).out_of_memory, None);
        // Hostile numbers are only large ones.
        let large = OomKill { limit_pages: u64::MAX, usage_pages: u64::MAX, scope: 99, ..oom_kill() };
        let detail = written(Kind::OomKill, Payload::OomKill(large), &world());
        assert_eq!((detail.limit_bytes, detail.out_of_memory), (Some(u64::MAX), None));
    }

    #[test]
    fn a_refused_fork_tells_the_limit_if_there_is_one() {
        let detail = written(Kind::ForkRefused, Payload::ForkRefused(fork_refused()), &world());
        assert_eq!(detail.result.as_deref(), Some("EAGAIN"));
        assert_eq!((detail.path.as_deref(), detail.hierarchy), (Some("/pods/web"), Some(3)));
        assert_eq!((detail.tasks, detail.limit_tasks, detail.refusals), (Some(50), Some(50), Some(3)));
        let other = ForkRefused { cgroup_id: 0, count: 1, current: 0, max: 0, hierarchy: 0, errno: 11 };
        let detail = written(Kind::ForkRefused, Payload::ForkRefused(other), &world());
        assert_eq!(
            (detail.path, detail.cgroup_id, detail.tasks, detail.limit_tasks),
            (None, None, None, None)
        );
        assert_eq!(detail.refusals, Some(1));
    }
}
