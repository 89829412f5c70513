//! Every runtime's containers are known for what they are, and their escapes are theirs.

use crate::{assert_escape, lab};
use observer_live::agent::Agent;
use observer_live::host::Guard;
use observer_live::lab::installed;
use observer_live::spec::Spec;
use observer_live::{containerd, docker, host, own, rootfs, sandbox, scratch, wait};
use std::process::{Command, Stdio};
use std::time::Duration;

/// One escape from a container of `runtime`: the right id and the right runtime.
fn one_escape(agent: &Agent, id: &str, init: u32, target: u32, runtime: &str) {
    let alert = agent.wait_for("namespace.escape", id);
    assert_escape(&alert, init, target, &["net"]);
    assert_eq!(alert.text("/container/runtime"), runtime, "{}", alert.line);
    assert!(alert.text("/container/cgroup_path").trim_end_matches(".scope").ends_with(id), "{}", alert.line);
    // The gauge follows within a fraction of a second.
    let counted = || agent.metrics().sum("observer_containers", &[("runtime", runtime)]) >= 1.0;
    assert!(
        wait::until_true(Duration::from_secs(2), counted),
        "observer_containers{{runtime={runtime:?}}} is 0"
    );
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", id)]);
}

#[test]
fn runc() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    let container = lab.container(Spec::privileged("runtime"));
    container.sh(&format!("nsenter -t {} -n sh -c true", target.pid())).ok();
    one_escape(&agent, &container.id, container.pid, target.pid(), "runc");
    agent.finish();
}

/// runc's state is where the agent does not look: the cgroup's leaf and the namespaces must do.
#[test]
fn runc_with_another_root() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    let container = lab.container(Spec::privileged("elsewhere").private_root());
    container.sh(&format!("nsenter -t {} -n sh -c true", target.pid())).ok();
    let alert = agent.wait_for("namespace.escape", &container.id);
    assert_escape(&alert, container.pid, target.pid(), &["net"]);
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    agent.finish();
}

#[test]
fn docker() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let target = host::target();
    let agent = lab.agent();
    let container = docker.start(&["--pid=host", "--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE"]);
    container.sh(&format!("nsenter -t {} -n sh -c true", target.pid())).ok();
    one_escape(&agent, &container.id, container.pid, target.pid(), "docker");
    agent.finish();
}

#[test]
fn containerd() {
    let Some(lab) = lab() else { return };
    let Some(containerd) = containerd::get(&lab.attacks) else { return };
    let target = host::target();
    let agent = lab.agent();
    // ctr has no option for the host's pids; --privileged with the target's network namespace bound in does as well.
    let file = scratch::subdir("netns").join("net");
    std::fs::write(&file, "").expect("make a mount point");
    let bound = NamespaceFile::bind(target.pid(), "net", &file);
    let mount = format!("type=bind,src={},dst=/mnt,options=rbind:ro", bound.dir().display());
    let container = containerd.start("runtime", &["--privileged", "--mount", &mount]);
    container.sh("observer-attacks setns-each /mnt net sh -c true").ok();
    one_escape(&agent, &container.id, container.pid, target.pid(), "containerd");
    agent.finish();
}

/// A namespace held by a bind mount, as `ip netns` does it; unmounted when dropped.
struct NamespaceFile {
    path: std::path::PathBuf,
}

impl NamespaceFile {
    fn bind(pid: u32, kind: &str, path: &std::path::Path) -> Self {
        rootfs::run(Command::new("mount").arg("--bind").arg(format!("/proc/{pid}/ns/{kind}")).arg(path));
        Self { path: path.to_owned() }
    }

    fn dir(&self) -> &std::path::Path {
        self.path.parent().expect("the file's directory")
    }
}

impl Drop for NamespaceFile {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).output();
    }
}

/// Namespaces without a container: `unshare` with a pid and a network namespace of its own is `ns-<pid inode>`, and
/// joining the host's network from there is an escape. One alert.
#[test]
fn plain_namespaces() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    let dir = scratch::subdir("plain");
    let script = format!(
        "readlink /proc/self/ns/pid_for_children >/dev/null; sh -c 'readlink /proc/self/ns/net' >{0}/net; \
         touch {0}/up; while [ ! -e {0}/go ]; do sleep 0.05; done; nsenter --net=/proc/{1}/ns/net sh -c true",
        dir.display(),
        target.pid()
    );
    let mut command = Command::new("unshare");
    command.args(["--pid", "--net", "--fork", "sh", "-c", &script]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut plain = Guard::spawn(&mut command).expect("start unshare");
    let init = wait::until(Duration::from_secs(5), || {
        dir.join("up").exists().then(|| host::children(plain.pid()).first().copied()).flatten()
    })
    .expect("unshare's child");
    let inode = host::namespace(init, "pid").expect("its pid namespace");
    let id = own::register_plain(&format!("pid:[{inode}]"));
    // Its namespaces are read while it still has them.
    let own_net = host::namespace(init, "net");
    std::fs::write(dir.join("go"), "").expect("let it go");
    let alert = agent.wait_for("namespace.escape", &id);
    assert_eq!(alert.severity(), "critical", "{}", alert.line);
    assert_eq!((alert.changed(), alert.host()), (vec!["net"], vec!["net"]), "{}", alert.line);
    assert_eq!(alert.tuple("expected").get("net").copied(), own_net, "{}", alert.line);
    plain.child().wait().expect("wait for unshare");
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &id)]);
    agent.finish();
}

/// bubblewrap with everything unshared, and the host's network handed in as a file: an escape of `ns-<pid inode>`.
#[test]
fn bubblewrap() {
    let Some(lab) = lab() else { return };
    if !installed("bwrap") {
        return;
    }
    let target = host::target();
    let file = scratch::subdir("netns").join("net");
    std::fs::write(&file, "").expect("make a mount point");
    let bound = NamespaceFile::bind(target.pid(), "net", &file);
    let agent = lab.agent();
    let mut command = Command::new("bwrap");
    command.arg("--ro-bind").arg(lab.rootfs()).args(["/", "--proc", "/proc", "--dev", "/dev", "--bind"]);
    command.arg(bound.dir()).args([
        "/mnt",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
        "--cap-add",
        "ALL",
    ]);
    command.args(["sh", "-c", "readlink /proc/self/ns/pid; observer-attacks setns-each /mnt net sh -c true"]);
    let said = rootfs::run(command.stdin(Stdio::null()));
    let id = own::register_plain(said.lines().next().unwrap_or_default());
    let alert = agent.wait_for("namespace.escape", &id);
    assert_eq!((alert.changed(), alert.host()), (vec!["net"], vec!["net"]), "{}", alert.line);
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &id)]);
    agent.finish();
    // Everything unshared, user namespace included, is known as well, and nothing by itself.
    let agent = lab.agent();
    let said = rootfs::run(&mut sandbox::bubblewrap(lab.rootfs(), &["readlink", "/proc/self/ns/pid"]));
    own::register_plain(&said);
    agent.settle();
    agent.assert_nothing();
    agent.finish();
}
