//! Leaving by the root directory.

use crate::lab;
use observer_live::agent::Agent;
use observer_live::events::Events;
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{host, pace, rootfs, scratch, wait};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};

/// One critical `root.escape` for a root directory that is the host's, whatever call leads there. If a call was seen, the
/// path `to` is the kernel's.
fn one_root_escape(name: &str, to: &str, attack: impl Fn(u32) -> String) {
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
    let evidence = &alert.json["evidence"];
    if evidence["door"] == "unseen" {
        assert!(evidence["to"].is_null() && evidence["path_source"].is_null(), "{}", alert.line);
    } else {
        assert_eq!(
            (&evidence["to"], &evidence["path_source"]),
            (&to.into(), &KERNEL.into()),
            "{}",
            alert.line
        );
    }
    agent.settle();
    agent.assert_only(&[("root.escape", "critical", &container.id)]);
    agent.finish();
}

#[test]
fn chroot_into_a_bind_of_the_hosts_root() {
    one_root_escape("chroot", "/host", |_| "observer-attacks chroot /host sh -c true".to_owned());
}

/// busybox's own chroot, as a person would.
#[test]
fn chroot_by_the_ordinary_tool() {
    one_root_escape("chroot-tool", "/host", |_| "chroot /host /bin/sh -c true".to_owned());
}

/// Into another mount namespace: the root of a host process, by /proc. The path is that in its own.
#[test]
fn chroot_into_a_host_processs_root() {
    one_root_escape("chroot-proc", "/", |target| {
        format!("observer-attacks chroot /proc/{target}/root sh -c true")
    });
}

/// By a 32-bit call, which only functions show: elsewhere the next exec does.
#[test]
fn chroot_by_a_32_bit_call() {
    one_root_escape("chroot32", "/host", |_| "observer-attacks chroot32 /host sh -c true".to_owned());
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

/// The new mount namespace that pivot_root needs is information; the root is critical. It is then the root of all mounts.
#[test]
fn pivot_root_into_a_bind_of_the_hosts_root() {
    one_root_escape("pivot", "/", |_| "observer-attacks pivot /host sh -c true".to_owned());
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

/// A refused chroot is at most a notice, with the path that the caller gave.
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
        assert_eq!(alert.text("/evidence/to"), "/host", "{}", alert.line);
        assert_eq!(alert.text("/evidence/path_source"), "caller", "{}", alert.line);
    }
    agent.finish();
}

/// What `path_source` says of a path that the kernel itself knows.
const KERNEL: &str = "kernel";

/// The paths of a container's successful chroots, with whose word they are, in the order of their times; once `n` have come.
fn told(agent: &Agent, events: &Events, container: &Container, n: usize) -> Vec<(String, String)> {
    let ours = |event: &Value| {
        event["kind"] == "chroot"
            && event["result"] == "0"
            && event["container"]["id"].as_str() == Some(&container.id)
    };
    let count = || events.all().iter().filter(|event| ours(event)).count();
    wait::until_true(pace::patience(Duration::from_secs(5)), || count() >= n);
    agent.settle();
    let mut found: Vec<Value> = events.all().into_iter().filter(ours).collect();
    found.sort_by_key(|event| event["time"].to_string());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    found.iter().map(|event| (text(&event["path"]), text(&event["path_source"]))).collect()
}

/// A thread that rewrites the path while chroot is under way changes nothing of what is told: it is where the task really
/// is afterwards.
#[test]
fn rewriting_the_path_during_a_call_changes_nothing() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let events = Events::follow(&agent);
    let container = lab.container(Spec::privileged("chroot-race"));
    container.sh("mkdir -p /tmp/race/a /tmp/race/b").ok();
    let n = pace::count(200) as usize;
    let said = container.sh(&format!("cd /tmp/race && observer-attacks chroot-race a b {n}")).ok();
    let went = said.strip_prefix("ok ").expect("where it went").chars();
    let really: Vec<_> = went.map(|went| if went == '0' { "/tmp/race/a" } else { "/tmp/race/b" }).collect();
    assert_eq!(really.len(), n, "{said}");
    let told = told(&agent, &events, &container, n);
    assert_eq!(told.len(), n, "{told:?}");
    let wrong =
        told.iter().zip(&really).position(|(told, really)| told != &((*really).into(), KERNEL.into()));
    assert!(wrong.is_none(), "call {wrong:?}: told {told:?}, really {really:?}");
    agent.assert_nothing();
    agent.finish();
}

/// Paths through mounts, of odd names, and longer than what is told: then the front is cut, and that shows.
#[test]
fn the_path_of_a_root_is_whole_or_says_that_it_is_not() {
    let Some(lab) = lab() else { return };
    let volume = tree("paths");
    let agent = lab.agent();
    let events = Events::follow(&agent);
    let container = lab.container(Spec::privileged("paths").bind(&volume, "/vol", true));
    let deep = |names: usize| (1..=names).map(|i| format!("/d{i}")).collect::<String>();
    let long = |name: &str| format!("/{}", name.repeat(250));
    let all_long: String = ["a", "b", "c", "d", "e"].map(long).concat();
    let paths = [
        // As the call has it, and as it is to be told.
        ("/".to_owned(), "/".to_owned()),
        ("/vol/../vol/./bin".into(), "/vol/bin".into()),
        ("/vol/x/...".into(), "/vol/x/...".into()),
        (format!("/tmp{}", deep(20)), format!("/tmp{}", deep(20))),
        (format!("/vol{}", deep(40)), format!("...{}", deep(40).split_off(deep(8).len()))),
        (format!("/vol{all_long}"), format!("...{}", &all_long[251..])),
    ];
    for (given, _) in &paths {
        container.sh(&format!("mkdir -p {given} && observer-attacks chroot {given}")).ok();
    }
    // On a mount that hangs nowhere any more.
    let away = "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m && mkdir /tmp/m/in && cd /tmp/m/in && umount -l /tmp/m";
    container.sh(&format!("{away} && observer-attacks chroot .")).ok();
    let told_last = [".../in".to_owned()];
    let expected: Vec<_> = paths
        .into_iter()
        .map(|(_, told)| told)
        .chain(told_last)
        .map(|told| (told, KERNEL.to_owned()))
        .collect();
    assert_eq!(told(&agent, &events, &container, expected.len()), expected);
    agent.assert_nothing();
    agent.finish();
}
