//! Privileged containers.

use super::{Definition, Evidence, Host, Namespace, Rule, Subject, Verdict, listed};
use crate::model::{CapSet, NsType, Severity};

pub const RULE: Rule = Rule { definition: &DEFINITION, judge };

static DEFINITION: Definition = Definition {
    id: "posture.privileged",
    title: "Privileged container",
    severity: Severity::Critical,
    what: "What the runtime was asked for; or, whatever it was asked for, every capability of the kernel without \
           seccomp, without AppArmor, and in the host's user namespace.",
    why: "Nothing but namespaces separates its root from the host's: it can mount the host's disks, load kernel \
          modules and join any process's namespaces.",
    advice: "Give it the few capabilities and devices that it needs instead (docker run --cap-add, --device; \
             securityContext.capabilities.add in Kubernetes).",
};

fn judge(subject: &Subject, host: &Host, verdict: &mut Verdict) {
    if subject.declared_privileged == Some(true) {
        let mut reason = "its runtime was asked for a privileged container".to_owned();
        let seen = seen(subject, host);
        if !seen.is_empty() {
            reason.push_str(": it has ");
            reason.push_str(&listed(&seen));
        }
        let capabilities = subject.capabilities.map(|sets| sets.permitted);
        verdict.find(
            &DEFINITION,
            Severity::Critical,
            reason,
            Evidence { capabilities, ..Evidence::default() },
        );
        return;
    }
    // Each of these alone, if it is known not to be so, says that the container is not privileged.
    let facts = [
        ("its capabilities", all_capabilities(subject, host)),
        ("the seccomp mode of its first process", no_seccomp(subject)),
        ("its AppArmor label", no_apparmor(subject, host)),
        ("its user namespace", subject.namespaces.get(&NsType::USER).map(|ns| *ns == Namespace::Host)),
    ];
    if facts.iter().any(|(_, fact)| *fact == Some(false)) {
        return;
    }
    let not_known: Vec<&str> =
        facts.iter().filter(|(_, fact)| fact.is_none()).map(|(what, _)| *what).collect();
    if !not_known.is_empty() {
        verdict.not_known(&DEFINITION, listed(&not_known));
        return;
    }
    let capabilities = subject.capabilities.map(|sets| sets.permitted);
    let reason = format!("it has {}, as a privileged container has", listed(&seen(subject, host)));
    verdict.find(&DEFINITION, Severity::Critical, reason, Evidence { capabilities, ..Evidence::default() });
}

/// What of a privileged container is there.
fn seen(subject: &Subject, host: &Host) -> Vec<&'static str> {
    let facts = [
        ("every capability", all_capabilities(subject, host)),
        ("no seccomp filter", no_seccomp(subject)),
        // Where the host has none, its absence says nothing of the container.
        ("no AppArmor profile", no_apparmor(subject, host).filter(|_| host.apparmor == Some(true))),
        ("every device of the host", subject.all_devices),
    ];
    facts.iter().filter(|(_, fact)| *fact == Some(true)).map(|(what, _)| *what).collect()
}

fn all_capabilities(subject: &Subject, host: &Host) -> Option<bool> {
    let all = host.capabilities.unwrap_or(CapSet::ALL);
    Some(all.without(subject.capabilities?.permitted).is_empty())
}

fn no_seccomp(subject: &Subject) -> Option<bool> {
    Some(subject.seccomp.as_ref()?.first()?.mode? == 0)
}

fn no_apparmor(subject: &Subject, host: &Host) -> Option<bool> {
    if host.apparmor? { subject.apparmor.as_ref()?.refuses_nothing() } else { Some(true) }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{CapabilitySets, testing::*},
        *,
    };

    /// Privileged in fact, and nobody says so.
    fn undeclared() -> Subject {
        let mut subject = Subject { declared_privileged: None, ..worst() };
        subject.namespaces.insert(NsType::USER, Namespace::Host);
        subject
    }

    fn with_capabilities(permitted: CapSet) -> Subject {
        let sets = CapabilitySets { permitted, ..CapabilitySets::default() };
        Subject { capabilities: Some(sets), ..undeclared() }
    }

    #[test]
    fn what_was_declared_or_is_so_is_critical() {
        let own_user = |mut subject: Subject| {
            subject.namespaces.insert(NsType::USER, Namespace::Own);
            subject
        };
        for (subject, expected) in [
            (undeclared(), true),
            (Subject { declared_privileged: Some(false), ..undeclared() }, true),
            (Subject { declared_privileged: Some(true), ..docker_default() }, true),
            (docker_default(), false),
            (with_capabilities(CapSet::ALL.without(CapSet::of(&[24]))), false),
            (Subject { seccomp: Some(vec![process(1, Some(2))]), ..undeclared() }, false),
            (Subject { apparmor: label("p", Some("enforce")), ..undeclared() }, false),
            (own_user(undeclared()), false),
        ] {
            let severity: &[Severity] = if expected { &[Severity::Critical] } else { &[] };
            assert_eq!(severities(RULE, &subject), severity, "{subject:?}");
        }
    }

    #[test]
    fn the_reason_names_what_was_seen() {
        let reason = |subject: &Subject, host: &Host| judged(RULE, subject, host).findings[0].reason.clone();
        assert_eq!(
            reason(&undeclared(), &host()),
            "it has every capability, no seccomp filter, no AppArmor profile and every device of the host, as a \
             privileged container has"
        );
        let without = Host { apparmor: Some(false), ..host() };
        assert!(!reason(&undeclared(), &without).contains("AppArmor"));
        assert_eq!(
            reason(&Subject { declared_privileged: Some(true), ..hardened() }, &host()),
            "its runtime was asked for a privileged container"
        );
    }

    #[test]
    fn an_older_kernel_has_fewer_capabilities() {
        let old = Host { capabilities: Some(CapSet((1 << 38) - 1)), ..host() };
        let subject = with_capabilities(CapSet((1 << 38) - 1));
        assert_eq!(judged(RULE, &subject, &old).findings.len(), 1);
        assert_eq!(judged(RULE, &subject, &host()).findings, []);
    }

    #[test]
    fn one_unknown_is_enough_if_nothing_speaks_against_it() {
        let no_user = |mut subject: Subject| {
            subject.namespaces.remove(&NsType::USER);
            subject
        };
        for subject in [
            Subject { capabilities: None, ..undeclared() },
            Subject { seccomp: None, ..undeclared() },
            Subject { seccomp: Some(vec![process(1, None)]), ..undeclared() },
            Subject { apparmor: None, ..undeclared() },
            no_user(undeclared()),
        ] {
            assert_unknown(RULE, &subject, &host());
        }
        // Known to have a filter: whatever else is not known, it is not privileged.
        let filtered = Subject { seccomp: Some(vec![process(1, Some(2))]), ..Subject::default() };
        assert_eq!(judged(RULE, &filtered, &host()), Verdict::default());
    }
}
