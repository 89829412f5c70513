//! A container's process may do more than it could have come to.

use super::{Definition, Detector, Draft, called, listed, who};
use crate::{
    enrich::{Fact, Finding, World},
    model::{Against, CapSet, CapabilitiesEvidence, Evidence, Severity, capability_label},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "capability.gained",
    title: "Capabilities out of nowhere",
    severity: Severity::Critical,
    mitre: &["T1611", "T1068"],
    needs: &["fork", "exec", "exit", "setns", "unshare", "chroot", "pivot_root", "drift"],
    what: "The permitted set of a container's process has grown within its user namespace, and it has executed nothing since it was \
           last seen (`evidence.capabilities.against` is `held`); or it holds what it could not have come to by executing \
           any file, by the bounding and inheritable sets with which it, or who it is descended from, was brought into the container \
           (`granted`). No system call does that: it is the mark of a kernel exploit that has overwritten a process's \
           credentials. A set-user-ID program stays within the bounding set and is not told; a user namespace of its own \
           is `namespace.nested`. Seen at the process's next fork, exec, change of namespaces or root, or exit. Of processes \
           older than the agent, what they had when first seen counts as granted.",
    looks: "sh (pid 100) of container web has got CHOWN and SYS_ADMIN, without having executed anything",
    evidence: &["capabilities"],
    false_positives: "None known: no system call adds to a permitted set. A kernel module or debugger of the operator's own that \
                      rewrites credentials looks the same.",
    response: "Treat the node as compromised: isolate it, keep its memory and disk for forensics. Do not trust what the node \
               says of itself.",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::CapabilitiesGained(gain) = &finding.fact else { return None };
    let new = gain.after.without(gain.before);
    let short: Vec<String> = new.names().iter().map(|name| name.to_string()).collect();
    // What is new may be nearly all there are.
    let said = if short.len() > 4 {
        format!("{} and {} more", short[..3].join(", "), short.len() - 3)
    } else {
        listed(&short)
    };
    let how = match gain.against {
        Against::Held => "without having executed anything",
        Against::Granted => "which it was not given",
    };
    Some(Draft {
        definition: &DEFINITION,
        severity: Severity::Critical,
        message: format!("{} of {} has got {said}, {how}", who(finding), called(world, finding.container)),
        container: finding.container,
        namespaces: None,
        evidence: Evidence {
            capabilities: Some(CapabilitiesEvidence {
                against: gain.against.name().into(),
                before: names(gain.before),
                after: names(gain.after),
                gained: names(new),
            }),
            ..Evidence::default()
        },
        subject: new.to_string(),
    })
}

/// As in the kernel's header, and the numbers of those that have no name here.
fn names(set: CapSet) -> Vec<String> {
    let known = set.iter().map(|it| it.name.to_owned());
    known.chain(set.unknown_bits().map(|bit| capability_label(bit.into()))).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::model::Gain;

    #[test]
    fn sets_before_and_after_are_decoded() {
        let world = world();
        let mut finding = refused(observer_common::Kind::Setns);
        assert!(on_finding(&finding, &world).is_none());
        for (before, after, against, message) in [
            (
                CapSet::EMPTY,
                CapSet::of(&[0, 21]),
                Against::Held,
                "has got CHOWN and SYS_ADMIN, without having executed anything",
            ),
            (
                CapSet::DOCKER_DEFAULT,
                CapSet::ALL,
                Against::Granted,
                "has got DAC_READ_SEARCH, LINUX_IMMUTABLE, NET_BROADCAST and 24 more, which it was not given",
            ),
        ] {
            finding.fact = Fact::CapabilitiesGained(Gain { before, after, against });
            let draft = on_finding(&finding, &world).expect("a draft");
            assert_eq!(draft.message, format!("sh (pid 100) of container web {message}"));
            assert_eq!(draft.message == DEFINITION.looks, against == Against::Held);
            assert_eq!(draft.severity, Severity::Critical);
            let sets = draft.evidence.capabilities.expect("the sets");
            assert_eq!(sets.before.len() + sets.gained.len(), sets.after.len());
            assert_eq!(sets.against, against.name());
            assert!(sets.gained.contains(&"CAP_SYS_ADMIN".to_owned()));
        }
    }

    #[test]
    fn what_has_no_name_is_told_by_number() {
        assert_eq!(names(CapSet::of(&[1, 63])), ["CAP_DAC_OVERRIDE", "63"]);
    }
}
