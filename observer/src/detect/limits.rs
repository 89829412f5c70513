//! What the rules about limits have in common: their words and evidence.

use crate::{
    limits::{Ended, LimitAt, Strain},
    model::{Evidence, LimitEvidence},
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

/// `after 12s`
pub fn ending(ended: &Ended) -> String {
    let seconds = ended.lasted_ns as f64 / 1e9;
    let lasted = if seconds < 10.0 { format!("{seconds:.1}s") } else { format!("{seconds:.0}s") };
    let gone = if ended.gone { ": it has ended" } else { "" };
    format!("after {lasted}{gone}")
}

/// The same numbers for machines.
pub fn strain_evidence(strain: &Strain, bytes: bool) -> Evidence {
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
        enrich::{Fact, Finding},
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
