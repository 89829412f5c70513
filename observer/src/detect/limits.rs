//! What the rules about limits have in common: their words and evidence.

use crate::{
    limits::{Ended, LimitAt, Strain},
    model::{Evidence, LimitEvidence},
};

/// ` of 32MiB (cgroup /docker/web)`; of a limit above the container ` of 32MiB of cgroup /pod above it`. Empty if it is not known.
pub fn where_at(at: Option<&LimitAt>, say: impl Fn(u64) -> String) -> String {
    let Some(at) = at else { return String::new() };
    match (&at.path, at.own) {
        (Some(path), true) => format!(" of {} (cgroup {path})", say(at.limit)),
        (Some(path), false) => format!(" of {} of cgroup {path} above it", say(at.limit)),
        (None, true) => format!(" of {}", say(at.limit)),
        (None, false) => format!(" of {} of a cgroup above it", say(at.limit)),
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
