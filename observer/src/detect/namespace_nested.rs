//! New namespaces made inside a container, a user namespace above all.

use observer_common::Kind;

use super::{Definition, Detector, Draft, called, errno_name, listed, names, view, who};
use crate::{
    enrich::{Door, Fact, Finding, World},
    model::{Evidence, NsType, Severity},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "namespace.nested",
    title: "New namespaces inside a container",
    severity: Severity::Warning,
    mitre: &["T1611"],
    needs: &["unshare", "fork", "clone"],
    what: "A container's process made new namespaces. A new user namespace (`warning`) gives its maker every \
           capability inside it and so opens kernel code that containers are usually kept from: most kernel exploits \
           begin there. Other types (`info`) are ordinary for build tools and sandboxes. The new namespaces count as \
           the container's own afterwards. A refused attempt is told as `notice` with `evidence.errno`.",
    looks: "sh (pid 100) of container web made a new user namespace",
    evidence: &["syscall", "door", "types", "errno"],
    false_positives: "Browsers, bubblewrap, rootless builders (buildkit, podman, kaniko) in containers.",
    response: "If the image has no reason to build sandboxes, refuse it: the runtimes' default seccomp profile denies \
               unshare and clone with namespace flags without CAP_SYS_ADMIN.",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    match &finding.fact {
        Fact::Namespaces(change) if !change.made.is_empty() => {
            let made = names(&change.made);
            let user = change.made.contains(&NsType::USER);
            let list = listed(&made);
            let plural = if made.len() == 1 { "namespace" } else { "namespaces" };
            Some(Draft {
                definition: &DEFINITION,
                severity: if user { Severity::Warning } else { Severity::Info },
                message: format!(
                    "{} of {} made a new {list} {plural}",
                    who(finding),
                    called(world, finding.container)
                ),
                container: finding.container,
                namespaces: Some(view(world, &change.expected, &change.actual, &change.made)),
                evidence: Evidence {
                    syscall: match change.door {
                        Door::Call(Kind::Unshare) => Some("unshare".into()),
                        _ => None,
                    },
                    door: Some(change.door.name().into()),
                    types: made,
                    ..Evidence::default()
                },
                subject: list,
            })
        }
        Fact::Refused { call: call @ (Kind::Unshare | Kind::Clone), errno, types, .. } => {
            let errno = errno_name(*errno);
            let types = names(types);
            Some(Draft {
                definition: &DEFINITION,
                severity: Severity::Notice,
                message: format!(
                    "{} of {} tried to make a new {} namespace and was refused ({errno})",
                    who(finding),
                    called(world, finding.container),
                    listed(&types)
                ),
                container: finding.container,
                namespaces: None,
                subject: format!("{} {types:?} {errno}", call.name()),
                evidence: Evidence {
                    syscall: Some(call.name().into()),
                    errno: Some(errno),
                    types,
                    ..Evidence::default()
                },
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::enrich::Owner;

    #[test]
    fn a_user_namespace_is_a_warning_and_others_are_info() {
        let world = world();
        let door = Door::Call(Kind::Unshare);
        for (made, expected) in [
            (vec!["user"], Some(Severity::Warning)),
            (vec!["mnt", "user"], Some(Severity::Warning)),
            (vec!["uts"], Some(Severity::Info)),
            (vec![], None),
        ] {
            let got = on_finding(&changed(&world, &[], &made, door), &world).map(|draft| draft.severity);
            assert_eq!(got, expected, "{made:?}");
        }
        let draft = on_finding(&changed(&world, &[], &["user"], door), &world).unwrap();
        assert_eq!(draft.message, DEFINITION.looks);
        let joined = vec![("net".to_string(), Owner::Host)];
        assert!(on_finding(&changed(&world, &joined, &[], Door::Call(Kind::Setns)), &world).is_none());
    }

    #[test]
    fn refusals_of_unshare_and_clone_are_notices() {
        let world = world();
        for call in [Kind::Unshare, Kind::Clone] {
            assert_eq!(on_finding(&refused(call), &world).unwrap().severity, Severity::Notice);
        }
        assert!(on_finding(&refused(Kind::Setns), &world).is_none());
    }
}
