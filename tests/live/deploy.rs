//! The image, and the agent in it with exactly what the chart gives: it watches the host's other containers. Each
//! capability is taken away once, to see that it is needed and what for: the table in docs/deploy.md.

use crate::lab;
use observer_live::docker::{self, Docker};
use observer_live::{agent, host, http, own, rootfs, scratch, wait};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

const IMAGE: &str = "observer-agent:test";
const PORT: u16 = 9736;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace")
}

/// The manifest that is made of the chart, and held against it by `cargo xtask deploy-check`.
fn manifest() -> String {
    let path = workspace().join("deploy/kubernetes/base/observer.yaml");
    std::fs::read_to_string(path).expect("the plain manifest")
}

/// What the manifest adds after dropping all.
fn capabilities() -> Vec<String> {
    let text = manifest();
    let (_, after) = text.split_once("drop:\n").expect("capabilities that are dropped");
    let mut lines = after.lines().map(str::trim);
    assert_eq!(lines.next(), Some("- ALL"));
    assert_eq!(lines.next(), Some("add:"));
    lines.map_while(|line| line.strip_prefix("- ")).map(str::to_owned).collect()
}

/// Of which kustomize makes the manifest's ConfigMap.
fn configuration() -> String {
    let path = workspace().join("deploy/kubernetes/base/config/observer.yaml");
    std::fs::read_to_string(path).expect("the configuration")
}

/// Built once per test process, of what `cargo xtask image` has laid out.
fn image(docker: &Docker) {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
        let context = std::env::var_os("OBSERVER_IMAGE").map_or_else(|| target.join("image"), PathBuf::from);
        assert!(
            context.join("observer").is_file(),
            "nothing in {}: run cargo xtask image, or set OBSERVER_IMAGE",
            context.display()
        );
        let dockerfile = workspace().join("deploy/docker/prepared.Dockerfile");
        let mut build = docker.command(&["build", "--tag", IMAGE, "--file"]);
        rootfs::run(build.arg(dockerfile).arg(context));
    });
}

/// tracefs where a host that runs systemd has it. The mount is ours, and goes with the scratch directory.
fn tracing() -> &'static Path {
    static TRACING: OnceLock<PathBuf> = OnceLock::new();
    TRACING.get_or_init(|| {
        let dir = scratch::subdir("tracing");
        rootfs::run(Command::new("mount").args(["-t", "tracefs", "observer-test"]).arg(&dir));
        dir
    })
}

/// The agent in its container.
struct Deployed<'a> {
    docker: &'a Docker,
    id: String,
    pid: u32,
}

impl<'a> Deployed<'a> {
    /// As the manifest has it, without one capability if so wanted.
    fn start(docker: &'a Docker, without: Option<&str>) -> Self {
        image(docker);
        let dir = scratch::subdir("deployed");
        // docker's own state is in a place of the test's.
        let config = configuration().replace("host:\n", "host:\n  docker: /host/docker\n");
        std::fs::write(dir.join("observer.yaml"), config).expect("write the configuration");
        let socket = scratch::subdir("socket");
        let seccomp = workspace().join("deploy/seccomp/observer.json");
        let volume = |from: &Path, to: &str| format!("--volume={}:{to}", from.display());
        let mut command = docker.command(&[
            "create",
            "--pid=host",
            "--network=none",
            "--cgroupns=private",
            "--read-only",
            "--security-opt=no-new-privileges",
            "--cap-drop=ALL",
        ]);
        command.arg(format!("--security-opt=seccomp={}", seccomp.display()));
        let added = capabilities();
        assert!(
            without.is_none_or(|one| added.iter().any(|it| it == one)),
            "{without:?} is not in {added:?}"
        );
        let given = added.iter().filter(|one| Some(one.as_str()) != without);
        let (young, old): (Vec<&String>, Vec<&String>) =
            given.partition(|one| ["BPF", "PERFMON"].contains(&one.as_str()));
        command.args(old.iter().map(|one| format!("--cap-add={one}")));
        let young: Vec<String> = young.iter().map(|one| format!("CAP_{one}")).collect();
        command.arg(format!("--runtime={}", docker::WITH_CAPS));
        command.arg(format!("--env={}={}", docker::ADD_CAPS, young.join(",")));
        command.args([
            volume(&dir, "/etc/observer:ro"),
            volume(&socket, "/run/observer"),
            volume(&scratch::subdir("state"), "/var/lib/observer"),
            // (The mounts of this machine may be private ones: no propagation, which only mounts made later need.)
            volume(Path::new("/run"), "/host/run:ro"),
            volume(Path::new("/sys/fs/cgroup"), "/host/sys/fs/cgroup:ro"),
            volume(tracing(), "/sys/kernel/tracing:ro"),
            volume(&docker.data().join("containers"), "/host/docker/containers:ro"),
        ]);
        command.args([IMAGE, "run", "--config=/etc/observer/observer.yaml", "--node=node-under-test"]);
        let id = rootfs::run(&mut command);
        own::register(&id);
        let mut deployed = Self { docker, id, pid: 0 };
        rootfs::run(&mut docker.command(&["start", &deployed.id]));
        let pid = deployed.inspect("{{.State.Pid}}");
        deployed.pid = pid.parse().expect("docker's pid of the agent");
        deployed
    }

    fn inspect(&self, format: &str) -> String {
        rootfs::run(&mut self.docker.command(&["inspect", "-f", format, &self.id]))
    }

    /// A probe of the kubelet's, from inside the agent's network namespace: it has none but loopback.
    fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.pid))?;
        std::thread::scope(|scope| {
            let probe = scope.spawn(|| {
                // SAFETY: an open namespace; this thread alone moves, and ends.
                if unsafe { libc::setns(std::os::fd::AsRawFd::as_raw_fd(&namespace), libc::CLONE_NEWNET) }
                    != 0
                {
                    return Err(std::io::Error::last_os_error());
                }
                http::get(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), path)
            });
            probe.join().expect("the probe")
        })
    }

    /// Waits for /readyz; false if the agent has ended instead.
    fn is_ready(&self) -> bool {
        let mut ready = false;
        let decided = wait::until_true(Duration::from_secs(20), || {
            ready = self.get("/readyz").is_ok_and(|(status, _)| status == 200);
            ready || self.inspect("{{.State.Running}}") == "false"
        });
        assert!(decided, "neither ready nor ended: {}", self.log());
        ready
    }

    /// What it says about itself.
    fn log(&self) -> String {
        let output = self.docker.command(&["logs", &self.id]).output().expect("docker logs");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn alerts(&self) -> Vec<serde_json::Value> {
        let output = self.docker.command(&["logs", &self.id]).output().expect("docker logs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// The first alert of a rule about a container.
    fn alert(&self, rule: &str, container: &str, limit: u64) -> Option<serde_json::Value> {
        wait::until(Duration::from_secs(limit), || {
            self.alerts().into_iter().find(|it| it["rule"] == rule && it["container"]["id"] == container)
        })
    }

    /// A verb, run in the agent's own container as `kubectl exec` would.
    fn verb(&self, args: &[&str]) -> std::process::Output {
        let mut command = self.docker.command(&["exec", &self.id, "/usr/bin/observer"]);
        command.args(args).output().expect("docker exec")
    }

    /// A line of /proc/PID/status of every thread.
    fn status(&self, key: &str) -> Vec<String> {
        let value = |tid: u32| {
            let text = std::fs::read_to_string(format!("/proc/{}/task/{tid}/status", self.pid)).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            Some(line.trim().to_owned())
        };
        host::threads(self.pid).into_iter().filter_map(value).collect()
    }

    /// Its threads' nice values and scheduling policies, fields 19 and 41 of stat.
    fn has_priority(&self) -> bool {
        host::threads(self.pid).into_iter().any(|tid| {
            let stat =
                std::fs::read_to_string(format!("/proc/{}/task/{tid}/stat", self.pid)).unwrap_or_default();
            let rest: Vec<&str> = stat.rsplit_once(") ").map_or("", |it| it.1).split(' ').collect();
            rest.get(16) == Some(&"-20") || rest.get(38).is_some_and(|policy| *policy == "2")
        })
    }
}

impl Drop for Deployed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the agent in the container\n{}", self.log());
        }
        let _ = self.docker.command(&["rm", "-f", &self.id]).output();
    }
}

const ESCAPEE: [&str; 3] = ["--pid=host", "--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE"];

/// An escape of another container, with its name and the node's; probes, metrics, the socket; the end.
#[test]
fn the_agent_in_a_container_watches_others() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let target = host::target();
    // There before the agent is, so its cgroup is known by path alone: in a cgroup namespace, as Kubernetes gives one, by
    // the one that the host has.
    let before = docker.start(&ESCAPEE);
    let agent = Deployed::start(docker, None);
    assert!(agent.is_ready());
    assert_ne!(
        host::namespace(agent.pid, "cgroup"),
        host::namespace(std::process::id(), "cgroup"),
        "the agent is to be in a cgroup namespace of its own"
    );
    let after = docker.start(&ESCAPEE);
    for container in [&before, &after] {
        container.sh(&format!("nsenter -t {} -n sh -c true", target.pid())).ok();
        let alert = agent.alert("namespace.escape", &container.id, 10);
        let alert = alert.unwrap_or_else(|| panic!("no escape of {}: {}", container.id, agent.log()));
        assert_eq!(alert["severity"], "critical", "{alert}");
        assert_eq!(alert["node"], "node-under-test", "{alert}");
        assert_eq!(alert["container"]["runtime"], "docker", "{alert}");
        assert_eq!(alert["container"]["image"], docker::IMAGE, "{alert}");
        assert_eq!(alert["namespaces"]["host"], serde_json::json!(["net"]), "{alert}");
        let path = alert["container"]["cgroup_path"].as_str().expect("a path");
        assert!(path.ends_with(&container.id) && !path.contains(".."), "{alert}");
    }
    assert_eq!(agent.get("/healthz").expect("healthz").0, 200);
    let metrics = agent.get("/metrics").expect("metrics").1;
    assert!(metrics.lines().any(|line| line == "observer_ready 1"), "{metrics}");

    // What it has given up, and what is left.
    let mask = agent::observer(&["caps"]).args(capabilities()).output().expect("observer caps");
    let mask = String::from_utf8_lossy(&mask.stdout).trim().to_owned();
    for key in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(agent.status(key).iter().all(|it| *it == mask), "{key}: {:?}, not {mask}", agent.status(key));
    }
    assert!(agent.status("Seccomp").iter().all(|it| it == "2"));
    assert!(agent.status("NoNewPrivs").iter().all(|it| it == "1"));

    let tail = agent.verb(&["ps", "--json"]);
    let listed = String::from_utf8_lossy(&tail.stdout);
    assert!(listed.contains(&before.id) && listed.contains(&after.id), "{tail:?}");

    rootfs::run(&mut docker.command(&["stop", "--time", "10", &agent.id]));
    assert_eq!(agent.inspect("{{.State.ExitCode}}"), "0", "{}", agent.log());
}

/// Each capability of the set is needed: this is what is missing without it.
#[test]
fn every_capability_is_needed() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let target = host::target();
    let all = capabilities();
    // One that has left before any agent starts: to be found by looking at processes of others.
    let container = docker.start(&ESCAPEE);
    container.sh(&format!("nsenter -t {} -n sleep 300 &", target.pid())).ok();
    let late = |agent: &Deployed<'_>| agent.alert("namespace.escape", &container.id, 3).is_some();
    // A user's process, whose environment is its own.
    let users = docker
        .start_plain(&["--user=1000", "--network=none", "--env=SECRET=x"], &[docker::IMAGE, "sleep", "300"]);
    let environment = |agent: &Deployed<'_>| {
        let output = agent.verb(&["inspect", "--json", &users.id]);
        String::from_utf8_lossy(&output.stdout).contains("SECRET")
    };
    for capability in std::iter::once(None).chain(all.iter().map(|it| Some(it.as_str()))) {
        let agent = Deployed::start(docker, capability);
        let ready = agent.is_ready();
        let said = agent.log();
        match capability {
            None => {
                assert!(ready && late(&agent) && environment(&agent) && agent.has_priority(), "{said}");
            }
            Some("BPF") => assert!(!ready && said.contains("failed to create map"), "{said}"),
            Some("PERFMON") => assert!(!ready && said.contains("BPF_PROG_LOAD"), "{said}"),
            Some("SYS_PTRACE") => assert!(ready && !late(&agent), "{said}"),
            Some("DAC_READ_SEARCH") => assert!(ready && late(&agent) && !environment(&agent), "{said}"),
            Some("SYS_NICE") => assert!(ready && late(&agent) && !agent.has_priority(), "{said}"),
            Some(other) => panic!("nobody has tried what {other} is needed for"),
        }
    }
    assert!(!all.is_empty());
}
