//! Confinement by seccomp.

use super::{Definition, Evidence, Host, ProcessSeccomp, Rule, Subject, Verdict, listed};
use crate::model::Severity;

pub const RULE: Rule = Rule { definition: &DEFINITION, judge };

static DEFINITION: Definition = Definition {
    id: "seccomp.unconfined",
    title: "No seccomp filter",
    severity: Severity::Warning,
    what: "The seccomp mode of each of the container's processes: 0 disabled, 1 strict, 2 filter.",
    why: "Without a filter every system call of the kernel is within reach, those that make user namespaces, \
          load keys or trace included; most kernel exploits begin with one that the runtimes' default profile \
          refuses.",
    advice: "Leave the runtime's default profile on: no seccomp=unconfined (docker), seccompProfile: \
             RuntimeDefault or the kubelet's seccompDefault (Kubernetes). A single process without a filter came \
             in by other means: nsenter, or exec --privileged.",
};

/// SECCOMP_MODE_DISABLED
const DISABLED: u32 = 0;

fn judge(subject: &Subject, _: &Host, verdict: &mut Verdict) {
    let processes = match subject.seccomp.as_deref() {
        None | Some([]) => {
            verdict.not_known(&DEFINITION, "the seccomp modes of its processes");
            return;
        }
        Some(processes) => processes,
    };
    let off: Vec<&ProcessSeccomp> = processes.iter().filter(|it| it.mode == Some(DISABLED)).collect();
    if !off.is_empty() {
        let reason = if off.len() == processes.len() {
            match processes.len() {
                1 => "its only process has seccomp mode 0 (disabled)".to_owned(),
                n => format!("all {n} processes have seccomp mode 0 (disabled)"),
            }
        } else {
            let named: Vec<String> = off.iter().map(|it| format!("{} (pid {})", it.comm, it.pid)).collect();
            format!(
                "{} of {} processes have seccomp mode 0 (disabled): {}",
                off.len(),
                processes.len(),
                listed(&named)
            )
        };
        let pids = off.iter().map(|it| it.pid).collect();
        verdict.find(&DEFINITION, Severity::Warning, reason, Evidence { pids, ..Evidence::default() });
    }
    let not_known = processes.iter().filter(|it| it.mode.is_none()).count();
    if not_known > 0 {
        verdict.not_known(
            &DEFINITION,
            format!("the seccomp mode of {not_known} of {} processes", processes.len()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn subject(modes: &[Option<u32>]) -> Subject {
        let processes = (100..).zip(modes).map(|(pid, mode)| process(pid, *mode)).collect();
        Subject { seccomp: Some(processes), ..docker_default() }
    }

    #[test]
    fn a_process_without_a_filter_is_a_warning() {
        for (modes, expected) in [
            (&[Some(2)][..], None),
            (&[Some(1), Some(2)], None),
            (&[Some(0)], Some("its only process has seccomp mode 0 (disabled)")),
            (&[Some(0), Some(0)], Some("all 2 processes have seccomp mode 0 (disabled)")),
            (
                &[Some(2), Some(0), Some(2)],
                Some("1 of 3 processes have seccomp mode 0 (disabled): sh (pid 101)"),
            ),
        ] {
            let severity: &[Severity] = if expected.is_some() { &[Severity::Warning] } else { &[] };
            assert_eq!(severities(RULE, &subject(modes)), severity, "{modes:?}");
            let verdict = judged(RULE, &subject(modes), &host());
            assert_eq!(verdict.findings.first().map(|it| it.reason.as_str()), expected);
        }
        let verdict = judged(RULE, &subject(&[Some(2), Some(0)]), &host());
        assert_eq!(verdict.findings[0].evidence.pids, [101]);
    }

    #[test]
    fn what_is_not_known_is_said_beside_what_is() {
        assert_unknown(RULE, &Subject { seccomp: None, ..docker_default() }, &host());
        assert_unknown(RULE, &subject(&[]), &host());
        assert_unknown(RULE, &subject(&[None, Some(2)]), &host());
        let verdict = judged(RULE, &subject(&[None, Some(0)]), &host());
        assert_eq!((verdict.findings.len(), verdict.unknown.len()), (1, 1));
    }
}
