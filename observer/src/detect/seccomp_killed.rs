//! A container's seccomp filter stopped a process.

use super::{Definition, Detector, Draft, called, who};
use crate::{
    enrich::{Fact, Finding, World},
    model::{Evidence, Severity, syscall},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "seccomp.killed",
    title: "Stopped by seccomp",
    severity: Severity::Warning,
    mitre: &["T1611", "T1068"],
    needs: &["seccomp_killed"],
    what: "A container's process made a system call that its seccomp filter answers with SIGSYS (`SCMP_ACT_KILL_PROCESS`, \
           `SCMP_ACT_TRAP`) or by ending the thread (`SCMP_ACT_KILL_THREAD`). A process that handles SIGSYS goes on. One \
           alert for each container and call, with the count of all. Only with `audit.seccomp`.",
    looks: "sh (pid 100) of container web called mount, for which its seccomp filter sent it SIGSYS",
    evidence: &["syscall"],
    false_positives: "Programs that put themselves into a sandbox and emulate what it traps (browsers).",
    response: "As for seccomp.denied. A program that is killed by its own profile after an update needs a new profile.",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::SeccompKilled(fact) = &finding.fact else { return None };
    let call = syscall::label(fact.nr);
    let how = if fact.is_thread { "ended the thread" } else { "sent it SIGSYS" };
    Some(Draft {
        definition: &DEFINITION,
        severity: Severity::Warning,
        message: format!(
            "{} of {} called {call}, for which its seccomp filter {how}",
            who(finding),
            called(world, finding.container)
        ),
        container: finding.container,
        namespaces: None,
        subject: format!("{call} {}", fact.is_thread),
        evidence: Evidence { syscall: Some(call.into_owned()), ..Evidence::default() },
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::enrich::SeccompFact;

    #[test]
    fn threads_and_processes_are_told_apart() {
        let world = world();
        let mut finding = refused(observer_common::Kind::Setns);
        assert!(on_finding(&finding, &world).is_none());
        let fact = |is_thread| SeccompFact { nr: 165, errno: 0, is_thread, count: 1 };
        finding.fact = Fact::SeccompKilled(fact(false));
        let process = on_finding(&finding, &world).unwrap();
        assert_eq!(process.message, DEFINITION.looks);
        finding.fact = Fact::SeccompKilled(fact(true));
        let thread = on_finding(&finding, &world).unwrap();
        assert!(thread.message.ends_with("ended the thread") && thread.subject != process.subject);
        finding.fact = Fact::SeccompDenied(fact(false));
        assert!(on_finding(&finding, &world).is_none());
    }
}
