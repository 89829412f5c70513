//! ArcSight's Common Event Format, version 0 (Micro Focus: Implementing ArcSight CEF, revision 26).

use std::fmt::Write as _;

use super::{PRODUCT, VENDOR, VERSION, time};
use crate::model::{Alert, AlertState, Severity};

/// The guide's bounds of its string fields.
const MAX_MSG: usize = 1023;
const MAX_CUSTOM: usize = 4000;

pub fn line(alert: &Alert) -> String {
    let severity = match alert.severity {
        Severity::Info => 2,
        Severity::Notice => 4,
        Severity::Warning => 7,
        Severity::Critical => 10,
    };
    let header = [VENDOR, PRODUCT, VERSION, &alert.rule, &alert.title].map(in_header).join("|");
    let mut line = format!("CEF:0|{header}|{severity}|");
    let mut first = true;
    let mut add = |name: &str, value: &str, bound: usize| {
        if !std::mem::take(&mut first) {
            line.push(' ');
        }
        let _ = write!(line, "{name}={}", in_extension(value, bound));
    };
    add("rt", &time(&alert.time).as_millisecond().to_string(), 20);
    add("externalId", &alert.id, 40);
    add("dvchost", &alert.node, 100);
    add("msg", &alert.message, MAX_MSG);
    add("cnt", &alert.count.to_string(), 20);
    if let Some(state) = alert.state {
        add("act", if state == AlertState::Resolved { "resolved" } else { "firing" }, 20);
    }
    if let Some(errno) = &alert.evidence.errno {
        add("outcome", errno, 63);
    }
    if !alert.mitre.is_empty() {
        add("cat", &alert.mitre.join(","), MAX_MSG);
    }
    if let Some(process) = &alert.process {
        add("spid", &process.pid.to_string(), 20);
        add("sproc", process.exe.as_deref().unwrap_or(&process.comm), MAX_MSG);
        add("suid", &process.uid.to_string(), 20);
    }
    let container = alert.container.as_ref();
    let pod = container.and_then(|it| it.pod.as_ref());
    let custom = [
        ("containerId", container.map(|it| it.id.clone())),
        ("containerName", container.and_then(|it| it.name.clone())),
        ("containerImage", container.and_then(|it| it.image.clone())),
        ("pod", pod.map(|it| format!("{}/{}", it.namespace, it.name))),
        ("incident", Some(alert.incident.clone())),
        ("commandLine", alert.process.as_ref().map(|it| it.args.join(" ")).filter(|it| !it.is_empty())),
    ];
    for (n, (label, value)) in custom.into_iter().enumerate() {
        if let Some(value) = value {
            let n = n + 1;
            add(&format!("cs{n}Label"), label, 20);
            add(&format!("cs{n}"), &value, MAX_CUSTOM);
        }
    }
    line
}

fn in_header(text: &str) -> String {
    plain(text, 512).replace('\\', "\\\\").replace('|', "\\|")
}

fn in_extension(text: &str, bound: usize) -> String {
    text[..text.floor_char_boundary(bound)]
        .chars()
        .flat_map(|c| match c {
            '\\' => vec!['\\', '\\'],
            '=' => vec!['\\', '='],
            '\n' => vec!['\\', 'n'],
            '\r' => vec!['\\', 'r'],
            c if c.is_control() => vec![' '],
            c => vec![c],
        })
        .collect()
}

/// One line of it.
fn plain(text: &str, bound: usize) -> String {
    text[..text.floor_char_boundary(bound)].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
