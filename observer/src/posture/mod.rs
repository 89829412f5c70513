//! What speaks against the way a container is set up. Pure, as detectors are: what was read goes in, findings come
//! out, and what could not be read is told as not known, never taken for good or bad.
//!
//! A new rule is one [`Rule`] in a file here and one line in [`RULES`]. Severities are a reviewer's: docker's default
//! container (root, no limits, default profiles) has nothing above `notice`; `critical` means that the way to the
//! host is open.

mod apparmor;
mod capabilities;
mod limits;
mod mounts;
mod namespaces;
mod privileged;
mod seccomp;
#[cfg(test)]
mod testing;
mod unused;
mod user;

use std::{cmp::Reverse, collections::BTreeMap};

use serde::Serialize;

use crate::model::{CapSet, Label, NsType, Severity};

/// A container as it is held against the rules. `None` and absent entries mean "could not be read".
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Whether its runtime was asked for a privileged container.
    pub declared_privileged: Option<bool>,
    /// Whether it may open every device of the host, as its cgroup's device rules have it. Only told beside other
    /// things of a privileged container.
    pub all_devices: Option<bool>,
    /// Whose each of its namespaces is. Entries for `pid_for_children` and `time_for_children` are not looked at.
    pub namespaces: BTreeMap<NsType, Namespace>,
    /// All its processes, its first one first.
    pub seccomp: Option<Vec<ProcessSeccomp>>,
    /// Of its first process.
    pub capabilities: Option<CapabilitySets>,
    /// Which of them its processes were seen to use.
    pub checks: Checks,
    /// Of its first process.
    pub no_new_privs: Option<bool>,
    /// Effective user id of its first process, as the host has it.
    pub uid: Option<u32>,
    /// AppArmor's label of its first process.
    pub apparmor: Option<Label>,
    /// Of those of its processes of which it was read, the first one excepted.
    pub process_labels: Vec<ProcessLabel>,
    /// The AppArmor profile that its runtime was asked for.
    pub declared_apparmor: Option<String>,
    /// What it has mounted of the host's own tree, its root file system excepted. A container's own proc, sysfs,
    /// tmpfs and mqueue do not belong here; the host's do.
    pub mounts: Option<Vec<HostMount>>,
    /// The lowest limit on the way from its cgroup to the root (a pod's may be the one that counts), bytes.
    pub memory_limit_bytes: Option<Limit>,
    /// The same for processes and threads.
    pub pids_limit: Option<Limit>,
}

/// What the rules need to know of the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host {
    pub apparmor: Option<bool>,
    pub selinux: Option<bool>,
    /// Every capability that this kernel has (/proc/sys/kernel/cap_last_cap); all known ones if that is not known.
    pub capabilities: Option<CapSet>,
}

/// Whose a namespace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    Own,
    Host,
    /// Other containers, named as a person would, are in it as well.
    Shared(Vec<String>),
}

/// A process of the container, and how seccomp treats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSeccomp {
    /// In the initial pid namespace.
    pub pid: u32,
    pub comm: String,
    /// 0 disabled, 1 strict, 2 filter (SECCOMP_MODE_*, include/uapi/linux/seccomp.h).
    pub mode: Option<u32>,
}

/// A process of the container, and AppArmor's label of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessLabel {
    pub pid: u32,
    pub comm: String,
    pub label: Label,
}

/// The five sets of capabilities(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    pub effective: CapSet,
    pub permitted: CapSet,
    pub inheritable: CapSet,
    pub bounding: CapSet,
    pub ambient: CapSet,
}

/// What an agent has counted of checks of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checks {
    #[default]
    Unknown,
    /// No agent runs, or it is not asked to count.
    Uncounted,
    Counted {
        seconds: u64,
        /// Granted when asked for; where the kernel does not say whether a check meant a use, also what was not meant.
        used: CapSet,
    },
}

/// A part of the host's tree in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostMount {
    /// The path on the host.
    pub source: String,
    /// The path in the container.
    pub destination: String,
    pub writable: bool,
}

/// What a cgroup allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    None,
    AtMost(u64),
}

/// What a rule is.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    pub id: &'static str,
    /// In a few words; the title of its findings.
    pub title: &'static str,
    /// The highest severity that it uses.
    pub severity: Severity,
    /// What is looked at.
    pub what: &'static str,
    /// Why that matters.
    pub why: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

/// One rule: what it is, and how it judges.
#[derive(Clone, Copy)]
pub struct Rule {
    pub definition: &'static Definition,
    judge: fn(&Subject, &Host, &mut Verdict),
}

/// All of them, in the order in which findings of the same severity are told.
pub const RULES: &[Rule] = &[
    privileged::RULE,
    mounts::RUNTIME_SOCKET,
    mounts::HOST_MOUNT,
    capabilities::RULE,
    unused::RULE,
    namespaces::HOST,
    seccomp::RULE,
    apparmor::RULE,
    user::ROOT,
    user::NO_NEW_PRIVS,
    limits::MEMORY,
    limits::PIDS,
    namespaces::SHARED,
];

/// What speaks against a container.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// A rule's id, such as `posture.privileged`; of what an audit is about too, under its name (`seccomp.unconfined`).
    pub rule: &'static str,
    pub severity: Severity,
    /// The rule in a few words; the same for all its findings.
    pub title: &'static str,
    /// This finding in one sentence, with what was seen.
    pub reason: String,
    pub advice: &'static str,
    #[serde(skip_serializing_if = "Evidence::is_empty")]
    pub evidence: Evidence,
}

/// What was seen, for machines. Which fields are there depends on the rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Types.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<&'static str>,
    /// Who else is in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pids: Vec<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<HostMount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
}

impl Evidence {
    pub fn is_empty(&self) -> bool {
        *self == Evidence::default()
    }
}

/// A rule that could not be judged, or not wholly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unknown {
    /// The rule's id.
    pub rule: &'static str,
    /// What is not known.
    pub what: String,
}

/// All that the rules say.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// The worst first.
    pub findings: Vec<Finding>,
    pub unknown: Vec<Unknown>,
}

impl Verdict {
    fn find(
        &mut self,
        definition: &'static Definition,
        severity: Severity,
        reason: String,
        evidence: Evidence,
    ) {
        let Definition { id, title, advice, .. } = *definition;
        self.findings.push(Finding { rule: id, severity, title, reason, advice, evidence });
    }

    fn not_known(&mut self, definition: &'static Definition, what: impl Into<String>) {
        self.unknown.push(Unknown { rule: definition.id, what: what.into() });
    }

    /// The severity of the worst finding.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }
}

/// Holds a container against every rule.
pub fn judge(subject: &Subject, host: &Host) -> Verdict {
    let mut verdict = Verdict::default();
    for rule in RULES {
        (rule.judge)(subject, host, &mut verdict);
    }
    verdict.findings.sort_by_key(|finding| Reverse(finding.severity));
    verdict
}

/// What is to be said of the host once, rather than of each container.
pub fn judge_host(host: &Host) -> Verdict {
    let mut verdict = Verdict::default();
    apparmor::judge_host(host, &mut verdict);
    verdict
}

/// The definitions of everything that [`judge`] and [`judge_host`] may find.
pub fn definitions() -> impl Iterator<Item = &'static Definition> {
    RULES.iter().map(|rule| rule.definition).chain([apparmor::HOST])
}

/// "a", "a and b", "a, b and c", "a, b, c and 7 more"
fn listed<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 8;
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        many if many.len() > SHOWN => {
            let shown: Vec<&str> = many.iter().take(SHOWN - 1).copied().collect();
            format!("{} and {} more", shown.join(", "), many.len() - shown.len())
        }
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::*, *};

    #[test]
    fn definitions_are_complete_and_their_ids_their_own() {
        let mut ids = std::collections::BTreeSet::new();
        for definition in definitions() {
            let Definition { id, title, what, why, advice, .. } = *definition;
            let of_an_audit = ["seccomp.unconfined", "capability.unused"].contains(&id);
            assert!(ids.insert(id) && (of_an_audit || id.starts_with("posture.")), "{id}");
            for text in [title, what, why, advice] {
                assert!(!text.is_empty() && text.is_ascii() && !text.contains("  "), "{id}: {text}");
            }
            assert!(
                !title.ends_with('.') && what.ends_with('.') && why.ends_with('.') && advice.ends_with('.')
            );
        }
        assert_eq!(ids.len(), RULES.len() + 1);
    }

    #[test]
    fn dockers_default_does_not_scream() {
        let verdict = judge(&docker_default(), &host());
        assert_eq!(verdict.worst(), Some(Severity::Notice));
        let found: Vec<_> = verdict.findings.iter().map(|finding| (finding.rule, finding.severity)).collect();
        assert_eq!(
            found,
            [
                ("posture.root_user", Severity::Notice),
                ("posture.memory_unlimited", Severity::Notice),
                ("posture.pids_unlimited", Severity::Notice),
                ("posture.no_new_privs", Severity::Info),
            ]
        );
        assert_eq!(verdict.unknown, []);
    }

    #[test]
    fn nothing_speaks_against_a_container_with_everything_set() {
        assert_eq!(judge(&hardened(), &host()), Verdict::default());
    }

    #[test]
    fn what_is_not_known_is_neither_good_nor_bad_nor_silent() {
        let verdict = judge(&Subject::default(), &Host::default());
        assert_eq!(verdict.findings, []);
        let unknown: std::collections::BTreeSet<&str> = verdict.unknown.iter().map(|it| it.rule).collect();
        let rules: std::collections::BTreeSet<&str> = RULES.iter().map(|rule| rule.definition.id).collect();
        assert_eq!(unknown, rules);
        assert_eq!(judge_host(&Host::default()).unknown.len(), 1);
    }

    #[test]
    fn no_finding_is_worse_than_its_definition_says() {
        let verdict = judge(&worst(), &host());
        let found: std::collections::BTreeSet<&str> = verdict.findings.iter().map(|it| it.rule).collect();
        for definition in RULES.iter().map(|rule| rule.definition) {
            assert!(found.contains(definition.id), "{} is not found in the worst container", definition.id);
            let worst =
                verdict.findings.iter().filter(|it| it.rule == definition.id).map(|it| it.severity).max();
            assert!(worst <= Some(definition.severity), "{}", definition.id);
        }
        assert!(verdict.findings.is_sorted_by_key(|finding| Reverse(finding.severity)));
    }

    #[test]
    fn lists_are_read_aloud_and_bounded() {
        assert_eq!(listed::<&str>(&[]), "");
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
        assert_eq!(listed(&["x"; 9]), "x, x, x, x, x, x, x and 2 more");
    }
}
