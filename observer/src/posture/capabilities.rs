//! Capabilities that a container has and docker would not have given it.

use super::{CapSet, Definition, Evidence, Host, Namespace, Rule, Subject, Verdict, listed};
use crate::model::{NsType, Severity};

pub const RULE: Rule = Rule { definition: &DEFINITION, judge };

static DEFINITION: Definition = Definition {
    id: "posture.capabilities",
    title: "More capabilities than docker's default",
    severity: Severity::Critical,
    what: "The capability sets of the container's first process. What it holds (permitted, effective, ambient) \
           counts fully; what it could still gain by executing a file (bounding, inheritable) one step less, and \
           little under no_new_privs; what it holds in a user namespace of its own counts as `notice`.",
    why: "Some capabilities are the host's root by another name (SYS_ADMIN, SYS_MODULE, SYS_RAWIO, \
          DAC_READ_SEARCH, BPF with PERFMON): these are `critical`. Others open one door each: `warning`.",
    advice: "Drop all and add what is needed (--cap-drop ALL --cap-add ..., capabilities.drop: [ALL]). observer \
             caps explains a set.",
};

/// Root by another name: any code in the kernel, any mount, any file by its handle, any port of the hardware.
const HOST_EQUIVALENT: CapSet = CapSet::of(&[2, 16, 17, 21]);

/// BPF and PERFMON: either looks at most at metadata, both together read the kernel's memory.
const TOGETHER: CapSet = CapSet::of(&[38, 39]);

/// One door each: NET_ADMIN, SYS_PTRACE, SYS_BOOT, SYS_TIME, AUDIT_CONTROL, MAC_OVERRIDE, MAC_ADMIN, SYSLOG, PERFMON,
/// BPF, CHECKPOINT_RESTORE.
const DANGEROUS: CapSet = CapSet::of(&[12, 19, 22, 25, 30, 32, 33, 34, 38, 39, 40]);

fn judge(subject: &Subject, _: &Host, verdict: &mut Verdict) {
    let Some(sets) = subject.capabilities else {
        verdict.not_known(&DEFINITION, "its capabilities");
        return;
    };
    let held = (sets.permitted | sets.effective | sets.ambient).beyond_default();
    let gainable = (sets.bounding | sets.inheritable).beyond_default().without(held);
    let own_user = subject.namespaces.get(&NsType::USER).is_some_and(|ns| *ns != Namespace::Host);
    let within = if own_user { ", within its own user namespace" } else { "" };
    let mut report = |set: CapSet, severity: Severity, how: &str| {
        if set.is_empty() {
            return;
        }
        let severity = if own_user { severity.min(Severity::Notice) } else { severity };
        let reason = format!("its first process {how} {}{within}", listed(&set.names()));
        verdict.find(
            &DEFINITION,
            severity,
            reason,
            Evidence { capabilities: Some(set), ..Evidence::default() },
        );
    };
    report(held, weight(held), "holds");
    // execve gives nothing beyond what is held under no_new_privs (security/commoncap.c).
    let (severity, how) = match subject.no_new_privs {
        Some(true) => (Severity::Info, "has in its bounding set, out of reach under no_new_privs,"),
        _ => (lighter(weight(gainable)), "could gain by executing a file"),
    };
    report(gainable, severity, how);
}

/// How much the worst of them matters.
fn weight(set: CapSet) -> Severity {
    let any = |of: CapSet| !(set & of).is_empty();
    if any(HOST_EQUIVALENT) || TOGETHER.without(set).is_empty() {
        Severity::Critical
    } else if any(DANGEROUS) || set.unknown_bits().next().is_some() {
        // What has no name here may be anything.
        Severity::Warning
    } else {
        Severity::Notice
    }
}

fn lighter(severity: Severity) -> Severity {
    match severity {
        Severity::Critical => Severity::Warning,
        Severity::Warning => Severity::Notice,
        Severity::Notice | Severity::Info => Severity::Info,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{CapabilitySets, testing::*},
        *,
    };
    use crate::model::Capability;

    fn set(names: &[&str]) -> CapSet {
        names.iter().fold(CapSet::EMPTY, |set, name| set | Capability::by_name(name).expect("a name").set())
    }

    fn holding(held: CapSet) -> Subject {
        let all = CapSet::DOCKER_DEFAULT | held;
        let sets =
            CapabilitySets { effective: all, permitted: all, bounding: all, ..CapabilitySets::default() };
        Subject { capabilities: Some(sets), ..docker_default() }
    }

    /// A user other than root, with capabilities added that only a file could give it.
    fn bounded_by(bounding: CapSet, no_new_privs: bool) -> Subject {
        let sets = CapabilitySets { bounding, ..CapabilitySets::default() };
        Subject {
            capabilities: Some(sets),
            uid: Some(1000),
            no_new_privs: Some(no_new_privs),
            ..docker_default()
        }
    }

    #[test]
    fn the_constants_are_what_their_comments_name() {
        assert_eq!(HOST_EQUIVALENT, set(&["DAC_READ_SEARCH", "SYS_MODULE", "SYS_RAWIO", "SYS_ADMIN"]));
        assert_eq!(TOGETHER, set(&["BPF", "PERFMON"]));
        assert_eq!(
            DANGEROUS,
            set(&[
                "NET_ADMIN",
                "SYS_PTRACE",
                "SYS_BOOT",
                "SYS_TIME",
                "AUDIT_CONTROL",
                "MAC_OVERRIDE",
                "MAC_ADMIN",
                "SYSLOG",
                "PERFMON",
                "BPF",
                "CHECKPOINT_RESTORE",
            ])
        );
    }

    #[test]
    fn what_is_held_weighs_as_its_worst() {
        for (names, expected) in [
            (&[][..], &[][..]),
            (&["NET_RAW"], &[]),
            (&["SYS_NICE"], &[Severity::Notice]),
            (&["SYS_NICE", "IPC_LOCK"], &[Severity::Notice]),
            (&["NET_ADMIN"], &[Severity::Warning]),
            (&["BPF"], &[Severity::Warning]),
            (&["BPF", "PERFMON"], &[Severity::Critical]),
            (&["SYS_ADMIN"], &[Severity::Critical]),
            (&["SYS_NICE", "DAC_READ_SEARCH"], &[Severity::Critical]),
        ] {
            assert_eq!(severities(RULE, &holding(set(names))), expected, "{names:?}");
        }
        assert_eq!(severities(RULE, &holding(CapSet::of(&[63]))), [Severity::Warning]);
        let finding = &judged(RULE, &holding(set(&["SYS_ADMIN", "SYS_NICE"])), &host()).findings[0];
        assert_eq!(finding.reason, "its first process holds SYS_ADMIN and SYS_NICE");
        assert_eq!(finding.evidence.capabilities, Some(set(&["SYS_ADMIN", "SYS_NICE"])));
    }

    #[test]
    fn what_could_be_gained_weighs_less() {
        for (names, no_new_privs, expected) in [
            (&["CHOWN"][..], false, &[][..]),
            (&["SYS_ADMIN"], false, &[Severity::Warning]),
            (&["NET_ADMIN"], false, &[Severity::Notice]),
            (&["SYS_NICE"], false, &[Severity::Info]),
            (&["SYS_ADMIN"], true, &[Severity::Info]),
        ] {
            assert_eq!(severities(RULE, &bounded_by(set(names), no_new_privs)), expected, "{names:?}");
        }
    }

    #[test]
    fn a_user_namespace_of_its_own_keeps_them_in() {
        let mut subject = holding(set(&["SYS_ADMIN"]));
        subject.namespaces.insert(NsType::USER, Namespace::Own);
        assert_eq!(severities(RULE, &subject), [Severity::Notice]);
        subject.namespaces.remove(&NsType::USER);
        assert_eq!(severities(RULE, &subject), [Severity::Critical], "unknown is not harmless");
    }

    #[test]
    fn what_is_not_known_is_said() {
        assert_unknown(RULE, &Subject { capabilities: None, ..docker_default() }, &host());
    }
}
