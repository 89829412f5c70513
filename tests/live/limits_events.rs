//! Where the kernel enforces a limit, it is seen: who was killed for want of memory and whose limit that was, which forks a limit
//! on tasks refused, and which one.

use crate::{features, lab};
use observer_live::agent::{Agent, Config};
use observer_live::cgroup;
use observer_live::events::Events;
use observer_live::host::Guard;
use observer_live::lab::{Lab, skipped};
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{pace, wait};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub const MIB: u64 = 1 << 20;

/// An agent that has this feature; none, and said, where the kernel does not let it.
fn watching(lab: &Lab, feature: &str) -> Option<Agent> {
    able(lab.agent(), feature)
}

fn able(agent: Agent, feature: &str) -> Option<Agent> {
    if agent.metrics().sum("observer_feature_enabled", &[("feature", feature)]) == 1.0 {
        return Some(agent);
    }
    skipped(&format!("{feature} is off: this kernel does not show what it rests on"));
    agent.finish();
    None
}

/// Whether the kernel hands the victim itself over.
fn knows_victims(agent: &Agent) -> bool {
    features::serves(agent, "oom_kills", "tp_btf")
}

pub fn set_memory_limit(dir: &Path, bytes: u64) {
    let file = if dir.join("memory.max").exists() { "memory.max" } else { "memory.limit_in_bytes" };
    fs::write(dir.join(file), bytes.to_string()).unwrap_or_else(|e| panic!("{file}: {e}"));
}

fn kills_in(events: &Events, container: &Container) -> Vec<Value> {
    let ours = |event: &Value| {
        event["kind"] == "oom_kill"
            && (event["victim"]["container"]["id"] == container.id.as_str()
                || event["container"]["id"] == container.id.as_str())
    };
    events.all().into_iter().filter(ours).collect()
}

/// The one kill in the container, once the victim's end has been seen as well.
fn one_kill(agent: &Agent, events: &Events, container: &Container) -> Value {
    wait::until_true(pace::patience(Duration::from_secs(5)), || !kills_in(events, container).is_empty());
    agent.settle();
    let kills = kills_in(events, container);
    let [kill] = kills.as_slice() else { panic!("not one kill: {kills:#?}") };
    let victim = &kill["victim"];
    assert_eq!(victim["container"]["id"], container.id.as_str(), "{kill}");
    assert!(victim["comm"].as_str().is_some_and(|comm| "observer-attacks".starts_with(comm)), "{kill}");
    events.wait_for("the victim's end", |event| {
        event["kind"] == "exit" && event["exit"] == "signal 9" && event["process"]["pid"] == victim["pid"]
    });
    kill.clone()
}

/// That this cgroup's limit is told, by path, id, hierarchy and size.
fn assert_limit(kill: &Value, path: &str, bytes: u64) {
    let (dir, hierarchy) = cgroup::controlled("memory", path);
    assert_eq!(kill["out_of_memory"], "cgroup", "{kill}");
    assert_eq!(kill["path"], path, "{kill}");
    assert_eq!(kill["hierarchy"], hierarchy, "{kill}");
    assert_eq!(kill["cgroup_id"], fs::metadata(dir).expect("the cgroup").ino(), "{kill}");
    assert_eq!(kill["limit_bytes"], bytes, "{kill}");
    let usage = kill["usage_bytes"].as_u64().expect("the usage");
    // The kernel side's `SLACK_SHARE`.
    assert!((bytes - bytes / 16..=bytes + bytes / 16).contains(&usage), "{kill}");
}

/// A process that asks for more than its container may have is its own victim.
#[test]
fn an_oom_kill_names_victim_and_limit() {
    let Some(lab) = lab() else { return };
    let Some(agent) = watching(&lab, "oom_kills") else { return };
    let events = Events::follow(&agent);
    let container = lab.container(Spec::new("oom").memory(32 * MIB));
    assert_eq!(container.sh("observer-attacks hog 64 0").code, 128 + libc::SIGKILL);
    let kill = one_kill(&agent, &events, &container);
    assert_limit(&kill, container.cgroup_path(), 32 * MIB);
    // It had asked for the memory itself: all is known of it, whatever the kernel hands over.
    assert_eq!(kill["process"]["pid"], kill["victim"]["pid"], "{kill}");
    assert_eq!(kill["victim"]["start_time"], kill["process"]["start_time"], "{kill}");
    assert_eq!(kill["victim"]["uid"], 0, "{kill}");
    assert_eq!(kill["victim"]["oom_score_adj"], 1000, "{kill}");
    let anon = kill["victim"]["anon_bytes"].as_u64().expect("its memory");
    assert!((16 * MIB..=33 * MIB).contains(&anon), "{kill}");
    agent.finish();
}

/// The limit above the container's own is the smaller one.
#[test]
fn the_limit_above_the_container_is_named() {
    let Some(lab) = lab() else { return };
    let Some(agent) = watching(&lab, "oom_kills") else { return };
    let events = Events::follow(&agent);
    let parent = format!("{}/fleet", cgroup::home());
    let container = lab.container(Spec::new("nested-oom").below(&parent).memory(64 * MIB));
    let (dir, _) = cgroup::controlled("memory", &parent);
    set_memory_limit(&dir, 32 * MIB);
    assert_eq!(container.sh("observer-attacks hog 96 0").code, 128 + libc::SIGKILL);
    let kill = one_kill(&agent, &events, &container);
    assert_limit(&kill, &parent, 32 * MIB);
    drop(container);
    agent.finish();
}

/// The largest is chosen, not the one that asks.
#[test]
fn another_than_the_one_that_asks_is_named() {
    let Some(lab) = lab() else { return };
    let Some(agent) = watching(&lab, "oom_kills") else { return };
    let events = Events::follow(&agent);
    let mut container = lab.container(Spec::new("chosen").memory(40 * MIB));
    let large = container.exec_detached(&["observer-attacks", "hog", "24", "60"]);
    let grown = wait::until_true(pace::patience(Duration::from_secs(10)), || {
        let statm = fs::read_to_string(format!("/proc/{large}/statm")).unwrap_or_default();
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        pages.is_some_and(|pages| pages * 4096 > 24 * MIB)
    });
    assert!(grown, "the larger hog does not grow");
    // On a slow machine it is chosen as well, before the larger one's memory is free: the first kill is what counts.
    container.sh("observer-attacks hog 20 0");
    let kill = events.wait_for("a kill in the container", |event| {
        event["kind"] == "oom_kill" && event["container"]["id"] == container.id.as_str()
    });
    assert_limit(&kill, container.cgroup_path(), 40 * MIB);
    assert_eq!(kill["victim"]["pid"], large, "{kill}");
    assert_ne!(kill["process"]["pid"], large, "{kill}");
    let known = knows_victims(&agent);
    assert_eq!(kill["victim"]["anon_bytes"].is_u64(), known, "{kill}");
    assert_eq!(kill["victim"]["start_time"].is_string(), known, "{kill}");
    agent.finish();
}

fn refusals_in(events: &Events, container: &Container) -> Vec<Value> {
    let ours =
        |event: &Value| event["kind"] == "fork_refused" && event["container"]["id"] == container.id.as_str();
    events.all().into_iter().filter(ours).collect()
}

/// Ways to fork that are seen here.
fn calls(agent: &Agent) -> &'static [&'static str] {
    if features::serves(agent, "fork_refusals", "fentry") {
        &["clone", "clone3", "fork", "vfork", "clone32"]
    } else {
        &["clone", "clone3", "fork", "vfork"]
    }
}

fn told(refused: &[Value]) -> u64 {
    refused.iter().filter_map(|event| event["refusals"].as_u64()).sum()
}

/// Each way to fork is seen; the limit is the right one; what is not told at once is in a later count.
#[test]
fn refused_forks_are_told_and_counted() {
    let Some(lab) = lab() else { return };
    let Some(agent) = watching(&lab, "fork_refusals") else { return };
    each_way_to_fork(&lab, agent);
}

/// The same where one program on the end of every call runs those of the calls.
#[test]
fn refused_forks_are_told_and_counted_while_calls_are_audited() {
    let Some(lab) = lab() else { return };
    let agent = lab.only_agent(Config::new("audit:\n  syscalls: true\n"));
    let Some(agent) = able(agent, "fork_refusals") else { return };
    each_way_to_fork(&lab, agent);
}

fn each_way_to_fork(lab: &Lab, agent: Agent) {
    let events = Events::follow(&agent);
    for call in calls(&agent) {
        let container = lab.container(Spec::new(&format!("bomb-{call}")).pids(50));
        let tries = pace::count(2000);
        let said = container.sh(&format!("observer-attacks bomb {call} {tries}")).ok();
        let refused: u64 = said.strip_prefix("ok ").and_then(|n| n.parse().ok()).expect("how many");
        assert_eq!(refused, u64::from(tries) + 2);
        wait::until_true(pace::patience(Duration::from_secs(5)), || {
            told(&refusals_in(&events, &container)) >= refused
        });
        agent.settle();
        let refusals = refusals_in(&events, &container);
        let (dir, hierarchy) = cgroup::controlled("pids", container.cgroup_path());
        let id = fs::metadata(dir).expect("the cgroup").ino();
        for event in &refusals {
            assert_eq!(event["result"], "EAGAIN", "{event}");
            assert_eq!((&event["limit_tasks"], &event["tasks"]), (&50.into(), &50.into()), "{event}");
            assert_eq!(event["path"], container.cgroup_path(), "{event}");
            assert_eq!(event["cgroup_id"], id, "{event}");
            assert_eq!(event["hierarchy"], hierarchy, "{event}");
        }
        assert_eq!(told(&refusals), refused, "{call}: {refusals:#?}");
        // At most one in 100 ms, of a bomb that lasts not much longer than its pause.
        assert!((2..=40).contains(&refusals.len()), "{call}: {} events", refusals.len());
    }
    agent.finish();
}

/// The limit of the cgroup above: of two full ones it would be the lower, and only one is full.
#[test]
fn a_limit_of_tasks_above_the_container_is_named() {
    let Some(lab) = lab() else { return };
    let Some(agent) = watching(&lab, "fork_refusals") else { return };
    let events = Events::follow(&agent);
    let parent = format!("{}/crew", cgroup::home());
    let container = lab.container(Spec::new("nested-bomb").below(&parent).pids(100));
    let (dir, hierarchy) = cgroup::controlled("pids", &parent);
    fs::write(dir.join("pids.max"), "40").expect("pids.max");
    container.sh("observer-attacks bomb clone 1").ok();
    let event = events
        .wait_for("a refusal", |event| event["kind"] == "fork_refused" && event["path"] == parent.as_str());
    assert_eq!(event["container"]["id"], container.id.as_str(), "{event}");
    assert_eq!((&event["limit_tasks"], &event["tasks"]), (&40.into(), &40.into()), "{event}");
    assert_eq!(event["hierarchy"], hierarchy, "{event}");
    drop(container);
    agent.finish();
}

/// RLIMIT_NPROC refuses as well, and no cgroup is to blame. On the host that is nobody's business.
#[test]
fn a_limit_of_the_users_is_no_cgroups() {
    let Some(lab) = lab() else { return };
    let Some(agent) = watching(&lab, "fork_refusals") else { return };
    let events = Events::follow(&agent);
    let container = lab.container(Spec::new("nproc").pids(100));
    container.sh("observer-attacks nproc 54321").ok();
    let event = events.wait_for("a refusal", |event| {
        event["kind"] == "fork_refused" && event["container"]["id"] == container.id.as_str()
    });
    assert_eq!((event["result"].as_str(), event["refusals"].as_u64()), (Some("EAGAIN"), Some(1)), "{event}");
    assert_eq!(event["process"]["uid"], 54321, "{event}");
    for absent in ["cgroup_id", "path", "tasks", "limit_tasks", "hierarchy"] {
        assert!(event[absent].is_null(), "{absent}: {event}");
    }
    let mut host = Guard::spawn(Command::new(&lab.attacks).args(["nproc", "54322"])).expect("an attack");
    let pid = host.pid();
    assert!(host.child().wait().expect("its end").success());
    agent.settle();
    let of_the_host =
        events.all().into_iter().find(|it| it["kind"] == "fork_refused" && it["process"]["pid"] == pid);
    assert!(of_the_host.is_none(), "{of_the_host:?}");
    agent.finish();
}
