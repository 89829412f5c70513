//! Ordinary life, which must not raise anything above `info`.

use crate::lab;
use observer_live::agent::Agent;
use observer_live::lab::{self, Lab, installed};
use observer_live::spec::Spec;
use observer_live::{containerd, docker, own, pace, rootfs, sandbox, scratch};
use std::process::Command;
use std::time::Duration;

/// Runs some ordinary life under the agent, lives through a sweep, expects nothing. `None` is what cannot live here.
fn quiet(life: impl FnOnce(&Lab) -> Option<()>) {
    let Some(lab) = lab() else { return };
    let agent: Agent = lab.agent();
    if life(&lab).is_some() {
        agent.settle_through_sweep();
        agent.assert_nothing();
    }
    agent.finish();
}

const WORK: &str = "for i in 1 2 3; do sh -c 'ls -R /etc >/dev/null; (true) | cat'; done";

#[test]
fn docker_exec_and_runs() {
    quiet(|lab| {
        let docker = docker::get(&lab.attacks)?;
        let plain = docker.start(&[]);
        // Not --privileged: that needs every capability, of which this machine's root may lack some.
        let privileged = docker.start(&[
            "--cap-add=SYS_ADMIN",
            "--cap-add=NET_ADMIN",
            "--cap-add=SYS_PTRACE",
            "--security-opt=seccomp=unconfined",
        ]);
        let user = docker.start(&["--user=65534:65534", "--read-only"]);
        for container in [&plain, &privileged, &user] {
            for _ in 0..5 {
                assert!(container.exec(&["sh", "-c", WORK]).status.success());
            }
        }
        for _ in 0..5 {
            assert!(docker.run_to_end(&["--rm=false"], &["sh", "-c", WORK]).1.status.success());
        }
        Some(())
    });
}

#[test]
fn runc_exec() {
    quiet(|lab| {
        let mut container = lab.container(Spec::new("exec"));
        for _ in 0..pace::count(20) {
            assert!(container.exec(&["sh", "-c", WORK]).status.success());
        }
        container.exec_detached(&["sleep", "1000"]);
        Some(())
    });
}

#[test]
fn containerd_exec() {
    quiet(|lab| {
        let containerd = containerd::get(&lab.attacks)?;
        let container = containerd.start("ordinary", &[]);
        for _ in 0..5 {
            assert!(container.exec(&["sh", "-c", WORK]).status.success());
        }
        Some(())
    });
}

/// 200 containers (fewer where that takes minutes) started and stopped, four at a time; half of them see the host's pids, some its network.
#[test]
fn two_hundred_containers() {
    quiet(|lab| {
        // Made before the threads, so that they do not all make it.
        lab.rootfs();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                scope.spawn(move || {
                    for turn in 0..pace::count(50) {
                        let spec = Spec::new("many").args(&["sh", "-c", "true; (true); ls / >/dev/null"]);
                        let spec = match (worker + turn) % 4 {
                            0 => spec,
                            1 => spec.host_pid(),
                            2 => spec.host_pid().host_net(),
                            _ => spec.cgroup_namespace(),
                        };
                        let (id, output) = lab.run_to_end(&spec);
                        assert!(output.status.success(), "{id}: {output:?}");
                    }
                });
            }
        });
        Some(())
    });
}

/// A docker build: containers that unpack, fork and are committed.
#[test]
fn docker_build() {
    quiet(|lab| {
        let docker = docker::get(&lab.attacks)?;
        let dir = scratch::subdir("build");
        let dockerfile = format!(
            "FROM {}\nRUN tar -C / -cf /tmp/usr.tar usr/bin && mkdir /x && tar -C /x -xf /tmp/usr.tar\n\
             COPY Dockerfile /etc/Dockerfile\nRUN for i in $(seq 200); do (true); done && rm -r /x /tmp/usr.tar\n",
            docker::IMAGE
        );
        std::fs::write(dir.join("Dockerfile"), dockerfile).expect("write the Dockerfile");
        let mut build =
            docker.command(&["build", "--network=none", "--no-cache", "--tag=observer-live:built"]);
        let said = rootfs::run(build.arg(&dir));
        let built: Vec<_> = said.lines().filter_map(|line| line.split_once("Running in ")).collect();
        for (_, id) in &built {
            own::register(id.trim());
        }
        assert_eq!(built.len(), 2, "two RUNs: {said}");
        Some(())
    });
}

#[test]
fn bubblewrap() {
    quiet(|lab| {
        if !installed("bwrap") {
            return None;
        }
        for _ in 0..pace::count(5) {
            let script = format!("readlink /proc/self/ns/pid; {WORK}");
            let said = rootfs::run(&mut sandbox::bubblewrap(lab.rootfs(), &["sh", "-c", &script]));
            own::register_plain(said.lines().next().unwrap_or_default());
        }
        Some(())
    });
}

#[test]
fn systemd_nspawn() {
    quiet(|lab| {
        if !installed("systemd-nspawn") {
            return None;
        }
        for _ in 0..3 {
            let script = format!("readlink /proc/self/ns/pid; {WORK}");
            let (mut command, cgroups) = sandbox::nspawn(lab.rootfs(), &["sh", "-c", &script]);
            let said = rootfs::run(&mut command);
            own::register_plain(said.lines().next().unwrap_or_default());
            // ... or by the machine's name, which is its directory's.
            own::register("rootfs");
            drop(cgroups);
        }
        Some(())
    });
}

/// Purges the scratch package whatever happens.
struct Purge;

impl Drop for Purge {
    fn drop(&mut self) {
        let _ = apt(&["purge"], "observer-live-scratch").output();
    }
}

fn apt(verb: &[&str], package: &str) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // Somebody else may be installing something.
    command.args(["-y", "-q", "-o", "DPkg::Lock::Timeout=120"]).args(verb).arg(package);
    command
}

/// apt install on the host: a package of the test's own, with maintainer scripts, from a local file; so it needs no
/// network and changes nothing that anybody uses.
#[test]
fn apt_install() {
    quiet(|_| {
        if !installed("apt-get") || !installed("dpkg-deb") {
            return None;
        }
        let dir = scratch::subdir("deb");
        let debian = dir.join("tree/DEBIAN");
        std::fs::create_dir_all(&debian).expect("make the package's tree");
        let control = "Package: observer-live-scratch\nVersion: 1\nArchitecture: all\n\
                       Maintainer: nobody <nobody@example.com>\nDescription: made and purged by a test\n";
        std::fs::write(debian.join("control"), control).expect("write the control file");
        for script in ["preinst", "postinst", "prerm", "postrm"] {
            let path = debian.join(script);
            std::fs::write(&path, "#!/bin/sh\nls / >/dev/null\nexit 0\n").expect("write a maintainer script");
            rootfs::run(Command::new("chmod").arg("755").arg(&path));
        }
        let package = dir.join("observer-live-scratch.deb");
        rootfs::run(Command::new("dpkg-deb").arg("--build").arg(dir.join("tree")).arg(&package));
        let purge = Purge;
        let installed = apt(&["install"], &package.display().to_string()).output().expect("run apt-get");
        if !installed.status.success() {
            // apt refuses on a machine whose package state is broken; dpkg alone does the same work.
            lab::left_out("apt-get install", &String::from_utf8_lossy(&installed.stderr));
            rootfs::run(Command::new("dpkg").arg("-i").arg(&package));
        }
        drop(purge);
        Some(())
    });
}

/// Host tools that make namespaces without meaning a container: nothing, and no container either.
#[test]
fn private_mounts_on_the_host() {
    quiet(|_| {
        for args in [
            &["-m", "sh", "-c", "mount -t tmpfs none /mnt; ls /mnt"][..],
            &["-n", "true"],
            &["-u", "-i", "true"],
        ] {
            rootfs::run(Command::new("unshare").args(args));
        }
        std::thread::sleep(Duration::from_millis(100));
        Some(())
    });
}
