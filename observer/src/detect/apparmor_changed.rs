//! A container's process is not confined by its container's AppArmor profile.

use super::{Definition, Detector, Draft, called, who};
use crate::{
    enrich::{Fact, Finding, World},
    model::{Confinement, Evidence, Severity, Standing},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "apparmor.changed",
    title: "Process left its container's AppArmor profile",
    severity: Severity::Critical,
    mitre: &["T1611", "T1562.001"],
    needs: &["exec"],
    what: "On hosts with AppArmor: a container's process is confined by another profile than the container's first process (or one \
           that does not enforce any more): neither by a profile below it (`profile//child`) nor by a stack that still has it \
           (`a//&b`). `critical` if it is not confined at all any more, else a warning; a warning, too, for a process that was \
           brought in from outside under another label. `evidence.from` and `evidence.to` are labels. It is a state that is read at execs \
           and every `sweep_seconds`: what changes back sooner, or is one thread's alone, is not seen. A container that is not \
           confined has nothing to lose.",
    looks: "sh (pid 100) of container web is not confined by AppArmor profile p (enforce) any more: unconfined",
    evidence: &["from", "to"],
    false_positives: "A profile that on purpose sends programs on to others; an administrator who puts a profile into complain \
                      mode, or reloads it under another name; `runc exec` with a profile of its own.",
    response: "A profile lets nobody out of itself unless it says so (change_profile, or an exec rule `ux`): look for that rule in \
               the profile. Without one, the kernel's confinement was broken: treat the container as compromised.",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::Label(change) = &finding.fact else { return None };
    let was_enforced = change.expected.confinement() == Confinement::Enforced;
    let severity = if change.standing == Standing::Unconfined && was_enforced && !change.brought_in {
        Severity::Critical
    } else {
        Severity::Warning
    };
    let (who, container) = (who(finding), called(world, finding.container));
    let (from, to) = (&change.expected, &change.actual);
    let message = match change.standing {
        Standing::Kept => return None,
        _ if change.brought_in => {
            format!("{who} was brought into {container} with AppArmor label {to}, not the container's {from}")
        }
        Standing::Unconfined => {
            format!("{who} of {container} is not confined by AppArmor profile {from} any more: {to}")
        }
        Standing::Left => {
            format!("{who} of {container} is under AppArmor label {to}, not the container's {from}")
        }
        Standing::Weakened => {
            format!("AppArmor profile of {who} of {container} refuses nothing any more: {to}")
        }
    };
    Some(Draft {
        definition: &DEFINITION,
        severity,
        message,
        container: finding.container,
        namespaces: None,
        subject: to.to_string(),
        evidence: Evidence { from: Some(from.to_string()), to: Some(to.to_string()), ..Evidence::default() },
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::{enrich::LabelChange, model::Label};

    fn draft(expected: &str, actual: &str, brought_in: bool) -> Option<Draft> {
        let label = |text: &str| Label::parse(text.as_bytes()).expect("a label");
        let (expected, actual) = (label(expected), label(actual));
        let standing = actual.against(&expected);
        let mut finding = refused(observer_common::Kind::Setns);
        finding.fact = Fact::Label(LabelChange { expected, actual, standing, brought_in });
        on_finding(&finding, &world())
    }

    #[test]
    fn what_is_lost_makes_the_severity() {
        for (expected, actual, brought_in, severity) in [
            ("p (enforce)", "unconfined", false, Severity::Critical),
            ("p (enforce)", "x (unconfined)", false, Severity::Critical),
            ("a//&b (mixed)", "unconfined", false, Severity::Critical),
            ("p (enforce)", "unconfined", true, Severity::Warning),
            ("p (complain)", "unconfined", false, Severity::Warning),
            ("p (enforce)", "q (enforce)", false, Severity::Warning),
            ("p (enforce)", "q (complain)", false, Severity::Warning),
            ("p (enforce)", "p (complain)", false, Severity::Warning),
        ] {
            let draft = draft(expected, actual, brought_in).expect("an alert");
            assert_eq!(draft.severity, severity, "{expected} {actual}");
            assert_eq!(draft.evidence.from.as_deref(), Some(expected));
            assert_eq!((draft.evidence.to.as_deref(), draft.subject.as_str()), (Some(actual), actual));
        }
    }

    #[test]
    fn what_is_kept_is_none() {
        for (expected, actual) in [
            ("p (enforce)", "p//x (enforce)"),
            ("p (enforce)", "p//&q (mixed)"),
            ("unconfined", "unconfined"),
        ] {
            assert!(draft(expected, actual, false).is_none(), "{expected} {actual}");
        }
        assert!(on_finding(&refused(observer_common::Kind::Setns), &world()).is_none());
    }

    #[test]
    fn the_message_says_what_happened() {
        let message =
            |actual: &str, brought_in| draft("p (enforce)", actual, brought_in).expect("an alert").message;
        assert_eq!(message("unconfined", false), DEFINITION.looks);
        assert_eq!(
            message("unconfined", true),
            "sh (pid 100) was brought into container web with AppArmor label unconfined, not the container's p (enforce)"
        );
    }
}
