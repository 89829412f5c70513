//! Leaving by the cgroup, and who one is afterwards.

use crate::{assert_escape, lab};
use observer_live::alert::Alert;
use observer_live::cgroup::Cgroup;
use observer_live::lab::Lab;
use observer_live::runc::Container;
use observer_live::spec::Spec;
use observer_live::{host, scratch};

fn outside(hierarchy: &str) -> Cgroup {
    Cgroup::make(hierarchy, &format!("/{}/outside", scratch::mark()))
}

/// A container that may write to the cgroups outside it which the test made.
fn container(lab: &Lab, name: &str, v1: &Cgroup, v2: &Cgroup) -> Container {
    lab.container(Spec::privileged(name).bind(&v1.dir, "/cg/pids", true).bind(&v2.dir, "/cg/v2", true))
}

fn assert_cgroup_escape(alert: &Alert, from: &str, to: &str) {
    assert!(["warning", "critical"].contains(&alert.severity()), "{}", alert.line);
    assert!(alert.text("/evidence/from").ends_with(from), "from {from}: {}", alert.line);
    assert!(alert.text("/evidence/to").ends_with(to), "to {to}: {}", alert.line);
}

/// One `cgroup.escape` with both paths; and the escape from the network namespace that the process does afterwards,
/// from its new cgroup, is still the container's: one `namespace.escape`.
fn one_cgroup_escape(name: &str, attack: &str) {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let (v1, v2) = (outside("pids"), outside(""));
    let agent = lab.agent();
    let container = container(&lab, name, &v1, &v2);
    container.sh(&format!("observer-attacks {attack} nsenter -t {} -n sh -c true", target.pid())).ok();
    let moved = agent.wait_for("cgroup.escape", &container.id);
    assert_cgroup_escape(&moved, &container.cgroup_path(), &v1.path);
    let left = agent.wait_for("namespace.escape", &container.id);
    assert_escape(&left, container.pid, target.pid(), &["net"]);
    agent.settle();
    agent.assert_only(&[
        ("cgroup.escape", moved.severity(), &container.id),
        ("namespace.escape", "critical", &container.id),
    ]);
    agent.finish();
}

#[test]
fn a_process_writes_itself_into_cgroup_procs_of_v1() {
    one_cgroup_escape("cg-procs-v1", "join-cgroup /cg/pids/cgroup.procs");
}

#[test]
fn a_process_writes_itself_into_cgroup_procs_of_v2() {
    one_cgroup_escape("cg-procs-v2", "join-cgroup /cg/v2/cgroup.procs");
}

#[test]
fn a_thread_writes_itself_into_tasks() {
    one_cgroup_escape("cg-tasks", "join-cgroup /cg/pids/tasks");
}

#[test]
fn a_process_is_cloned_into_another_cgroup() {
    one_cgroup_escape("cg-clone", "clone-into-cgroup /cg/v2");
}

/// A cgroup that the container makes below its own is not outside: nothing, and attribution holds there.
#[test]
fn a_nested_cgroup_is_inside() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    // Its parent is bound in, which holds this test process's cgroups only.
    let keep = outside("");
    let parent = keep.dir.parent().expect("the parent cgroup").to_owned();
    let container = lab.container(Spec::privileged("cg-nested").bind(&parent, "/cg/v2", true));
    let nested = format!("/cg/v2/{}/nested", container.id);
    container.sh(&format!("mkdir -p {nested}/deeper && echo made")).ok();
    container.sh(&format!("observer-attacks join-cgroup {nested}/deeper/cgroup.procs sh -c true")).ok();
    container.sh(&format!("observer-attacks clone-into-cgroup {nested} sh -c true")).ok();
    agent.settle_through_sweep();
    agent.assert_nothing();
    let escape = format!(
        "observer-attacks join-cgroup {nested}/deeper/cgroup.procs nsenter -t {} -n true",
        target.pid()
    );
    container.sh(&escape).ok();
    let alert = agent.wait_for("namespace.escape", &container.id);
    assert_escape(&alert, container.pid, target.pid(), &["net"]);
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    container.sh(&format!("rmdir {nested}/deeper {nested}")).ok();
    agent.finish();
}

/// Another container's cgroup is as far outside as any: `cgroup.escape` with both paths, still the first one's doing.
#[test]
fn another_containers_cgroup_is_outside() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let keep = outside("");
    let parent = keep.dir.parent().expect("the parent cgroup").to_owned();
    let victim = lab.container(Spec::new("cg-victim"));
    let attacker = lab.container(Spec::privileged("cg-attacker").bind(&parent, "/cg/v2", true));
    attacker.sh(&format!("observer-attacks join-cgroup /cg/v2/{}/cgroup.procs sh -c true", victim.id)).ok();
    let alert = agent.wait_for("cgroup.escape", &attacker.id);
    assert_cgroup_escape(&alert, &attacker.cgroup_path(), &victim.cgroup_path());
    agent.settle();
    agent.assert_only(&[("cgroup.escape", alert.severity(), &attacker.id)]);
    agent.finish();
}
