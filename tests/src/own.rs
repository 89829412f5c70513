//! Which alerts are about what this test process started. Others may work on the machine at the same time; their
//! alerts are printed, never judged.

use crate::alert::Alert;
use std::collections::BTreeSet;
use std::sync::Mutex;

static CONTAINERS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Every container that a test makes is entered here, as early as its id is known: a whole id, or docker's short one.
pub fn register(container: &str) {
    CONTAINERS.lock().expect("own containers").insert(container.to_owned());
}

/// A container that is only namespaces, by what `readlink /proc/self/ns/pid` says in it.
pub fn register_plain(pid_namespace: &str) -> String {
    let inode = pid_namespace.trim().trim_start_matches("pid:[").trim_end_matches(']');
    assert!(inode.parse::<u64>().is_ok(), "no pid namespace: {pid_namespace:?}");
    let id = format!("ns-{inode}");
    register(&id);
    id
}

/// Ours: about a container we made, or about a process that is or descends from us, or about the agent itself.
pub fn is(alert: &Alert) -> bool {
    let containers = CONTAINERS.lock().expect("own containers");
    if alert.rule().starts_with("agent.") {
        return true;
    }
    let target = alert.target_container();
    if [alert.container(), target.as_deref()].into_iter().flatten().any(|id| ours(&containers, id)) {
        return true;
    }
    let us = std::process::id();
    alert.pid() == Some(us) || alert.ancestors().contains(&us)
}

fn ours(containers: &BTreeSet<String>, id: &str) -> bool {
    // 12 hexadecimal digits are what docker prints of an id while it builds.
    containers.contains(id) || containers.iter().any(|own| own.len() == 12 && id.starts_with(own.as_str()))
}
