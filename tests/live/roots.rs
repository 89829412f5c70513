//! Leaving by the root directory.

use crate::lab;
use observer_live::spec::Spec;
use observer_live::{host, rootfs, scratch};
use std::{path::PathBuf, time::Duration};

/// One critical `root.escape` for a root directory that is the host's, whatever call leads there.
fn one_root_escape(name: &str, attack: impl Fn(u32) -> String) {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    let container = lab.container(Spec::privileged(name).bind("/", "/host", false));
    let said = container.sh(&format!("sh -c 'echo $$; exec {}'", attack(target.pid())));
    let pid = said.pid();
    said.ok();
    let alert = agent.wait_for("root.escape", &container.id);
    assert_eq!(alert.severity(), "critical", "{}", alert.line);
    assert_eq!(alert.pid(), Some(pid), "{}", alert.line);
    agent.settle();
    agent.assert_only(&[("root.escape", "critical", &container.id)]);
    agent.finish();
}

#[test]
fn chroot_into_a_bind_of_the_hosts_root() {
    one_root_escape("chroot", |_| "observer-attacks chroot /host sh -c true".to_owned());
}

/// busybox's own chroot, as a person would.
#[test]
fn chroot_by_the_ordinary_tool() {
    one_root_escape("chroot-tool", |_| "chroot /host /bin/sh -c true".to_owned());
}

/// Into another mount namespace: the root of a host process, by /proc.
#[test]
fn chroot_into_a_host_processs_root() {
    one_root_escape("chroot-proc", |target| {
        format!("observer-attacks chroot /proc/{target}/root sh -c true")
    });
}

/// By a 32-bit call, which no hook shows: the next exec does.
#[test]
fn chroot_by_a_32_bit_call() {
    one_root_escape("chroot32", |_| "observer-attacks chroot32 /host sh -c true".to_owned());
}

/// Before the agent started: found at its start, and marked late.
#[test]
fn a_host_root_before_the_start_is_found() {
    let Some(lab) = lab() else { return };
    let mut container = lab.container(Spec::privileged("late-root").bind("/", "/host", false));
    let pid = container.exec_detached(&["chroot", "/host", "/bin/sleep", "300"]);
    std::thread::sleep(Duration::from_millis(300));
    let agent = lab.fresh_agent();
    let alert = agent.wait_for("root.escape", &container.id);
    assert_eq!(alert.pid(), Some(pid), "{}", alert.line);
    assert_eq!(alert.text("/attribution"), "late", "{}", alert.line);
    agent.settle_through_sweep();
    agent.assert_only(&[("root.escape", "critical", &container.id)]);
    agent.finish();
}

/// The new mount namespace that pivot_root needs is information; the root is critical.
#[test]
fn pivot_root_into_a_bind_of_the_hosts_root() {
    one_root_escape("pivot", |_| "observer-attacks pivot /host sh -c true".to_owned());
}

/// A small tree to change the root into.
fn tree(name: &str) -> PathBuf {
    let dir = scratch::subdir(name);
    std::fs::create_dir_all(dir.join("bin")).expect("make a tree");
    std::fs::copy(rootfs::which("busybox"), dir.join("bin/busybox")).expect("copy busybox");
    for applet in ["sh", "true"] {
        std::os::unix::fs::symlink("busybox", dir.join("bin").join(applet)).expect("link an applet");
    }
    dir
}

/// Nothing: into a volume (which lies on the host's root filesystem, but is not its root), a tree on a tmpfs, and the
/// container's own root again; by chroot and by pivot_root.
#[test]
fn a_root_inside_is_nothing() {
    let Some(lab) = lab() else { return };
    let volume = tree("volume");
    let agent = lab.agent();
    let container = lab.container(Spec::privileged("inside").bind(&volume, "/vol", true));
    container.sh("cp -a /vol /tmp/tree").ok();
    for attack in ["chroot /vol", "chroot /tmp/tree", "chroot /", "pivot /vol"] {
        container.sh(&format!("observer-attacks {attack} /bin/sh -c true")).ok();
    }
    agent.settle_through_sweep();
    agent.assert_nothing();
    agent.finish();
}

/// A refused chroot is at most a notice.
#[test]
fn a_refused_chroot_is_at_most_a_notice() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let container =
        lab.container(Spec::new("refused").without_cap("CAP_SYS_CHROOT").bind("/", "/host", false));
    assert_eq!(container.sh("observer-attacks chroot /host").code, libc::EPERM);
    agent.settle();
    for alert in agent.alerts_of(&container.id) {
        assert!(["info", "notice"].contains(&alert.severity()), "{}", alert.line);
    }
    agent.finish();
}
