//! A host process runs something in a container's namespaces, and no runtime put it there.

use super::{Definition, Detector, Draft, called, listed, names, view, who};
use crate::{
    enrich::{Fact, Finding, World},
    model::{Evidence, Severity},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "namespace.entered",
    title: "Host process in a container's namespaces",
    severity: Severity::Warning,
    mitre: &["T1609"],
    needs: &["setns", "exec"],
    what: "A process of the host joined namespaces of a container and executed a program there without being put into \
           the container's cgroup, as a runtime's `exec` would. It escapes the container's limits and its accounting.",
    looks: "sh (pid 100) of the host runs in the net namespace of container db, outside its cgroup",
    evidence: &["door", "types", "target_container"],
    false_positives: "An administrator's nsenter. Network plugins that run programs in a pod's network namespace while \
                      the pod is already running.",
    response: "Ask who did it: `process.ancestors` leads to the login or the service. Use the runtime's exec instead.",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::Entered { owner, expected, actual, types, door } = &finding.fact else { return None };
    let list = names(types);
    let plural = if list.len() == 1 { "namespace" } else { "namespaces" };
    Some(Draft {
        definition: &DEFINITION,
        severity: Severity::Warning,
        message: format!(
            "{} of the host runs in the {} {plural} of {}, outside its cgroup",
            who(finding),
            listed(&list),
            called(world, Some(*owner))
        ),
        container: Some(*owner),
        namespaces: Some(view(world, expected, actual, types)),
        evidence: Evidence {
            door: (!finding.late).then(|| door.name().into()),
            types: list.clone(),
            target_container: world.container_ref(*owner),
            ..Evidence::default()
        },
        subject: list.join(","),
    })
}

#[cfg(test)]
mod tests {
    use observer_common::Kind;

    use super::{super::testing::*, *};
    use crate::{
        enrich::{Door, Owner},
        model::NsType,
    };

    #[test]
    fn a_visit_is_a_warning_and_an_escape_is_not_a_visit() {
        let world = world();
        let mut finding = changed(&world, &[("net".into(), Owner::Host)], &[], Door::Call(Kind::Setns));
        assert!(on_finding(&finding, &world).is_none());
        finding.fact = Fact::Entered {
            owner: other(),
            expected: world.host_tuple,
            actual: world.host_tuple,
            types: vec![NsType::NET],
            door: Door::Call(Kind::Setns),
        };
        let draft = on_finding(&finding, &world).unwrap();
        assert_eq!(draft.severity, Severity::Warning);
        assert_eq!(draft.message, DEFINITION.looks);
    }
}
