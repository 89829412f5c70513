//! A container's process was refused a capability that the container has not been given.

use super::{Definition, Detector, Draft, called, who};
use crate::{
    enrich::{Fact, Finding, World},
    model::{Evidence, Severity, capability_label},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "capability.denied",
    title: "Capability refused",
    severity: Severity::Notice,
    mitre: &["T1611", "T1068"],
    needs: &[],
    what: "A container's process did something for which the kernel wants a capability that the container has not been given: it \
           is not in the process's bounding set, or was asked for in a user namespace that is not its own \
           (`evidence.user_namespace`). One alert for each container and capability, with the count of all, a second after \
           the first at the latest; the process is the first. Not told: what the kernel asks for without meaning it (NOAUDIT), what \
           any user other than root is refused with files and processes of others (CAP_CHOWN to CAP_SETPCAP), and what a \
           process lacks that its container has. So root of a container with docker's set who opens a file by its handle is \
           not told here (CAP_DAC_READ_SEARCH is asked for at every directory, before CAP_DAC_OVERRIDE), but by \
           `seccomp.denied`. Only with `audit.capabilities`, and on kernels that allow no programs on functions (`observer check` \
           says tp_btf) only for capabilities that are never asked for without meaning it: AUDIT_CONTROL, AUDIT_WRITE, \
           CHOWN, KILL, LINUX_IMMUTABLE, MKNOD, NET_BIND_SERVICE, NET_RAW, SETFCAP, SYS_BOOT, SYS_CHROOT, SYS_MODULE, \
           SYS_TIME.",
    looks: "sh (pid 100) of container web was refused CAP_SYS_TIME, which the container has not been given",
    evidence: &["capability", "user_namespace"],
    false_positives: "Programs that try what they can do without: ss asks for NET_ADMIN, su and sudo for that and \
                      SYS_RESOURCE, whoever reads /proc/PID/exe of another user's process for SYS_PTRACE.",
    response: "Ask what the program wanted with it. If it is the container's work and fails, give it this one capability; if not, \
               treat the container as compromised. `observer caps` says what a capability allows.",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::CapabilityDenied(fact) = &finding.fact else { return None };
    let capability = capability_label(fact.capability);
    Some(Draft {
        definition: &DEFINITION,
        severity: Severity::Notice,
        message: format!(
            "{} of {} was refused {capability}, which the container has not been given",
            who(finding),
            called(world, finding.container)
        ),
        container: finding.container,
        namespaces: None,
        subject: capability.clone(),
        evidence: Evidence {
            capability: Some(capability),
            user_namespace: (fact.user_ns != 0).then_some(fact.user_ns),
            ..Evidence::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::enrich::CapabilityFact;

    #[test]
    fn the_capability_is_named() {
        let world = world();
        let mut finding = refused(observer_common::Kind::Setns);
        assert!(on_finding(&finding, &world).is_none());
        for (capability, user_ns, name) in [(25, 4026531837, "CAP_SYS_TIME"), (63, 0, "63")] {
            finding.fact = Fact::CapabilityDenied(CapabilityFact { capability, user_ns, count: 3 });
            let draft = on_finding(&finding, &world).expect("a draft");
            assert_eq!((draft.severity, draft.subject.as_str()), (Severity::Notice, name));
            assert_eq!(draft.evidence.capability.as_deref(), Some(name));
            assert_eq!(draft.evidence.user_namespace, Some(user_ns).filter(|it| *it != 0));
            assert_eq!(draft.message, DEFINITION.looks.replace("CAP_SYS_TIME", name));
        }
    }

    #[test]
    fn the_reference_names_what_is_never_speculative() {
        let said = |name: &str| {
            DEFINITION.what.contains(&format!("{name},")) || DEFINITION.what.contains(&format!("{name}."))
        };
        for capability in &crate::model::CAPABILITIES {
            let is_sure = observer_common::NEVER_SPECULATIVE >> capability.number & 1 != 0;
            assert_eq!(said(capability.short()), is_sure, "{}", capability.name);
        }
    }
}
