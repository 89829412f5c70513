//! A container's task is in a cgroup outside its container.

use observer_common::door;

use super::{Definition, Detector, Draft, called, who};
use crate::{
    enrich::{Fact, Finding, World},
    model::{Evidence, Severity},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "cgroup.escape",
    title: "Container process outside its cgroup",
    severity: Severity::Critical,
    mitre: &["T1611"],
    needs: &["cgroup_move", "fork"],
    what: "A process of a container is in a cgroup outside the container's subtree, in a hierarchy in which the \
           container has a cgroup: its limits no longer hold for it, and tools that tell containers by cgroup take it \
           for somebody else's. By a write to cgroup.procs or tasks, or born there (clone3 with CLONE_INTO_CGROUP). \
           `critical` if a container's process did it; `warning` if a process of the host moved it. What it does \
           afterwards is still attributed to its container.",
    looks: "sh (pid 100) of container web is now in cgroup /, outside its own /docker/x, moved by sh (pid 7)",
    evidence: &["door", "from", "to", "target_container", "mover"],
    false_positives: "A host tool that sorts processes into cgroups of its own (`warning`).",
    response: "A container that can write the host's cgroup files has them mounted: find out why. On v1 the same mount \
               often allows release_agent, which is a full escape.",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::Cgroup(change) = &finding.fact else { return None };
    let target = change.target.and_then(|key| world.container_ref(key));
    let to = change.to.as_deref().unwrap_or("?");
    let from = change.from.as_deref().unwrap_or("?");
    let by = match finding.subject.as_ref() {
        Some(subject) if subject.pid != change.mover.pid && change.door != door::CLONE => {
            format!(", moved by {} (pid {})", change.mover.comm, change.mover.pid)
        }
        _ => String::new(),
    };
    let of = match change.target {
        Some(key) => format!(" of {}", called(world, Some(key))),
        None => String::new(),
    };
    let is = if finding.late { "was found in" } else { "is now in" };
    Some(Draft {
        definition: &DEFINITION,
        severity: if change.mover_in_container { Severity::Critical } else { Severity::Warning },
        message: format!(
            "{} of {} {is} cgroup {to}{of}, outside its own {from}{by}",
            who(finding),
            called(world, finding.container)
        ),
        container: finding.container,
        namespaces: None,
        evidence: Evidence {
            door: match change.door {
                door::WRITE => Some("cgroup.procs".into()),
                door::CLONE => Some("CLONE_INTO_CGROUP".into()),
                door::TRANSFER => Some("transfer".into()),
                _ => None,
            },
            from: change.from.clone(),
            to: change.to.clone(),
            target_container: target,
            mover: Some(change.mover.clone()),
            ..Evidence::default()
        },
        subject: format!("{to} {}", change.mover_in_container),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::{enrich::CgroupChange, model::Ancestor};

    #[test]
    fn the_mover_decides_and_both_paths_are_told() {
        let world = world();
        for (inside, expected) in [(true, Severity::Critical), (false, Severity::Warning)] {
            let mut finding = refused(observer_common::Kind::Setns);
            assert!(on_finding(&finding, &world).is_none());
            finding.fact = Fact::Cgroup(CgroupChange {
                hierarchy: 0,
                from: Some("/docker/x".into()),
                to: Some("/".into()),
                to_id: 1,
                target: None,
                mover: Ancestor { pid: 7, comm: "sh".into() },
                mover_in_container: inside,
                door: door::WRITE,
            });
            let draft = on_finding(&finding, &world).unwrap();
            assert_eq!(draft.severity, expected);
            assert_eq!(draft.message, DEFINITION.looks);
            assert_eq!(draft.evidence.from.as_deref(), Some("/docker/x"));
            assert_eq!(draft.evidence.to.as_deref(), Some("/"));
            assert_eq!(draft.evidence.door.as_deref(), Some("cgroup.procs"));
        }
    }
}
