//! Namespaces' inodes are handed out again, lowest first: a dead container's must not be taken for a live one's.

use crate::lab;
use observer_live::spec::Spec;
use observer_live::{alert::Alert, host};

/// How often to try. An inode that is free again is taken by whoever makes a namespace next, on a busy machine somebody
/// else; and a network namespace is taken down by a worker some time after its last user is gone.
const TRIES: u32 = 60;

/// Longer from try to try, a second at most.
fn wait_for_the_worker(attempt: u32) {
    std::thread::sleep(std::time::Duration::from_millis(u64::from(50 * attempt).min(1000)));
}

fn mentions(alert: &Alert, container: &str) -> bool {
    alert.line.contains(container)
}

/// Container A dies; B is given one of A's inodes for a namespace of the same type. Nothing is alerted, and when B
/// then really escapes, the one alert is about B and does not mention A.
#[test]
fn a_reused_inode_is_a_new_namespace() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    let mut reused = Vec::new();
    for attempt in 0..TRIES {
        let old = lab.container(Spec::privileged("old"));
        let before = host::namespaces(old.pid);
        old.sh("sh -c 'true; (true)'").ok();
        let old_id = old.id.clone();
        drop(old);
        wait_for_the_worker(attempt);
        let new = lab.container(Spec::privileged("new"));
        let after = host::namespaces(new.pid);
        let host_own = host::namespaces(target.pid());
        reused = ["mnt", "net", "ipc", "uts"]
            .into_iter()
            .filter(|kind| before[kind] == after[kind] && after[kind] != host_own[kind])
            .collect();
        new.sh("sh -c 'true; (true)'").ok();
        if reused.is_empty() {
            continue;
        }
        agent.settle_through_sweep();
        agent.assert_nothing();
        new.sh(&format!("nsenter -t {} -n sh -c true", target.pid())).ok();
        let alert = agent.wait_for("namespace.escape", &new.id);
        assert!(!mentions(&alert, &old_id), "the dead container is named: {}", alert.line);
        agent.settle();
        agent.assert_only(&[("namespace.escape", "critical", &new.id)]);
        assert!(
            agent.alerts().iter().all(|alert| !mentions(alert, &old_id)),
            "an alert about the dead container"
        );
        break;
    }
    assert!(!reused.is_empty(), "no inode was reused in {TRIES} tries");
    agent.finish();
}

/// The other way round: B joins what was A's network inode and is now a third container's. It is named, not A.
#[test]
fn the_new_holder_of_an_inode_is_the_one_joined() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let attacker = lab.container(Spec::privileged("attacker"));
    let mut found = false;
    for attempt in 0..TRIES {
        let old = lab.container(Spec::new("old"));
        let (old_id, inode) = (old.id.clone(), host::namespace(old.pid, "net"));
        drop(old);
        wait_for_the_worker(attempt);
        let new = lab.container(Spec::new("new"));
        if host::namespace(new.pid, "net") != inode {
            continue;
        }
        found = true;
        attacker.sh(&format!("nsenter -t {} -n sh -c true", new.pid)).ok();
        let alert = agent.wait_for("namespace.escape", &attacker.id);
        assert_eq!(alert.target_container().as_deref(), Some(new.id.as_str()), "{}", alert.line);
        assert!(!mentions(&alert, &old_id), "{}", alert.line);
        agent.settle();
        agent.assert_only(&[("namespace.escape", "critical", &attacker.id)]);
        break;
    }
    assert!(found, "no network inode was reused in {TRIES} tries");
    agent.finish();
}
