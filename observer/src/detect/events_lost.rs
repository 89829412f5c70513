//! The agent did not see everything, and says so.

use super::{Definition, Detector, Draft};
use crate::{
    enrich::{Fact, Finding, World},
    model::{Evidence, Severity},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "agent.events_lost",
    title: "Events were lost",
    severity: Severity::Warning,
    mitre: &["T1562.006"],
    needs: &[],
    what: "Events found no room on their way to the agent; `evidence.lost` has the number by reason since the last such \
           alert. Ordinary events (fork, exec, exit) go first: what decides about security has a ring of its own. \
           What was lost shows again in the next sweep of all container processes.",
    looks: "4 events were lost (1 nested, 3 ring_full)",
    evidence: &["lost"],
    false_positives: "None: it is a count. A short burst on a small node may be acceptable.",
    response: "Raise `rings.events_bytes`, give the agent more CPU, and look for who floods: an attacker may want you \
               blind.",
};

fn on_finding(finding: &Finding, _world: &World) -> Option<Draft> {
    let Fact::Lost { new } = &finding.fact else { return None };
    let total: u64 = new.values().sum();
    let reasons: Vec<String> = new.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    Some(Draft {
        definition: &DEFINITION,
        severity: Severity::Warning,
        message: format!("{total} events were lost ({})", reasons.join(", ")),
        container: None,
        namespaces: None,
        evidence: Evidence { lost: new.clone(), ..Evidence::default() },
        subject: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn the_numbers_are_told_by_reason() {
        let world = world();
        let mut finding = refused(observer_common::Kind::Setns);
        assert!(on_finding(&finding, &world).is_none());
        finding.fact = Fact::Lost { new: [("ring_full".to_owned(), 3), ("nested".to_owned(), 1)].into() };
        let draft = on_finding(&finding, &world).unwrap();
        assert_eq!(draft.message, DEFINITION.looks);
    }
}
