//! Leaving by the cgroup, and who one is afterwards.

use crate::{assert_escape, lab};
use observer_live::alert::Alert;
use observer_live::cgroup::{self, Cgroup};
use observer_live::host;
use observer_live::lab::Lab;
use observer_live::runc::Container;
use observer_live::spec::Spec;
use std::fs;

fn outside(hierarchy: &str) -> Cgroup {
    Cgroup::make(hierarchy, &format!("{}/outside", cgroup::home()))
}

/// What a container's cgroup is called in its parent.
fn leaf(container: &Container) -> &str {
    container.cgroup_path().rsplit('/').next().unwrap_or_default()
}

fn assert_cgroup_escape(alert: &Alert, from: &str, to: &str) {
    assert!(["warning", "critical"].contains(&alert.severity()), "{}", alert.line);
    assert!(alert.text("/evidence/from").ends_with(from), "from {from}: {}", alert.line);
    assert!(alert.text("/evidence/to").ends_with(to), "to {to}: {}", alert.line);
}

/// One `cgroup.escape` with both paths, into a cgroup that the test made and the container may write to; and the escape
/// from the network namespace that the process does afterwards, from its new cgroup, is still the container's: one
/// `namespace.escape`.
fn one_cgroup_escape(lab: &Lab, spec: Spec, outside: &Cgroup, attack: &str) {
    let target = host::target();
    let agent = lab.agent();
    let container = lab.container(spec.bind(&outside.dir, "/cg/out", true));
    container.sh(&format!("observer-attacks {attack} nsenter -t {} -n sh -c true", target.pid())).ok();
    let moved = agent.wait_for("cgroup.escape", &container.id);
    assert_cgroup_escape(&moved, container.cgroup_path(), &outside.path);
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
    let Some(lab) = lab() else { return };
    if cgroup::needs_v1() {
        let spec = Spec::privileged("cg-procs-v1");
        one_cgroup_escape(&lab, spec, &outside("pids"), "join-cgroup /cg/out/cgroup.procs");
    }
}

#[test]
fn a_process_writes_itself_into_cgroup_procs_of_v2() {
    let Some(lab) = lab() else { return };
    let spec = Spec::privileged("cg-procs-v2");
    one_cgroup_escape(&lab, spec, &outside(""), "join-cgroup /cg/out/cgroup.procs");
}

/// v1's `tasks`. v2 moves single threads in threaded cgroups only, and between two of one domain, so there the container
/// is in one, and beside it the other.
#[test]
fn a_thread_writes_itself_into_tasks() {
    let Some(lab) = lab() else { return };
    let spec = Spec::privileged("cg-tasks");
    if cgroup::has_v1() {
        return one_cgroup_escape(&lab, spec, &outside("pids"), "join-cgroup /cg/out/tasks");
    }
    let domain = Cgroup::make("", &format!("{}/threads", cgroup::home()));
    let outside = Cgroup::make("", &format!("{}/outside", domain.path));
    fs::write(outside.dir.join("cgroup.type"), "threaded").expect("make the cgroup a threaded one");
    // Its container's cgroup is made threaded by runc, which sees that it could not be used otherwise.
    one_cgroup_escape(&lab, spec.below(&domain.path), &outside, "join-cgroup /cg/out/cgroup.threads");
}

#[test]
fn a_process_is_cloned_into_another_cgroup() {
    let Some(lab) = lab() else { return };
    one_cgroup_escape(&lab, Spec::privileged("cg-clone"), &outside(""), "clone-into-cgroup /cg/out");
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
    let nested = format!("/cg/v2/{}/nested", leaf(&container));
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
    attacker
        .sh(&format!("observer-attacks join-cgroup /cg/v2/{}/cgroup.procs sh -c true", leaf(&victim)))
        .ok();
    let alert = agent.wait_for("cgroup.escape", &attacker.id);
    assert_cgroup_escape(&alert, attacker.cgroup_path(), victim.cgroup_path());
    agent.settle();
    agent.assert_only(&[("cgroup.escape", alert.severity(), &attacker.id)]);
    agent.finish();
}
