//! What containers do to their limits, as the rules tell it: met, exhausted, near, changed; its beginning and its end, and whose
//! limit it was. And what is ordinary, and told by nobody.

use crate::lab;
use crate::limits_events::{MIB, set_memory_limit};
use observer_live::agent::{Agent, Config};
use observer_live::alert::Alert;
use observer_live::cgroup::{self, Cgroup, controlled};
use observer_live::lab::{Lab, left_out};
use observer_live::recording::Recording;
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{docker, host, pace, rootfs, scratch, wait};
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// Looks every second, and tells an end two seconds after it.
const QUICK: &str = "poll_seconds: 1, resolve_seconds: 2";

fn agent(lab: &Lab, limits: &str) -> Agent {
    lab.only_agent(config(limits))
}

fn config(limits: &str) -> Config {
    Config::new(&format!("limits: {{{QUICK}, {limits}}}\n"))
}

/// Both lines of a condition: of one incident, with ids of their own.
fn from_beginning_to_end(agent: &Agent, rule: &str, container: &str, condition: &str) -> [Alert; 2] {
    let told = |state: &str| {
        let limit = Duration::from_secs(20);
        agent
            .try_wait_for(limit, |alert| {
                alert.rule() == rule
                    && alert.container() == Some(container)
                    && alert.text("/evidence/condition") == condition
                    && alert.text("/state") == state
            })
            .unwrap_or_else(|| panic!("no {state} {rule} ({condition}) of {container} within {limit:?}"))
    };
    let both = ["firing", "resolved"].map(told);
    let [begun, ended] = &both;
    assert_eq!(begun.text("/incident"), begun.text("/id"), "{}", begun.line);
    assert_eq!(ended.text("/incident"), begun.text("/id"), "{}", ended.line);
    assert_ne!(ended.text("/id"), begun.text("/id"), "{}", ended.line);
    assert!(ended.number("/evidence/lasted_ms").is_some(), "{}", ended.line);
    both
}

fn assert_limit(alert: &Alert, controller: &str, path: &str, of: &str) {
    let (_, hierarchy) = controlled(controller, path);
    assert_eq!(alert.text("/evidence/limit/cgroup_path"), path, "{}", alert.line);
    assert_eq!(alert.number("/evidence/limit/hierarchy"), Some(hierarchy), "{}", alert.line);
    assert_eq!(alert.text("/evidence/limit/of"), of, "{}", alert.line);
}

/// Nothing but the kill is to be told.
const KILLS_ONLY: &str = "memory: {at_limit: false, near_percent: off}";

#[test]
fn a_kill_for_want_of_memory_is_told_at_once() {
    let Some(lab) = lab() else { return };
    let agent = agent(&lab, KILLS_ONLY);
    let container = lab.container(Spec::new("killed").memory(32 * MIB));
    assert_eq!(container.sh("observer-attacks hog 64 0").code, 128 + libc::SIGKILL);
    let alert = agent.wait_for("cgroup.oom_kill", &container.id);
    pace::assert_within("from the kill to its alert", alert.latency(), Duration::from_millis(100));
    assert_eq!(alert.text("/evidence/scope"), "cgroup", "{}", alert.line);
    assert_eq!(alert.number("/evidence/limit/bytes"), Some(32 * MIB), "{}", alert.line);
    assert_limit(&alert, "memory", container.cgroup_path(), "container");
    assert!("observer-attacks".starts_with(alert.text("/evidence/victim/comm")), "{}", alert.line);
    assert_eq!(alert.number("/evidence/victim/pid"), alert.pid().map(u64::from), "{}", alert.line);
    let others = alert.json["evidence"]["others"].as_array().expect("the others");
    assert!(others.iter().any(|other| other["pid"] == container.pid), "{}", alert.line);
    // The counter says the same, and it is not told again.
    std::thread::sleep(Duration::from_secs(4));
    agent.settle();
    agent.assert_only(&[("cgroup.oom_kill", "critical", &container.id)]);
    let labels = [("container", container.id.as_str())];
    let counted = || agent.metrics().sum("observer_container_oom_kills_total", &labels) == 1.0;
    assert!(wait::until_true(pace::patience(Duration::from_secs(5)), counted), "no kill in the metrics");
    agent.finish();
}

#[test]
fn the_parents_limit_that_kills_is_named() {
    let Some(lab) = lab() else { return };
    let agent = agent(&lab, KILLS_ONLY);
    let parent = format!("{}/pod", cgroup::home());
    let container = lab.container(Spec::new("nested-kill").below(&parent).memory(64 * MIB));
    set_memory_limit(&controlled("memory", &parent).0, 32 * MIB);
    assert_eq!(container.sh("observer-attacks hog 96 0").code, 128 + libc::SIGKILL);
    let alert = agent.wait_for("cgroup.oom_kill", &container.id);
    assert_eq!(alert.number("/evidence/limit/bytes"), Some(32 * MIB), "{}", alert.line);
    assert_limit(&alert, "memory", &parent, "above");
    assert!(alert.text("/message").contains(&format!("cgroup {parent} above it")), "{}", alert.line);
    agent.settle();
    drop(container);
    agent.finish();
}

/// The container's processes do this until the test has seen it.
fn in_background(container: &mut Container, attack: &[&str]) -> u32 {
    let mut args = vec!["observer-attacks"];
    args.extend(attack);
    container.exec_detached(&args)
}

#[test]
fn memory_that_has_to_be_taken_back_is_told_from_beginning_to_end() {
    let Some(lab) = lab() else { return };
    let agent = agent(&lab, "memory: {near_percent: off}");
    let mut container = lab.container(Spec::new("reclaimed").memory(32 * MIB));
    let seconds = pace::load(6).to_string();
    in_background(&mut container, &["reclaim", "64", &seconds]);
    let [begun, ended] = from_beginning_to_end(&agent, "cgroup.memory", &container.id, "at_limit");
    for alert in [&begun, &ended] {
        assert_eq!(alert.severity(), "warning", "{}", alert.line);
        assert_eq!(alert.number("/evidence/limit/bytes"), Some(32 * MIB), "{}", alert.line);
        assert_limit(alert, "memory", container.cgroup_path(), "container");
    }
    assert!(begun.number("/evidence/usage_bytes").is_some_and(|usage| usage > 30 * MIB), "{}", begun.line);
    agent.settle();
    agent.assert_only(&[
        ("cgroup.memory", "warning", &container.id),
        ("cgroup.memory", "warning", &container.id),
    ]);
    agent.finish();
}

/// Page cache at the limit, and nobody killed.
#[test]
fn page_cache_at_the_limit_is_told() {
    let Some(lab) = lab() else { return };
    let data = scratch::subdir("pagecache");
    // What is in there is no page cache that could be taken back.
    if host::is_in_memory(&data) {
        left_out("page cache", "there is no file system on a disk here");
        return;
    }
    let agent = agent(&lab, "memory: {near_percent: off}");
    let container = lab.container(Spec::new("cached").memory(32 * MIB).bind(&data, "/data", true));
    for _ in 0..4 {
        container.sh("dd if=/dev/zero of=/data/fill bs=1048576 count=100").ok();
        std::thread::sleep(Duration::from_millis(500));
    }
    container.sh("rm /data/fill").ok();
    let [begun, _] = from_beginning_to_end(&agent, "cgroup.memory", &container.id, "at_limit");
    assert!(begun.number("/evidence/hits").is_some_and(|hits| hits > 0), "{}", begun.line);
    agent.settle();
    let kills = agent.alerts_of(&container.id).into_iter().filter(|alert| alert.rule() == "cgroup.oom_kill");
    assert_eq!(kills.count(), 0);
    agent.finish();
}

/// Near the limit for a while is told; half of it, for as long, is not.
#[test]
fn near_the_limit_is_told_and_half_of_it_is_not() {
    let Some(lab) = lab() else { return };
    let agent = agent(&lab, "memory: {near_percent: 80, near_seconds: 2}");
    let mut near = lab.container(Spec::new("near").memory(64 * MIB));
    let mut half = lab.container(Spec::new("half").memory(64 * MIB));
    let seconds = pace::patience(Duration::from_secs(6)).as_secs().to_string();
    in_background(&mut half, &["hog", "30", &seconds]);
    in_background(&mut near, &["hog", "56", &seconds]);
    let [begun, _] = from_beginning_to_end(&agent, "cgroup.memory", &near.id, "near");
    assert!(begun.number("/evidence/percent").is_some_and(|percent| percent >= 80), "{}", begun.line);
    agent.settle();
    agent.assert_only(&[("cgroup.memory", "warning", &near.id), ("cgroup.memory", "warning", &near.id)]);
    agent.finish();
}

#[test]
fn a_fork_bomb_is_told_from_its_first_refused_fork_to_its_end() {
    let Some(lab) = lab() else { return };
    let agent = agent(&lab, "pids: {growth_per_second: off}");
    let container = lab.container(Spec::new("bombed").pids(50));
    let tries = pace::count(2000);
    let said = container.sh(&format!("observer-attacks bomb clone {tries}")).ok();
    let refused: u64 = said.strip_prefix("ok ").and_then(|n| n.parse().ok()).expect("how many");
    let [begun, ended] = from_beginning_to_end(&agent, "cgroup.pids", &container.id, "at_limit");
    for alert in [&begun, &ended] {
        assert_eq!(alert.number("/evidence/limit/tasks"), Some(50), "{}", alert.line);
        assert_limit(alert, "pids", container.cgroup_path(), "container");
    }
    if begun.json.get("process").is_some() {
        pace::assert_within("from a refused fork to its alert", begun.latency(), Duration::from_millis(100));
    }
    // All of them, whoever told first.
    assert_eq!(ended.number("/evidence/hits"), Some(refused), "{}", ended.line);
    agent.settle();
    agent
        .assert_only(&[("cgroup.pids", "warning", &container.id), ("cgroup.pids", "warning", &container.id)]);
    let labels = [("container", container.id.as_str())];
    let metrics = agent.metrics();
    assert_eq!(metrics.sum("observer_container_pids_limit", &labels), 50.0);
    agent.finish();
}

/// A limit that nothing may be killed for: who wants more waits, which is told while it lasts.
#[test]
fn a_limit_at_which_nobody_may_be_killed_is_critical() {
    let Some(lab) = lab() else { return };
    if controlled("memory", "/").1 == 0 {
        return left_out("memory that cannot be had", "memory.oom_control is of cgroup v1");
    }
    let agent = agent(&lab, "memory: {near_percent: off}");
    let mut container = lab.container(Spec::new("waiting").memory(32 * MIB));
    let control = controlled("memory", container.cgroup_path()).0.join("memory.oom_control");
    fs::write(&control, "1").expect("no killing");
    in_background(&mut container, &["hog", "64", "0"]);
    let id = container.id.clone();
    let is_failing = |alert: &Alert| alert.text("/evidence/condition") == "failing";
    let begun = agent.wait_for_matching("cgroup.memory", &id, is_failing);
    assert_eq!(begun.severity(), "critical", "{}", begun.line);
    assert_limit(&begun, "memory", container.cgroup_path(), "container");
    fs::write(&control, "0").expect("killing again");
    let [_, ended] = from_beginning_to_end(&agent, "cgroup.memory", &id, "failing");
    assert_eq!(ended.number("/evidence/limit/bytes"), Some(32 * MIB), "{}", ended.line);
    agent.wait_for("cgroup.oom_kill", &id);
    agent.finish();
}

/// Many tasks at once, with no limit in the way; thresholds are those of the entry that fits the container.
#[test]
fn growth_is_told_where_an_override_asks_for_it() {
    let Some(lab) = lab() else { return };
    let overrides = "[{containers: {runtime: runc}, pids: {growth_per_second: 50}}, \
                     {containers: {runtime: docker}, pids: {growth_per_second: off}}]";
    let agent = agent(&lab, &format!("pids: {{growth_per_second: off}}, overrides: {overrides}"));
    let mut container = lab.container(Spec::new("growing"));
    let seconds = pace::patience(Duration::from_secs(3)).as_secs().to_string();
    // The growth is that since the look before.
    std::thread::sleep(pace::patience(Duration::from_millis(1500)));
    in_background(&mut container, &["many-threads", "300", &seconds]);
    let [begun, _] = from_beginning_to_end(&agent, "cgroup.pids", &container.id, "growth");
    assert!(begun.number("/evidence/growth_per_second").is_some_and(|growth| growth >= 50), "{}", begun.line);
    agent.settle();
    agent
        .assert_only(&[("cgroup.pids", "warning", &container.id), ("cgroup.pids", "warning", &container.id)]);
    agent.finish();
}

#[test]
fn a_busy_loop_in_a_tenth_of_a_cpu_is_throttled() {
    let Some(lab) = lab() else { return };
    let agent = agent(&lab, "cpu: {throttled_percent: 50, throttled_seconds: 2}");
    let mut container = lab.container(Spec::new("throttled").cpu_quota_us(10_000));
    let mut idle = lab.container(Spec::new("unthrottled"));
    let seconds = pace::patience(Duration::from_secs(6)).as_secs().to_string();
    in_background(&mut container, &["spin", &seconds]);
    in_background(&mut idle, &["spin", "3"]);
    let [begun, _] = from_beginning_to_end(&agent, "cgroup.cpu", &container.id, "throttled");
    assert!(begun.number("/evidence/percent").is_some_and(|percent| percent >= 50), "{}", begun.line);
    assert_eq!(begun.number("/evidence/quota_us"), Some(10_000), "{}", begun.line);
    assert_eq!(begun.number("/evidence/period_us"), Some(100_000), "{}", begun.line);
    agent.settle();
    agent.assert_only(&[("cgroup.cpu", "warning", &container.id), ("cgroup.cpu", "warning", &container.id)]);
    agent.finish();
}

/// File, old value, new value.
fn changes(alert: &Alert) -> Vec<[String; 3]> {
    let changes = alert.json["evidence"]["changes"].as_array().expect("the changes");
    let text = |change: &Value, key: &str| change[key].as_str().expect("text").to_owned();
    changes.iter().map(|change| ["file", "from", "to"].map(|key| text(change, key))).collect()
}

/// Whether this kernel tells who writes to a cgroup's file: since Linux 6.6, when kernfs got a file system id.
fn knows_writers(agent: &Agent) -> bool {
    let known = agent.metrics().sum("observer_limit_writers_known", &[]) == 1.0;
    if !known {
        left_out("who wrote", "before Linux 6.6, fanotify does not listen to kernfs");
    }
    known
}

/// The limit's file of this machine, and the number that the kernel makes of the one written.
fn memory_file() -> &'static str {
    if controlled("memory", "/").1 == 0 { "memory.max" } else { "memory.limit_in_bytes" }
}

#[test]
fn a_limit_that_the_host_rewrites_is_told_with_both_values() {
    let Some(lab) = lab() else { return };
    let agent = agent(&lab, "changes: true");
    let container = lab.container(Spec::new("rewritten").memory(32 * MIB).pids(50));
    let (dir, _) = controlled("memory", container.cgroup_path());
    agent.settle();
    // So that the agent has looked at it.
    std::thread::sleep(pace::patience(Duration::from_millis(1500)));
    // 12,207 pages and a bit.
    fs::write(dir.join(memory_file()), "50000001").expect("another limit");
    let alert = agent.wait_for("cgroup.limit_changed", &container.id);
    assert_eq!(alert.severity(), "notice", "{}", alert.line);
    assert_eq!(changes(&alert), [[memory_file(), "33554432", "49999872"]]);
    assert_eq!(alert.text("/evidence/changes/0/cgroup_path"), container.cgroup_path());
    let us = knows_writers(&agent).then(std::process::id);
    assert_eq!(alert.pid(), us, "who wrote: {}", alert.line);
    // The same again is no change, and a process that is moved in is none either.
    fs::write(dir.join(memory_file()), "50000001").expect("the same limit");
    std::thread::sleep(pace::patience(Duration::from_millis(1500)));
    let (pids, _) = controlled("pids", container.cgroup_path());
    fs::write(pids.join("pids.max"), "max").expect("no limit");
    let alert = agent
        .wait_for_matching("cgroup.limit_changed", &container.id, |alert| alert.line.contains("pids.max"));
    assert_eq!(changes(&alert), [["pids.max", "50", "unlimited"]]);
    agent.settle();
    agent.assert_only(&[
        ("cgroup.limit_changed", "notice", &container.id),
        ("cgroup.limit_changed", "notice", &container.id),
    ]);
    agent.finish();
}

#[test]
fn a_limit_that_the_container_rewrites_is_critical() {
    let Some(lab) = lab() else { return };
    let agent = agent(&lab, "changes: true");
    let controller = if controlled("memory", "/").1 == 0 { "" } else { "memory" };
    // Its parent in that hierarchy: the container's own does not exist yet.
    let parent = Cgroup::make(controller, &format!("{}/open", cgroup::home()));
    let spec = Spec::new("raised").below(&parent.path).memory(32 * MIB).bind(&parent.dir, "/cg", true);
    let container = lab.container(spec);
    agent.settle();
    std::thread::sleep(pace::patience(Duration::from_millis(1500)));
    let leaf = container.cgroup_path().rsplit('/').next().expect("its name").to_owned();
    container.sh(&format!("echo 67108864 > /cg/{leaf}/{}", memory_file())).ok();
    let alert = agent.wait_for("cgroup.limit_changed", &container.id);
    assert_eq!(changes(&alert), [[memory_file(), "33554432", "67108864"]]);
    let (severity, writer) =
        if knows_writers(&agent) { ("critical", container.id.as_str()) } else { ("notice", "") };
    assert_eq!(alert.severity(), severity, "{}", alert.line);
    assert_eq!(alert.text("/evidence/writer_container/id"), writer, "{}", alert.line);
    agent.settle();
    agent.assert_only(&[("cgroup.limit_changed", severity, &container.id)]);
    drop(container);
    agent.finish();
}

/// A condition whose container goes has ended.
#[test]
fn what_holds_when_a_container_goes_is_resolved() {
    let Some(lab) = lab() else { return };
    let agent = agent(&lab, "memory: {near_percent: 50, near_seconds: 0}");
    let mut container = lab.container(Spec::new("leaving").memory(64 * MIB));
    in_background(&mut container, &["hog", "50", "60"]);
    let id = container.id.clone();
    agent.wait_for_matching("cgroup.memory", &id, |alert| alert.text("/state") == "firing");
    drop(container);
    let [_, ended] = from_beginning_to_end(&agent, "cgroup.memory", &id, "near");
    assert!(ended.text("/message").ends_with("it has ended"), "{}", ended.line);
    let labels = [("container", id.as_str())];
    let gone = || agent.metrics().sum("observer_container_memory_usage_bytes", &labels) == 0.0;
    assert!(wait::until_true(pace::patience(Duration::from_secs(5)), gone), "its series are still there");
    agent.finish();
}

/// What `docker stats` counts, /metrics counts as well.
#[test]
fn the_metrics_are_those_of_docker_stats() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let agent = lab.only_agent(Config::new(&format!(
        "host:\n  docker: \"{}\"\nlimits: {{{QUICK}}}\n",
        docker.data().display()
    )));
    let container = docker.start(&["--memory=64m", "--pids-limit=77"]);
    container.sh("head -c 8000000 /dev/zero > /dev/shm/x").ok();
    let labels = [("container", container.id.as_str())];
    let value = |family: &str| agent.metrics().sum(family, &labels);
    let shown = || value("observer_container_memory_limit_bytes") == (64 * MIB) as f64;
    assert!(wait::until_true(Duration::from_secs(5), shown), "no series");
    std::thread::sleep(Duration::from_secs(3));
    let mut stats =
        docker.command(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", &container.id]);
    let said = rootfs::run(&mut stats);
    let theirs = said.split("MiB").next().and_then(|used| used.parse::<f64>().ok()).expect("a number");
    let ours = value("observer_container_memory_working_set_bytes") / MIB as f64;
    assert!((ours - theirs).abs() / theirs < 0.02, "{ours} MiB is not {theirs} MiB ({said})");
    let pids = said.trim().rsplit(' ').next().and_then(|pids| pids.parse::<f64>().ok()).expect("a number");
    assert_eq!(value("observer_container_pids"), pids, "{said}");
    assert_eq!(value("observer_container_pids_limit"), 77.0);
    assert!(value("observer_container_cpu_usage_seconds_total") > 0.0);
    agent.assert_nothing();
    agent.finish();
}

/// Rounds of the watcher are in a recording as everything else is.
#[test]
fn a_replay_tells_the_same_of_limits() {
    let Some(lab) = lab() else { return };
    let file = scratch::subdir("recording").join("limits.rec");
    let container = lab.container(Spec::new("recorded-bomb").pids(50));
    let recording = Recording::start(&file, &config("pids: {growth_per_second: off}"));
    container.sh("observer-attacks bomb clone 10").ok();
    let (dir, _) = controlled("pids", container.cgroup_path());
    std::thread::sleep(pace::patience(Duration::from_millis(1500)));
    fs::write(dir.join("pids.max"), "60").expect("another limit");
    std::thread::sleep(pace::patience(Duration::from_secs(3)));
    let alerts = recording.end().replay();
    let of_it: Vec<&Value> =
        alerts.iter().filter(|alert| alert["container"]["id"] == container.id.as_str()).collect();
    let mut told: Vec<String> =
        of_it.iter().map(|alert| format!("{} {}", alert["rule"], alert["state"]).replace('"', "")).collect();
    // On a slow machine the end may come before the change.
    told.sort();
    assert_eq!(
        told,
        ["cgroup.limit_changed null", "cgroup.pids firing", "cgroup.pids resolved"],
        "{of_it:#?}"
    );
}
