//! A container makes a system call that it had not made before.

use super::{Definition, Detector, Draft, called};
use crate::{
    enrich::{Fact, Finding, World},
    model::{Evidence, Severity, syscall},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "syscall.first_use",
    title: "System call made for the first time",
    severity: Severity::Notice,
    mitre: &[],
    needs: &[],
    what: "A container made a system call that it had not made since its calls are kept, and these have been kept for longer \
           than `audit.first_use_after_seconds`. One alert for each container and call. `evidence.observed_seconds` is for how \
           long its calls have been kept, `evidence.known_syscalls` how many different ones it had made by then. Which calls \
           are made is read once a second and kept without who made them: the time is that of the reading, up to a second \
           after the call, and there is no process. What was made in the second in which the time ran out is not told. The \
           time begins anew with the agent. Off by default.",
    looks: "container web called ptrace for the first time in 610 s, after 45 other calls",
    evidence: &["syscall", "observed_seconds", "known_syscalls"],
    false_positives: "Work that is rare: a log that is rotated, a nightly job, an error that happens for the first time, and \
                      whoever enters the container to look around. A longer time makes fewer of them.",
    response: "Ask whether the container's program has a cause for such a call. Together with other alerts of the container, \
               take it for what an intruder does; by itself, see what else is new (`observer audit CONTAINER`).",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::FirstUse(fact) = &finding.fact else { return None };
    let call = syscall::label(fact.nr);
    let seconds = fact.observed_ns / 1_000_000_000;
    Some(Draft {
        definition: &DEFINITION,
        severity: Severity::Notice,
        message: format!(
            "{} called {call} for the first time in {seconds} s, after {} other calls",
            called(world, finding.container),
            fact.known
        ),
        container: finding.container,
        namespaces: None,
        subject: call.clone().into_owned(),
        evidence: Evidence {
            syscall: Some(call.into_owned()),
            observed_seconds: Some(seconds),
            known_syscalls: Some(fact.known),
            ..Evidence::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::enrich::FirstUse;

    #[test]
    fn a_first_use_is_a_notice_by_its_call() {
        let world = world();
        let mut finding = refused(observer_common::Kind::Setns);
        assert!(on_finding(&finding, &world).is_none());
        finding.subject = None;
        let cases = [("ptrace", "ptrace"), ("bpf", "bpf"), ("500", "500")];
        for (call, said) in cases {
            let nr = syscall::number(call).unwrap_or(500);
            finding.fact = Fact::FirstUse(FirstUse { slot: 1, nr, observed_ns: 610_900_000_000, known: 45 });
            let draft = on_finding(&finding, &world).unwrap();
            assert_eq!((draft.severity, draft.subject.as_str()), (Severity::Notice, said));
            assert_eq!(draft.message, DEFINITION.looks.replace("ptrace", said));
            let evidence = &draft.evidence;
            assert_eq!((evidence.observed_seconds, evidence.known_syscalls), (Some(610), Some(45)));
            assert_eq!(evidence.syscall.as_deref(), Some(said));
        }
    }
}
