//! Starting, ending, being killed; configuration, `check`, metrics and health.

use crate::{FOUR, assert_escape, lab};
use observer_live::agent::{self, Agent};
use observer_live::spec::Spec;
use observer_live::{host, http, pace, scratch, wait};
use std::process::Output;
use std::time::Duration;

/// Killed while a container runs and after one of its processes has escaped; started again with the same
/// configuration, so over its own old socket: the sleeping escapee is found (late), a new escape is exact.
#[test]
fn a_killed_agent_starts_again() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let first = lab.fresh_agent();
    let container = lab.container(Spec::privileged("restart"));
    container.sh(&format!("nsenter -t {} -n sleep 300 &", target.pid())).ok();
    first.wait_for("namespace.escape", &container.id);
    let again = Agent::with(first.kill());
    let late = again.wait_for("namespace.escape", &container.id);
    assert_escape(&late, container.pid, target.pid(), &["net"]);
    assert_eq!(late.text("/attribution"), "late", "{}", late.line);
    container.sh(&format!("nsenter -t {} -m -n -u -i sh -c true", target.pid())).ok();
    let exact = again.wait_for_matching("namespace.escape", &container.id, |alert| alert.changed() == FOUR);
    assert_eq!(exact.text("/attribution"), "exact", "{}", exact.line);
    let fresh = lab.container(Spec::privileged("restart-new"));
    fresh.sh(&format!("nsenter -t {} -n sh -c true", target.pid())).ok();
    again.wait_for("namespace.escape", &fresh.id);
    again.finish();
}

/// SIGTERM right after an escape: the alert is drained, not dropped, and the exit code is 0. Several times.
#[test]
fn sigterm_drains() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    for turn in 0..pace::count(5) {
        let agent = lab.fresh_agent();
        let container = lab.container(Spec::privileged("drain"));
        container.sh(&format!("nsenter -t {} -n sh -c true", target.pid())).ok();
        let alerts = agent.stop();
        let escapes =
            alerts.iter().filter(|a| a.rule() == "namespace.escape" && a.container() == Some(&container.id));
        assert_eq!(
            escapes.count(),
            1,
            "turn {turn}: {:#?}",
            alerts.iter().map(|a| a.summary()).collect::<Vec<_>>()
        );
    }
}

/// The socket goes with the agent.
#[test]
fn sigterm_cleans_up() {
    let Some(lab) = lab() else { return };
    let agent = lab.fresh_agent();
    let socket = agent.config().socket.clone();
    assert!(socket.exists(), "no socket at {}", socket.display());
    agent.finish();
    assert!(!socket.exists(), "{} was left behind", socket.display());
}

fn run(args: &[&str]) -> Output {
    agent::observer(args).output().expect("run the agent")
}

/// Exits with 0 here, and names every required hook.
#[test]
fn check_names_the_hooks() {
    let Some(_lab) = lab() else { return };
    let output = run(&["check"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for feature in ["processes", "cgroups", "namespace_calls", "root_calls", "sweep"] {
        assert!(said.contains(feature), "check does not name {feature}:\n{said}");
    }
    let output = run(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let features = report["features"].as_array().expect("features");
    let hooks = features.iter().flat_map(|feature| feature["hooks"].as_array().into_iter().flatten());
    let hooks: Vec<&str> = hooks.filter_map(|hook| hook["hook"].as_str()).collect();
    let wanted =
        ["sched_process_fork", "sched_process_exec", "sched_process_exit", "cgroup_mkdir", "cgroup_rmdir"];
    for name in wanted.into_iter().chain(["cgroup_attach_task", "setns", "unshare", "chroot", "pivot_root"]) {
        assert!(hooks.iter().any(|hook| hook.ends_with(name)), "no hook {name} in {hooks:?}");
    }
}

/// Exit code 2 and one line that names the file and the line in it.
#[test]
fn a_bad_configuration_exits_2() {
    let Some(_lab) = lab() else { return };
    let file = scratch::subdir("bad").join("bad.yaml");
    for (text, line) in [
        ("http:\n  listen: \"127.0.0.1:0\"\n  no_such_key: 1\n", 3),
        ("no_such_section:\n  x: 1\n", 1),
        ("http:\n  listen: \"127.0.0.1:0\"\nrings:\n  events_bytes: many\n", 4),
        ("http: [\n", 2),
    ] {
        std::fs::write(&file, text).expect("write a bad configuration");
        let path = file.display().to_string();
        let output = run(&["run", "--config", &path]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{text:?}: not one line: {said}");
        // Where an unclosed bracket ends is a matter of taste: at the opening or at the end of the file.
        let places = if text == "http: [\n" { vec![1, line] } else { vec![line] };
        let named = places.iter().any(|line| said.contains(&format!("{path}:{line}")));
        assert!(named, "{text:?}: {path}:{line} is not named: {said}");
        assert!(output.stdout.is_empty(), "{text:?}");
    }
    let output = run(&["run", "--config", "/no/such/file.yaml"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(run(&["no-such-verb"]).status.code(), Some(2));
}

/// /healthz and /readyz are 200 while it runs, something else is 404; the metrics count what happens.
#[test]
fn health_and_metrics() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    let address = agent.config().address;
    assert_eq!(http::get(address, "/healthz").expect("healthz").0, 200);
    assert_eq!(http::get(address, "/readyz").expect("readyz").0, 200);
    assert_eq!(http::get(address, "/nothing").expect("nothing").0, 404);
    let critical = [("rule", "namespace.escape"), ("severity", "critical")];
    let before = agent.metrics();
    let container = lab.container(Spec::privileged("metrics"));
    assert!(
        wait::until_true(Duration::from_secs(5), || {
            agent.metrics().sum("observer_containers", &[]) > before.sum("observer_containers", &[])
        }),
        "the new container is not counted"
    );
    container.sh(&format!("nsenter -t {} -n sh -c true", target.pid())).ok();
    agent.wait_for("namespace.escape", &container.id);
    let after = agent.metrics();
    let alerts = |metrics: &observer_live::metrics::Metrics| metrics.sum("observer_alerts_total", &critical);
    assert_eq!(alerts(&after), alerts(&before) + 1.0);
    for kind in ["fork", "exec", "exit"] {
        assert!(agent.events(kind) > 0.0, "no {kind} events");
    }
    assert_eq!(after.sum("observer_build_info", &[]), 1.0);
    drop(container);
    assert!(
        wait::until_true(Duration::from_secs(10), || {
            agent.metrics().sum("observer_containers", &[]) <= before.sum("observer_containers", &[])
        }),
        "the container that is gone is still counted"
    );
    agent.finish();
}
