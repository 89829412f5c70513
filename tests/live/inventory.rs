//! What the listing verbs say is true: held against what the runtimes' own tools and the kernel say of the same containers,
//! by a scan and through the agent.

use crate::lab;
use observer_live::agent::{self, Config};
use observer_live::cgroup::{self, Cgroup};
use observer_live::lab::{Lab, installed};
use observer_live::spec::Spec;
use observer_live::{docker, host, pace, rootfs, wait};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

/// Asks standalone, or through the agent that runs with this configuration.
#[derive(Clone, Copy)]
struct Asking<'a> {
    config: &'a Config,
    alone: bool,
}

impl Asking<'_> {
    fn text(self, args: &[&str]) -> String {
        let mut command = agent::observer(&[&["--config", self.config.arg()], args].concat());
        if self.alone && args[0] != "caps" {
            command.arg("--no-agent");
        }
        rootfs::run(&mut command)
    }

    fn json(self, args: &[&str]) -> Value {
        let text = self.text(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    fn container(self, id: &str) -> Value {
        let look = self.json(&["ps"]);
        assert_eq!(look["source"], if self.alone { "scan" } else { "agent" }, "{look}");
        let containers = look["containers"].as_array().expect("containers");
        containers
            .iter()
            .find(|c| c["id"] == id)
            .unwrap_or_else(|| panic!("{id} is not listed: {look}"))
            .clone()
    }

    /// The pids of a container, by `tree`.
    fn pids(self, id: &str) -> BTreeSet<u32> {
        let tree = self.json(&["tree", id]);
        let processes = tree[0]["tree"].as_array().unwrap_or_else(|| panic!("{tree}"));
        processes.iter().map(|process| process["pid"].as_u64().expect("a pid") as u32).collect()
    }
}

/// Both ways, with a configuration that knows where the tests' docker has its data.
fn both_ways(lab: &Lab, docker: &docker::Docker, ask: impl Fn(Asking<'_>)) {
    let config = Config::new(&format!("host:\n  docker: \"{}\"\n", docker.data().display()));
    ask(Asking { config: &config, alone: true });
    let agent = lab.only_agent(config.clone());
    ask(Asking { config: &config, alone: false });
    agent.finish();
}

fn rules(audit: &Value, id: &str) -> BTreeSet<String> {
    let containers = audit["containers"].as_array().expect("containers");
    let container = containers.iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("{audit}"));
    let findings = container["findings"].as_array().expect("findings");
    findings.iter().map(|finding| finding["rule"].as_str().expect("a rule").to_owned()).collect()
}

/// The README's walk-through: a database and a second container in its network namespace, with a memory limit set while
/// it runs, which the kernel rounds down to whole pages.
#[test]
fn docker_says_the_same() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let docker_says =
        |id: &str, format: &str| rootfs::run(&mut docker.command(&["inspect", "-f", format, id]));
    let db = docker.start(&["--name", "observer-test-db"]);
    db.sh("sleep 1000 & sleep 2000 &").ok();
    let shared = format!("--network=container:{}", db.id);
    let web =
        docker.start(&["--name", "observer-test-web", &shared, "--memory=32m", "-e", "TOKEN=a-secret-value"]);
    rootfs::run(&mut docker.command(&["update", "--memory=8000000", "--memory-swap=8000000", &web.id]));
    let all = docker.start(&[
        "--pid=host",
        "--network=host",
        "--cap-add=SYS_ADMIN",
        "--security-opt=seccomp=unconfined",
    ]);

    both_ways(&lab, docker, |ask| {
        // ps
        let found = ask.container(&db.id);
        assert_eq!(found["name"], "observer-test-db", "{found}");
        assert_eq!(found["image"], docker::IMAGE, "{found}");
        assert_eq!(found["runtime"], "docker", "{found}");
        assert_eq!(found["pid"].to_string(), docker_says(&db.id, "{{.State.Pid}}"), "{found}");
        let found = ask.container(&web.id);
        let page = 4096;
        let limit = found["resources"]["memory"]["limit_bytes"].as_u64().expect("a limit");
        assert_eq!(limit, 8_000_000 / page * page, "{found}");
        assert_eq!(
            found["resources"]["memory"].get("effective_limit").map(|l| &l["bytes"]),
            Some(&limit.into())
        );

        // tree
        for container in [&db, &web] {
            let top = rootfs::run(&mut docker.command(&["top", &container.id, "-eo", "pid"]));
            let docker_top: BTreeSet<u32> = top.lines().filter_map(|line| line.trim().parse().ok()).collect();
            assert_eq!(ask.pids(&container.id), docker_top, "{top}");
            let tree = ask.json(&["tree", &container.id]);
            let init = &tree[0]["tree"][0];
            assert_eq!(init["pid"], container.pid, "{init}");
            assert_eq!(init["ns_pids"], serde_json::json!([container.pid, 1]), "{init}");
            assert_eq!(init["exe"], "/usr/bin/busybox", "{init}");
        }
        let text = ask.text(&["tree", "observer-test-db"]);
        assert!(text.contains("sleep 2000") && text.contains("containerd-shim"), "{text}");

        // ns
        let net = host::namespace(db.pid, "net").expect("its net namespace");
        let map = ask.json(&["ns", "--type", "net"]);
        let shared =
            map.as_array().expect("namespaces").iter().find(|ns| ns["inode"] == net).expect("db's net");
        let members: Vec<&str> = shared["members"]
            .as_array()
            .expect("members")
            .iter()
            .filter_map(|m| m["container"].as_str())
            .collect();
        assert_eq!(members, [db.id.as_str(), web.id.as_str()], "{shared}");
        let text = ask.text(&["ns", "--type", "net", "--shared"]);
        assert!(text.contains("observer-test-db (3), observer-test-web (1)"), "{text}");

        // inspect
        let page = ask.json(&["inspect", "observer-test-web"]);
        let own = &page["container"];
        for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            assert_eq!(own["namespaces"][kind].as_u64(), host::namespace(web.pid, kind), "{kind}: {own}");
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", web.pid)).expect("its status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("{name}: {status}")).trim().to_owned()
        };
        let security = &own["security"];
        assert_eq!(security["seccomp_mode"].to_string(), field("Seccomp"), "{security}");
        assert_eq!(security["capabilities"]["effective"], field("CapEff"), "{security}");
        assert_eq!(security["capabilities"]["bounding"], field("CapBnd"), "{security}");
        assert_eq!(security["no_new_privs"], false, "{security}");
        let names: Vec<&str> =
            page["environment"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
        assert!(names.contains(&"TOKEN"), "{names:?}");
        assert!(!page.to_string().contains("a-secret-value"), "a value of the environment is told");
        let text = ask.text(&["inspect", &web.id[..12]]);
        for part in
            ["shared with observer-test-db", "limit 7.629MiB (7999488 bytes)", "TOKEN", "mode 2, filter"]
        {
            assert!(text.contains(part), "{part:?} is missing:\n{text}");
        }
        assert!(!text.contains("a-secret-value"), "{text}");
        for cgroup in own["cgroups"].as_array().expect("cgroups") {
            let directory = cgroup["directory"].as_str().expect("a directory");
            let procs = std::fs::read_to_string(format!("{directory}/cgroup.procs")).expect("its cgroup");
            assert!(procs.lines().any(|pid| pid == web.pid.to_string()), "{directory}: {procs}");
        }

        // audit
        let audit = ask.json(&["audit"]);
        let open = rules(&audit, &all.id);
        for rule in [
            "posture.capabilities",
            "posture.host_namespace",
            "seccomp.unconfined",
            "posture.memory_unlimited",
        ] {
            assert!(open.contains(rule), "{rule}: {open:?}");
        }
        let shut = rules(&audit, &web.id);
        for rule in
            ["posture.capabilities", "seccomp.unconfined", "posture.memory_unlimited", "posture.host_mount"]
        {
            // The tests' own shell is a mount of the host, and no sensitive one.
            assert!(!shut.contains(rule) || rule == "posture.host_mount", "{rule}: {shut:?}");
        }
        assert!(shut.contains("posture.shared_namespace"), "{shut:?}");
    });
}

/// Where `docker stats` and `ps` look at the same file, they say the same.
#[test]
fn docker_stats_counts_the_same_memory() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let container = docker.start(&["--memory=64m"]);
    container.sh("head -c 8000000 /dev/zero > /dev/shm/x").ok();
    both_ways(&lab, docker, |ask| {
        let mut stats = docker.command(&["stats", "--no-stream", "--format", "{{.MemUsage}}", &container.id]);
        let said = rootfs::run(&mut stats);
        let (used, limit) = said.split_once(" / ").expect("usage and limit");
        let memory = ask.container(&container.id)["resources"]["memory"].clone();
        let ours = memory["working_set_bytes"].as_f64().expect("a working set");
        let theirs = used.strip_suffix("MiB").unwrap_or_else(|| panic!("{said}"));
        let theirs = theirs.parse::<f64>().expect("a number") * 1024.0 * 1024.0;
        assert!((ours - theirs).abs() / theirs < 0.02, "{ours} is not {theirs} ({said})");
        assert_eq!((limit, &memory["limit_bytes"]), ("64MiB", &(64 << 20).into()), "{memory}");
    });
}

/// lsns, of util-linux, sees the same namespaces of a process.
#[test]
fn lsns_says_the_same() {
    if !installed("lsns") {
        return;
    }
    let Some(lab) = lab() else { return };
    let container = lab.container(Spec::new("lsns"));
    let config = Config::new("");
    let page = Asking { config: &config, alone: true }.json(&["inspect", &container.id]);
    let said =
        rootfs::run(Command::new("lsns").args(["-n", "-o", "TYPE,NS", "-p"]).arg(container.pid.to_string()));
    let mut compared = 0;
    for line in said.lines() {
        let (kind, inode) = line.trim().split_once(' ').expect("type and inode");
        assert_eq!(page["container"]["namespaces"][kind].to_string(), inode.trim(), "{kind}: {said}");
        compared += 1;
    }
    assert!(compared >= 7, "{said}");
}

/// A container that runc alone made, and what `runc state` says of it.
#[test]
fn runc_says_the_same() {
    let Some(inside) = lab() else { return };
    let container = inside.container(Spec::new("listed"));
    let id = container.id.clone();
    let state: Value =
        serde_json::from_str(&rootfs::run(Command::new("runc").args(["state", &id]))).expect("its state");
    let config = Config::new("");
    let ask_all = |ask: Asking<'_>| {
        let found = ask.container(&id);
        assert_eq!((&found["pid"], &found["runtime"]), (&state["pid"], &"runc".into()), "{found}");
        assert_eq!(found["pid"], container.pid, "{found}");
        let by_pid = ask.json(&["inspect", &container.pid.to_string()]);
        assert_eq!(by_pid["container"]["id"], id.as_str(), "{by_pid}");
        let pids: BTreeSet<u32> =
            std::iter::once(container.pid).chain(host::descendants(container.pid)).collect();
        assert_eq!(ask.pids(&id), pids);
    };
    ask_all(Asking { config: &config, alone: true });
    let agent = inside.only_agent(config.clone());
    ask_all(Asking { config: &config, alone: false });
    agent.finish();
}

/// The agent knows processes by origin: one that the scan would take for the host's is still its container's.
#[test]
fn the_agent_knows_who_left() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let config = Config::new("");
    let agent = lab.only_agent(config.clone());
    let container = lab.container(Spec::privileged("left"));
    container.sh(&format!("nsenter -t {} -m -u -i -n sleep 1000 &", target.pid())).ok();
    let alert = agent.wait_for("namespace.escape", &container.id);
    let left = alert.pid().expect("a pid");
    let is_there = |alone| Asking { config: &config, alone }.pids(&container.id).contains(&left);
    assert!(is_there(false), "{left} is not in the tree by the agent");
    // In its cgroup still, so the scan finds it as well; with the cgroup left, only the agent does.
    let outside: Vec<Cgroup> = cgroup::hierarchies()
        .iter()
        .map(|(name, _)| Cgroup::make(name, &format!("{}/outside", cgroup::home())))
        .collect();
    for cgroup in &outside {
        cgroup.adopt(left).expect("move it");
    }
    assert!(is_there(false), "{left} is not in the tree by the agent any more");
    assert!(!is_there(true), "{left} is in the tree by a scan");
    // Out of the container's cgroup, nobody else ends it with the container.
    host::signal(left, libc::SIGKILL);
    let gone = || !host::alive(left);
    assert!(wait::until_true(Duration::from_secs(5), gone), "{left} is still there");
    drop(outside);
    agent.finish();
}

/// Names from inside cannot move the cursor, and processes that come and go disturb nobody.
#[test]
fn hostile_and_fleeting_processes_are_listed() {
    let Some(lab) = lab() else { return };
    let container = lab.container(Spec::new("fleeting"));
    container.sh("(printf 'a\\033[2Jb' > /proc/self/comm; sleep 1000; true) &").ok();
    container.sh("(while :; do (true); done) &").ok();
    let config = Config::new("");
    let ask = Asking { config: &config, alone: true };
    let seen =
        wait::until_true(Duration::from_secs(5), || ask.text(&["tree", &container.id]).contains("\\x1b[2Jb"));
    assert!(seen, "{}", ask.text(&["tree", &container.id]));
    for _ in 0..pace::count(10) {
        for args in [&["ps"][..], &["tree"], &["ns"], &["inspect", &container.id], &["audit"]] {
            let text = ask.text(args);
            let control = text.chars().find(|c| c.is_control() && *c != '\n');
            assert_eq!(control, None, "{args:?}");
        }
    }
}

#[test]
fn what_is_not_there_is_said_in_one_line() {
    let Some(_lab) = lab() else { return };
    let config = Config::new("");
    let output =
        agent::observer(&["--config", config.arg(), "inspect", "no-such-container"]).output().expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| !line.contains("not known:")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains("no container has the name \"no-such-container\""), "{said}");
}
