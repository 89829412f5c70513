//! Containers to judge.

use super::*;

/// A host with AppArmor.
pub fn host() -> Host {
    Host { apparmor: Some(true), selinux: Some(false), capabilities: Some(CapSet::ALL) }
}

fn all_own() -> BTreeMap<NsType, Namespace> {
    NsType::all().map(|ns| (ns, Namespace::Own)).collect()
}

pub fn process(pid: u32, mode: Option<u32>) -> ProcessSeccomp {
    ProcessSeccomp { pid, comm: "sh".into(), mode }
}

pub fn mount(source: &str, writable: bool) -> HostMount {
    HostMount { source: source.into(), destination: "/mnt".into(), writable }
}

pub fn label(profile: &str, mode: Option<&str>) -> Option<Label> {
    Some(Label { profile: profile.into(), mode: mode.map(str::to_owned) })
}

/// What `docker run` makes on cgroup v2 if it is told nothing.
pub fn docker_default() -> Subject {
    let mut namespaces = all_own();
    namespaces.insert(NsType::USER, Namespace::Host);
    namespaces.insert(NsType::TIME, Namespace::Host);
    let own = |file: &str| HostMount {
        source: format!("/var/lib/docker/containers/{}/{file}", "3f2a".repeat(16)),
        destination: format!("/etc/{file}"),
        writable: true,
    };
    let default = CapSet::DOCKER_DEFAULT;
    Subject {
        declared_privileged: Some(false),
        all_devices: Some(false),
        namespaces,
        seccomp: Some(vec![process(100, Some(2))]),
        capabilities: Some(CapabilitySets {
            effective: default,
            permitted: default,
            bounding: default,
            ..CapabilitySets::default()
        }),
        checks: Checks::Uncounted,
        no_new_privs: Some(false),
        uid: Some(0),
        apparmor: label("docker-default", Some("enforce")),
        process_labels: Vec::new(),
        declared_apparmor: Some("docker-default".to_owned()),
        mounts: Some(vec![own("hosts"), own("hostname"), own("resolv.conf")]),
        memory_limit_bytes: Some(Limit::None),
        pids_limit: Some(Limit::None),
    }
}

/// As a reviewer would like it.
pub fn hardened() -> Subject {
    Subject {
        capabilities: Some(CapabilitySets::default()),
        no_new_privs: Some(true),
        uid: Some(1000),
        memory_limit_bytes: Some(Limit::AtMost(64 << 20)),
        pids_limit: Some(Limit::AtMost(100)),
        ..docker_default()
    }
}

/// Every rule finds something here.
pub fn worst() -> Subject {
    let all = CapSet::ALL;
    let mut namespaces: BTreeMap<NsType, Namespace> = NsType::all().map(|ns| (ns, Namespace::Host)).collect();
    namespaces.insert(NsType::NET, Namespace::Shared(vec!["db".into()]));
    Subject {
        declared_privileged: Some(true),
        all_devices: Some(true),
        namespaces,
        seccomp: Some(vec![process(100, Some(0)), process(101, Some(0))]),
        capabilities: Some(CapabilitySets {
            effective: all,
            permitted: all,
            inheritable: all,
            bounding: all,
            ambient: all,
        }),
        checks: Checks::Counted { seconds: 86_400, used: CapSet::EMPTY },
        no_new_privs: Some(false),
        uid: Some(0),
        apparmor: label("unconfined", None),
        process_labels: Vec::new(),
        declared_apparmor: None,
        mounts: Some(vec![mount("/", true), mount("/run/docker.sock", true), mount("/srv/data", true)]),
        memory_limit_bytes: Some(Limit::None),
        pids_limit: Some(Limit::None),
    }
}

/// What one rule says.
pub fn judged(rule: Rule, subject: &Subject, host: &Host) -> Verdict {
    let mut verdict = Verdict::default();
    (rule.judge)(subject, host, &mut verdict);
    verdict
}

/// The severities of what one rule finds on an ordinary host; nothing may be unknown.
pub fn severities(rule: Rule, subject: &Subject) -> Vec<Severity> {
    let verdict = judged(rule, subject, &host());
    assert_eq!(verdict.unknown, []);
    assert!(verdict.findings.iter().all(|it| it.rule == rule.definition.id && !it.reason.is_empty()));
    verdict.findings.iter().map(|finding| finding.severity).collect()
}

/// That one rule finds nothing and says what it does not know.
pub fn assert_unknown(rule: Rule, subject: &Subject, host: &Host) {
    let verdict = judged(rule, subject, host);
    assert_eq!(verdict.findings, []);
    assert!(!verdict.unknown.is_empty());
    assert!(verdict.unknown.iter().all(|it| it.rule == rule.definition.id && !it.what.is_empty()));
}
