//! Joining the host's namespaces, or another container's, by every call that can.

use crate::{FOUR, assert_born_inside, assert_escape, lab};
use observer_live::alert::Alert;
use observer_live::rootfs::UTIL_LINUX;
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{docker, host, pace};
use std::time::Duration;

/// Runs `attack` in a privileged runc container and expects exactly one alert: these types, this container, the
/// process whose pid the attack's own shell printed.
fn one_escape(name: &str, types: &[&str], attack: impl Fn(u32) -> String) {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    let container = lab.container(Spec::privileged(name));
    let said = container.sh(&format!("sh -c 'echo $$; exec {}'", attack(target.pid())));
    let pid = said.pid();
    said.ok();
    let alert = agent.wait_for_escape(&container.id, types);
    assert_escape(&alert, container.pid, target.pid(), types);
    assert_born_inside(&alert, container.pid);
    // The container shares the host's pid namespace, so what it calls itself is what the host calls it.
    assert_eq!(alert.pid(), Some(pid), "{}", alert.line);
    assert_eq!(alert.text("/attribution"), "exact", "{}", alert.line);
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    agent.finish();
}

/// One critical alert from docker's own container, with its default seccomp profile.
#[test]
fn nsenter_in_docker_is_one_alert() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let target = host::target();
    let agent = lab.agent();
    let container = docker.start(&["--pid=host", "--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE"]);
    let said =
        container.sh(&format!("sh -c 'echo $$; exec nsenter -t {} -m -n -u -i sh -c true'", target.pid()));
    let pid = said.pid();
    said.ok();
    let alert = agent.wait_for_escape(&container.id, &FOUR);
    assert_escape(&alert, container.pid, target.pid(), &FOUR);
    assert_born_inside(&alert, container.pid);
    assert_eq!(alert.pid(), Some(pid), "{}", alert.line);
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    agent.finish();
}

/// The same brought in by `docker exec`: the process is not init's descendant, yet the container's.
#[test]
fn nsenter_through_docker_exec_is_one_alert() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let target = host::target();
    let agent = lab.agent();
    let container = docker.start(&["--pid=host", "--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE"]);
    let pid = target.pid().to_string();
    let output = container.exec(&["nsenter", "-t", &pid, "-m", "-n", "-u", "-i", "sh", "-c", "true"]);
    assert!(output.status.success(), "{output:?}");
    let alert = agent.wait_for_escape(&container.id, &FOUR);
    assert_escape(&alert, container.pid, target.pid(), &FOUR);
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    agent.finish();
}

/// busybox: one setns per namespace.
#[test]
fn nsenter_in_runc_is_one_alert() {
    one_escape("nsenter", &FOUR, |target| format!("nsenter -t {target} -m -n -u -i sh -c true"));
}

#[test]
fn util_linux_nsenter_in_runc_is_one_alert() {
    one_escape("ul-nsenter", &FOUR, |target| {
        format!("{UTIL_LINUX}/nsenter -t {target} -m -n -u -i sh -c true")
    });
}

#[test]
fn a_pidfd_with_several_flags_is_the_same_alert() {
    one_escape("pidfd", &FOUR, |target| {
        format!("observer-attacks setns-pidfd {target} mnt,net,uts,ipc sh -c true")
    });
}

/// 32-bit calls, where per-syscall tracepoints are blind: found at the exec that follows.
#[test]
fn a_32_bit_setns_before_an_exec_is_the_same_alert() {
    one_escape("int80-exec", &FOUR, |target| {
        format!("observer-attacks setns32 {target} uts,ipc,net,mnt sh -c true")
    });
}

/// ... or at the exit, where nothing else follows.
#[test]
fn a_32_bit_setns_before_an_exit_is_the_same_alert() {
    one_escape("int80-exit", &FOUR, |target| format!("observer-attacks setns32 {target} uts,ipc,net,mnt"));
}

/// ... or by the next sweep, where the task only sleeps. The alert must come while it still does.
#[test]
fn a_32_bit_setns_before_a_long_sleep_is_found_by_the_sweep() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    let container = lab.container(Spec::privileged("int80-hold"));
    container.shell().start(&format!("observer-attacks setns32-hold {} uts,ipc,net,mnt 60", target.pid()));
    let limit = pace::sweep() + Duration::from_millis(2500);
    let whole = |alert: &Alert| {
        alert.container() == Some(&container.id) && (!pace::joins_may_part() || alert.changed() == FOUR)
    };
    let alert = agent.try_wait_for(limit, |alert| alert.rule() == "namespace.escape" && whole(alert));
    let alert = alert.expect("no escape by a sweep");
    assert_eq!(alert.container(), Some(container.id.as_str()));
    assert_escape(&alert, container.pid, target.pid(), &FOUR);
    let asleep = alert.pid().filter(|pid| host::alive(*pid));
    host::signal(asleep.expect("the process, which was to be asleep still"), libc::SIGTERM);
    container.shell().wait(Duration::from_secs(30));
    agent.settle();
    // Its exit shows the same escape again; that is no second alert.
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    agent.finish();
}

/// A cgroup namespace of the container's own belongs to the tuple like any other.
#[test]
fn leaving_the_cgroup_namespace_is_an_escape() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    let container = lab.container(Spec::privileged("cgroupns").cgroup_namespace());
    container.sh(&format!("observer-attacks setns-each {} cgroup sh -c true", target.pid())).ok();
    let alert = agent.wait_for("namespace.escape", &container.id);
    assert_escape(&alert, container.pid, target.pid(), &["cgroup"]);
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    agent.finish();
}

/// One critical alert that names both containers; the namespace is not the host's.
#[test]
fn joining_another_containers_network_names_both() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let victim = lab.container(Spec::new("victim"));
    let attacker = lab.container(Spec::privileged("attacker"));
    attacker.sh(&format!("nsenter -t {} -n sh -c true", victim.pid)).ok();
    let alert = agent.wait_for("namespace.escape", &attacker.id);
    assert_eq!(alert.severity(), "critical", "{}", alert.line);
    assert_eq!(alert.changed(), ["net"], "{}", alert.line);
    assert_eq!(alert.host(), [""; 0], "{}", alert.line);
    assert_eq!(alert.target_container().as_deref(), Some(victim.id.as_str()), "{}", alert.line);
    assert_eq!(
        alert.tuple("actual").get("net").copied(),
        host::namespace(victim.pid, "net"),
        "{}",
        alert.line
    );
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &attacker.id)]);
    agent.finish();
}

/// Refused attempts: events, and at most notices that carry the errno; never what a success is.
#[test]
fn refused_attempts_are_no_more_than_notices() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    // No CAP_SYS_ADMIN: every setns gives EPERM.
    let container = lab.container(Spec::new("refused").host_pid().caps(&["CAP_SYS_PTRACE"]));
    let said = container.sh(&format!("observer-attacks count-eperm 100 {} net", target.pid()));
    assert_eq!(said.ok(), "ok 100");
    agent.settle();
    let alerts = agent.alerts_of(&container.id);
    for alert in &alerts {
        assert!(["info", "notice"].contains(&alert.severity()), "{}", alert.line);
        if alert.rule() == "namespace.escape" {
            assert_eq!(alert.severity(), "notice", "{}", alert.line);
            let errno = &alert.json["evidence"]["errno"];
            assert!(errno == 1 || errno == "EPERM", "{}", alert.line);
        }
    }
    // 100 times the same is folded: the first goes out at once, the rest are its count.
    assert!(alerts.iter().filter(|alert| alert.rule() == "namespace.escape").count() <= 1, "not folded");
    agent.finish();
}

/// Two containers that escape one after the other are two alerts: folding is per container.
#[test]
fn two_containers_are_two_alerts() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    let containers: Vec<Container> =
        ["first", "second"].into_iter().map(|name| lab.container(Spec::privileged(name))).collect();
    for container in &containers {
        for _ in 0..3 {
            container.sh(&format!("nsenter -t {} -n sh -c true", target.pid())).ok();
        }
    }
    for container in &containers {
        let alert = agent.wait_for("namespace.escape", &container.id);
        assert_escape(&alert, container.pid, target.pid(), &["net"]);
    }
    agent.settle();
    // Three times by the same image from each: one line each, the rest folded.
    let expected: Vec<_> =
        containers.iter().map(|c| ("namespace.escape", "critical", c.id.as_str())).collect();
    agent.assert_only(&expected);
    agent.finish();
}
