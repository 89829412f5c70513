//! Things that are made of namespaces alone: bubblewrap, systemd-nspawn, plain unshare.

use crate::cgroup::{self, Cgroup};
use std::path::Path;
use std::process::{Command, Stdio};

/// bubblewrap with everything unshared, on the containers' root.
pub fn bubblewrap(rootfs: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("bwrap");
    command.arg("--ro-bind").arg(rootfs).args(["/", "--proc", "/proc", "--dev", "/dev", "--unshare-all"]);
    command.args(args).stdin(Stdio::null());
    command
}

/// systemd-nspawn without a systemd. It makes its cgroups `payload` and `supervisor` below the one it is started
/// in, so it is started in one of ours; keep the cgroups while it runs.
pub fn nspawn(rootfs: &Path, args: &[&str]) -> (Command, Vec<Cgroup>) {
    let path = format!("{}/nspawn", cgroup::home());
    let there = |hierarchy: &&str| cgroup::mount_point(hierarchy).is_some();
    let homes: Vec<Cgroup> = ["", "name=systemd"]
        .into_iter()
        .filter(there)
        .map(|hierarchy| Cgroup::make(hierarchy, &path))
        .collect();
    let enter: Vec<String> =
        homes.iter().map(|home| format!("echo 0 >{}/cgroup.procs; ", home.dir.display())).collect();
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{}exec \"$@\"", enter.concat()))
        .args(["sh", "systemd-nspawn", "--register=no", "--keep-unit", "--quiet", "--pipe", "--read-only"])
        .args(["--resolv-conf=off", "--timezone=off", "--directory"])
        .arg(rootfs)
        .args(args)
        .stdin(Stdio::null());
    (command, homes)
}
