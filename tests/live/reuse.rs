//! Namespaces' inodes are handed out again, lowest first: a dead container's must not be taken for a live one's.

use crate::lab;
use observer_live::agent::{self, Config};
use observer_live::spec::Spec;
use observer_live::{alert::Alert, host, pace, rootfs, wait};
use std::time::Duration;

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

/// One pid, again and again, in turn in two containers, and the second's cgroups made anew each time: whoever has it now is who
/// the agent says, in the list and in the alert. (In nature a pid comes round after thousands; clone3 lets a test choose.)
#[test]
fn a_pid_that_changes_its_container_is_the_new_ones() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let config = Config::new("");
    let agent = lab.only_agent(config.clone());
    let first = lab.container(Spec::privileged("pid-first"));
    let members = |id: &str| {
        let mut verb = agent::observer(&["--config", config.arg(), "tree", id, "--json"]);
        let tree: serde_json::Value = serde_json::from_str(&rootfs::run(&mut verb)).expect("JSON");
        let processes = tree[0]["tree"].as_array().expect("processes").clone();
        processes.iter().filter_map(|process| process["pid"].as_u64()).collect::<Vec<_>>()
    };
    // A number that nobody has, and that the kernel, which counts upwards, does not come to meanwhile.
    let newest = host::Guard::spawn(std::process::Command::new("sleep").arg("0")).expect("start sleep").pid();
    let most: u32 = std::fs::read_to_string("/proc/sys/kernel/pid_max")
        .expect("pid_max")
        .trim()
        .parse()
        .expect("a number");
    let free = |pid: &u32| *pid > 1000 && !std::path::Path::new(&format!("/proc/{pid}")).exists();
    let pid = (most / 2..most).map(|ahead| (newest + ahead) % most).find(free).expect("a free pid");
    let rounds = pace::count(20);
    for round in 0..rounds {
        let second = lab.container(Spec::privileged(&format!("pid-second-{round}")));
        for (holder, other) in [(&first, &second), (&second, &first)] {
            holder.shell().start(&format!("observer-attacks as-pid {pid} sleep 1000"));
            let held = || members(&holder.id).contains(&pid.into());
            assert!(
                wait::until_true(pace::patience(Duration::from_secs(2)), held),
                "round {round}: {pid} is missing"
            );
            assert!(!members(&other.id).contains(&pid.into()), "round {round}: {pid} is in both");
            host::signal(pid, libc::SIGKILL);
            holder.shell().wait(Duration::from_secs(30));
        }
        if round + 1 == rounds {
            // The same number in the second, and now it leaves.
            second.sh(&format!("observer-attacks as-pid {pid} nsenter -t {} -n true", target.pid())).ok();
            let alert = agent.wait_for("namespace.escape", &second.id);
            assert_eq!(alert.pid(), Some(pid), "{}", alert.line);
            assert!(!mentions(&alert, &first.id), "{}", alert.line);
            agent.settle();
            agent.assert_only(&[("namespace.escape", "critical", &second.id)]);
        }
    }
    agent.finish();
}
