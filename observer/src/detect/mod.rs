//! Detectors: from a finding to alerts. Pure: a finding and read-only tables in, drafts out; no I/O, no clock, so
//! that a replay gives what the live run gave.
//!
//! A new detector is one file here and one line in [`DETECTORS`].

mod apparmor_changed;
mod apparmor_denied;
mod capability_denied;
mod capability_gained;
mod cgroup_cpu;
mod cgroup_escape;
mod cgroup_limit_changed;
mod cgroup_memory;
mod cgroup_oom_kill;
mod cgroup_pids;
mod events_lost;
mod fold;
mod limits;
mod namespace_drift;
mod namespace_entered;
mod namespace_escape;
mod namespace_nested;
mod root_escape;
mod seccomp_denied;
mod seccomp_killed;
mod syscall_first_use;
#[cfg(test)]
pub(crate) mod testing;

pub use fold::{Fold, Folded};

use crate::{
    enrich::{Finding, World},
    model::{ContainerKey, Evidence, NamespaceView, NsType, Severity, Tuple, short},
};

/// What a rule is, for its reference.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    pub id: &'static str,
    /// In a few words; the title of its alerts.
    pub title: &'static str,
    /// The highest severity that it uses.
    pub severity: Severity,
    /// MITRE ATT&CK techniques.
    pub mitre: &'static [&'static str],
    /// Kinds of events that it lives on.
    pub needs: &'static [&'static str],
    /// What it means when it fires.
    pub what: &'static str,
    /// One of its messages, as the detector's own test has it.
    pub looks: &'static str,
    /// The fields of `evidence` that it fills, each where there is something to say.
    pub evidence: &'static [&'static str],
    pub false_positives: &'static str,
    pub response: &'static str,
}

/// One detector: what it is, and what it makes of a finding.
#[derive(Clone, Copy)]
pub struct Detector {
    pub definition: &'static Definition,
    pub on_finding: fn(&Finding, &World) -> Option<Draft>,
}

/// All of them, in the order in which they are asked.
pub const DETECTORS: &[Detector] = &[
    namespace_escape::DETECTOR,
    namespace_drift::DETECTOR,
    namespace_nested::DETECTOR,
    namespace_entered::DETECTOR,
    root_escape::DETECTOR,
    cgroup_escape::DETECTOR,
    cgroup_oom_kill::DETECTOR,
    cgroup_memory::DETECTOR,
    cgroup_pids::DETECTOR,
    cgroup_cpu::DETECTOR,
    cgroup_limit_changed::DETECTOR,
    seccomp_denied::DETECTOR,
    seccomp_killed::DETECTOR,
    capability_denied::DETECTOR,
    capability_gained::DETECTOR,
    syscall_first_use::DETECTOR,
    apparmor_changed::DETECTOR,
    apparmor_denied::DETECTOR,
    events_lost::DETECTOR,
];

/// Their definitions, for the rule reference.
pub const DEFINITIONS: &[&Definition] = &{
    let mut all = [DETECTORS[0].definition; DETECTORS.len()];
    let mut i = 0;
    while i < DETECTORS.len() {
        all[i] = DETECTORS[i].definition;
        i += 1;
    }
    all
};

/// An alert as its detector writes it; identity, node, folding and the process come later.
#[derive(Clone, Debug)]
pub struct Draft {
    pub definition: &'static Definition,
    pub severity: Severity,
    pub message: String,
    pub container: Option<ContainerKey>,
    pub namespaces: Option<NamespaceView>,
    pub evidence: Evidence,
    /// What repeats of the same rule, container and program are told apart by.
    pub subject: String,
}

/// Asks every detector.
pub fn detect(finding: &Finding, world: &World) -> Vec<Draft> {
    let drafts: Vec<Draft> =
        DETECTORS.iter().filter_map(|detector| (detector.on_finding)(finding, world)).collect();
    // Whatever any test makes of any finding: the reference says all that an alert may have.
    #[cfg(test)]
    drafts.iter().for_each(testing::assert_documented);
    drafts
}

/// A container as a message names it: its name, else the short form of its id.
fn called(world: &World, key: Option<ContainerKey>) -> String {
    match world.container(key) {
        Some(container) => match &container.name {
            Some(name) => format!("container {name}"),
            None => format!("container {}", short(&container.id)),
        },
        None => "a container".into(),
    }
}

/// The process as a message names it.
fn who(finding: &Finding) -> String {
    match &finding.subject {
        Some(subject) => format!("{} (pid {})", subject.comm, subject.pid),
        None => "a process".into(),
    }
}

fn names(types: &[NsType]) -> Vec<String> {
    let mut names: Vec<String> = types.iter().map(|ns| ns.name().to_owned()).collect();
    names.sort();
    names
}

/// "mnt", "mnt and net", "ipc, mnt and net"
fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

fn view(world: &World, expected: &Tuple, actual: &Tuple, changed: &[NsType]) -> NamespaceView {
    let host: Vec<NsType> =
        changed.iter().copied().filter(|ns| actual.get(*ns) == world.host_tuple.get(*ns)).collect();
    NamespaceView {
        expected: expected.to_set(),
        actual: actual.to_set(),
        changed: names(changed),
        host: names(&host),
    }
}

/// The name of an errno that a refused call gives.
pub(crate) fn errno_name(errno: i32) -> String {
    match errno {
        libc::EPERM => "EPERM".into(),
        libc::EACCES => "EACCES".into(),
        libc::ENOSYS => "ENOSYS".into(),
        other => format!("errno {other}"),
    }
}
