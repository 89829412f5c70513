//! A container is held back by its CPU quota.

use super::{
    Definition, Detector, Draft,
    limits::{ending, strain_draft, whose},
};
use crate::{
    enrich::{Fact, Finding, World},
    limits::StrainKind,
    model::Severity,
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "cgroup.cpu",
    title: "Container throttled by its CPU quota",
    severity: Severity::Warning,
    mitre: &["T1496"],
    needs: &[],
    what: "In more than the configured share of its periods (`evidence.percent`) the container used up its CPU quota (cpu.max, \
           v1 cpu.cfs_quota_us) and had to wait for the next one, for the configured time. Told at its beginning \
           (`firing`) and its end (`resolved`).",
    looks: "container web is throttled by its quota of 0.1 CPU in 98 % of its periods",
    evidence: &["condition", "quota_us", "period_us", "percent", "lasted_ms"],
    false_positives: "Batch jobs that are meant to use all of a small quota: `limits.cpu.throttled_percent: off` for them.",
    response: "If the work is legitimate, raise the quota, or give the program fewer threads: many threads use up a quota early in \
               each period. If it is not known, look for what runs (miners use all they get).",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::Strain(strain) = &finding.fact else { return None };
    if strain.kind != StrainKind::CpuThrottled {
        return None;
    }
    let container = whose(finding, strain, world);
    let quota = strain.cpu.map_or_else(String::new, |cpu| {
        let cores = cpu.quota_us as f64 / cpu.period_us.max(1) as f64;
        let cores = format!("{cores:.2}");
        format!(" of {} CPU", cores.trim_end_matches('0').trim_end_matches('.'))
    });
    let message = match &strain.ended {
        None => format!(
            "{container} is throttled by its quota{quota} in {} % of its periods",
            strain.percent.unwrap_or(0)
        ),
        Some(ended) => format!("{container} is no longer throttled by its quota{quota}, {}", ending(ended)),
    };
    Some(strain_draft(&DEFINITION, Severity::Warning, message, finding, strain, true))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{limits::testing::*, testing::*},
        *,
    };
    use crate::limits::{Ended, Quota};

    #[test]
    fn the_share_and_the_quota_are_told() {
        let mut strain = strain(StrainKind::CpuThrottled, 0, 0);
        (strain.at, strain.usage, strain.hits) = (None, None, None);
        strain.percent = Some(98);
        strain.cpu = Some(Quota { quota_us: 10_000, period_us: 100_000, throttled_us: 5 });
        let draft = on_finding(&strained(strain.clone()), &world()).expect("an alert");
        assert_eq!(draft.message, DEFINITION.looks);
        assert_eq!((draft.evidence.quota_us, draft.evidence.percent), (Some(10_000), Some(98)));
        strain.ended = Some(Ended { lasted_ns: 1_500_000_000, gone: false });
        let draft = on_finding(&strained(strain), &world()).expect("an alert");
        assert_eq!(draft.message, "container web is no longer throttled by its quota of 0.1 CPU, after 1.5s");
        assert_eq!(draft.evidence.lasted_ms, Some(1500));
    }

    #[test]
    fn other_conditions_are_not_its_business() {
        for kind in StrainKind::ALL.into_iter().filter(|kind| *kind != StrainKind::CpuThrottled) {
            assert!(on_finding(&strained(strain(kind, 1, 1)), &world()).is_none());
        }
    }
}
