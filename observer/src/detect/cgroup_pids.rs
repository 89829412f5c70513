//! A container may not fork any more, or grows as only fork bombs do.

use super::{
    Definition, Detector, Draft,
    limits::{ending, strain_draft, the_limit, whose},
};
use crate::{
    enrich::{Fact, Finding, World},
    limits::StrainKind,
    model::Severity,
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "cgroup.pids",
    title: "Container at its pids limit",
    severity: Severity::Warning,
    mitre: &["T1499.001"],
    needs: &["fork_refused"],
    what: "`evidence.condition`: `at_limit`: the kernel refused forks (EAGAIN) because pids.max of the container, or of a cgroup \
           above it (`evidence.limit`), was met; `evidence.hits` says how often. `growth`: it gains more tasks (threads \
           count) in a second than configured, whatever its limit. Told at its beginning (`firing`) and its end \
           (`resolved`); `process` is the one whose fork was refused first.",
    looks: "container web is at its pids limit of 50: sh (pid 100) may not fork",
    evidence: &["condition", "limit", "tasks", "hits", "growth_per_second", "lasted_ms"],
    false_positives: "`growth`: a program that starts hundreds of threads at once. `at_limit`: a limit that is too small for the \
                      program's threads.",
    response: "A fork bomb is stopped by its limit: stop the container. Without a limit (`observer audit` shows it) it takes \
               the node's pids: set one.",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::Strain(strain) = &finding.fact else { return None };
    let container = whose(finding, strain, world);
    let limit = the_limit("pids", strain.at.as_ref(), |limit| limit.to_string());
    let message = match (strain.kind, &strain.ended) {
        (StrainKind::PidsAtLimit, None) => {
            let who = match &finding.subject {
                Some(subject) => format!(": {} (pid {}) may not fork", subject.comm, subject.pid),
                None => ": forks are refused".into(),
            };
            format!("{container} is at {limit}{who}")
        }
        (StrainKind::PidsAtLimit, Some(ended)) => {
            let hits = strain.hits.map_or_else(String::new, |hits| format!("; {hits} forks were refused"));
            format!("{container} is no longer at {limit}, {}{hits}", ending(ended))
        }
        (StrainKind::PidsGrowth, None) => format!(
            "{container} gains {} tasks a second and has {} now",
            strain.growth_per_second.unwrap_or(0),
            strain.usage.unwrap_or(0)
        ),
        (StrainKind::PidsGrowth, Some(ended)) => {
            format!("{container} no longer gains tasks as fast, {}", ending(ended))
        }
        _ => return None,
    };
    Some(strain_draft(&DEFINITION, Severity::Warning, message, finding, strain, false))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{limits::testing::*, testing::*},
        *,
    };
    use crate::limits::Ended;

    #[test]
    fn refused_forks_and_their_end() {
        let world = world();
        let mut strain = strain(StrainKind::PidsAtLimit, 50, 50);
        let mut finding = strained(strain.clone());
        finding.subject = refused(observer_common::Kind::Setns).subject;
        let draft = on_finding(&finding, &world).expect("an alert");
        assert_eq!(draft.message, DEFINITION.looks);
        let limit = draft.evidence.limit.expect("a limit");
        assert_eq!((limit.tasks, limit.bytes, draft.evidence.tasks), (Some(50), None, Some(50)));
        strain.ended = Some(Ended { lasted_ns: 20_000_000_000, gone: false });
        strain.hits = Some(12_345);
        let draft = on_finding(&strained(strain), &world).expect("an alert");
        assert_eq!(
            draft.message,
            "container web is no longer at its pids limit of 50, after 20s; 12345 forks were refused"
        );
    }

    #[test]
    fn growth() {
        let mut strain = strain(StrainKind::PidsGrowth, 0, 5000);
        (strain.at, strain.growth_per_second) = (None, Some(900));
        let draft = on_finding(&strained(strain), &world()).expect("an alert");
        assert_eq!(draft.message, "container web gains 900 tasks a second and has 5000 now");
    }

    #[test]
    fn other_conditions_are_not_its_business() {
        for kind in [StrainKind::CpuThrottled, StrainKind::MemoryNear, StrainKind::MemoryAtLimit] {
            assert!(on_finding(&strained(strain(kind, 1, 1)), &world()).is_none());
        }
    }
}
