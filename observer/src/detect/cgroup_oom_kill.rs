//! The kernel killed a process of a container for want of memory.

use super::{
    Definition, Detector, Draft, called,
    limits::{limit_evidence, the_limit},
};
use crate::{
    enrich::{Fact, Finding, World},
    limits::{OomKill, OomScope},
    model::{Evidence, Severity, Victim, bytes},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "cgroup.oom_kill",
    title: "Container process killed for want of memory",
    severity: Severity::Critical,
    mitre: &["T1499"],
    needs: &["oom_kill"],
    what: "The kernel's OOM killer chose a process of the container. `evidence.scope` says what ran out: `cgroup`: the limit in \
           `evidence.limit`, the container's own or one above it (a pod's); `host`: the machine's memory, and the container \
           may be innocent. `process` and `evidence.victim` are whom it killed, `evidence.others` who else was in the \
           container. A kill that only the kernel's counter (`oom_kill` of memory.events, memory.oom_control) tells of \
           has no victim.",
    looks: "the kernel killed hog (pid 100, 31MiB resident) of container web at its memory limit of 32MiB",
    evidence: &["scope", "limit", "usage_bytes", "victim", "others", "others_more", "hits"],
    false_positives: "None: somebody was killed.",
    response: "Raise memory.max, or find out what grew: `observer top` and observer_container_memory_* over time. For `host`: give \
               containers limits and requests that the node can keep.",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::OomKill(kill) = &finding.fact else { return None };
    let container = called(world, finding.container);
    let reason = match kill.scope {
        OomScope::Cgroup => format!(" at {}", the_limit("memory", kill.at.as_ref(), bytes)),
        OomScope::Host => ": the host is out of memory".to_owned(),
        OomScope::Unknown => " for want of memory".to_owned(),
    };
    let message = match (&kill.victim, kill.counted) {
        (Some(victim), _) => format!(
            "the kernel killed {} (pid {}{}) of {container}{reason}",
            victim.comm.as_deref().unwrap_or("a process"),
            victim.pid,
            held(victim),
        ),
        (None, Some(count)) if count > 1 => {
            format!("the kernel killed {count} processes of {container}{reason}")
        }
        (None, _) => format!("the kernel killed a process of {container}{reason}"),
    };
    Some(Draft {
        definition: &DEFINITION,
        severity: Severity::Critical,
        message,
        container: finding.container,
        namespaces: None,
        evidence: evidence(kill),
        subject: kill.at.as_ref().and_then(|at| at.path.clone()).unwrap_or_default(),
    })
}

/// What it had in memory, if that is known.
fn held(victim: &Victim) -> String {
    let parts = [victim.anon_bytes, victim.file_bytes, victim.shmem_bytes];
    let resident = parts.into_iter().try_fold(0u64, |sum, part| Some(sum.saturating_add(part?)));
    resident.map_or_else(String::new, |resident| format!(", {} resident", bytes(resident)))
}

fn evidence(kill: &OomKill) -> Evidence {
    Evidence {
        scope: Some(
            match kill.scope {
                OomScope::Cgroup => "cgroup",
                OomScope::Host => "host",
                OomScope::Unknown => "unknown",
            }
            .into(),
        ),
        limit: kill.at.as_ref().map(|at| limit_evidence(at, true)),
        usage_bytes: kill.usage_bytes,
        victim: kill.victim.clone(),
        others: kill.others.clone(),
        others_more: Some(kill.others_more as u64).filter(|more| *more > 0),
        hits: kill.counted,
        ..Evidence::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::{limits::LimitAt, model::Ancestor};

    fn kill(scope: OomScope) -> OomKill {
        OomKill {
            scope,
            at: Some(LimitAt { limit: 32 << 20, hierarchy: 4, path: Some("/docker/web".into()), own: true }),
            usage_bytes: Some(32 << 20),
            victim: Some(Victim {
                pid: 100,
                comm: Some("hog".into()),
                uid: Some(0),
                anon_bytes: Some(30 << 20),
                file_bytes: Some(1 << 20),
                shmem_bytes: Some(0),
                swap_bytes: Some(0),
                oom_score_adj: Some(0),
                ..Victim::default()
            }),
            others: vec![Ancestor { pid: 99, comm: "sh".into() }],
            others_more: 0,
            counted: None,
        }
    }

    fn draft(kill: OomKill) -> Draft {
        let mut finding = refused(observer_common::Kind::Setns);
        finding.fact = Fact::OomKill(kill);
        on_finding(&finding, &world()).expect("an alert")
    }

    #[test]
    fn what_ran_out_is_told() {
        let whom = "the kernel killed hog (pid 100, 31MiB resident) of container web";
        let draft_of = |scope| draft(kill(scope));
        assert_eq!(draft_of(OomScope::Cgroup).message, DEFINITION.looks);
        let above = LimitAt { limit: 64 << 20, hierarchy: 0, path: Some("/pod".into()), own: false };
        let nested = draft(OomKill { at: Some(above), ..kill(OomScope::Cgroup) });
        assert_eq!(nested.message, format!("{whom} at the memory limit of 64MiB of cgroup /pod above it"));
        let host = draft(OomKill { at: None, ..kill(OomScope::Host) });
        assert_eq!(host.message, format!("{whom}: the host is out of memory"));
        let unknown = draft(OomKill { at: None, ..kill(OomScope::Unknown) });
        assert_eq!(unknown.message, format!("{whom} for want of memory"));
        let mut old = kill(OomScope::Unknown);
        if let Some(victim) = &mut old.victim {
            victim.anon_bytes = None;
        }
        assert_eq!(
            draft(OomKill { at: None, ..old }).message,
            "the kernel killed hog (pid 100) of container web for want of memory"
        );
        for draft in [draft_of(OomScope::Cgroup), nested, host, unknown] {
            assert_eq!(draft.severity, Severity::Critical);
            assert_eq!(draft.evidence.victim.map(|victim| victim.pid), Some(100));
            assert_eq!(draft.evidence.others.len(), 1);
        }
    }

    #[test]
    fn a_kill_that_was_only_counted_has_no_victim() {
        let counted = |count| OomKill { victim: None, counted: Some(count), ..kill(OomScope::Unknown) };
        assert_eq!(
            draft(counted(1)).message,
            "the kernel killed a process of container web for want of memory"
        );
        assert_eq!(
            draft(counted(3)).message,
            "the kernel killed 3 processes of container web for want of memory"
        );
        assert_eq!(draft(counted(3)).evidence.victim, None);
    }

    #[test]
    fn other_facts_are_not_its_business() {
        assert!(on_finding(&refused(observer_common::Kind::Setns), &world()).is_none());
    }
}
