//! Namespaces shared on purpose are part of what a container is.

use crate::lab;
use observer_live::spec::Spec;
use observer_live::{docker, host};

/// What every container here does: processes come and go, brought in and born inside.
const BUSY: &str = "for i in 1 2 3 4 5; do sh -c 'ls / >/dev/null; (true)'; done";

/// Nothing: `--network container:db`, host network, host pid, all from the start.
#[test]
fn docker_shares_without_an_alert() {
    let Some(lab) = lab() else { return };
    let Some(docker) = docker::get(&lab.attacks) else { return };
    let agent = lab.agent();
    let database = docker.start(&[]);
    let joined = docker.start(&[&format!("--network=container:{}", database.id)]);
    let network = docker.start(&["--network=host"]);
    let pids = docker.start(&["--pid=host"]);
    let all = docker.start(&["--network=host", "--pid=host", "--ipc=host", "--uts=host"]);
    assert_eq!(
        host::namespace(joined.pid, "net"),
        host::namespace(database.pid, "net"),
        "the test's own premise"
    );
    for container in [&database, &joined, &network, &pids, &all] {
        container.sh(BUSY).ok();
        assert!(container.exec(&["sh", "-c", BUSY]).status.success());
    }
    agent.settle_through_sweep();
    agent.assert_nothing();
    agent.finish();
}

#[test]
fn runc_shares_without_an_alert() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let database = lab.container(Spec::new("db"));
    let joined = lab.container(Spec::new("joined").join("network", format!("/proc/{}/ns/net", database.pid)));
    let sandbox = Spec::new("pod")
        .join("network", format!("/proc/{}/ns/net", database.pid))
        .join("ipc", format!("/proc/{}/ns/ipc", database.pid))
        .join("uts", format!("/proc/{}/ns/uts", database.pid));
    let pod = lab.container(sandbox);
    let network = lab.container(Spec::new("hostnet").host_net());
    let pids = lab.container(Spec::privileged("hostpid"));
    for container in [&database, &joined, &pod, &network, &pids] {
        container.sh(BUSY).ok();
        assert!(container.exec(&["sh", "-c", BUSY]).status.success());
    }
    agent.settle_through_sweep();
    agent.assert_nothing();
    agent.finish();
}

/// Joining one's own container's namespaces again is not leaving.
#[test]
fn joining_a_sibling_of_the_same_container_is_nothing() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let container = lab.container(Spec::privileged("own"));
    container.sh(&format!("nsenter -t {} -m -n -u -i sh -c true", container.pid)).ok();
    agent.settle();
    agent.assert_nothing();
    agent.finish();
}
