//! What happened before the agent started.

use crate::{FOUR, assert_escape, lab};
use observer_live::cgroup::{self, Cgroup};
use observer_live::spec::Spec;
use observer_live::{host, wait};
use std::time::Duration;

/// The escaped process sleeps when the agent starts: the same alert, marked late. One alert.
#[test]
fn an_escape_before_the_start_is_found() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let mut container = lab.container(Spec::privileged("late"));
    let said =
        container.sh(&format!("nsenter -t {} -m -n -u -i sh -c 'echo $$; exec sleep 300' &", target.pid()));
    said.ok();
    let escaped = wait::until(Duration::from_secs(5), || {
        let inside = |pid: &u32| host::namespace(*pid, "net") == host::namespace(target.pid(), "net");
        host::children(std::process::id())
            .into_iter()
            .chain(host::descendants(container.pid))
            .filter(|pid| *pid != target.pid() && inside(pid))
            .find(|pid| cgroup::of(*pid).iter().any(|(_, path)| path == container.cgroup_path()))
    })
    .expect("the escaped process");
    container.doom(escaped);
    let agent = lab.fresh_agent();
    let alert = agent.wait_for("namespace.escape", &container.id);
    assert_escape(&alert, container.pid, target.pid(), &FOUR);
    assert_eq!(alert.pid(), Some(escaped), "{}", alert.line);
    assert_eq!(alert.text("/attribution"), "late", "{}", alert.line);
    agent.settle_through_sweep();
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    // Containers that were there before are as good as new ones.
    container.sh(&format!("sh -c 'nsenter -t {} -n sh -c true'", target.pid())).ok();
    let exact =
        agent.wait_for_matching("namespace.escape", &container.id, |a| a.text("/attribution") == "exact");
    assert_escape(&exact, container.pid, target.pid(), &["net"]);
    agent.finish();
}

/// A process that has left one of its cgroups, and is still in the others: `cgroup.escape`, late. (Of a single
/// hierarchy's, nothing would be left to tell it by.)
#[test]
fn a_cgroup_escape_before_the_start_is_found() {
    let Some(lab) = lab() else { return };
    if !cgroup::needs_v1() {
        return;
    }
    let outside = Cgroup::make("pids", &format!("{}/outside", cgroup::home()));
    let mut container = lab.container(Spec::new("late-cgroup"));
    let pid = container.exec_detached(&["sleep", "300"]);
    outside.adopt(pid).expect("move the process outside");
    let agent = lab.fresh_agent();
    let alert = agent.wait_for("cgroup.escape", &container.id);
    assert_eq!(alert.pid(), Some(pid), "{}", alert.line);
    assert_eq!(alert.text("/attribution"), "late", "{}", alert.line);
    assert!(alert.text("/evidence/to").ends_with(&outside.path), "{}", alert.line);
    agent.settle();
    agent.assert_only(&[("cgroup.escape", alert.severity(), &container.id)]);
    agent.finish();
}

/// Containers that behave, running before the start: nothing.
#[test]
fn innocent_containers_before_the_start_are_nothing() {
    let Some(lab) = lab() else { return };
    let database = lab.container(Spec::new("db"));
    let mut exec = lab.container(Spec::new("exec"));
    exec.exec_detached(&["sleep", "300"]);
    let _others = [
        lab.container(Spec::privileged("hostpid")),
        lab.container(Spec::new("hostnet").host_net()),
        lab.container(Spec::new("joined").join("network", format!("/proc/{}/ns/net", database.pid))),
        lab.container(Spec::new("private").private_root()),
        lab.container(Spec::new("cgroupns").cgroup_namespace()),
    ];
    let agent = lab.fresh_agent();
    agent.settle_through_sweep();
    agent.assert_nothing();
    agent.finish();
}
