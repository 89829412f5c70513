//! A container that is allowed too much, made by runc from nothing but busybox.

use super::wait_for;
use crate::{setup::static_busybox, shell};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

pub struct Container {
    name: String,
    /// Of its first process, as the host sees it.
    pub pid: u32,
}

impl Container {
    pub fn start(name: &str, scratch: &Path) -> Result<Self> {
        let bundle = scratch.join("bundle");
        root_filesystem(&bundle.join("rootfs")).context("cannot make the container's file tree")?;
        fs::write(bundle.join("config.json"), specification(name).to_string())?;
        // From here on there may be something to remove, however far runc gets.
        let mut container = Self { name: name.to_owned(), pid: 0 };
        let log = fs::File::create(scratch.join("container.log"))?;
        let mut run = runc(["run", "--detach", "--bundle"]);
        run.arg(&bundle).arg(name);
        // Not pipes: the container inherits them and would keep them open.
        let status =
            run.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).status().context("runc")?;
        if !status.success() {
            let log = fs::read_to_string(scratch.join("container.log")).unwrap_or_default();
            bail!("runc cannot start the container: {}", last_line(&log));
        }
        container.pid = wait_for("the container to run", || {
            let state = runc(["state", name]).output()?;
            let state: Value = serde_json::from_slice(&state.stdout).unwrap_or_default();
            let pid = state["pid"].as_u64().filter(|_| state["status"] == "running");
            Ok(pid.and_then(|pid| u32::try_from(pid).ok()))
        })?;
        Ok(container)
    }

    pub fn exec(&self, command: &[&str]) -> Result<()> {
        let output = runc(["exec", &self.name]).args(command).stdin(Stdio::null()).output()?;
        check(&output, "the command in the container fails")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let removal = runc(["delete", "--force", &self.name]).output();
        if let Err(error) = removal.context("runc").and_then(|output| check(&output, "runc delete")) {
            eprintln!("left behind: the container {} ({error:#})", self.name);
        }
        // runc removes its cgroups, except some on hosts where version 1 and 2 are mixed.
        for cgroup in cgroups_named(&self.name) {
            if let Err(error) = fs::remove_dir(&cgroup) {
                eprintln!("left behind: {} ({error})", cgroup.display());
            }
        }
    }
}

fn runc<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(shell::find("runc").unwrap_or_else(|| "runc".into()));
    command.args(args).process_group(0);
    command
}

fn check(output: &Output, what: &str) -> Result<()> {
    if !output.status.success() {
        bail!("{what}: {}", last_line(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(())
}

fn last_line(text: &str) -> &str {
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no reason given")
}

/// The cgroups directly below a hierarchy's root, with version 2 alone, version 1 or both mounted.
fn cgroups_named(name: &str) -> impl Iterator<Item = PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(&root).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    [root.clone()].into_iter().chain(hierarchies).map(move |dir| dir.join(name)).filter(|dir| dir.is_dir())
}

fn root_filesystem(root: &Path) -> io::Result<()> {
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(dir))?;
    }
    let busybox = static_busybox().ok_or_else(|| io::Error::other("there is no static busybox"))?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    for applet in ["sh", "sleep", "nsenter"] {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    Ok(())
}

/// A container as one finds them in the wild: a debugging or monitoring pod that was given `hostPID` and a handful
/// of capabilities "because it did not work otherwise".
pub fn specification(name: &str) -> Value {
    let capabilities = json!(["CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_CHROOT"]);
    json!({
        "ociVersion": "1.0.2",
        "hostname": "demo",
        "root": {"path": "rootfs", "readonly": true},
        "process": {
            "args": ["sleep", "600"],
            "cwd": "/",
            "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0},
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            }
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]}
        ],
        "linux": {
            "cgroupsPath": format!("/{name}"),
            // No "pid" among them: it sees the host's processes.
            "namespaces": [{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, {"type": "network"}]
        }
    })
}
