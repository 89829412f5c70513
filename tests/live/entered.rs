//! The host looks into a container: `namespace.entered`, a warning, and no escape.

use crate::lab;
use observer_live::host::Guard;
use observer_live::spec::Spec;
use observer_live::{host, rootfs};
use std::process::{Command, Stdio};

/// One warning per nsenter, with the container's id and the types.
#[test]
fn nsenter_from_the_host_is_entering() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let container = lab.container(Spec::new("entered"));
    let pid = container.pid.to_string();
    rootfs::run(Command::new("nsenter").args(["-t", &pid, "-m", "-n", "-u", "-i", "sh", "-c", "true"]));
    let alert = agent.wait_for("namespace.entered", &container.id);
    assert_eq!(alert.severity(), "warning", "{}", alert.line);
    for kind in ["ipc", "mnt", "net", "uts"] {
        assert!(alert.changed().contains(&kind), "{kind}: {}", alert.line);
        assert_eq!(
            alert.tuple("actual").get(kind).copied(),
            host::namespace(container.pid, kind),
            "{}",
            alert.line
        );
    }
    agent.settle();
    agent.assert_only(&[("namespace.entered", "warning", &container.id)]);
    agent.finish();
}

/// The network alone, as people do who debug; and the pid namespace, where only the child is inside.
#[test]
fn the_network_or_the_pids_alone_are_entering_too() {
    for (option, kind) in [("-n", "net"), ("-p", "pid")] {
        let Some(lab) = lab() else { return };
        let agent = lab.agent();
        let container = lab.container(Spec::new("entered"));
        rootfs::run(Command::new("nsenter").args([
            "-t",
            &container.pid.to_string(),
            option,
            "sh",
            "-c",
            "true",
        ]));
        let alert = agent.wait_for("namespace.entered", &container.id);
        assert_eq!(alert.severity(), "warning", "{}", alert.line);
        let changed = alert.changed();
        assert!(changed.iter().any(|changed| changed.starts_with(kind)), "{kind}: {}", alert.line);
        agent.settle();
        agent.assert_only(&[("namespace.entered", "warning", &container.id)]);
        agent.finish();
    }
}

/// A process that entered and then leaves again is the host's: no escape. (It joins back by files opened before.)
#[test]
fn leaving_again_is_no_escape() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    let container = lab.container(Spec::new("left-again"));
    let (inside, outside) = (container.pid.to_string(), target.pid().to_string());
    // The host's own /proc stays visible: only the network namespace is changed.
    rootfs::run(Command::new("nsenter").args(["-t", &inside, "-n", "nsenter", "-t", &outside, "-n", "true"]));
    agent.wait_for("namespace.entered", &container.id);
    agent.settle();
    agent.assert_only(&[("namespace.entered", "warning", &container.id)]);
    agent.finish();
}

/// Reading a container's files through /proc, and strace-like looks, are no entering: nothing.
#[test]
fn looking_from_outside_is_nothing() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let container = lab.container(Spec::new("looked-at"));
    rootfs::run(Command::new("ls").arg(format!("/proc/{}/root/etc", container.pid)));
    let mut sleep = Command::new("sleep");
    let guard = Guard::spawn(sleep.arg("1").stdout(Stdio::null())).expect("start sleep");
    drop(guard);
    agent.settle();
    agent.assert_nothing();
    agent.finish();
}
