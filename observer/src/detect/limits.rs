//! What the rules about limits have in common: their words and evidence.

use super::{Definition, Draft, called};
use crate::{
    enrich::{Finding, World},
    limits::{Ended, LimitAt, Strain},
    model::{Evidence, LimitEvidence, Severity},
};

/// `its memory limit of 32MiB`; of a limit above the container `the memory limit of 32MiB of cgroup /pod above it`.
pub fn the_limit(of: &str, at: Option<&LimitAt>, say: impl Fn(u64) -> String) -> String {
    let Some(at) = at else { return format!("its {of} limit") };
    let limit = say(at.limit);
    match (&at.path, at.own) {
        // Where that stands is known to whoever knows the container, and in the evidence.
        (_, true) => format!("its {of} limit of {limit}"),
        (Some(path), false) => format!("the {of} limit of {limit} of cgroup {path} above it"),
        (None, false) => format!("the {of} limit of {limit} of a cgroup above it"),
    }
}

/// The container of a condition, as a message names it; at the end it may be gone from the tables.
pub fn whose(finding: &Finding, strain: &Strain, world: &World) -> String {
    match finding.container {
        Some(key) => called(world, Some(key)),
        None => format!("container {}", strain.container.called()),
    }
}

/// What the rules make of a condition. `bytes`: it is counted in them, and not in tasks.
pub fn strain_draft(
    definition: &'static Definition,
    severity: Severity,
    message: String,
    finding: &Finding,
    strain: &Strain,
    bytes: bool,
) -> Draft {
    Draft {
        definition,
        severity,
        message,
        container: finding.container,
        namespaces: None,
        evidence: strain_evidence(strain, bytes),
        subject: strain.kind.name().into(),
    }
}

/// `after 12s`
pub fn ending(ended: &Ended) -> String {
    let seconds = ended.lasted_ns as f64 / 1e9;
    let lasted = if seconds < 10.0 { format!("{seconds:.1}s") } else { format!("{seconds:.0}s") };
    let gone = if ended.gone { ": it has ended" } else { "" };
    format!("after {lasted}{gone}")
}

/// The same numbers for machines.
fn strain_evidence(strain: &Strain, bytes: bool) -> Evidence {
    Evidence {
        condition: Some(strain.kind.name().into()),
        limit: strain.at.as_ref().map(|at| limit_evidence(at, bytes)),
        usage_bytes: strain.usage.filter(|_| bytes),
        tasks: strain.usage.filter(|_| !bytes),
        percent: strain.percent,
        hits: strain.hits,
        growth_per_second: strain.growth_per_second,
        quota_us: strain.cpu.map(|cpu| cpu.quota_us),
        period_us: strain.cpu.map(|cpu| cpu.period_us),
        lasted_ms: strain.ended.map(|ended| ended.lasted_ns / 1_000_000),
        ..Evidence::default()
    }
}

pub fn limit_evidence(at: &LimitAt, bytes: bool) -> LimitEvidence {
    LimitEvidence {
        bytes: Some(at.limit).filter(|_| bytes),
        tasks: Some(at.limit).filter(|_| !bytes),
        cgroup_path: at.path.clone(),
        hierarchy: at.hierarchy,
        of: if at.own { "container" } else { "above" }.into(),
    }
}

#[cfg(test)]
pub mod testing {
    use super::*;
    use crate::{
        detect::testing::{web, world},
        enrich::Fact,
        limits::StrainKind,
    };

    pub fn strain(kind: StrainKind, limit: u64, usage: u64) -> Strain {
        Strain {
            kind,
            ended: None,
            at: Some(LimitAt { limit, hierarchy: 4, path: Some("/docker/web".into()), own: true }),
            usage: Some(usage),
            percent: None,
            hits: Some(3),
            growth_per_second: None,
            cpu: None,
            container: world().container_ref(web()).expect("web"),
        }
    }

    pub fn strained(strain: Strain) -> Finding {
        Finding {
            time_ns: 1_000,
            subject: None,
            container: Some(web()),
            fact: Fact::Strain(strain),
            late: false,
        }
    }
}
