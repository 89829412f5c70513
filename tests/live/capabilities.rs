//! Which capabilities containers use and are denied, counted while the configuration asks for it.

use crate::{features, lab};
use observer_live::agent::{self, Agent, Config};
use observer_live::alert::Alert;
use observer_live::capable::{Capable, Checks};
use observer_live::lab::{Lab, skipped};
use observer_live::rootfs::UTIL_LINUX;
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{cgroup, docker, host, pace, wait};
use serde_json::Value;
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

/// What a container has not been given and asks for is one alert, whose count catches up, and whose process is the first. What
/// a process has given up, and its container has, is none.
#[test]
fn what_a_container_was_not_given_is_told_once() {
    let Some(lab) = lab() else { return };
    let Some(agent) = audit(&lab) else { return };
    let container =
        lab.container(Spec::new("refused").without_cap("CAP_SYS_CHROOT").without_cap("CAP_MKNOD"));
    // Whoever has become another user is refused what its container has.
    container
        .sh(&format!("{UTIL_LINUX}/setpriv --reuid 1000 --clear-groups chown 1000 /etc 2>/dev/null; true"))
        .ok();
    container.sh(&format!("{UTIL_LINUX}/setpriv --reuid 1000 --clear-groups {UTIL_LINUX}/setpriv --reuid 0 true 2>/dev/null; true")).ok();
    settle(&agent);
    agent.assert_nothing();
    assert_ne!(container.sh("chroot / true").code, 0);
    let alert = agent.wait_for("capability.denied", &container.id);
    assert_eq!((alert.severity(), alert.text("/evidence/capability")), ("notice", "CAP_SYS_CHROOT"));
    assert_eq!(alert.text("/process/comm"), "chroot", "{}", alert.line);
    assert_eq!(alert.json["evidence"]["user_namespace"].as_u64(), host::namespace(container.pid, "user"));
    for _ in 0..4 {
        assert_ne!(container.sh("chroot / true").code, 0);
    }
    assert_ne!(container.sh("mknod /tmp/null c 1 3").code, 0);
    let is_device = |alert: &Alert| alert.text("/evidence/capability") == "CAP_MKNOD";
    agent.wait_for_matching("capability.denied", &container.id, is_device);
    assert_counted(&agent, &container, "CAP_SYS_CHROOT", false);
    settle(&agent);
    let told = agent.alerts_of(&container.id);
    assert_eq!(told.iter().filter(|alert| alert.rule() == "capability.denied").count(), 2, "{told:?}");
    assert_audited(&agent, &container);
    let id = container.id.clone();
    let last: Vec<Alert> = agent.stop().into_iter().filter(|alert| alert.container() == Some(&id)).collect();
    let counts = last.iter().filter(|alert| alert.text("/evidence/capability") == "CAP_SYS_CHROOT");
    assert_eq!(counts.filter_map(|alert| alert.json["count"].as_u64()).max(), Some(5), "{last:?}");
}

/// How checks ended, as `audit CONTAINER --json` has them.
fn audited_checks(agent: &Agent, container: &Container) -> Vec<Value> {
    let output = agent::observer(&["audit", "--config", agent.config().arg(), "--json", &container.id])
        .output()
        .expect("run audit");
    let mut document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    match document["containers"][0]["observed"]["capabilities"]["checks"].take() {
        Value::Array(checks) => checks,
        _ => panic!("{document}"),
    }
}

/// `audit CONTAINER` says who was the first, when, and in which user namespace.
fn assert_audited(agent: &Agent, container: &Container) {
    let checks = audited_checks(agent, container);
    let of = |name: &str| {
        checks
            .iter()
            .find(|it| it["capability"] == name)
            .unwrap_or_else(|| panic!("{name}: {checks:?}"))
            .clone()
    };
    let denials = of("CAP_SYS_CHROOT")["denials"].clone();
    assert_eq!(denials["comm"], "chroot", "{checks:?}");
    assert_eq!(denials["user_namespace"].as_u64(), host::namespace(container.pid, "user"), "{checks:?}");
    let time = |which: &str| denials[which].as_str().expect("a time").to_owned();
    assert!(time("first") < time("last"), "{checks:?}");
}

/// The agent's counts, as the witness has them.
fn counts(agent: &Agent, container: &Container) -> Checks {
    let mut counts = Checks::new();
    for check in audited_checks(agent, container) {
        let name = check["capability"].as_str().expect("a name").to_owned();
        for (granted, which) in [(true, "granted"), (false, "denied")] {
            let count = check[which].as_u64().expect("a count");
            if count > 0 {
                counts.insert((name.clone(), granted), count);
            }
        }
    }
    counts
}

/// What the agent says was used and denied is what somebody else's kprobe on the same function saw.
#[test]
fn another_witness_saw_the_same_checks() {
    let Some(lab) = lab() else { return };
    if !Capable::can_be_had() {
        return;
    }
    let Some(agent) = audit(&lab) else { return };
    if !features::serves(&agent, FEATURE, "fentry") {
        skipped("this kernel does not show which checks are speculative");
        agent.finish();
        return;
    }
    let container = lab.container(Spec::new("witnessed").all_caps());
    let dir = cgroup::mount_point("").expect("v2").join(container.cgroup_path().trim_start_matches('/'));
    let mut witness = Capable::start(&dir);
    witness.wait_until_attached();
    settle(&agent);
    let before = counts(&agent, &container);
    let user = format!("{UTIL_LINUX}/setpriv --reuid 1000 --clear-groups");
    for (line, fails) in [
        ("ping -c 1 127.0.0.1", false),
        ("touch /tmp/file && chown 1000 /tmp/file", false),
        ("mknod /tmp/null c 1 3", false),
        ("timeout 1 nc -l -p 80 </dev/null; true", false),
        ("hostname other", false),
        ("ls -lR /etc /tmp >/dev/null", false),
        (&format!("{user} id"), false),
        (&format!("{user} chown 0 /tmp/file"), true),
        (&format!("{user} mknod /tmp/zero c 1 5"), true),
        (&format!("{user} hostname third"), true),
    ] {
        let said = container.sh(line);
        assert_eq!(said.code != 0, fails, "{line}: {said:?}");
    }
    settle(&agent);
    let mut ours = counts(&agent, &container);
    for (check, count) in before {
        // What there was before is not in the witness's account.
        if let Some(now) = ours.get_mut(&check) {
            *now -= count;
        }
    }
    ours.retain(|_, count| *count > 0);
    let theirs = witness.end();
    println!("the agent: {ours:?}\nthe witness: {theirs:?}");
    // Not only which, but how often.
    assert_eq!(ours, theirs, "the agent (left) and the witness differ");
    for granted in
        ["CAP_NET_RAW", "CAP_CHOWN", "CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SYS_ADMIN"]
    {
        assert!(ours.contains_key(&(granted.to_owned(), true)), "{granted}: {ours:?}");
    }
    for denied in ["CAP_CHOWN", "CAP_MKNOD", "CAP_SYS_ADMIN"] {
        assert!(ours.contains_key(&(denied.to_owned(), false)), "{denied}: {ours:?}");
    }
    agent.stop();
}

/// Where it cannot be told whether a check was meant, nothing is told of what may not have been; elsewhere it is.
#[test]
fn a_capability_that_the_kernel_asks_for_speculatively_is_told_where_it_is_known_to_be_meant() {
    let Some(lab) = lab() else { return };
    let Some(agent) = audit(&lab) else { return };
    let container = lab.container(Spec::new("hostname"));
    container.sh("ls -l / /proc /proc/1; sleep 0.1").ok();
    assert_ne!(container.sh("hostname other").code, 0);
    assert_counted(&agent, &container, "CAP_SYS_ADMIN", false);
    settle(&agent);
    let told = agent.alerts_of(&container.id);
    let capabilities: Vec<&str> = told.iter().map(|alert| alert.text("/evidence/capability")).collect();
    let expected: &[&str] =
        if features::serves(&agent, FEATURE, "fentry") { &["CAP_SYS_ADMIN"] } else { &[] };
    assert_eq!(capabilities, expected, "{told:?}");
    agent.finish();
}

/// Docker's containers, as they are started, entered and ended, and a set-user-ID program in one: nothing is told.
#[test]
fn ordinary_life_of_dockers_containers_is_no_refusal_and_no_gain() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let Some(agent) = audit(&lab) else { return };
    let container = docker.start(&[]);
    container
        .sh("ls -lR /bin /etc /proc/1 >/dev/null 2>&1; ps >/dev/null; sleep 0.1; df >/dev/null; id")
        .ok();
    container
        .sh("touch /tmp/f; chown 33:33 /tmp/f; chmod 4755 /tmp/f; ln /tmp/f /tmp/g; rm /tmp/f /tmp/g")
        .ok();
    container.sh("mkdir -m 700 /tmp/d; chown 33 /tmp/d; ls /tmp/d; touch /tmp/d/f; ping -c 1 127.0.0.1").ok();
    // What apt and other daemons do: they give root up, and make sure that they cannot take it back.
    let other = format!("{UTIL_LINUX}/setpriv --reuid 33 --regid 33 --clear-groups");
    container
        .sh(&format!(
            "{other} ls -R / >/dev/null 2>&1; {other} {UTIL_LINUX}/setpriv --reuid 0 true 2>/dev/null; true"
        ))
        .ok();
    // A set-user-ID program.
    container.sh("cp /bin/busybox /tmp/busybox; chmod 4755 /tmp/busybox").ok();
    container
        .sh(&format!("{other} /tmp/busybox id; {other} /tmp/busybox sh -c 'id; true'; rm /tmp/busybox"))
        .ok();
    // All that a process has in a user namespace of its own, where the profile lets it have one.
    assert!(container.exec(&["sh", "-c", "ls / >/dev/null"]).status.success());
    assert!(container.exec(&["id"]).status.success());
    let (id, output) = docker.run_to_end(&["--user", "33"], &["sh", "-c", "ls / >/dev/null; id"]);
    assert!(output.status.success(), "{output:?}");
    settle(&agent);
    for id in [&id, &container.id] {
        let told = agent.alerts_of(id);
        assert!(told.iter().all(|alert| !alert.rule().starts_with("capability.")), "{told:?}");
    }
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
