//! Pods of a real containerd: whoever is named, by the state on disk or by the CRI socket alone, is named in full.

use crate::{assert_escape, lab};
use observer_live::agent::{Agent, Config};
use observer_live::alert::Alert;
use observer_live::pods::{self, IMAGE, NAMESPACE, Pod, Runtime};
use observer_live::{host, rootfs, scratch, wait};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn assert_pod(alert: &Alert, pod: &Pod<'_>, name: &str, container: &str) {
    let line = &alert.line;
    assert_eq!(alert.text("/container/runtime"), "containerd", "{line}");
    assert_eq!(alert.text("/container/name"), name, "{line}");
    assert_eq!(alert.text("/container/pod/namespace"), NAMESPACE, "{line}");
    assert_eq!(alert.text("/container/pod/name"), pod.name, "{line}");
    assert_eq!(alert.text("/container/pod/uid"), pod.uid, "{line}");
    assert_eq!(alert.text("/container/pod/container"), container, "{line}");
    assert!(alert.json.pointer("/container/metadata").is_none(), "nothing is missing: {line}");
}

/// Both containers of a pod escape, and the host enters the sandbox: each alert names its own.
fn all_are_named(agent: &Agent, runtime: &Runtime) {
    let target = host::target();
    let mut pod = runtime.pod("front");
    let containers = ["web", "side"].map(|name| (name, pod.start(name)));
    for (name, container) in &containers {
        container.sh(&format!("nsenter -t {} -i sh -c true", target.pid())).ok();
        let alert = agent.wait_for("namespace.escape", &container.id);
        assert_escape(&alert, container.pid, target.pid(), &["ipc"]);
        assert_pod(&alert, &pod, name, name);
        assert_eq!(alert.text("/container/image"), IMAGE, "{}", alert.line);
    }
    // The pod's namespaces are the sandbox's, which is none of its containers.
    rootfs::run(Command::new("nsenter").args(["-t", &pod.pid.to_string(), "-m", "sh", "-c", "true"]));
    let alert = agent.wait_for("namespace.entered", &pod.id);
    assert_pod(&alert, &pod, "POD", "");
    let counted = || agent.metrics().sum("observer_containers", &[("runtime", "containerd")]) >= 3.0;
    assert!(wait::until_true(Duration::from_secs(2), counted), "a pod of three is not counted");
    agent.settle();
    let [web, side] = &containers;
    agent.assert_only(&[
        ("namespace.escape", "critical", &web.1.id),
        ("namespace.escape", "critical", &side.1.id),
        ("namespace.entered", "warning", &pod.id),
    ]);
}

fn config(run: &Path, sockets: &str) -> Config {
    Config::new(&format!("host:\n  run: \"{}\"\n  cri_sockets: {sockets}\n", run.display()))
}

/// The state on disk says it all.
#[test]
fn by_the_disk() {
    let Some(lab) = lab() else { return };
    let Some(runtime) = pods::get(&lab.attacks) else { return };
    let agent = lab.only_agent(config(&runtime.run, "[]"));
    all_are_named(&agent, runtime);
    agent.finish();
}

/// containerd's state is where the agent does not look; its socket is one that it is told of.
#[test]
fn by_the_socket() {
    let Some(lab) = lab() else { return };
    let Some(runtime) = pods::get(&lab.attacks) else { return };
    let sockets = format!("[\"unix://{}\"]", runtime.socket().display());
    let agent = lab.only_agent(config(&scratch::subdir("emptyrun"), &sockets));
    all_are_named(&agent, runtime);
    agent.finish();
}

/// The same with a socket in its usual place, and containers that were there before the agent: it knows them when it
/// is ready.
#[test]
fn by_the_socket_before_the_start() {
    let Some(lab) = lab() else { return };
    let Some(runtime) = pods::get(&lab.attacks) else { return };
    let target = host::target();
    let mut pod = runtime.pod("early");
    let container = pod.start("web");
    let run = scratch::subdir("run");
    std::fs::create_dir(run.join("containerd")).expect("make a directory");
    std::os::unix::fs::symlink(runtime.socket(), run.join("containerd/containerd.sock"))
        .expect("link the socket");
    let agent = lab.only_agent(config(&run, ""));
    container.sh(&format!("nsenter -t {} -i sh -c true", target.pid())).ok();
    let alert = agent.wait_for("namespace.escape", &container.id);
    assert_escape(&alert, container.pid, target.pid(), &["ipc"]);
    assert_pod(&alert, &pod, "web", "web");
    assert_eq!(alert.text("/container/image"), IMAGE, "{}", alert.line);
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    agent.finish();
}

/// Nobody tells: the alert goes out all the same, in time, and says that its names are missing. A runtime that takes
/// connections and never answers changes nothing about that.
#[test]
fn by_nobody() {
    let Some(lab) = lab() else { return };
    let Some(runtime) = pods::get(&lab.attacks) else { return };
    let hanging = scratch::subdir("hang").join("sock");
    let _listener = std::os::unix::net::UnixListener::bind(&hanging).expect("a socket that nobody serves");
    for sockets in ["[]".to_owned(), format!("[\"{}\"]", hanging.display())] {
        let target = host::target();
        let agent = lab.only_agent(config(&scratch::subdir("emptyrun"), &sockets));
        let mut pod = runtime.pod("nameless");
        let container = pod.start("web");
        container.sh(&format!("nsenter -t {} -i sh -c true", target.pid())).ok();
        let alert = agent.wait_for("namespace.escape", &container.id);
        assert_escape(&alert, container.pid, target.pid(), &["ipc"]);
        assert_eq!(alert.text("/container/metadata"), "missing", "{}", alert.line);
        assert!(alert.json.pointer("/container/pod").is_none(), "{}", alert.line);
        observer_live::pace::assert_within("the alert", alert.latency(), Duration::from_secs(1));
        agent.settle();
        agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
        agent.finish();
    }
}
