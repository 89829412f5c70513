//! Threads: the mark must follow each of them.

use crate::{assert_born_inside, assert_escape, lab};
use observer_live::cgroup::{self, Cgroup};
use observer_live::events::Events;
use observer_live::spec::Spec;
use observer_live::{host, scratch, wait};
use std::time::Duration;

/// The exec of a thread that is not the leader gives it the leader's id, after the leader's exit. What it then does
/// is the container's: one alert.
#[test]
fn a_thread_that_execs_keeps_its_container() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    let container = lab.container(Spec::privileged("thread-exec"));
    let attack = format!("observer-attacks thread-exec nsenter -t {} -m -n -u -i sh -c true", target.pid());
    let said = container.sh(&format!("sh -c 'echo $$; exec {attack}'"));
    let pid = said.pid();
    said.ok();
    let alert = agent.wait_for_escape(&container.id, &crate::FOUR);
    assert_escape(&alert, container.pid, target.pid(), &crate::FOUR);
    assert_born_inside(&alert, container.pid);
    assert_eq!((alert.pid(), alert.tid()), (Some(pid), Some(pid)), "{}", alert.line);
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    agent.finish();
}

/// A thread leaves alone: one alert with the process's pid and the thread's id, although the leader never moves.
#[test]
fn a_thread_that_joins_alone_is_an_escape() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    let container = lab.container(Spec::privileged("thread-setns"));
    let attack = format!("observer-attacks setns-thread {} mnt,net 1", target.pid());
    let said = container.sh(&format!("sh -c 'echo $$; exec {attack}'"));
    let pid = said.pid();
    let output = said.ok();
    let tid =
        output.rsplit_once("tid=").and_then(|(_, tid)| tid.trim().parse().ok()).expect("the thread's id");
    assert_ne!(pid, tid);
    let alert = agent.wait_for_escape(&container.id, &["mnt", "net"]);
    assert_escape(&alert, container.pid, target.pid(), &["mnt", "net"]);
    assert_born_inside(&alert, container.pid);
    assert_eq!((alert.pid(), alert.tid()), (Some(pid), Some(tid)), "{}", alert.line);
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    agent.finish();
}

/// A process with six threads is moved from outside: two threads join before it, two after it has been put into a
/// cgroup below its container's, two after it has been put outside. Every event of every thread names the container;
/// the alerts are one folded escape and one `cgroup.escape`.
#[test]
fn every_thread_of_a_moved_process_keeps_its_container() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let turns = scratch::subdir("turns");
    let outside = Cgroup::make("", &format!("{}/outside", cgroup::home()));
    let agent = lab.agent();
    let events = Events::follow(&agent);
    let container = lab.container(Spec::privileged("moved").bind(&turns, "/scratch", true));
    let nested = Cgroup::make("", &format!("{}/nested", container.cgroup_path()));
    let attack = format!("observer-attacks threads-setns 6 /scratch/turn {} net", target.pid());
    container.shell().start(&format!("sh -c 'echo $$; exec {attack}'"));
    let process = wait::until(Duration::from_secs(5), || {
        host::descendants(container.pid).into_iter().find(|pid| host::threads(*pid).len() == 7)
    })
    .expect("the process with its six threads");
    let joined = |count: usize| {
        std::fs::write(turns.join("turn"), vec![b'x'; count]).expect("give the turns");
        let inside = host::namespace(target.pid(), "net");
        let done = || {
            let there =
                host::threads(process).into_iter().filter(|tid| host::namespace(*tid, "net") == inside);
            there.count() >= count
        };
        assert!(wait::until_true(Duration::from_secs(5), done), "{count} threads were to join");
    };
    joined(2);
    nested.adopt(process).expect("move the process below");
    joined(4);
    outside.adopt(process).expect("move the process outside");
    joined(6);
    // That ends the threads.
    std::fs::remove_file(turns.join("turn")).expect("take the turns away");
    let said = container.shell().wait(Duration::from_secs(20)).ok();
    let tids: Vec<u64> = said.lines().filter_map(|line| line.strip_prefix("tid=")?.parse().ok()).collect();
    assert_eq!(tids.len(), 6, "{said}");
    for tid in tids {
        let of_thread = |event: &serde_json::Value| event["process"]["tid"] == tid;
        events.wait_for(&format!("thread {tid} in {}", container.id), |event| {
            of_thread(event) && event["container"]["id"] == container.id.as_str()
        });
        for event in events.all().iter().filter(|event| of_thread(event)) {
            assert_eq!(event["container"]["id"], container.id.as_str(), "an event of thread {tid}: {event}");
        }
    }
    let escape = agent.wait_for("namespace.escape", &container.id);
    assert_escape(&escape, container.pid, target.pid(), &["net"]);
    let moved = agent.wait_for("cgroup.escape", &container.id);
    assert_eq!(moved.pid(), Some(process), "{}", moved.line);
    assert!(moved.text("/evidence/to").ends_with(&outside.path), "{}", moved.line);
    agent.settle();
    agent.assert_only(&[
        ("namespace.escape", "critical", &container.id),
        ("cgroup.escape", moved.severity(), &container.id),
    ]);
    drop(events);
    agent.finish();
}

/// A hundred threads that do nothing, come and go: nothing.
#[test]
fn many_threads_are_nothing() {
    let Some(lab) = lab() else { return };
    let agent = lab.agent();
    let container = lab.container(Spec::new("many"));
    for _ in 0..3 {
        container.sh("observer-attacks many-threads 100 0").ok();
    }
    agent.settle_through_sweep();
    agent.assert_nothing();
    agent.finish();
}
