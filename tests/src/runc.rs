//! Bare runc containers.

use crate::shell::{MOUNTED_AT, Said, Shell};
use crate::spec::Spec;
use crate::{host, own, pace, rootfs, scratch, wait};
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A running container; deleted when dropped.
#[derive(Debug)]
pub struct Container {
    pub id: String,
    /// Its first process, as the host numbers it.
    pub pid: u32,
    cgroup: String,
    root: Option<PathBuf>,
    bundle: PathBuf,
    shell: Shell,
    doomed: Vec<u32>,
}

fn runc(root: Option<&Path>) -> Command {
    let mut command = Command::new("runc");
    if let Some(root) = root {
        command.arg("--root").arg(root);
    }
    command
}

/// An id of this test process's, registered as its own.
pub fn new_id(name: &str) -> String {
    let id = format!("{}-{}-{name}", scratch::mark(), scratch::unique());
    own::register(&id);
    id
}

fn read_pid(file: &Path) -> u32 {
    fs::read_to_string(file).expect("the pid file").trim().parse().expect("a pid")
}

fn write_bundle(spec: &Spec, id: &str, rootfs: &Path) -> PathBuf {
    let bundle = scratch::subdir("bundle");
    let config = serde_json::to_vec_pretty(&spec.config(id, rootfs)).expect("the config as JSON");
    fs::write(bundle.join("config.json"), config).expect("write config.json");
    bundle
}

impl Container {
    /// Starts it, detached; returns when its first process has been exec'd.
    pub fn start(attacks: &Path, spec: Spec) -> Self {
        let shell = Shell::new();
        let root = spec.private_root.then(|| scratch::dir().join("runc"));
        let spec = spec.bind(shell.dir(), MOUNTED_AT, true);
        let id = new_id(&spec.name);
        let bundle = write_bundle(&spec, &id, rootfs::get(attacks));
        // Detached, the container keeps runc's own stdio: a pipe would never close.
        let log = File::create(bundle.join("log")).expect("the container's log");
        let status = runc(root.as_deref())
            .args(["run", "-d", "--bundle"])
            .arg(&bundle)
            .arg("--pid-file")
            .arg(bundle.join("pid"))
            .arg(&id)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the container's log"))
            .stderr(log)
            .status()
            .expect("run runc");
        let cgroup = spec.cgroup_path(&id);
        let mut container = Self { id, pid: 0, cgroup, root, bundle, shell, doomed: Vec::new() };
        assert!(status.success(), "runc run: {}", container.log());
        container.pid = read_pid(&container.bundle.join("pid"));
        // runc has only told its own process to execute the container's program. Whose the namespaces are is known when it has.
        let comm = format!("/proc/{}/comm", container.pid);
        let begun = wait::until_true(pace::patience(Duration::from_secs(5)), || {
            !fs::read_to_string(&comm).is_ok_and(|comm| comm.starts_with("runc:["))
        });
        assert!(begun, "{} has executed nothing: {}", container.id, container.log());
        container
    }

    /// Runs one to its end in the foreground and returns its id and how it went: nothing of it is left then.
    pub fn run_to_end(attacks: &Path, spec: &Spec) -> (String, Output) {
        let id = new_id(&spec.name);
        let root = spec.private_root.then(|| scratch::dir().join("runc"));
        let bundle = write_bundle(spec, &id, rootfs::get(attacks));
        let output = runc(root.as_deref())
            .args(["run", "--bundle"])
            .arg(&bundle)
            .arg(&id)
            .stdin(Stdio::null())
            .output()
            .expect("run runc");
        (id, output)
    }

    /// Runs a line in the container's own shell.
    pub fn sh(&self, line: &str) -> Said {
        self.shell.run(line)
    }

    /// For a line that a test wants to watch while it runs.
    pub fn shell(&self) -> &Shell {
        &self.shell
    }

    /// `runc exec`: a process brought in from outside.
    pub fn exec(&self, args: &[&str]) -> Output {
        let mut command = runc(self.root.as_deref());
        command.arg("exec").arg(&self.id).args(args).stdin(Stdio::null());
        command.output().expect("run runc exec")
    }

    /// `runc exec -d`; returns the process's pid. It is killed with the container.
    pub fn exec_detached(&mut self, args: &[&str]) -> u32 {
        let file = self.bundle.join(format!("exec{}.pid", scratch::unique()));
        let status = runc(self.root.as_deref())
            .args(["exec", "-d", "--pid-file"])
            .arg(&file)
            .arg(&self.id)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("run runc exec");
        assert!(status.success(), "runc exec -d {args:?}: {status}");
        let pid = read_pid(&file);
        self.doom(pid);
        pid
    }

    /// A process that has left the container's cgroup or lives in the host's pid namespace: runc would not end it.
    pub fn doom(&mut self, pid: u32) {
        self.doomed.push(pid);
    }

    pub fn state(&self) -> Value {
        let output = runc(self.root.as_deref()).arg("state").arg(&self.id).output().expect("run runc state");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("runc state: {e}: {}", self.log()))
    }

    /// Its cgroup, relative to each hierarchy's root.
    pub fn cgroup_path(&self) -> &str {
        &self.cgroup
    }

    fn log(&self) -> String {
        fs::read_to_string(self.bundle.join("log")).unwrap_or_default()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let below = if self.pid == 0 { Vec::new() } else { host::descendants(self.pid) };
        for pid in self.doomed.iter().chain(&below) {
            host::signal(*pid, libc::SIGKILL);
        }
        if self.pid != 0 {
            // A shell in the host's pid namespace ignores nothing, one that is pid 1 of its own dies of SIGKILL too.
            host::signal(self.pid, libc::SIGKILL);
        }
        // In this order: the first process of a pid namespace is not gone before all others in it have been reaped.
        for pid in &self.doomed {
            host::reap(*pid);
        }
        if self.pid != 0 {
            host::reap(self.pid);
        }
        // The cgroup stays busy for a moment after the kill.
        crate::wait::until_true(Duration::from_secs(5), || {
            runc(self.root.as_deref())
                .args(["delete", "-f"])
                .arg(&self.id)
                .output()
                .is_ok_and(|o| o.status.success())
        });
    }
}
