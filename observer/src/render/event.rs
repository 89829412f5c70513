//! One event in one line.

use std::fmt::Write as _;

use super::{
    Colours, Container, NAME, PATH, Untrusted, command, lineage, path, process_name, short_time, whose_word,
    words,
};
use crate::model::{Detail, EventRecord, OutOfMemory, Victim};

/// Time, kind, container, process, and what differs by kind. Ends with a line end.
pub fn event(event: &EventRecord, colours: Colours) -> String {
    let (faint, strong) = (colours.faint(), colours.strong());
    let mut text = String::with_capacity(192);
    let _ = write!(
        text,
        "{faint}{}{faint:#} {:<12} {strong}{}{strong:#} {}{}",
        short_time(&event.time),
        Untrusted(&event.kind, NAME).to_string(),
        Container(event.container.as_ref()),
        process_name(&event.process),
        lineage(event.process.ancestors.get(..1).unwrap_or_default()),
    );
    if event.entering {
        text.push_str(" (entering)");
    }
    for part in details(event) {
        text.push(' ');
        text.push_str(&part);
    }
    text.push('\n');
    text
}

fn details(event: &EventRecord) -> Vec<String> {
    let detail = &event.detail;
    let mut parts = Vec::new();
    if event.kind == "exec" {
        parts.push(match (&event.process.exe, event.process.args.as_slice()) {
            (Some(exe), []) => Untrusted(exe, PATH).to_string(),
            (_, args) => command(args),
        });
    }
    if let Some(arguments) = &detail.arguments {
        parts.push(format!("{}({})", Untrusted(&event.kind, NAME), Untrusted(arguments, PATH)));
    }
    if let Some(call) = &detail.syscall {
        parts.push(Untrusted(call, NAME).to_string());
    }
    if let Some(result) = &detail.result {
        parts.push(format!("= {}", Untrusted(result, NAME)));
    }
    if let Some(victim) = &detail.victim {
        parts.push(killed(victim));
    }
    parts.extend(limited(detail));
    if let Some(to) = &detail.path {
        parts.push(format!("{}{}", path(to), whose_word(detail.path_source)));
    }
    if let Some(hierarchy) = detail.hierarchy {
        parts.push(format!("hierarchy {hierarchy}"));
    }
    if let Some(refusals) = detail.refusals.filter(|refusals| *refusals > 1) {
        parts.push(format!("{refusals} times"));
    }
    if let Some(mover) = detail.mover_pid {
        parts.push(format!("moved by [{mover}]"));
    }
    if let Some(exit) = &detail.exit {
        parts.push(Untrusted(exit, NAME).to_string());
    }
    for (name, before) in &event.namespaces_before {
        let name_shown = Untrusted(name, NAME);
        match event.namespaces.get(name) {
            Some(now) if now == before => {}
            Some(now) => parts.push(format!("{name_shown} {before} -> {now}")),
            None => parts.push(format!("{name_shown} {before} -> unknown")),
        }
    }
    parts
}

/// Who was killed for want of memory, and how much it had.
fn killed(victim: &Victim) -> String {
    let name = Untrusted(victim.comm.as_deref().unwrap_or("?"), NAME);
    let mut text = format!("victim {name}[{}]", victim.pid);
    if let Some(container) = &victim.container {
        let _ = write!(text, " of {}", Container(Some(container)));
    }
    let kinds = [
        ("anon", victim.anon_bytes),
        ("file", victim.file_bytes),
        ("shmem", victim.shmem_bytes),
        ("swap", victim.swap_bytes),
    ];
    let kinds = kinds.iter().filter_map(|(kind, bytes)| Some((kind, bytes.filter(|bytes| *bytes != 0)?)));
    let had: Vec<String> = kinds.map(|(kind, size)| format!("{} {kind}", words::bytes(size))).collect();
    if !had.is_empty() {
        let _ = write!(text, " ({})", had.join(", "));
    }
    text
}

/// Which limit was reached; the cgroup's path follows.
fn limited(detail: &Detail) -> Option<String> {
    if let (Some(usage), Some(limit)) = (detail.usage_bytes, detail.limit_bytes) {
        return Some(format!("{} of {} in", words::bytes(usage), words::bytes(limit)));
    }
    if let (Some(tasks), Some(limit)) = (detail.tasks, detail.limit_tasks) {
        return Some(format!("{tasks} of {limit} tasks in"));
    }
    match detail.out_of_memory {
        Some(OutOfMemory::Host) => Some("the host was out of memory".to_owned()),
        _ => None,
    }
}
