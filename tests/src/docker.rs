//! A docker daemon of the tests' own: private directories, no network, ended with the test process.

use crate::shell::{ARGS, MOUNTED_AT, Said, Shell};
use crate::{host, lab, own, rootfs, scratch, wait};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

pub const IMAGE: &str = "observer-live:1";

/// A runtime that gives a container the capabilities in its variable [`ADD_CAPS`] as well: docker 20.10 knows of none that
/// came after Linux 5.7.
pub const WITH_CAPS: &str = "with-caps";

/// `CAP_BPF,CAP_PERFMON`, for [`WITH_CAPS`].
pub const ADD_CAPS: &str = "OBSERVER_TEST_CAPS";

/// runc with more in its configuration, which lies in the bundle. Docker has given the container at least one capability,
/// so that a comma may follow.
const ADDING: &str = r#"#!/bin/sh
bundle=
for word; do
    [ "$last" = --bundle ] && bundle=$word
    last=$word
done
caps=$(sed -n 's/.*"OBSERVER_TEST_CAPS=\([A-Z_,]*\)".*/\1/p' "$bundle/config.json" 2>/dev/null)
if [ -n "$caps" ]; then
    caps=$(echo "$caps" | sed 's/[A-Z_]*/"&"/g')
    sed -i -E "s/\"(bounding|effective|permitted)\":\[/&$caps,/g" "$bundle/config.json"
fi
exec runc "$@"
"#;

/// The daemon, with the image imported.
#[derive(Debug)]
pub struct Docker {
    socket: PathBuf,
    config: PathBuf,
}

static DOCKER: OnceLock<Docker> = OnceLock::new();

/// Started at the first call; `None`, and said so (each time: each is another test), where docker is not installed.
pub fn get(attacks: &Path) -> Option<&'static Docker> {
    if !lab::installed("dockerd") || !lab::installed("docker") {
        return None;
    }
    Some(DOCKER.get_or_init(|| start(attacks)))
}

/// Starts a daemon from a thread that lives as long as it does: the kernel's "die with parent" means the thread that
/// forked, and a test's own thread ends with the test.
pub(crate) fn spawn_daemon(mut command: Command) -> u32 {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let child = host::die_with_parent(&mut command, libc::SIGTERM).spawn();
        let _ = sender.send(child.as_ref().map(std::process::Child::id).map_err(ToString::to_string));
        if let Ok(mut child) = child {
            let _ = child.wait();
        }
    });
    receiver.recv().expect("the daemon's thread").expect("start the daemon")
}

/// SIGTERM, patience, then SIGKILL.
pub(crate) fn end_daemon(pid: u32) {
    host::signal(pid, libc::SIGTERM);
    if !wait::until_true(Duration::from_secs(15), || !host::alive(pid)) {
        host::signal(pid, libc::SIGKILL);
        wait::until_true(Duration::from_secs(5), || !host::alive(pid));
    }
}

fn start(attacks: &Path) -> Docker {
    // Made by the daemon whatever directories it is given.
    let run = ["/run/docker/plugins", "/run/docker", "/run/containerd/s", "/run/containerd"];
    scratch::forget(run.map(PathBuf::from).into());
    crate::cgroup::forget_parent("docker");
    let dir = scratch::subdir("docker");
    let (socket, config) = (dir.join("docker.sock"), dir.join("client"));
    std::fs::create_dir_all(&config).expect("make docker's directories");
    let adding = dir.join(WITH_CAPS);
    std::fs::write(&adding, ADDING).expect("write the runtime");
    std::fs::set_permissions(&adding, std::fs::Permissions::from_mode(0o755)).expect("let it be run");
    let log = std::fs::File::create(dir.join("log")).expect("dockerd's log");
    let mut command = Command::new("dockerd");
    command
        .args(["--iptables=false", "--bridge=none", "--host"])
        .arg(format!("unix://{}", socket.display()))
        .arg("--data-root")
        .arg(dir.join("data"))
        .arg("--exec-root")
        .arg(dir.join("exec"))
        .arg(format!("--add-runtime={WITH_CAPS}={}", adding.display()))
        .arg("--pidfile")
        .arg(dir.join("pid"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("dockerd's log"))
        .stderr(log);
    let pid = spawn_daemon(command);
    let docker = Docker { socket, config };
    let (exec, client) = (dir.join("exec"), docker.command_parts());
    scratch::at_exit(move || {
        remove_all(&client);
        end_daemon(pid);
        // dockerd's own containerd normally ends with it.
        let left = std::fs::read_to_string(exec.join("containerd/containerd.pid")).unwrap_or_default();
        if let Ok(left) = left.trim().parse() {
            end_daemon(left);
        }
    });
    let up = wait::until_true(Duration::from_secs(30), || {
        docker.command(&["version"]).output().is_ok_and(|output| output.status.success())
    });
    assert!(up, "dockerd is not up:\n{}", crate::agent::tail(&dir.join("log")));
    rootfs::run(docker.command(&["import"]).arg(rootfs::tar(attacks)).arg(IMAGE));
    docker
}

fn remove_all((socket, config): &(PathBuf, PathBuf)) {
    let docker = Docker { socket: socket.clone(), config: config.clone() };
    let Ok(list) = docker.command(&["ps", "-aq"]).output() else { return };
    for id in String::from_utf8_lossy(&list.stdout).split_whitespace() {
        let _ = docker.command(&["rm", "-f", id]).output();
    }
}

impl Docker {
    /// The daemon's data root.
    pub fn data(&self) -> PathBuf {
        self.socket.with_file_name("data")
    }

    fn command_parts(&self) -> (PathBuf, PathBuf) {
        (self.socket.clone(), self.config.clone())
    }

    /// `docker ARGS` on our daemon.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .env("DOCKER_CONFIG", &self.config)
            .env("DOCKER_BUILDKIT", "0")
            .env_remove("DOCKER_CONTEXT")
            .arg("--host")
            .arg(format!("unix://{}", self.socket.display()))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Starts a container whose first process is the shell. It has no network of its own unless `options` say.
    pub fn start(&self, options: &[&str]) -> Container<'_> {
        let shell = Shell::new();
        let volume = format!("{}:{MOUNTED_AT}", shell.dir().display());
        // Made first, so that its id is ours before its first process runs.
        let mut command = self.command(&["create", "--volume", &volume]);
        if !options.iter().any(|option| option.starts_with("--network")) {
            command.args(["--network", "none"]);
        }
        let id = rootfs::run(command.args(options).arg(IMAGE).args(ARGS));
        own::register(&id);
        self.begin(Container { docker: self, id, pid: 0, shell: Some(shell) })
    }

    /// Starts a container that runs these words, without the tests' shell and its mount: one as a user would have it.
    pub fn start_plain(&self, options: &[&str], args: &[&str]) -> Container<'_> {
        let id = rootfs::run(self.command(&["create"]).args(options).args(args));
        own::register(&id);
        self.begin(Container { docker: self, id, pid: 0, shell: None })
    }

    fn begin<'a>(&self, mut container: Container<'a>) -> Container<'a> {
        rootfs::run(&mut self.command(&["start", &container.id]));
        let pid = rootfs::run(&mut self.command(&["inspect", "-f", "{{.State.Pid}}", &container.id]));
        container.pid = pid.parse().expect("docker's pid of the container");
        container
    }

    /// `docker run` to the end, without a shell; the container's id is registered and the container removed.
    pub fn run_to_end(&self, options: &[&str], args: &[&str]) -> (String, Output) {
        let mut command = self.command(&["create", "--network", "none"]);
        let id = rootfs::run(command.args(options).arg(IMAGE).args(args));
        own::register(&id);
        let output = self.command(&["start", "-a", &id]).output().expect("run docker");
        rootfs::run(&mut self.command(&["rm", "-f", &id]));
        (id, output)
    }
}

/// A running docker container; removed when dropped.
#[derive(Debug)]
pub struct Container<'a> {
    docker: &'a Docker,
    pub id: String,
    pub pid: u32,
    shell: Option<Shell>,
}

impl Container<'_> {
    /// Not for one without the tests' shell.
    pub fn sh(&self, line: &str) -> Said {
        self.shell.as_ref().expect("a container with the tests' shell").run(line)
    }

    pub fn exec(&self, args: &[&str]) -> Output {
        self.docker.command(&["exec", &self.id]).args(args).output().expect("run docker exec")
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // With the host's pid namespace the shell's children would outlive it.
        if self.pid != 0 {
            for pid in host::descendants(self.pid) {
                host::signal(pid, libc::SIGKILL);
            }
        }
        let _ = self.docker.command(&["rm", "-f", &self.id]).output();
    }
}
