//! Who the container's first process is, and whether it can become somebody else.

use super::{Definition, Evidence, Host, Namespace, Rule, Subject, Verdict};
use crate::model::{NsType, Severity};

pub const ROOT: Rule = Rule { definition: &ROOT_DEFINITION, judge: root };
pub const NO_NEW_PRIVS: Rule = Rule { definition: &NO_NEW_PRIVS_DEFINITION, judge: no_new_privs };

static ROOT_DEFINITION: Definition = Definition {
    id: "posture.root_user",
    title: "Runs as the host's root",
    severity: Severity::Notice,
    what: "The user id of the container's first process as the host has it.",
    why: "To the kernel, uid 0 of a container without a user namespace of its own is the host's root with fewer \
          capabilities. Whatever gets out, a file or a process, belongs to root.",
    advice: "Name another user (USER in the image, runAsNonRoot and runAsUser in Kubernetes), or give the \
             container a user namespace (hostUsers: false, userns-remap, rootless runtimes).",
};

static NO_NEW_PRIVS_DEFINITION: Definition = Definition {
    id: "posture.no_new_privs",
    title: "New privileges are possible",
    severity: Severity::Notice,
    what: "no_new_privs of the container's first process.",
    why: "Without it, a set-user-ID file or one with capabilities in the image gives a process more than it was \
          started with. It matters most for containers that do not run as root (`notice`), and little for those \
          that do (`info`).",
    advice: "docker run --security-opt no-new-privileges, allowPrivilegeEscalation: false in Kubernetes.",
};

fn root(subject: &Subject, _: &Host, verdict: &mut Verdict) {
    let Some(uid) = subject.uid else {
        verdict.not_known(&ROOT_DEFINITION, "its user");
        return;
    };
    if uid != 0 {
        return;
    }
    let reason = match subject.namespaces.get(&NsType::USER) {
        Some(Namespace::Host) => "its first process is uid 0, in the host's user namespace",
        // Capabilities end at the namespace; ownership of files does not.
        Some(_) => {
            "its first process is uid 0 to the host as well, although it has a user namespace of its own"
        }
        None => "its first process is uid 0 to the host; its user namespace is not known",
    };
    let evidence = Evidence { uid: Some(uid), ..Evidence::default() };
    verdict.find(&ROOT_DEFINITION, Severity::Notice, reason.to_owned(), evidence);
}

fn no_new_privs(subject: &Subject, _: &Host, verdict: &mut Verdict) {
    match (subject.no_new_privs, subject.uid) {
        (None, _) => verdict.not_known(&NO_NEW_PRIVS_DEFINITION, "no_new_privs of its first process"),
        (Some(true), _) => {}
        (Some(false), uid) => {
            let (severity, reason) = match uid {
                Some(0) => (Severity::Info, "no_new_privs is off".to_owned()),
                Some(uid) => (
                    Severity::Notice,
                    format!(
                        "no_new_privs is off: uid {uid} can become root by a set-user-ID file of its image"
                    ),
                ),
                None => (Severity::Notice, "no_new_privs is off; its user is not known".to_owned()),
            };
            let evidence = Evidence { uid, ..Evidence::default() };
            verdict.find(&NO_NEW_PRIVS_DEFINITION, severity, reason, evidence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn root_is_a_notice_if_it_is_the_hosts() {
        for (uid, user, expected) in [
            (Some(0), Some(Namespace::Host), Some("in the host's user namespace")),
            (Some(0), Some(Namespace::Own), Some("although it has a user namespace of its own")),
            (Some(0), None, Some("its user namespace is not known")),
            (Some(1000), Some(Namespace::Host), None),
            (Some(100_000), Some(Namespace::Own), None),
        ] {
            let mut subject = Subject { uid, ..docker_default() };
            subject.namespaces.remove(&NsType::USER);
            subject.namespaces.extend(user.map(|whose| (NsType::USER, whose)));
            let severity: &[Severity] = if expected.is_some() { &[Severity::Notice] } else { &[] };
            assert_eq!(severities(ROOT, &subject), severity, "{uid:?}");
            let verdict = judged(ROOT, &subject, &host());
            let reason = verdict.findings.first().map(|finding| finding.reason.as_str());
            assert!(
                reason.is_none_or(|reason| expected.is_some_and(|end| reason.ends_with(end))),
                "{reason:?}"
            );
        }
        assert_unknown(ROOT, &Subject { uid: None, ..docker_default() }, &host());
    }

    #[test]
    fn new_privileges_matter_more_without_root() {
        for (no_new_privs, uid, expected) in [
            (Some(true), Some(0), &[][..]),
            (Some(true), None, &[]),
            (Some(false), Some(0), &[Severity::Info]),
            (Some(false), Some(1000), &[Severity::Notice]),
            (Some(false), None, &[Severity::Notice]),
        ] {
            let subject = Subject { no_new_privs, uid, ..docker_default() };
            assert_eq!(severities(NO_NEW_PRIVS, &subject), expected, "{no_new_privs:?} {uid:?}");
        }
        assert_unknown(NO_NEW_PRIVS, &Subject { no_new_privs: None, ..docker_default() }, &host());
    }
}
