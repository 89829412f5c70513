//! Findings and events in the words of their JSON.

use observer_common::{Kind, flags};

use crate::{
    decode::{Event, Payload, text},
    detect::Draft,
    enrich::{Finding, World},
    model::{
        ALERT_SCHEMA, Alert, Attribution, Clock, Detail, EVENT_SCHEMA, EventRecord, Metadata, MetadataMark,
        NsType, ProcessKey, ProcessRef, Tuple, syscall, uuid_v7,
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
    let mut container = draft.container.and_then(|key| world.container_ref(key));
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
        ],
    );
    Alert {
        schema: ALERT_SCHEMA.into(),
        incident: id.clone(),
        id,
        state: None,
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
        detail: detail(event),
    }
}

fn detail(event: &Event) -> Detail {
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
            detail.path = Some(String::from_utf8_lossy(path).into_owned());
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

fn result(ret: i64) -> String {
    match ret {
        0.. => ret.to_string(),
        _ => match -ret as i32 {
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
