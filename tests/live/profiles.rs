//! Seccomp profiles made of what services were seen to do, and the services under them.

use crate::lab;
use crate::seccomp::{DENIED, UNCLASSIFIED, audit_docker, settle, verb};
use observer_live::agent::Agent;
use observer_live::alert::Alert;
use observer_live::docker::{self, Container, Docker};
use observer_live::services::{self, NGINX, REDIS, Service};
use observer_live::{pace, scratch, wait};
use std::path::Path;
use std::time::Duration;

/// The server, once it answers.
fn start<'a>(docker: &'a Docker, service: &Service, profile: Option<&Path>) -> Container<'a> {
    let option = profile.map(|file| format!("--security-opt=seccomp={}", file.display()));
    let mut options = vec!["--network", "none"];
    options.extend(option.as_deref());
    let args = [&[services::IMAGE], service.server].concat();
    let container = docker.start_plain(&options, &args);
    let up = wait::until_true(pace::patience(Duration::from_secs(20)), || {
        service.client(docker, &container.id, service.asks).status.success()
    });
    let log = docker.command(&["logs", &container.id]).output().expect("run docker");
    assert!(up, "{} does not answer: {log:?}", service.name);
    container
}

fn keep_busy(docker: &Docker, service: &Service, container: &Container, which: &[&[&str]]) {
    for words in which {
        let output = service.client(docker, &container.id, words);
        assert!(output.status.success(), "{words:?}: {output:?}");
    }
}

/// What `observer profile` makes of what the container has done by now.
fn profile(agent: &Agent, container: &Container, merge: Option<&Path>, to: &Path) {
    settle(agent);
    let mut args = vec!["profile", "seccomp", container.id.as_str()];
    let merged = merge.map(|file| file.to_str().expect("a path"));
    args.extend(merged.iter().flat_map(|file| ["--merge", file]));
    let (ok, text, said) = verb(agent, &args);
    assert!(ok, "{said}");
    std::fs::write(to, text).expect("write the profile");
}

/// Two runs, each of a part of the work, make one profile, under which all of the work passes and nothing else.
fn runs_under_its_own_profile(service: &Service) {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    if !services::import(docker, &lab.attacks) {
        return;
    }
    let Some(agent) = audit_docker(&lab, docker) else { return };
    let dir = scratch::subdir(service.name);
    let (first, both) = (dir.join("first.json"), dir.join("both.json"));
    let (some, rest) = service.benchmarks.split_at(1);
    for (work, merge, to) in [(some, None, &first), (rest, Some(first.as_path()), &both)] {
        let container = start(docker, service, None);
        keep_busy(docker, service, &container, work);
        profile(&agent, &container, merge, to);
    }
    let allows = |file: &Path| -> Vec<String> {
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(file).expect("a profile")).expect("JSON");
        serde_json::from_value(json["syscalls"][0]["names"].clone()).expect("names")
    };
    let (once, all) = (allows(&first), allows(&both));
    assert!(once.iter().all(|call| all.contains(call)), "{once:?} and not {all:?}");
    println!("{}: {} calls in the first run, {} in both", service.name, once.len(), all.len());

    let container = start(docker, service, Some(&both));
    keep_busy(docker, service, &container, service.benchmarks);
    settle(&agent);
    let of_it = [("container", container.id.as_str())];
    let metrics = agent.metrics();
    assert_eq!(metrics.sum(DENIED, &of_it), 0.0, "{:?}", metrics.family(DENIED));
    assert_eq!(metrics.sum(UNCLASSIFIED, &of_it), 0.0, "{:?}", metrics.family(UNCLASSIFIED));
    assert!(agent.alerts_of(&container.id).iter().all(|alert| !alert.rule().starts_with("seccomp.")));

    // What no server does.
    assert!(!all.contains(&"unshare".to_owned()), "{all:?}");
    let output = container.exec(&["unshare", "-m", "true"]);
    assert!(!output.status.success(), "{output:?}");
    let is_it = |alert: &Alert| alert.text("/evidence/syscall") == "unshare";
    let alert = agent.wait_for_matching("seccomp.denied", &container.id, is_it);
    assert_eq!((alert.severity(), alert.text("/evidence/errno")), ("warning", "EPERM"), "{}", alert.line);
    agent.finish();
}

#[test]
fn redis_runs_under_its_own_profile() {
    runs_under_its_own_profile(&REDIS);
}

#[test]
fn nginx_runs_under_its_own_profile() {
    runs_under_its_own_profile(&NGINX);
}
