//! A container's task changed namespaces, and nothing that is watched did it.

use super::{Definition, Detector, Draft, called, listed, names, view, who};
use crate::{
    enrich::{Door, Fact, Finding, World},
    model::{Evidence, NsType, Severity},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "namespace.drift",
    title: "Namespaces changed without a system call",
    severity: Severity::Warning,
    mitre: &["T1611", "T1068"],
    needs: &["fork", "exec", "exit", "drift"],
    what: "A container's process is in a namespace in which it was not when last seen, no watched system call explains \
           it, and the namespace belongs neither to the host nor to another container. That is the mark of a kernel \
           exploit that rewrites a task, and of a 32-bit system call (int 0x80), which the kernel's system call \
           tracepoints do not show. If the namespace is the host's or another container's, it is `namespace.escape` \
           with `evidence.door` \"unseen\" instead.",
    looks: "sh (pid 100) of container web changed its uts namespace without any watched system call",
    evidence: &["door", "types"],
    false_positives: "32-bit programs that call unshare. Loss of events: see `events_lost_before`.",
    response: "Find out which program did it. A 32-bit program on a 64-bit host is worth a look by itself; anything \
               else suggests that the kernel was attacked: isolate the node.",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::Namespaces(change) = &finding.fact else { return None };
    if change.foreign.is_empty() || change.has_known_owner() || change.door != Door::Unseen {
        return None;
    }
    let types: Vec<NsType> = change.foreign.iter().map(|foreign| foreign.ns).collect();
    let list = listed(&names(&types));
    Some(Draft {
        definition: &DEFINITION,
        severity: Severity::Warning,
        message: format!(
            "{} of {} changed its {list} namespace without any watched system call",
            who(finding),
            called(world, finding.container)
        ),
        container: finding.container,
        namespaces: Some(view(world, &change.expected, &change.actual, &types)),
        evidence: Evidence {
            door: Some(change.door.name().into()),
            types: names(&types),
            ..Evidence::default()
        },
        subject: list,
    })
}

#[cfg(test)]
mod tests {
    use observer_common::Kind;

    use super::{super::testing::*, *};
    use crate::enrich::Owner;

    #[test]
    fn only_an_unexplained_change_to_nobodys_namespace_is_drift() {
        let world = world();
        let nobody = vec![("uts".to_string(), Owner::Unknown)];
        let draft = on_finding(&changed(&world, &nobody, &[], Door::Unseen), &world).unwrap();
        assert_eq!(draft.message, DEFINITION.looks);
        assert_eq!(draft.namespaces.unwrap().changed, ["uts"]);
        assert!(on_finding(&changed(&world, &nobody, &[], Door::Call(Kind::Setns)), &world).is_none());
        let host = vec![("uts".to_string(), Owner::Host)];
        assert!(on_finding(&changed(&world, &host, &[], Door::Unseen), &world).is_none());
        assert!(on_finding(&changed(&world, &[], &["uts"], Door::Unseen), &world).is_none());
    }
}
