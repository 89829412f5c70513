//! Which capabilities containers use and are denied, counted while the configuration asks for it.

use crate::{features, lab};
use observer_live::agent::{self, Agent, Config};
use observer_live::lab::{Lab, skipped};
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{docker, pace, wait};
use std::time::Duration;

const FEATURE: &str = "capability_checks";
const USED: &str = "observer_container_capability_used";
const DENIED: &str = "observer_container_capability_denied_total";
const UNCLASSIFIED: &str = "observer_container_capability_unclassified_total";

fn audited(extra: &str) -> Config {
    Config::new(&format!("audit:\n  capabilities: true\n{extra}"))
}

/// An agent that counts; none, and said, where this kernel does not let it.
fn audit(lab: &Lab) -> Option<Agent> {
    let agent = lab.only_agent(audited(""));
    if features::serves(&agent, FEATURE, "fentry") || features::serves(&agent, FEATURE, "tp_btf") {
        return Some(agent);
    }
    let (tiers, ok) = features::check(agent.config());
    assert!(ok && tiers[FEATURE] == "off", "{tiers:?}");
    skipped("this kernel allows no programs on functions and has no tracepoint cap_capable");
    agent.finish();
    None
}

/// The sum of a family over one container and one capability; `result` for the unclassified.
fn counted(agent: &Agent, family: &str, id: &str, capability: &str, result: Option<&str>) -> f64 {
    let mut labels = vec![("container", id), ("capability", capability)];
    labels.extend(result.map(|result| ("result", result)));
    agent.metrics().sum(family, &labels)
}

/// Waits for a count that the agent reads once a second.
fn assert_counted(agent: &Agent, container: &Container, capability: &str, granted: bool) {
    let (family, result) = match (features::serves(agent, FEATURE, "fentry"), granted) {
        (true, true) => (USED, None),
        (true, false) => (DENIED, None),
        (false, true) => (UNCLASSIFIED, Some("granted")),
        (false, false) => (UNCLASSIFIED, Some("denied")),
    };
    let count = || counted(agent, family, &container.id, capability, result);
    let seen = wait::until_true(pace::patience(Duration::from_secs(5)), || count() > 0.0);
    assert!(seen, "{capability} is not in {family}: {:?}", agent.metrics().family(family));
}

/// Two readings of the counts: what was counted before has been shown.
fn settle(agent: &Agent) {
    agent.settle();
    std::thread::sleep(Duration::from_millis(2200));
}

/// What a runtime does on the way in, what the kernel only asks to know, and a shell that lists and sleeps: no use of
/// anything.
#[test]
fn listing_and_sleeping_uses_nothing() {
    let Some(lab) = lab() else { return };
    let Some(agent) = audit(&lab) else { return };
    if !features::serves(&agent, FEATURE, "fentry") {
        skipped("this kernel does not show which checks are speculative");
        agent.finish();
        return;
    }
    let container = lab.container(Spec::new("idle").args(&["sh", "-c", "ls -l / /proc; sleep 1000"]));
    settle(&agent);
    let of_it = [("container", container.id.as_str())];
    let metrics = agent.metrics();
    assert_eq!(metrics.sum(USED, &of_it), 0.0, "{:?}", metrics.family(USED));
    assert_eq!(metrics.sum(DENIED, &of_it), 0.0, "{:?}", metrics.family(DENIED));
    assert!(metrics.family(UNCLASSIFIED).is_empty());
    agent.finish();
}

/// chown uses CAP_CHOWN; who lacks CAP_SYS_ADMIN is denied it at sethostname and mount. Also in a container that is older
/// than the agent; and with the container its series are gone.
#[test]
fn uses_and_denials_are_counted() {
    let Some(lab) = lab() else { return };
    let older = lab.container(Spec::new("older"));
    let Some(agent) = audit(&lab) else { return };
    let younger = lab.container(Spec::new("younger"));
    for container in [&older, &younger] {
        container.sh("touch /tmp/file && chown 1000 /tmp/file").ok();
        assert_ne!(container.sh("hostname other").code, 0);
        assert_ne!(container.sh("mount -t tmpfs none /tmp").code, 0);
        assert_counted(&agent, container, "CAP_CHOWN", true);
        assert_counted(&agent, container, "CAP_SYS_ADMIN", false);
    }
    let metrics = agent.metrics();
    if features::serves(&agent, FEATURE, "fentry") {
        assert!(metrics.family(UNCLASSIFIED).is_empty());
        let used = |capability| counted(&agent, USED, &younger.id, capability, None);
        assert_eq!((used("CAP_SYS_ADMIN"), used("CAP_NET_ADMIN")), (0.0, 0.0));
        // Every program that is started asks for CAP_SYS_ADMIN when it maps memory; that is no denial.
        settle(&agent);
        let before = counted(&agent, DENIED, &younger.id, "CAP_SYS_ADMIN", None);
        assert!((2.0..10.0).contains(&before), "{before}");
        younger.sh("for i in 1 2 3 4 5; do ls / >/dev/null; done").ok();
        settle(&agent);
        assert_eq!(counted(&agent, DENIED, &younger.id, "CAP_SYS_ADMIN", None), before);
    } else {
        // Nothing is taken for a use or a denial that may be none.
        assert!(metrics.family(USED).is_empty() && metrics.family(DENIED).is_empty());
    }
    let id = younger.id.clone();
    drop(younger);
    let gone = wait::until_true(pace::patience(Duration::from_secs(8)), || {
        let metrics = agent.metrics();
        [USED, DENIED, UNCLASSIFIED]
            .iter()
            .all(|family| !metrics.family(family).iter().any(|(labels, _)| labels.contains(&id)))
    });
    assert!(gone, "series outlive their container");
    assert_counted(&agent, &older, "CAP_CHOWN", true);
    agent.finish();
}

/// Docker's root is an overlay where it can be: what the file system does with the credentials of whoever mounted it is
/// no use of a capability by the container, which has not even got it.
#[test]
fn what_an_overlay_does_for_a_container_is_not_the_containers() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let Some(agent) = audit(&lab) else { return };
    let container = docker.start(&[]);
    container.sh("ls -lR /bin /etc >/dev/null; touch /etc/new && chown 1000 /etc/new && rm /etc/new").ok();
    let granted = |capability| match features::serves(&agent, FEATURE, "fentry") {
        true => counted(&agent, USED, &container.id, capability, None),
        false => counted(&agent, UNCLASSIFIED, &container.id, capability, Some("granted")),
    };
    let seen = wait::until_true(Duration::from_secs(5), || granted("CAP_CHOWN") > 0.0);
    assert!(seen, "CAP_CHOWN: {:?}", agent.metrics().family(UNCLASSIFIED));
    assert_eq!(granted("CAP_SYS_ADMIN"), 0.0);
    agent.finish();
}

/// Off unless asked for, and then by the best tier; a hidden one makes way for the next.
#[test]
fn it_is_off_unless_asked_for() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    assert_eq!(agent.metrics().sum("observer_feature_enabled", &[("feature", FEATURE)]), 0.0);
    agent.finish();
    let config = Config::new("");
    assert_eq!(features::check(&config).0[FEATURE], "off");
    let output = agent::observer(&["check", "--config", config.arg()]).output().expect("run check");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains(FEATURE)).unwrap_or_default();
    assert!(line.starts_with("off ") && line.ends_with("not configured (audit.capabilities)"), "{text}");
    let tier = |hidden: &str| {
        let words = format!("kernel:\n  pretend_without: [{hidden}]\n");
        features::check(&audited(&words)).0[FEATURE].clone()
    };
    let best = tier("");
    assert!(["fentry", "tp_btf", "off"].contains(&best.as_str()), "{best}");
    assert!(["tp_btf", "off"].contains(&tier("\"type:fexit\"").as_str()));
    let without_tracepoint = tier("\"hook:tp_btf/cap_capable\"");
    assert_eq!(without_tracepoint, if best == "fentry" { "fentry" } else { "off" });
    assert_eq!(tier("\"field:task_struct.real_cred\""), "off");
}
