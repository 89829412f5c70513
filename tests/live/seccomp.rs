//! Which calls containers make, and which of them seccomp refuses them: counted exactly, and nothing else counted.

use crate::{features, lab};
use observer_live::agent::{Agent, Config, observer};
use observer_live::alert::Alert;
use observer_live::docker::Docker;
use observer_live::lab::{Lab, skipped};
use observer_live::rootfs::ATTACKS;
use observer_live::spec::Spec;
use observer_live::{docker, pace, scratch, wait};
use serde_json::json;
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const FEATURE: &str = "seccomp_denials";
pub(crate) const DENIED: &str = "observer_container_seccomp_denied_total";
const KILLED: &str = "observer_container_seccomp_killed_total";
pub(crate) const UNCLASSIFIED: &str = "observer_container_seccomp_unclassified_total";
const USED: &str = "observer_container_syscalls_used";

/// An agent that counts; none, and said, where this kernel does not let it.
fn audit(lab: &Lab) -> Option<Agent> {
    audit_with(lab, "")
}

fn audit_with(lab: &Lab, extra: &str) -> Option<Agent> {
    let agent = lab.only_agent(Config::new(&format!("audit:\n  seccomp: true\n{extra}")));
    if features::serves(&agent, FEATURE, "tracepoint") || sees_all(&agent) {
        return Some(agent);
    }
    let (tiers, ok) = features::check(agent.config());
    assert!(ok && tiers[FEATURE] == "off", "{tiers:?}");
    skipped("this kernel does not show saved registers (bpf_task_pt_regs, 5.15)");
    agent.finish();
    None
}

/// Every beginning is seen, and not that of single calls.
fn sees_all(agent: &Agent) -> bool {
    features::serves(agent, FEATURE, "tp_btf")
}

/// Hides what single beginnings are seen by, as where `kernel.perf_event_paranoid` is above 2.
const HIDDEN: &str = "kernel:\n  pretend_without: [\"hook:tracepoint/syscalls/sys_enter_*\"]\n";

/// One that finds the declarations of docker's containers where docker's managed containerd has them.
pub(crate) fn audit_docker(lab: &Lab, docker: &Docker) -> Option<Agent> {
    let (run, data) = (scratch::subdir("run"), docker.data());
    std::os::unix::fs::symlink(data.with_file_name("exec"), run.join("docker")).expect("link the exec-root");
    audit_with(lab, &format!("host:\n  run: \"{}\"\n  docker: \"{}\"\n", run.display(), data.display()))
}

fn counted(agent: &Agent, family: &str, id: &str, call: &str) -> f64 {
    agent.metrics().sum(family, &[("container", id), ("syscall", call)])
}

/// Waits for a count that the agent reads once a second, and fails if it is exceeded.
fn assert_counted(agent: &Agent, family: &str, id: &str, call: &str, count: f64) {
    let seen = wait::until_true(pace::patience(Duration::from_secs(5)), || {
        counted(agent, family, id, call) >= count
    });
    let found = counted(agent, family, id, call);
    assert!(seen && found == count, "{call}: {found} and not {count}: {:?}", agent.metrics().family(family));
}

/// Two readings of the counts: what was counted before has been shown.
pub(crate) fn settle(agent: &Agent) {
    agent.settle();
    std::thread::sleep(Duration::from_millis(2200));
}

fn of_rule(agent: &Agent, rule: &str, container: &str) -> Vec<Alert> {
    agent.alerts_of(container).into_iter().filter(|alert| alert.rule() == rule).collect()
}

/// The numbers that `observer-attacks denials` says it has got.
fn told(said: &str) -> Vec<(String, f64)> {
    let words = said.split_whitespace().filter_map(|word| word.split_once('='));
    words.map(|(call, count)| (call.to_owned(), count.parse().expect("a number"))).collect()
}

/// Docker's default profile, and a program that counts its own refusals: from the container's first process on, and of two at
/// the same time. One alert for each call, whose count catches up.
#[test]
fn dockers_refusals_are_counted_exactly() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let Some(agent) = audit_docker(&lab, docker) else { return };
    let n = if pace::emulated() { 50 } else { 2000 };
    let container = docker.start(&[]);
    let line = format!("{ATTACKS} denials {n} & {ATTACKS} denials {n}; wait");
    let said = container.sh(&line).ok();
    let mut expected = told(&said);
    assert_eq!(expected.len(), 8, "{said}");
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    for pair in expected.chunks(2) {
        assert_eq!((pair[0].1, pair[1].1), (f64::from(n), f64::from(n)), "{said}");
        assert_counted(&agent, DENIED, &container.id, &pair[0].0, f64::from(2 * n));
        let is_it = |alert: &Alert| alert.text("/evidence/syscall") == pair[0].0;
        let alert = agent.wait_for_matching("seccomp.denied", &container.id, is_it);
        assert_eq!((alert.severity(), alert.text("/evidence/errno")), ("warning", "EPERM"), "{}", alert.line);
        let alerts = of_rule(&agent, "seccomp.denied", &container.id);
        assert_eq!(alerts.iter().filter(|alert| is_it(alert)).count(), 1, "{alerts:?}");
    }
    assert_eq!(agent.metrics().sum(UNCLASSIFIED, &[("container", &container.id)]), 0.0);
    if features::serves(&agent, "namespace_calls", "tracepoint") {
        // Watched calls are still seen, though another program takes their hooks over.
        for call in ["unshare", "clone"] {
            let is_it = |alert: &Alert| alert.text("/evidence/syscall") == call;
            agent.wait_for_matching("namespace.nested", &container.id, is_it);
        }
    }
    // The rest is told with the next line, at the latest at the end.
    let id = container.id.clone();
    let last: Vec<Alert> = agent.stop().into_iter().filter(|alert| alert.container() == Some(&id)).collect();
    let total = |call: &str| {
        let counts =
            last.iter().filter(|a| a.rule() == "seccomp.denied" && a.text("/evidence/syscall") == call);
        counts.filter_map(|alert| alert.json["count"].as_u64()).max()
    };
    for (call, _) in expected {
        assert_eq!(total(&call), Some(2 * u64::from(n as u32)), "{call}");
    }
}

/// Whose a call is, is known by the thread's stack, and stacks are used again: by a container's process after one of the host's,
/// and the other way round.
#[test]
fn whose_a_call_is_does_not_hang_on_whose_stack_it_was() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let Some(agent) = audit_docker(&lab, docker) else { return };
    let n = if pace::emulated() { 20 } else { 150 };
    let container = docker.start(&[]);
    let ends = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    Command::new("true").status().expect("start true");
                }
            });
        }
        let line = format!("i=0; while [ $i -lt {n} ]; do {ATTACKS} denials 1 || exit 1; i=$((i + 1)); done");
        let said = container.sh(&line);
        ends.store(true, Ordering::Relaxed);
        said.ok()
    });
    let expected: BTreeSet<String> = told(&said).into_iter().map(|(call, _)| call).collect();
    assert_eq!(expected.len(), 4, "{said}");
    for call in expected {
        assert_counted(&agent, DENIED, &container.id, &call, f64::from(n));
    }
    agent.finish();
}

/// A filter that lets all pass, under everything that could be mistaken for a refusal: declared by the runtime, and the
/// program's own, of which nobody knows what it refuses.
#[test]
fn a_filter_that_refuses_nothing_has_refused_nothing() {
    refuses_nothing("");
}

#[test]
fn a_filter_that_refuses_nothing_has_refused_nothing_where_all_is_seen() {
    refuses_nothing(HIDDEN);
}

fn refuses_nothing(extra: &str) {
    let Some(lab) = lab() else { return };
    let seconds = 6;
    let permissive = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["kexec_load"], "action": "SCMP_ACT_ERRNO"}]});
    // This one is at it when the agent comes.
    let older = lab.container(Spec::new("older"));
    older.sh(&format!("{ATTACKS} permissive-load {} >/tmp/said &", 4 * seconds)).ok();
    let Some(agent) = audit_with(&lab, extra) else { return };
    let declared = lab.container(Spec::new("declared").seccomp(permissive));
    let own = lab.container(Spec::new("own"));
    own.sh(&format!("{ATTACKS} permissive-load {seconds} >/tmp/said &")).ok();
    let said = declared.sh(&format!("{ATTACKS} permissive-load {seconds}")).ok();
    let rounds: u64 = said.trim_start_matches("ok ").trim().parse().expect("rounds");
    assert!(rounds > 10, "{said}");
    std::thread::sleep(Duration::from_secs(seconds));
    settle(&agent);
    for container in [&older, &declared, &own] {
        let of_it = [("container", container.id.as_str())];
        let metrics = agent.metrics();
        assert_eq!(metrics.sum(DENIED, &of_it), 0.0, "{:?}", metrics.family(DENIED));
        assert_eq!(metrics.sum(KILLED, &of_it), 0.0, "{:?}", metrics.family(KILLED));
        assert!(of_rule(&agent, "seccomp.denied", &container.id).is_empty());
        // Of its own filter nothing is declared: each call's first errors stay in doubt, and no more. The older one's last call
        // before the agent came is, too.
        if sees_all(&agent) {
            let most = if container.id == older.id { 4.0 } else { 0.0 };
            assert!(metrics.sum(UNCLASSIFIED, &of_it) <= most, "{:?}", metrics.family(UNCLASSIFIED));
        } else {
            println!("unclassified: {:?}", metrics.family(UNCLASSIFIED));
        }
    }
    let of_it = [("container", declared.id.as_str())];
    assert!(agent.metrics().sum(USED, &of_it) > 30.0);
    agent.finish();
}

/// A filter of a program's own, with an errno of its own: what came before its call was armed is unclassified, what comes
/// after is a refusal, and the two make up all.
#[test]
fn what_was_not_expected_is_armed_when_it_is_seen() {
    let Some(lab) = lab() else { return };
    let Some(agent) = audit(&lab) else { return };
    if sees_all(&agent) {
        skipped("all calls are armed here: see where_all_is_seen_nothing_is_in_doubt");
        return agent.finish();
    }
    let container = lab.container(Spec::new("own"));
    settle(&agent);
    container.sh(&format!("{ATTACKS} own-errno getppid 71 1")).ok();
    let armed = wait::until_true(pace::patience(Duration::from_secs(5)), || {
        counted(&agent, UNCLASSIFIED, &container.id, "getppid") == 1.0
    });
    assert!(armed, "{:?}", agent.metrics().family(UNCLASSIFIED));
    let said = container.sh(&format!("{ATTACKS} own-errno getppid 71 500")).ok();
    assert_eq!(said.trim(), "ok 500");
    assert_counted(&agent, DENIED, &container.id, "getppid", 500.0);
    assert_eq!(counted(&agent, UNCLASSIFIED, &container.id, "getppid"), 1.0);
    let alert = agent.wait_for("seccomp.denied", &container.id);
    assert_eq!((alert.severity(), alert.text("/evidence/errno")), ("notice", "errno 71"), "{}", alert.line);
    // Those that a filter of another process refuses not are none.
    container.sh("for i in 1 2 3; do sh -c 'echo $PPID'; done").ok();
    settle(&agent);
    assert_eq!(counted(&agent, DENIED, &container.id, "getppid"), 500.0);
    agent.finish();
}

/// The same filter where every beginning is looked at: the first refusal is one, too.
#[test]
fn where_all_is_seen_nothing_is_in_doubt() {
    let Some(lab) = lab() else { return };
    let Some(agent) = audit_with(&lab, HIDDEN) else { return };
    assert!(sees_all(&agent), "{}", agent.log_tail());
    let container = lab.container(Spec::new("own"));
    settle(&agent);
    let said = container.sh(&format!("{ATTACKS} own-errno getppid 71 500")).ok();
    assert_eq!(said.trim(), "ok 500");
    assert_counted(&agent, DENIED, &container.id, "getppid", 500.0);
    let alert = agent.wait_for("seccomp.denied", &container.id);
    assert_eq!(alert.text("/evidence/errno"), "errno 71", "{}", alert.line);
    // Neither its program's other errors nor those of others without a filter.
    let errors = container.sh("for i in 1 2 3; do sh -c 'cat /nowhere'; done");
    assert_ne!(errors.code, 0);
    settle(&agent);
    assert_eq!(agent.metrics().sum(UNCLASSIFIED, &[("container", &container.id)]), 0.0);
    assert_eq!(agent.metrics().sum(DENIED, &[("container", &container.id)]), 500.0);
    agent.finish();
}

/// SIGSYS, and threads that just end.
#[test]
fn whoever_is_stopped_is_told() {
    let Some(lab) = lab() else { return };
    let Some(agent) = audit(&lab) else { return };
    for how in ["trap", "kill-process", "kill-thread"] {
        let container = lab.container(Spec::new(how));
        let said = container.sh(&format!("{ATTACKS} stopped {how}"));
        assert_eq!(said.code == 0, how == "kill-thread", "{how}: {said:?}");
        let alert = agent.wait_for("seccomp.killed", &container.id);
        let call = alert.text("/evidence/syscall").to_owned();
        assert_eq!((alert.severity(), call.as_str()), ("warning", "sysfs"), "{}", alert.line);
        assert_eq!(alert.text("/process/comm"), "observer-attack", "{}", alert.line);
        assert_counted(&agent, KILLED, &container.id, "sysfs", 1.0);
        assert_eq!(agent.metrics().sum(DENIED, &[("container", &container.id)]), 0.0);
    }
    agent.finish();
}

/// Off unless asked for; and series go with their containers.
#[test]
fn it_is_off_unless_asked_for_and_goes_with_its_containers() {
    let Some(lab) = lab() else { return };
    let (tiers, _) = features::check(&Config::new(""));
    assert_eq!((tiers[FEATURE].as_str(), tiers["syscalls_used"].as_str()), ("off", "off"));
    let agent = lab.only_agent(Config::new("audit:\n  syscalls: true\n"));
    if features::serves(&agent, "syscalls_used", "tp_btf") {
        let container = lab.container(Spec::new("used"));
        let used = || agent.metrics().sum(USED, &[("container", &container.id)]);
        let seen = wait::until_true(pace::patience(Duration::from_secs(5)), || used() > 0.0);
        assert!(seen, "{:?}", agent.metrics().family(USED));
        settle(&agent);
        let before = used();
        container.sh(&format!("{ATTACKS} own-errno sched_yield 1 1")).ok();
        settle(&agent);
        // Without the audit of seccomp it is not known that a refused call was not made.
        assert!(used() > before, "{before}");
        let id = container.id.clone();
        drop(container);
        let gone = wait::until_true(pace::patience(Duration::from_secs(8)), || {
            !agent.metrics().family(USED).iter().any(|(labels, _)| labels.contains(&id))
        });
        assert!(gone, "series outlive their container");
    }
    assert!(agent.metrics().family(DENIED).is_empty());
    agent.finish();
}

/// Off unless asked for; then each call that is new after a container has settled, once, and none of those that it made before.
#[test]
fn a_call_that_is_new_is_told_once_its_container_has_settled() {
    const AFTER_SECONDS: u64 = 6;
    let Some(lab) = lab() else { return };
    let config = format!("audit:\n  first_use_after_seconds: {AFTER_SECONDS}\n");
    let agent = lab.only_agent(Config::new(&config));
    if !features::serves(&agent, "syscalls_used", "tp_btf") {
        agent.finish();
        return;
    }
    let container = lab.container(Spec::new("settles"));
    let work = "for i in 1 2 3; do sh -c 'echo a >/tmp/a; cat /tmp/a; rm /tmp/a' || exit 1; done";
    container.sh(work).ok();
    std::thread::sleep(Duration::from_secs(AFTER_SECONDS + 3));
    container.sh(work).ok();
    settle(&agent);
    let told = || of_rule(&agent, "syscall.first_use", &container.id);
    let before = told();
    assert!(before.is_empty(), "{before:?}");
    for _ in 0..3 {
        container.sh("mkfifo /tmp/fifo && rm /tmp/fifo").ok();
    }
    let is_it = |alert: &Alert| alert.text("/evidence/syscall").starts_with("mknod");
    let alert = agent.wait_for_matching("syscall.first_use", &container.id, is_it);
    assert_eq!((alert.severity(), alert.json.get("process")), ("notice", None), "{}", alert.line);
    let number = |name: &str| alert.json["evidence"][name].as_u64().expect("a number");
    assert!((AFTER_SECONDS..600).contains(&number("observed_seconds")), "{}", alert.line);
    assert!((10..200).contains(&number("known_syscalls")), "{}", alert.line);
    container.sh("mkfifo /tmp/fifo && rm /tmp/fifo").ok();
    settle(&agent);
    assert_eq!(told().iter().filter(|alert| is_it(alert)).count(), 1, "{:?}", told());
    agent.finish();
}

/// `observer ARGS` beside the agent; what it said, and whether it succeeded.
pub(crate) fn verb(agent: &Agent, args: &[&str]) -> (bool, String, String) {
    let mut all = args.to_vec();
    all.extend(["--config", agent.config().arg()]);
    let output = observer(&all).output().expect("run observer");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// What a container did makes its profile; under it, it does the same again and is refused nothing; what is not in it, it is
/// refused, and that is told.
#[test]
fn a_container_runs_under_its_own_profile() {
    const WORK: &str = "ls -lR /etc >/dev/null && echo b a | tr ' ' '\\n' | sort >/tmp/sorted && cat /tmp/sorted && \
                        touch /tmp/x && chmod 600 /tmp/x && mv /tmp/x /tmp/y && rm /tmp/y && sleep 0.1 && date >/dev/null";
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let Some(agent) = audit_docker(&lab, docker) else { return };
    let container = docker.start(&[]);
    assert_eq!(container.sh(WORK).ok(), "a\nb");
    container.sh(&format!("{ATTACKS} denials 2")).ok();
    settle(&agent);

    let (ok, text, _) = verb(&agent, &["audit", &container.id]);
    assert!(ok && text.contains("System calls, observed for") && text.contains("keyctl"), "{text}");
    let (ok, text, _) = verb(&agent, &["audit", "--json", &container.id]);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let calls = &json["containers"][0]["observed"]["syscalls"];
    let used = calls["used"].as_array().cloned().unwrap_or_default();
    assert!(ok && used.contains(&json!("execve")) && !used.contains(&json!("keyctl")), "{calls}");
    assert!(calls["granted"].as_u64().is_some_and(|granted| (250..400).contains(&granted)), "{calls}");

    let (ok, text, _) = verb(&agent, &["profile", "seccomp", &container.id, "--diff"]);
    // clone is in docker's, but not with all arguments.
    assert!(ok && text.contains("+ clone\n") && text.contains("\n- mknod\n"), "{text}");
    let (ok, profile, said) = verb(&agent, &["profile", "seccomp", &container.id]);
    assert!(ok && said.contains("refused by its present filter: "), "{said}");
    let file = scratch::subdir("profile").join("profile.json");
    std::fs::write(&file, &profile).expect("write the profile");
    drop(container);

    let option = format!("seccomp={}", file.display());
    let container = docker.start(&["--security-opt", &option]);
    assert_eq!(container.sh(WORK).ok(), "a\nb");
    settle(&agent);
    let metrics = agent.metrics();
    let of_it = [("container", container.id.as_str())];
    assert_eq!(metrics.sum(DENIED, &of_it), 0.0, "{:?}", metrics.family(DENIED));
    assert_eq!(metrics.sum(UNCLASSIFIED, &of_it), 0.0, "{:?}", metrics.family(UNCLASSIFIED));
    assert_ne!(container.sh("mkfifo /tmp/fifo").code, 0);
    let alert = agent.wait_for("seccomp.denied", &container.id);
    assert!(alert.text("/evidence/syscall").starts_with("mknod"), "{}", alert.line);

    // A profile of another run adds to what this one needs.
    let other = file.with_file_name("other.json");
    std::fs::write(&other, r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["kexec_load"],"action":"SCMP_ACT_ALLOW"}]}"#)
        .expect("write a profile");
    let merge = ["profile", "seccomp", &container.id, "--merge", other.to_str().expect("a path")];
    let (ok, merged, _) = verb(&agent, &merge);
    assert!(ok && merged.contains("kexec_load") && !profile.contains("kexec_load"));
    let (ok, _, said) = verb(&agent, &["profile", "caps", &container.id]);
    assert!(!ok && said.contains("audit.capabilities"), "{said}");
    agent.finish();
}
