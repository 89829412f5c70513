//! Confinement by AppArmor.

use super::{Definition, Evidence, Host, ProcessLabel, Rule, Subject, Verdict, listed};
use crate::model::{Confinement, Label, Severity, Standing};

pub const RULE: Rule = Rule { definition: &DEFINITION, judge };
pub const HOST: &Definition = &HOST_DEFINITION;

static DEFINITION: Definition = Definition {
    id: "posture.apparmor",
    title: "Not confined by AppArmor",
    severity: Severity::Warning,
    what: "AppArmor's label of the container's first process, on hosts that have AppArmor, held against the profile that the \
           runtime was asked for; and those of its other processes, held against that of the first.",
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
    if let Some(reason) = of_first(label, subject.declared_apparmor.as_deref(), verdict) {
        let evidence = Evidence { apparmor: Some(label.to_string()), ..Evidence::default() };
        verdict.find(&DEFINITION, Severity::Warning, reason, evidence);
    }
    of_others(label, &subject.process_labels, verdict);
}

/// What speaks against the label of the first process.
fn of_first(label: &Label, declared: Option<&str>, verdict: &mut Verdict) -> Option<String> {
    let asked_for = declared
        .filter(|declared| !matches!(*declared, "" | "unconfined"))
        .map(|profile| Label { profile: profile.to_owned(), mode: Some("enforce".to_owned()) });
    let though = |what: &str| match &asked_for {
        Some(asked_for) => format!("{what}, though its runtime was asked for profile {}", asked_for.profile),
        None => what.to_owned(),
    };
    match label.confinement() {
        Confinement::None => Some(though(&format!("its AppArmor label is {label}"))),
        Confinement::Logged => Some(format!(
            "its AppArmor profile {} is in complain mode: it logs and refuses nothing",
            label.profile
        )),
        Confinement::Enforced | Confinement::NotKnown
            if asked_for.as_ref().is_some_and(|asked_for| label.against(asked_for) == Standing::Left) =>
        {
            Some(though(&format!("its AppArmor label is {label}")))
        }
        Confinement::Enforced => None,
        Confinement::NotKnown => {
            let mode = label.mode.as_deref().unwrap_or("no mode");
            verdict.not_known(
                &DEFINITION,
                format!("what `{mode}` means for its AppArmor profile {}", label.profile),
            );
            None
        }
    }
}

/// Those that are confined by another profile than the first.
fn of_others(first: &Label, others: &[ProcessLabel], verdict: &mut Verdict) {
    let left: Vec<&ProcessLabel> =
        others.iter().filter(|other| other.label.against(first) != Standing::Kept).collect();
    if left.is_empty() {
        return;
    }
    let named: Vec<String> =
        left.iter().map(|it| format!("{} (pid {}): {}", it.comm, it.pid, it.label)).collect();
    let reason = format!(
        "{} of its processes {} under another AppArmor label than its first one ({first}): {}",
        left.len(),
        if left.len() == 1 { "runs" } else { "run" },
        listed(&named)
    );
    let mut labels: Vec<String> = left.iter().map(|it| it.label.to_string()).collect();
    labels.sort();
    labels.dedup();
    let evidence = Evidence {
        pids: left.iter().map(|it| it.pid).collect(),
        apparmor: Some(listed(&labels)),
        ..Evidence::default()
    };
    verdict.find(&DEFINITION, Severity::Warning, reason, evidence);
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

    fn declared(profile: &str) -> Option<String> {
        Some(profile.to_owned())
    }

    #[test]
    fn what_does_not_enforce_is_a_warning() {
        for (profile, mode, asked_for, expected) in [
            ("docker-default", Some("enforce"), None, &[][..]),
            ("docker-default", Some("enforce"), declared("docker-default"), &[]),
            ("docker-default//sh", Some("enforce"), declared("docker-default"), &[]),
            ("a//&docker-default", Some("enforce"), declared("docker-default"), &[]),
            ("docker-default", Some("kill"), None, &[]),
            ("a//&b", Some("mixed"), None, &[]),
            ("unconfined", None, None, &[Severity::Warning]),
            ("unconfined", None, declared("unconfined"), &[Severity::Warning]),
            ("docker-default", Some("complain"), None, &[Severity::Warning]),
            ("my app (x)", Some("unconfined"), None, &[Severity::Warning]),
            // A profile may be called so and enforce.
            ("unconfined", Some("enforce"), None, &[]),
            // It enforces something else than was asked for.
            ("other", Some("enforce"), declared("docker-default"), &[Severity::Warning]),
            ("other", Some("enforce"), declared("unconfined"), &[]),
        ] {
            let apparmor = label(profile, mode);
            let subject = Subject { apparmor, declared_apparmor: asked_for.clone(), ..docker_default() };
            assert_eq!(severities(RULE, &subject), expected, "{profile} {mode:?} {asked_for:?}");
        }
    }

    #[test]
    fn what_was_asked_for_is_told() {
        let subject = Subject { apparmor: label("unconfined", None), ..docker_default() };
        let verdict = judged(RULE, &subject, &host());
        assert_eq!(
            verdict.findings[0].reason,
            "its AppArmor label is unconfined, though its runtime was asked for profile docker-default"
        );
    }

    #[test]
    fn processes_under_another_label_are_told() {
        let process = |pid: u32, text: &str| ProcessLabel {
            pid,
            comm: "sh".into(),
            label: Label::parse(text.as_bytes()).expect("a label"),
        };
        let same = vec![process(5, "docker-default (enforce)"), process(6, "docker-default//x (enforce)")];
        let subject = Subject { process_labels: same.clone(), ..docker_default() };
        assert_eq!(judged(RULE, &subject, &host()), Verdict::default());
        let process_labels = [same, vec![process(7, "unconfined"), process(8, "q (enforce)")]].concat();
        let subject = Subject { process_labels, ..docker_default() };
        let verdict = judged(RULE, &subject, &host());
        let [finding] = verdict.findings.as_slice() else { panic!("{verdict:?}") };
        assert_eq!(
            finding.reason,
            "2 of its processes run under another AppArmor label than its first one (docker-default (enforce)): \
             sh (pid 7): unconfined and sh (pid 8): q (enforce)"
        );
        assert_eq!((finding.severity, finding.evidence.pids.as_slice()), (Severity::Warning, &[7, 8][..]));
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
