//! Confinement by AppArmor.

use super::{Definition, Evidence, Host, Label, Rule, Subject, Verdict};
use crate::model::Severity;

pub const RULE: Rule = Rule { definition: &DEFINITION, judge };
pub const HOST: &Definition = &HOST_DEFINITION;

static DEFINITION: Definition = Definition {
    id: "posture.apparmor",
    title: "Not confined by AppArmor",
    severity: Severity::Warning,
    what: "AppArmor's label of the container's first process, on hosts that have AppArmor.",
    why: "The runtimes' default profile refuses mounts, writes to most of /proc and /sys, and tracing of \
          processes outside, also to a process that has the capability for it.",
    advice: "Leave the runtime's default profile on: no apparmor=unconfined (docker), no Unconfined in \
             appArmorProfile (Kubernetes). A profile in complain mode only logs: enforce it.",
};

static HOST_DEFINITION: Definition = Definition {
    id: "posture.host_apparmor",
    title: "This host has no AppArmor",
    severity: Severity::Info,
    what: "The security modules that are active on the host. Said once, not of each container.",
    why: "Without AppArmor or SELinux, capabilities and seccomp alone confine containers.",
    advice: "Enable the module that the distribution supports, by the kernel's lsm= parameter.",
};

fn judge(subject: &Subject, host: &Host, verdict: &mut Verdict) {
    match host.apparmor {
        // Said of the host.
        Some(false) => return,
        None => {
            verdict.not_known(&DEFINITION, "whether this host has AppArmor");
            return;
        }
        Some(true) => {}
    }
    let Some(label) = &subject.apparmor else {
        verdict.not_known(&DEFINITION, "its AppArmor label");
        return;
    };
    let (severity, reason) = match confinement(label) {
        Confinement::Enforced => return,
        Confinement::NotKnown => {
            let mode = label.mode.as_deref().unwrap_or("no mode");
            verdict.not_known(
                &DEFINITION,
                format!("what `{mode}` means for its AppArmor profile {}", label.profile),
            );
            return;
        }
        Confinement::None => (Severity::Warning, format!("its AppArmor label is {}", shown(label))),
        Confinement::Logged => (
            Severity::Warning,
            format!(
                "its AppArmor profile {} is in complain mode: it logs and refuses nothing",
                label.profile
            ),
        ),
    };
    verdict.find(
        &DEFINITION,
        severity,
        reason,
        Evidence { apparmor: Some(shown(label)), ..Evidence::default() },
    );
}

enum Confinement {
    Enforced,
    /// Complain mode.
    Logged,
    None,
    NotKnown,
}

/// security/apparmor/label.c: aa_label_snxprint, and the names of modes in security/apparmor/policy.c. A profile can
/// carry the flag `unconfined` under any name.
fn confinement(label: &Label) -> Confinement {
    match (label.profile.as_str(), label.mode.as_deref()) {
        (_, Some("unconfined")) | ("unconfined", None) => Confinement::None,
        (_, Some("complain")) => Confinement::Logged,
        // `mixed`: several profiles, of which at least one enforces.
        (_, Some("enforce" | "kill" | "mixed" | "user")) => Confinement::Enforced,
        _ => Confinement::NotKnown,
    }
}

/// Whether a process with this label may do what it likes, as far as AppArmor is concerned.
pub fn refuses_nothing(label: &Label) -> Option<bool> {
    match confinement(label) {
        Confinement::Enforced => Some(false),
        Confinement::Logged | Confinement::None => Some(true),
        Confinement::NotKnown => None,
    }
}

fn shown(label: &Label) -> String {
    match &label.mode {
        Some(mode) => format!("{} ({mode})", label.profile),
        None => label.profile.clone(),
    }
}

pub fn judge_host(host: &Host, verdict: &mut Verdict) {
    match (host.apparmor, host.selinux) {
        (Some(true), _) | (_, Some(true)) => {}
        (Some(false), selinux) => {
            let selinux =
                if selinux.is_none() { "; whether it has SELinux is not known" } else { ", nor SELinux" };
            let reason = format!("this host has no AppArmor{selinux}");
            verdict.find(&HOST_DEFINITION, Severity::Info, reason, Evidence::default());
        }
        (None, _) => verdict.not_known(&HOST_DEFINITION, "whether this host has AppArmor"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn what_does_not_enforce_is_a_warning() {
        for (profile, mode, expected) in [
            ("docker-default", Some("enforce"), &[][..]),
            ("docker-default", Some("kill"), &[]),
            ("a//&b", Some("mixed"), &[]),
            ("unconfined", None, &[Severity::Warning]),
            ("docker-default", Some("complain"), &[Severity::Warning]),
            ("my app (x)", Some("unconfined"), &[Severity::Warning]),
            // A profile may be called so and enforce.
            ("unconfined", Some("enforce"), &[]),
        ] {
            let subject = Subject { apparmor: label(profile, mode), ..docker_default() };
            assert_eq!(severities(RULE, &subject), expected, "{profile} {mode:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_said() {
        for (apparmor, on_host) in [
            (None, Some(true)),
            (label("docker-default", None), Some(true)),
            (label("docker-default", Some("prompt-me")), Some(true)),
            (label("unconfined", None), None),
        ] {
            let subject = Subject { apparmor, ..docker_default() };
            assert_unknown(RULE, &subject, &Host { apparmor: on_host, ..host() });
        }
    }

    #[test]
    fn a_host_without_apparmor_is_said_once_and_not_of_containers() {
        let without = Host { apparmor: Some(false), ..host() };
        let subject = Subject { apparmor: None, ..docker_default() };
        assert_eq!(judged(RULE, &subject, &without), Verdict::default());
        for (apparmor, selinux, findings, unknown) in [
            (Some(true), None, 0, 0),
            (Some(false), Some(true), 0, 0),
            (Some(false), Some(false), 1, 0),
            (Some(false), None, 1, 0),
            (None, Some(false), 0, 1),
            (None, Some(true), 0, 0),
        ] {
            let mut verdict = Verdict::default();
            judge_host(&Host { apparmor, selinux, ..host() }, &mut verdict);
            assert_eq!((verdict.findings.len(), verdict.unknown.len()), (findings, unknown), "{apparmor:?}");
            assert!(verdict.findings.iter().all(|it| it.severity == Severity::Info));
        }
    }
}
