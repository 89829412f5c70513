//! A containerd of the tests' own, and containers started by `ctr`.

use crate::docker::{end_daemon, spawn_daemon};
use crate::shell::{ARGS, MOUNTED_AT, Said, Shell};
use crate::{host, lab, rootfs, runc, scratch, wait};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// containerd's own kind of namespace; also the parent of its containers' cgroups.
const NAMESPACE: &str = "observer-live";

#[derive(Debug)]
pub struct Containerd {
    socket: PathBuf,
    /// As the import has named it.
    image: String,
}

static CONTAINERD: OnceLock<Containerd> = OnceLock::new();

/// Started at the first call; `None`, and said so (each time: each is another test), where containerd is not installed.
pub fn get(attacks: &Path) -> Option<&'static Containerd> {
    if !lab::installed("containerd") || !lab::installed("ctr") {
        return None;
    }
    Some(CONTAINERD.get_or_init(|| start(attacks)))
}

fn start(attacks: &Path) -> Containerd {
    let run = ["runc/observer-live", "runc", "fifo", "s", ""];
    scratch::forget(run.map(|dir| Path::new("/run/containerd").join(dir)).into());
    crate::cgroup::forget_parent(NAMESPACE);
    let dir = scratch::subdir("ctd");
    let socket = dir.join("sock");
    let config = format!(
        "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\n  address = \"{0}/sock\"\n[ttrpc]\n  address = \"{0}/ttrpc\"\n[debug]\n  address = \"{0}/debug\"\n\
         [plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"{0}/opt\"\n",
        dir.display()
    );
    launch(&dir, &config);
    let mut containerd = Containerd { socket, image: String::new() };
    let up = wait::until_true(Duration::from_secs(30), || {
        containerd.ctr(&["version"]).output().is_ok_and(|output| output.status.success())
    });
    assert!(up, "containerd is not up:\n{}", crate::agent::tail(&dir.join("log")));
    rootfs::run(containerd.ctr(&["image", "import"]).arg(archive(&dir, rootfs::tar(attacks))));
    containerd.image = rootfs::run(&mut containerd.ctr(&["image", "list", "--quiet"]));
    containerd
}

/// The root as the archive that `docker save` would write, which is what `ctr image import` reads.
pub(crate) fn archive(dir: &Path, layer: &Path) -> PathBuf {
    let digest = rootfs::run(Command::new("sha256sum").arg(layer));
    let digest = digest.split_whitespace().next().expect("a digest");
    let dir = dir.join("image");
    std::fs::create_dir_all(&dir).expect("make the image's directory");
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        // The command is what a pod's sandbox runs; containers are given their own.
        "config": {"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sleep", "100000"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
    });
    let manifest =
        json!([{"Config": "config.json", "RepoTags": ["observer-live:1"], "Layers": ["layer.tar"]}]);
    std::fs::write(dir.join("config.json"), config.to_string()).expect("write the image's config");
    std::fs::write(dir.join("manifest.json"), manifest.to_string()).expect("write the image's manifest");
    std::fs::copy(layer, dir.join("layer.tar")).expect("copy the layer");
    let tar = dir.join("image.tar");
    let files = ["manifest.json", "config.json", "layer.tar"];
    rootfs::run(Command::new("tar").arg("-C").arg(&dir).arg("-cf").arg(&tar).args(files));
    tar
}

impl Containerd {
    fn ctr(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(["--namespace", NAMESPACE]).args(args);
        command.stdin(Stdio::null());
        command
    }

    /// Starts a container whose first process is the shell.
    pub fn start(&self, name: &str, options: &[&str]) -> Container<'_> {
        let shell = Shell::new();
        let id = runc::new_id(name);
        let mount = format!("type=bind,src={},dst={MOUNTED_AT},options=rbind:rw", shell.dir().display());
        let mut container = Container { containerd: self, id, pid: 0, shell };
        let mut command = self.ctr(&["run", "-d", "--mount", &mount]);
        // Detached, ctr leaves its own stdio to the container.
        let status = command
            .args(options)
            .args([&self.image, &container.id])
            .args(ARGS)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("run ctr");
        assert!(status.success(), "ctr run: {status}");
        let list = rootfs::run(&mut self.ctr(&["task", "list"]));
        let line = list.lines().find(|line| line.starts_with(&container.id)).expect("the task's line");
        container.pid =
            line.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).expect("the task's pid");
        container
    }
}

/// A running containerd container; removed when dropped.
#[derive(Debug)]
pub struct Container<'a> {
    containerd: &'a Containerd,
    pub id: String,
    pub pid: u32,
    shell: Shell,
}

impl Container<'_> {
    pub fn sh(&self, line: &str) -> Said {
        self.shell.run(line)
    }

    /// `ctr task exec`: a process brought in from outside.
    pub fn exec(&self, args: &[&str]) -> std::process::Output {
        let exec_id = format!("exec{}", scratch::unique());
        let mut command = self.containerd.ctr(&["task", "exec", "--exec-id", &exec_id, &self.id]);
        command.args(args).output().expect("run ctr task exec")
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if self.pid != 0 {
            for pid in host::descendants(self.pid) {
                host::signal(pid, libc::SIGKILL);
            }
        }
        for args in [&["task", "rm", "-f", &self.id][..], &["container", "rm", &self.id]] {
            let _ = self.containerd.ctr(args).output();
        }
    }
}

/// A daemon with this configuration, ended with the test process.
pub(crate) fn launch(dir: &Path, config: &str) {
    std::fs::write(dir.join("config.toml"), config).expect("write containerd's configuration");
    let log = std::fs::File::create(dir.join("log")).expect("containerd's log");
    let mut command = Command::new("containerd");
    command
        .arg("--config")
        .arg(dir.join("config.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("containerd's log"))
        .stderr(log);
    let pid = spawn_daemon(command);
    scratch::at_exit(move || end_daemon(pid));
}
