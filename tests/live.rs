//! The table "Must be shown": real containers, real escapes, the real agent. One file per topic, one test per row
//! or part of a row; each says how many alerts it expects and that there are no others about what it started.
//!
//! Run as root with the agent built, with `--test-threads=1`; `OBSERVER_BIN` names another agent than
//! `target/release/observer`.

use observer_live::alert::Alert;
use observer_live::host;
use observer_live::lab::Lab;

#[path = "live/apparmor.rs"]
mod apparmor;
#[path = "live/capabilities.rs"]
mod capabilities;
#[path = "live/cgroups.rs"]
mod cgroups;
#[path = "live/crowd.rs"]
mod crowd;
#[path = "live/deploy.rs"]
mod deploy;
#[path = "live/drift.rs"]
mod drift;
#[path = "live/entered.rs"]
mod entered;
#[path = "live/escape.rs"]
mod escape;
#[path = "live/features.rs"]
mod features;
#[path = "live/flood.rs"]
mod flood;
#[path = "live/hostile.rs"]
mod hostile;
#[path = "live/inventory.rs"]
mod inventory;
#[path = "live/late.rs"]
mod late;
#[path = "live/lifecycle.rs"]
mod lifecycle;
#[path = "live/limits.rs"]
mod limits;
#[path = "live/limits_events.rs"]
mod limits_events;
#[path = "live/nested.rs"]
mod nested;
#[path = "live/ordinary.rs"]
mod ordinary;
#[path = "live/pods.rs"]
mod pods;
#[path = "live/profiles.rs"]
mod profiles;
#[path = "live/receivers.rs"]
mod receivers;
#[path = "live/recording.rs"]
mod recording;
#[path = "live/refused.rs"]
mod refused;
#[path = "live/reuse.rs"]
mod reuse;
#[path = "live/roots.rs"]
mod roots;
#[path = "live/runtimes.rs"]
mod runtimes;
#[path = "live/seccomp.rs"]
mod seccomp;
#[path = "live/sharing.rs"]
mod sharing;
#[path = "live/threads.rs"]
mod threads;
#[path = "live/walkthrough.rs"]
mod walkthrough;

/// What `nsenter -m -n -u -i` changes, sorted as alerts have it.
const FOUR: [&str; 4] = ["ipc", "mnt", "net", "uts"];

fn lab() -> Option<Lab> {
    Lab::enter(env!("CARGO_BIN_EXE_observer-attacks"))
}

/// What must hold for an escape of a process below `init` to the host's namespaces of `types`, `target` being a
/// process that lives there.
fn assert_escape(alert: &Alert, init: u32, target: u32, types: &[&str]) {
    let line = &alert.line;
    assert_eq!(alert.severity(), "critical", "{line}");
    assert_eq!(alert.changed(), types, "changed: {line}");
    assert_eq!(alert.host(), types, "host: {line}");
    let (expected, actual) = (alert.tuple("expected"), alert.tuple("actual"));
    for kind in types {
        assert_eq!(expected.get(kind).copied(), host::namespace(init, kind), "expected {kind}: {line}");
        assert_eq!(actual.get(kind).copied(), host::namespace(target, kind), "actual {kind}: {line}");
    }
    assert!(
        alert.json["mitre"].as_array().is_some_and(|ids| ids.iter().any(|id| id == "T1611")),
        "mitre: {line}"
    );
}

/// The attacker was born inside, by the container's own shell: its ancestors end with the container's init.
fn assert_born_inside(alert: &Alert, init: u32) {
    assert_eq!(alert.ancestors().last(), Some(&init), "ancestors up to the container's init: {}", alert.line);
}
