//! systemd-nspawn: what machined keeps of each machine, RUN/systemd/machines/NAME (systemd: src/machine/machine.c,
//! machine_save), lines of KEY=VALUE.

use std::path::Path;

use super::files::{Files, bounded};
use crate::host::RuntimeFacts;

pub fn facts(files: &mut Files, run: &Path, name: &str) -> Option<RuntimeFacts> {
    let text = files.text(&run.join("systemd/machines").join(name))?;
    let value = |key: &str| {
        text.lines().find_map(|line| line.split_once('=').filter(|(k, _)| *k == key)).map(|(_, value)| value)
    };
    // Virtual machines are registered there, too.
    if value("CLASS") != Some("container") {
        return None;
    }
    let runtime = match value("SERVICE") {
        Some("systemd-nspawn" | "nspawn") => Some("systemd-nspawn".to_owned()),
        _ => None,
    };
    let created_us: Option<i64> = value("REALTIME").and_then(|us| us.parse().ok());
    Some(RuntimeFacts {
        runtime,
        id: Some(name.to_owned()),
        name: bounded(value("NAME").unwrap_or(name)),
        init_pid: value("LEADER").and_then(|pid| pid.parse().ok()),
        created_unix_ns: created_us.and_then(|us| us.checked_mul(1000)),
        ..RuntimeFacts::default()
    })
}
