//! A container's task is in a namespace of the host or of another container.

use observer_common::Kind;

use super::{Definition, Detector, Draft, called, errno_name, listed, names, view, who};
use crate::{
    enrich::{Door, Fact, Finding, NamespaceChange, Owner, World},
    model::{Evidence, NsType, Severity},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "namespace.escape",
    title: "Container process in a foreign namespace",
    severity: Severity::Critical,
    mitre: &["T1611"],
    needs: &["setns", "unshare", "fork", "exec", "exit", "drift"],
    what: "A process that belongs to a container is in a namespace that is neither the container's own, nor declared \
           for it, nor made inside it. `critical` if that namespace is the host's or another container's; `warning` if \
           its owner is not known. It does not matter how the process got there: the state is what is compared. \
           A refused attempt (EPERM, EACCES) is told as `notice` with `evidence.errno`.",
    looks: "sh (pid 100) of container web is now in the host's mnt namespace: it left its container",
    evidence: &["syscall", "door", "target_container", "types", "errno", "displaced"],
    false_positives: "Privileged maintenance containers that use nsenter on purpose (node shells, some CSI and CNI \
                      agents). Give them the namespaces they need from the start (hostPID, hostNetwork), and they are \
                      part of the baseline.",
    response: "Treat the node as compromised until explained. Look at `process` and its ancestors, stop the container, \
               keep its file system, and check what ran in the foreign namespace afterwards: it stays attributed to \
               the container.",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    match &finding.fact {
        Fact::Namespaces(change) if fires(change) => Some(escape(finding, change, world)),
        Fact::Refused { call: Kind::Setns, errno, types, .. } => Some(attempt(finding, *errno, types, world)),
        Fact::Displaced { count, host, actual, expected } if !host.is_empty() => {
            let container = called(world, finding.container);
            Some(Draft {
                definition: &DEFINITION,
                severity: Severity::Critical,
                message: format!(
                    "{container} has processes in the host's {} namespace: {count} of its events found no room, \
                     this is what they showed last",
                    listed(&names(host))
                ),
                container: finding.container,
                namespaces: Some(view(world, expected, actual, host)),
                evidence: Evidence { displaced: Some(*count), ..Evidence::default() },
                subject: "displaced".into(),
            })
        }
        _ => None,
    }
}

/// Foreign namespaces that nobody we know owns are an escape only if a watched call led there; else it is drift.
fn fires(change: &NamespaceChange) -> bool {
    !change.foreign.is_empty() && (change.has_known_owner() || change.door != Door::Unseen)
}

fn escape(finding: &Finding, change: &NamespaceChange, world: &World) -> Draft {
    let types: Vec<NsType> = change.foreign.iter().map(|foreign| foreign.ns).collect();
    let container = called(world, finding.container);
    let target = change.foreign.iter().find_map(|foreign| match foreign.owner {
        Owner::Container(key) => Some(key),
        _ => None,
    });
    let whose = |owner: fn(&Owner) -> bool| {
        let of: Vec<NsType> = change.foreign.iter().filter(|f| owner(&f.owner)).map(|f| f.ns).collect();
        listed(&names(&of))
    };
    let hosts = whose(|owner| *owner == Owner::Host);
    let others = whose(|owner| matches!(owner, Owner::Container(_)));
    let nobodys = whose(|owner| *owner == Owner::Unknown);
    let plural = |list: &str| if list.contains(' ') { "namespaces" } else { "namespace" };
    let mut parts = Vec::new();
    if !hosts.is_empty() {
        parts.push(format!("the host's {hosts} {}", plural(&hosts)));
    }
    if !others.is_empty() {
        parts.push(format!("the {others} {} of {}", plural(&others), called(world, target)));
    }
    if !nobodys.is_empty() {
        parts.push(format!("a foreign {nobodys} {}", plural(&nobodys)));
    }
    let how = match change.door {
        Door::Unseen => "no watched system call explains how",
        _ => "it left its container",
    };
    let (verb, how) = if finding.late {
        ("has been in", "it was there when the agent started")
    } else {
        ("is now in", how)
    };
    let message = format!("{} of {container} {verb} {}: {how}", who(finding), parts.join(" and "));
    Draft {
        definition: &DEFINITION,
        severity: if change.has_known_owner() { Severity::Critical } else { Severity::Warning },
        message,
        container: finding.container,
        namespaces: Some(view(world, &change.expected, &change.actual, &types)),
        evidence: Evidence {
            syscall: match change.door {
                Door::Call(_) => Some(change.door.name().into()),
                Door::Unseen => None,
            },
            door: (!finding.late).then(|| change.door.name().into()),
            target_container: target.and_then(|key| world.container_ref(key)),
            ..Evidence::default()
        },
        subject: format!("{:?}", change.foreign.iter().map(|f| (f.ns.name(), f.inode)).collect::<Vec<_>>()),
    }
}

fn attempt(finding: &Finding, errno: i32, types: &[NsType], world: &World) -> Draft {
    let errno = errno_name(errno);
    let types = names(types);
    let what = if types.is_empty() { "a".into() } else { format!("the {}", listed(&types)) };
    Draft {
        definition: &DEFINITION,
        severity: Severity::Notice,
        message: format!(
            "{} of {} tried to join {what} namespace and was refused ({errno})",
            who(finding),
            called(world, finding.container)
        ),
        container: finding.container,
        namespaces: None,
        evidence: Evidence {
            syscall: Some("setns".into()),
            errno: Some(errno.clone()),
            types,
            ..Evidence::default()
        },
        subject: format!("setns {errno}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn the_owner_of_the_namespace_decides() {
        // (foreign types with owner, door, expected severity)
        let host = |names: &[&str]| names.iter().map(|n| (n.to_string(), Owner::Host)).collect::<Vec<_>>();
        let setns = Door::Call(Kind::Setns);
        type Case = (Vec<(String, Owner)>, Door, Option<Severity>);
        let cases: Vec<Case> = vec![
            (host(&["mnt"]), setns, Some(Severity::Critical)),
            (host(&["mnt", "net"]), Door::Unseen, Some(Severity::Critical)),
            (vec![("net".into(), Owner::Container(other()))], setns, Some(Severity::Critical)),
            (vec![("net".into(), Owner::Unknown)], setns, Some(Severity::Warning)),
            (vec![("net".into(), Owner::Unknown)], Door::Unseen, None),
            (vec![], setns, None),
        ];
        for (foreign, door, expected) in cases {
            let world = world();
            let finding = changed(&world, &foreign, &[], door);
            let got = on_finding(&finding, &world).map(|draft| draft.severity);
            assert_eq!(got, expected, "{foreign:?} {door:?}");
        }
    }

    #[test]
    fn changed_and_host_are_sorted_and_exact() {
        let world = world();
        let mnt = [("mnt".to_string(), Owner::Host)];
        let draft = on_finding(&changed(&world, &mnt, &[], Door::Call(Kind::Setns)), &world).unwrap();
        assert_eq!(draft.message, DEFINITION.looks);
        let foreign: Vec<_> = ["uts", "mnt", "ipc", "net"].map(|n| (n.to_string(), Owner::Host)).into();
        let draft = on_finding(&changed(&world, &foreign, &[], Door::Call(Kind::Setns)), &world).unwrap();
        let view = draft.namespaces.unwrap();
        assert_eq!(view.changed, ["ipc", "mnt", "net", "uts"]);
        assert_eq!(view.host, ["ipc", "mnt", "net", "uts"]);
        assert_eq!(draft.evidence.door.as_deref(), Some("setns"));
    }

    #[test]
    fn another_containers_name_is_told() {
        let world = world();
        let foreign = vec![("net".to_string(), Owner::Container(other()))];
        let draft = on_finding(&changed(&world, &foreign, &[], Door::Call(Kind::Setns)), &world).unwrap();
        assert!(draft.message.contains("container db"), "{}", draft.message);
        assert_eq!(draft.evidence.target_container.unwrap().id, "db-id");
    }

    #[test]
    fn a_refused_attempt_is_a_notice() {
        let world = world();
        let draft = on_finding(&refused(Kind::Setns), &world).unwrap();
        assert_eq!((draft.severity, draft.evidence.errno.as_deref()), (Severity::Notice, Some("EPERM")));
        assert!(on_finding(&refused(Kind::Unshare), &world).is_none());
    }
}
