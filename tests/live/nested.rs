//! New namespaces made inside a container, by known and unknown doors, and by containers that are gone at once.

use crate::lab;
use observer_live::rootfs::UTIL_LINUX;
use observer_live::spec::Spec;
use observer_live::{docker, host, pace};

/// A user namespace: one warning each, for both unshares and for the container's own clone.
#[test]
fn a_user_namespace_is_a_warning() {
    let Some(lab) = lab() else { return };
    for (name, attack) in [
        ("busybox", "unshare -Ur true".to_owned()),
        ("util-linux", format!("{UTIL_LINUX}/unshare -Ur true")),
        ("clone", "observer-attacks clone-newns user true".to_owned()),
    ] {
        let agent = lab.agent();
        let container = lab.container(Spec::new(name));
        container.sh(&attack).ok();
        let alert = agent.wait_for("namespace.nested", &container.id);
        assert_eq!(alert.severity(), "warning", "{}", alert.line);
        assert!(alert.changed().contains(&"user"), "{}", alert.line);
        assert_eq!(alert.host(), [""; 0], "{}", alert.line);
        agent.settle();
        agent.assert_only(&[("namespace.nested", "warning", &container.id)]);
        agent.finish();
    }
}

/// Docker's default profile refuses it: at most a notice with the errno.
#[test]
fn a_refused_user_namespace_is_at_most_a_notice() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let agent = lab.agent();
    let container = docker.start(&[]);
    assert_eq!(container.sh("observer-attacks unshare-user").code, libc::EPERM);
    agent.settle();
    for alert in agent.alerts_of(&container.id) {
        assert!(["info", "notice"].contains(&alert.severity()), "{}", alert.line);
    }
    agent.finish();
}

/// Other types: only information. Nothing above `info`.
#[test]
fn other_namespaces_are_information() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let container = lab.container(Spec::new("others").caps(&["CAP_SYS_ADMIN"]));
    container.sh("observer-attacks unshare net,uts true").ok();
    let alert = agent.wait_for("namespace.nested", &container.id);
    assert_eq!(alert.severity(), "info", "{}", alert.line);
    assert!(alert.changed().contains(&"net"), "{}", alert.line);
    container.sh("observer-attacks clone-newns ipc,pid true").ok();
    agent.wait_for_matching("namespace.nested", &container.id, |alert| alert.changed().contains(&"ipc"));
    agent.settle();
    agent.assert_nothing();
    agent.finish();
}

/// A container of a few milliseconds is attributed: `quick` makes a uts namespace and is gone, and runc has deleted
/// the container by the time the test looks. Several of them: as many alerts, each with its own container.
#[test]
fn a_container_of_a_moment_is_attributed() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let spec = Spec::new("moment").caps(&["CAP_SYS_ADMIN"]).args(&["observer-attacks", "quick"]);
    for _ in 0..pace::count(10) {
        let (id, output) = lab.run_to_end(&spec);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ok\n", "{output:?}");
        let alert = agent.wait_for("namespace.nested", &id);
        assert_eq!(alert.severity(), "info", "{}", alert.line);
        assert_eq!(alert.changed(), ["uts"], "{}", alert.line);
        assert_eq!(alert.text("/attribution"), "exact", "{}", alert.line);
    }
    agent.settle();
    agent.assert_nothing();
    agent.finish();
}

/// A 32-bit unshare: the tuple changed and no watched call says why, unless a hook sees 32-bit calls. Drift, or the
/// same as the 64-bit call; never silence.
#[test]
fn a_32_bit_unshare_is_seen() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let container = lab.container(Spec::new("int80").caps(&["CAP_SYS_ADMIN"]));
    container.sh("observer-attacks unshare32 net,uts true").ok();
    let seen = agent.try_wait_for(std::time::Duration::from_secs(5), |alert| {
        ["namespace.drift", "namespace.nested"].contains(&alert.rule())
            && alert.container() == Some(&container.id)
    });
    let alert = seen.expect("a 32-bit unshare went unseen");
    assert!(alert.changed().contains(&"net") && alert.changed().contains(&"uts"), "{}", alert.line);
    assert_eq!(alert.host(), [""; 0], "{}", alert.line);
    agent.settle();
    let about_it = agent.alerts_of(&container.id);
    assert_eq!(about_it.len(), 1, "one change is one alert: {about_it:#?}");
    agent.finish();
}

/// 32-bit calls whose numbers are setns', unshare's, chroot's and pivot_root's in 64-bit: nothing, not even an event.
#[test]
fn a_32_bit_call_is_not_misread() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let container = lab.container(Spec::privileged("confuse"));
    agent.settle();
    container.sh("observer-attacks confuse32").ok();
    agent.settle();
    assert!(agent.alerts_of(&container.id).is_empty(), "{:#?}", agent.alerts_of(&container.id));
    assert!(host::alive(container.pid));
    agent.finish();
}
