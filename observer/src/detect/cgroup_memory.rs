//! A container's memory limit is met, nearly met, or cannot be met by reclaim any more.

use super::{
    Definition, Detector, Draft,
    limits::{ending, strain_draft, the_limit, whose},
};
use crate::{
    enrich::{Fact, Finding, World},
    limits::StrainKind,
    model::{Severity, bytes},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "cgroup.memory",
    title: "Container at its memory limit",
    severity: Severity::Critical,
    mitre: &["T1499"],
    needs: &[],
    what: "`evidence.condition`: `at_limit`: allocations met the limit (v2 memory.events `max`, v1 memory.failcnt) and the \
           kernel had to take memory back, which makes the container slow (`warning`). `failing`: it found nothing to take \
           back and killed nobody: allocations fail or wait (`critical`). `near`: the working set (usage without inactive \
           page cache) has been above the configured share of the limit for the configured time (`warning`). \
           `evidence.limit` is the limit that was met, which may be that of a cgroup above the container (a pod's). Told \
           at its beginning (`firing`) and its end (`resolved`).",
    looks: "container web is at its memory limit of 32MiB, using 31MiB: the kernel has to reclaim",
    evidence: &["condition", "limit", "usage_bytes", "percent", "hits", "lasted_ms"],
    false_positives: "A container that reads or writes many files fills its limit with page cache, which is at the limit and \
                      harmless: `limits.memory.at_limit: false` for such containers.",
    response: "Find out what grows (`observer top`, `observer inspect`); raise the limit or mend the leak before the kernel \
               kills.",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::Strain(strain) = &finding.fact else { return None };
    let container = whose(finding, strain, world);
    let limit = the_limit("memory", strain.at.as_ref(), bytes);
    let usage = bytes(strain.usage.unwrap_or(0));
    let (severity, message) = match (strain.kind, &strain.ended) {
        (StrainKind::MemoryAtLimit, None) => (
            Severity::Warning,
            format!("{container} is at {limit}, using {usage}: the kernel has to reclaim"),
        ),
        (StrainKind::MemoryFailing, None) => (
            Severity::Critical,
            format!(
                "{container} has no memory left below {limit}, using {usage}, and nothing is killed: allocations fail or wait"
            ),
        ),
        (StrainKind::MemoryNear, None) => (
            Severity::Warning,
            format!("{container} uses {usage}, {} % of {limit}", strain.percent.unwrap_or(0)),
        ),
        (StrainKind::MemoryAtLimit, Some(ended)) => {
            (Severity::Warning, format!("{container} is no longer at {limit}, {}", ending(ended)))
        }
        (StrainKind::MemoryFailing, Some(ended)) => {
            (Severity::Critical, format!("{container} gets memory again below {limit}, {}", ending(ended)))
        }
        (StrainKind::MemoryNear, Some(ended)) => {
            (Severity::Warning, format!("{container} is no longer near {limit}, {}", ending(ended)))
        }
        _ => return None,
    };
    Some(strain_draft(&DEFINITION, severity, message, finding, strain, true))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{limits::testing::*, testing::*},
        *,
    };
    use crate::{limits::Ended, model::AlertState};

    #[test]
    fn each_condition_at_its_beginning_and_its_end() {
        let world = world();
        for (kind, ended, severity, message) in [
            (StrainKind::MemoryAtLimit, None, Severity::Warning, DEFINITION.looks),
            (
                StrainKind::MemoryFailing,
                None,
                Severity::Critical,
                "container web has no memory left below its memory limit of 32MiB, using 31MiB, and nothing \
                 is killed: allocations fail or wait",
            ),
            (
                StrainKind::MemoryNear,
                None,
                Severity::Warning,
                "container web uses 31MiB, 97 % of its memory limit of 32MiB",
            ),
            (
                StrainKind::MemoryAtLimit,
                Some(Ended { lasted_ns: 12_345_000_000, gone: false }),
                Severity::Warning,
                "container web is no longer at its memory limit of 32MiB, after 12s",
            ),
            (
                StrainKind::MemoryNear,
                Some(Ended { lasted_ns: 90_000_000_000, gone: true }),
                Severity::Warning,
                "container web is no longer near its memory limit of 32MiB, after 90s: it has ended",
            ),
        ] {
            let mut strain = strain(kind, 32 << 20, 31 << 20);
            strain.percent = Some(97);
            strain.ended = ended;
            let finding = strained(strain);
            let draft = on_finding(&finding, &world).expect("an alert");
            assert_eq!((draft.severity, draft.message.as_str()), (severity, message));
            assert_eq!(draft.evidence.condition.as_deref(), Some(kind.name()));
            assert_eq!(draft.evidence.limit.as_ref().and_then(|limit| limit.bytes), Some(32 << 20));
            let state = if ended.is_some() { AlertState::Resolved } else { AlertState::Firing };
            assert_eq!(finding.state(), Some(state));
        }
    }

    #[test]
    fn a_limit_above_is_named() {
        let mut strain = strain(StrainKind::MemoryAtLimit, 32 << 20, 31 << 20);
        if let Some(at) = &mut strain.at {
            (at.own, at.path) = (false, Some("/pod".into()));
        }
        let draft = on_finding(&strained(strain), &world()).expect("an alert");
        assert_eq!(
            draft.message,
            "container web is at the memory limit of 32MiB of cgroup /pod above it, using 31MiB: the kernel has to reclaim"
        );
        assert_eq!(draft.evidence.limit.expect("a limit").of, "above");
    }

    #[test]
    fn other_conditions_are_not_its_business() {
        for kind in [StrainKind::CpuThrottled, StrainKind::PidsAtLimit, StrainKind::PidsGrowth] {
            assert!(on_finding(&strained(strain(kind, 1, 1)), &world()).is_none());
        }
        assert!(on_finding(&refused(observer_common::Kind::Setns), &world()).is_none());
    }
}
