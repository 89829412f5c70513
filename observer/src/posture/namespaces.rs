//! Namespaces that a container has in common with the host or with other containers.

use std::collections::BTreeMap;

use super::{CapSet, Definition, Evidence, Host, Namespace, Rule, Subject, Verdict, listed};
use crate::model::{NsType, Severity};

pub const HOST: Rule = Rule { definition: &HOST_DEFINITION, judge: of_host };
pub const SHARED: Rule = Rule { definition: &SHARED_DEFINITION, judge: of_others };

static HOST_DEFINITION: Definition = Definition {
    id: "posture.host_namespace",
    title: "Shares a namespace with the host",
    severity: Severity::Critical,
    what: "The namespaces of the container, type by type, against the host's. The user namespace is looked at by \
           posture.root_user; a time namespace of one's own is rare, and nothing depends on it.",
    why: "A namespace decides what a container can see. With the host's it sees, and with the right capability \
          controls, what the host sees of that kind: mounts, processes, network, shared memory, host name.",
    advice: "Leave out --pid=host, --network=host, --ipc=host, --uts=host (docker), hostPID, hostNetwork, hostIPC \
             (Kubernetes) unless the container manages the host.",
};

static SHARED_DEFINITION: Definition = Definition {
    id: "posture.shared_namespace",
    title: "Shares namespaces with other containers",
    severity: Severity::Info,
    what: "The namespaces of the container, type by type, against those of other containers.",
    why: "It is how pods and --network container:NAME work. Who takes over one of them reaches the others by it: \
          over loopback and past network policies, by shared memory, or, with the pid namespace, by their \
          processes.",
    advice: "Share only among containers that trust each other as if they were one.",
};

/// A type that is looked at: how much it matters with the host, and why.
struct Looked {
    ns: NsType,
    severity: Severity,
    means: &'static str,
}

const LOOKED: [Looked; 6] = [
    Looked {
        ns: NsType::MNT,
        severity: Severity::Critical,
        means: "it sees and changes the host's mounts and files",
    },
    Looked {
        ns: NsType::PID,
        severity: Severity::Warning,
        means: "it sees every process of the host, and may signal those of its user",
    },
    Looked {
        ns: NsType::NET,
        severity: Severity::Warning,
        means: "it reaches what listens on the host's loopback and abstract sockets, and listens itself on the host",
    },
    Looked {
        ns: NsType::IPC,
        severity: Severity::Warning,
        means: "it reaches shared memory and message queues of the host's processes",
    },
    Looked { ns: NsType::UTS, severity: Severity::Notice, means: "it has the host's name in common with it" },
    // Docker's default on cgroup v1.
    Looked { ns: NsType::CGROUP, severity: Severity::Info, means: "it sees the paths of the host's cgroups" },
];

/// With the host's pid namespace, each of these makes any process of the host the container's: ptrace and
/// process_vm_writev, or joining its namespaces.
const OVER_PROCESSES: CapSet = CapSet::of(&[19, 21]);

fn of_host(subject: &Subject, _: &Host, verdict: &mut Verdict) {
    for Looked { ns, severity, means } in LOOKED {
        let name = ns.name();
        match subject.namespaces.get(&ns) {
            None => verdict.not_known(&HOST_DEFINITION, format!("its {name} namespace")),
            Some(Namespace::Own | Namespace::Shared(_)) => {}
            Some(Namespace::Host) => {
                let mut severity = severity;
                let mut reason = format!("its {name} namespace is the host's: {means}");
                let over = subject.capabilities.map(|sets| sets.permitted & OVER_PROCESSES);
                // In a user namespace of its own, capabilities do not reach the host's processes.
                let own_user = subject.namespaces.get(&NsType::USER).is_some_and(|it| *it != Namespace::Host);
                if let Some(over) = over.filter(|set| ns == NsType::PID && !set.is_empty() && !own_user) {
                    severity = Severity::Critical;
                    reason = format!("{reason}; with {} it controls all of them", listed(&over.names()));
                }
                let evidence = Evidence { namespaces: vec![name], ..Evidence::default() };
                verdict.find(&HOST_DEFINITION, severity, reason, evidence);
            }
        }
    }
}

fn of_others(subject: &Subject, _: &Host, verdict: &mut Verdict) {
    // The types by who else is in them: usually the same containers for several types.
    let mut by_containers: BTreeMap<&[String], Vec<&'static str>> = BTreeMap::new();
    let mut not_known = Vec::new();
    for ns in LOOKED.iter().map(|looked| looked.ns).chain([NsType::USER]) {
        match subject.namespaces.get(&ns) {
            None => not_known.push(ns.name()),
            Some(Namespace::Shared(containers)) => {
                by_containers.entry(containers.as_slice()).or_default().push(ns.name());
            }
            Some(Namespace::Own | Namespace::Host) => {}
        }
    }
    for (containers, mut namespaces) in by_containers {
        namespaces.sort_unstable();
        let plural = if namespaces.len() == 1 { "namespace" } else { "namespaces" };
        let reason = match containers {
            [] => format!("it shares its {} {plural} with another container", listed(&namespaces)),
            named => format!("it shares its {} {plural} with {}", listed(&namespaces), listed(named)),
        };
        let evidence = Evidence { namespaces, containers: containers.to_vec(), ..Evidence::default() };
        verdict.find(&SHARED_DEFINITION, Severity::Info, reason, evidence);
    }
    if !not_known.is_empty() {
        let plural = if not_known.len() == 1 { "namespace" } else { "namespaces" };
        verdict.not_known(&SHARED_DEFINITION, format!("its {} {plural}", listed(&not_known)));
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{CapabilitySets, testing::*},
        *,
    };

    fn with(ns: NsType, whose: Option<Namespace>) -> Subject {
        let mut subject = docker_default();
        subject.namespaces.remove(&ns);
        subject.namespaces.extend(whose.map(|whose| (ns, whose)));
        subject
    }

    #[test]
    fn each_type_has_its_own_weight() {
        for (ns, expected) in [
            (NsType::MNT, Some(Severity::Critical)),
            (NsType::PID, Some(Severity::Warning)),
            (NsType::NET, Some(Severity::Warning)),
            (NsType::IPC, Some(Severity::Warning)),
            (NsType::UTS, Some(Severity::Notice)),
            (NsType::CGROUP, Some(Severity::Info)),
            (NsType::USER, None),
            (NsType::TIME, None),
            (NsType::PID_FOR_CHILDREN, None),
        ] {
            let expected: Vec<Severity> = expected.into_iter().collect();
            assert_eq!(severities(HOST, &with(ns, Some(Namespace::Host))), expected, "{}", ns.name());
            assert_eq!(severities(HOST, &with(ns, Some(Namespace::Own))), []);
            assert_eq!(severities(HOST, &with(ns, Some(Namespace::Shared(vec!["db".into()])))), []);
            if !expected.is_empty() {
                assert_unknown(HOST, &with(ns, None), &host());
                let finding = &judged(HOST, &with(ns, Some(Namespace::Host)), &host()).findings[0];
                assert_eq!(finding.evidence.namespaces, [ns.name()]);
            }
        }
    }

    #[test]
    fn the_hosts_processes_are_lost_with_ptrace_or_admin() {
        for (number, user, expected) in [
            (19, Namespace::Host, Severity::Critical),
            (21, Namespace::Host, Severity::Critical),
            (12, Namespace::Host, Severity::Warning),
            (21, Namespace::Own, Severity::Warning),
        ] {
            let permitted = CapSet::of(&[number]);
            let mut subject = with(NsType::PID, Some(Namespace::Host));
            subject.capabilities = Some(CapabilitySets { permitted, ..CapabilitySets::default() });
            subject.namespaces.insert(NsType::USER, user);
            assert_eq!(severities(HOST, &subject), [expected], "{number}");
        }
    }

    #[test]
    fn what_other_containers_share_is_told_once_for_all_types() {
        let both = vec!["db".to_owned(), "web".to_owned()];
        let mut subject = with(NsType::NET, Some(Namespace::Shared(both.clone())));
        subject.namespaces.insert(NsType::IPC, Namespace::Shared(both));
        subject.namespaces.insert(NsType::PID, Namespace::Shared(vec!["db".into()]));
        assert_eq!(severities(SHARED, &subject), [Severity::Info, Severity::Info]);
        let reasons: Vec<String> =
            judged(SHARED, &subject, &host()).findings.into_iter().map(|it| it.reason).collect();
        assert_eq!(
            reasons,
            ["it shares its pid namespace with db", "it shares its ipc and net namespaces with db and web"]
        );
        assert_eq!(severities(SHARED, &docker_default()), []);
        assert_unknown(SHARED, &with(NsType::NET, None), &host());
        assert_unknown(SHARED, &Subject::default(), &host());
    }
}
