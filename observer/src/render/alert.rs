//! One alert in at most four lines.

use std::fmt::Write as _;

use super::{
    COMM, Colours, Container, MESSAGE, NAME, PATH, Untrusted, ancestor_name, command, lineage, path,
    process_name, short_time, whose_word,
};
use crate::model::{Alert, AlertState, Attribution, Evidence, NamespaceView, ProcessRef, bytes};

/// What happened, then who did it, which namespaces it is about, and what the rule saw; each line only if there is
/// something to say. Ends with a line end.
pub fn alert(alert: &Alert, colours: Colours) -> String {
    let (faint, strong, severity) = (colours.faint(), colours.strong(), colours.severity(alert.severity));
    let mut text = String::with_capacity(512);
    let _ = write!(
        text,
        "{faint}{}{faint:#} {severity}{:<8}{severity:#} {} {strong}{}{strong:#}: {}",
        short_time(&alert.time),
        alert.severity.name().to_uppercase(),
        Untrusted(&alert.rule, NAME),
        Container(alert.container.as_ref()),
        Untrusted(&alert.message, MESSAGE),
    );
    if alert.state == Some(AlertState::Resolved) {
        text.push_str(" (resolved)");
    }
    text.push('\n');

    let mut line = |label: &str, words: String| {
        if !words.is_empty() {
            let _ = writeln!(text, "  {faint}{label}:{faint:#} {words}");
        }
    };
    line("process", alert.process.as_ref().map(process).unwrap_or_default());
    line("namespaces", alert.namespaces.as_ref().map(namespaces).unwrap_or_default());
    line("evidence", evidence(alert));
    text
}

/// `nsenter[1234] <- sh[1200] <- sleep[1100]; uid 0; nsenter -t 1 -m sh`
fn process(process: &ProcessRef) -> String {
    let mut text = format!("{}{}; uid {}", process_name(process), lineage(&process.ancestors), process.uid);
    if !process.args.is_empty() {
        let _ = write!(text, "; {}", command(&process.args));
    } else if let Some(exe) = &process.exe {
        let _ = write!(text, "; {}", Untrusted(exe, PATH));
    }
    text
}

/// `mnt 4026532001 -> 4026531841 (host), net ...`
fn namespaces(view: &NamespaceView) -> String {
    let changes: Vec<String> = view
        .changed
        .iter()
        .map(|name| {
            let mut text = Untrusted(name, COMM).to_string();
            if let Some(expected) = view.expected.get(name) {
                let _ = write!(text, " {expected} ->");
            }
            if let Some(actual) = view.actual.get(name) {
                let _ = write!(text, " {actual}");
            }
            if view.host.contains(name) {
                text.push_str(" (host)");
            }
            text
        })
        .collect();
    changes.join(", ")
}

fn evidence(alert: &Alert) -> String {
    let evidence = &alert.evidence;
    let mut parts: Vec<String> = Vec::new();
    for (label, value) in [
        ("door", &evidence.door),
        ("call", &evidence.syscall),
        ("refused with", &evidence.errno),
        ("root", &evidence.root),
        // The message has the rest.
        ("mode", &evidence.mode),
        ("requested", &evidence.requested),
    ] {
        // A door that is the call itself would be said twice.
        if let Some(value) = value
            && !(label == "call" && evidence.door.as_ref() == Some(value))
        {
            parts.push(format!("{label} {}", Untrusted(value, NAME)));
        }
    }
    if let Some(sets) = &evidence.capabilities {
        let gained: Vec<String> = sets.gained.iter().map(|name| Untrusted(name, NAME).to_string()).collect();
        parts.push(format!("gained {}", gained.join(", ")));
    }
    if let Some(inode) = evidence.user_namespace {
        parts.push(format!("in user namespace {inode}"));
    }
    // The line above has them already where they are what changed.
    let said = alert.namespaces.as_ref().is_some_and(|view| view.changed == evidence.types);
    if !evidence.types.is_empty() && !said {
        let types: Vec<String> =
            evidence.types.iter().map(|name| Untrusted(name, COMM).to_string()).collect();
        parts.push(format!("types {}", types.join(", ")));
    }
    match (&evidence.from, &evidence.to) {
        (Some(from), Some(to)) => parts.push(format!("from {} to {}", path(from), path(to))),
        (Some(from), None) => parts.push(format!("from {}", path(from))),
        (None, Some(to)) => parts.push(format!("to {}{}", path(to), whose_word(evidence.path_source))),
        (None, None) => {}
    }
    if let Some(target) = &evidence.target_container {
        parts.push(format!("of container {}", Container(Some(target))));
    }
    if let Some(mover) = &evidence.mover {
        parts.push(format!("moved by {}", ancestor_name(mover)));
    }
    parts.extend(resources(evidence));
    if !evidence.lost.is_empty() {
        let lost: Vec<String> = evidence
            .lost
            .iter()
            .map(|(reason, count)| format!("{} {count}", Untrusted(reason, NAME)))
            .collect();
        parts.push(format!("lost {}", lost.join(", ")));
    }
    if let Some(displaced) = evidence.displaced {
        parts.push(format!("{displaced} of its events folded"));
    }
    if alert.count > 1 {
        parts.push(format!("seen {} times", alert.count));
    }
    if alert.attribution == Attribution::Late {
        parts.push("found late: it happened before the agent started".to_owned());
    }
    if alert.events_lost_before > 0 {
        parts.push(format!("{} events lost before", alert.events_lost_before));
    }
    parts.join("; ")
}

/// What a rule about limits saw, as far as the message has not said it.
fn resources(evidence: &Evidence) -> Vec<String> {
    let mut parts = Vec::new();
    // The message has the limit itself.
    if let Some(cgroup) = evidence.limit.as_ref().and_then(|limit| limit.cgroup_path.as_deref()) {
        parts.push(format!("limit of cgroup {}", path(cgroup)));
    }
    if let Some(usage) = evidence.usage_bytes {
        parts.push(format!("usage {}", bytes(usage)));
    }
    if let Some(tasks) = evidence.tasks {
        parts.push(format!("{tasks} tasks"));
    }
    if let Some(hits) = evidence.hits {
        parts.push(if hits == 1 { "met once".to_owned() } else { format!("met {hits} times") });
    }
    if let (Some(quota), Some(period)) = (evidence.quota_us, evidence.period_us) {
        parts.push(format!("quota {quota} us of {period} us"));
    }
    if let Some(victim) = &evidence.victim {
        let memory: Vec<String> = [
            ("anonymous", victim.anon_bytes),
            ("of files", victim.file_bytes),
            ("shared", victim.shmem_bytes),
            ("swapped", victim.swap_bytes),
        ]
        .into_iter()
        .filter_map(|(kind, held)| Some(format!("{} {kind}", bytes(held.filter(|held| *held > 0)?))))
        .collect();
        if !memory.is_empty() {
            parts.push(format!("victim held {}", memory.join(", ")));
        }
    }
    if !evidence.others.is_empty() {
        let mut others: Vec<String> = evidence.others.iter().map(ancestor_name).collect();
        others.extend(evidence.others_more.map(|more| format!("{more} more")));
        parts.push(format!("also there: {}", others.join(", ")));
    }
    // The message has the first.
    for change in evidence.changes.iter().skip(1) {
        parts.push(format!(
            "{} from {} to {}",
            Untrusted(&change.file, NAME),
            Untrusted(&change.from, NAME),
            Untrusted(&change.to, NAME)
        ));
    }
    if let Some(change) = evidence.changes.first() {
        parts.push(format!("cgroup {}", path(&change.cgroup_path)));
    }
    parts
}
