//! Capabilities: what is refused, and what cannot be.

use observer_common::NS_USER;

use super::*;
use crate::{enrich::CapabilityRefusal, model::CapSet};

const DOCKER: CapSet = CapSet::DOCKER_DEFAULT;
const NONE: CapSet = CapSet::EMPTY;

/// What a process is seen to have: permitted, attainable, and how many programs it has executed.
type Has = (CapSet, CapSet, u32);

impl Story {
    fn has(&mut self, kind: Kind, pid: u32, has: Has, inodes: Inodes) -> Header {
        let mut header = self.header(kind, pid, 0, inodes);
        (header.permitted, header.attainable, header.execs) = (has.0.0, has.1.0, has.2);
        header
    }

    fn executes(&mut self, pid: u32, has: Has) {
        let exec = Exec { old_tid: pid, filename_len: 7, args_len: 0, args_total: 0 };
        let header = self.has(Kind::Exec, pid, has, container_tuple());
        self.recorder.frame(&frame(header, &exec, b"/bin/sh"));
    }

    fn forks(&mut self, parent: u32, child: u32, has: Has, parent_inodes: Inodes, inodes: Inodes) {
        let fork = Fork {
            parent_tgid: parent,
            parent_tid: parent,
            parent_start_ns: 1_900_000_000,
            parent_cgroup_v2: CGROUP,
            parent_inodes,
        };
        let header = self.has(Kind::Fork, child, has, inodes);
        self.recorder.frame(&frame(header, &fork, b""));
    }

    fn ends_with(&mut self, pid: u32, has: Has) {
        let header = self.has(Kind::Exit, pid, has, container_tuple());
        self.recorder.frame(&frame(header, &Exit { status: 0, reserved: 0 }, b""));
    }

    fn gains(&self) -> Vec<(Alert, u32)> {
        let alerts = self.ends().into_iter();
        let gains = alerts.map(|alert| {
            assert_eq!((alert.rule.as_str(), alert.severity), ("capability.gained", Severity::Critical));
            let pid = alert.process.as_ref().map_or(0, |process| process.pid);
            (alert, pid)
        });
        gains.collect()
    }
}

#[test]
fn what_a_containers_life_does_with_capabilities_is_no_gain() {
    let mut story = Story::begin();
    story.container_starts();
    let (full, user) = ((DOCKER, DOCKER, 5), (NONE, DOCKER, 5));
    story.executes(100, full);
    let same = container_tuple();
    story.forks(100, 101, full, same, same);
    // It gives all up (setuid), starts a set-user-ID program, and ends with what that has.
    story.forks(101, 102, user, same, same);
    story.executes(102, (DOCKER, DOCKER, 6));
    story.ends_with(102, (DOCKER, DOCKER, 6));
    // A child in a user namespace of its own has everything in it.
    let mut nested = same;
    nested[NS_USER] = 4_026_539_999;
    story.forks(101, 103, (CapSet::ALL, CapSet::ALL, 5), same, nested);
    let header = story.has(Kind::Exit, 103, (CapSet::ALL, CapSet::ALL, 5), nested);
    story.recorder.frame(&frame(header, &Exit { status: 0, reserved: 0 }, b""));
    story.ends_with(101, user);
    assert_eq!(story.gains().len(), 0);
}

#[test]
fn a_process_that_has_got_more_without_executing_anything_is_told_when_it_ends() {
    let mut story = Story::begin();
    story.container_starts();
    let same = container_tuple();
    story.executes(100, (DOCKER, DOCKER, 5));
    story.forks(100, 101, (NONE, DOCKER, 5), same, same);
    story.ends_with(101, (CapSet::ALL, CapSet::ALL, 5));
    let gains = story.gains();
    let [(alert, 101)] = gains.as_slice() else { panic!("{gains:#?}") };
    let sets = alert.evidence.capabilities.as_ref().expect("the sets");
    assert_eq!((sets.against.as_str(), sets.before.len(), sets.after.len()), ("held", 0, 41));
}

/// Root of the container, and the shell that it starts with what an exploit has given it.
#[test]
fn a_program_with_more_than_its_container_was_given_is_told_once() {
    let mut story = Story::begin();
    story.container_starts();
    let same = container_tuple();
    story.executes(100, (DOCKER, DOCKER, 5));
    story.forks(100, 101, (DOCKER, DOCKER, 5), same, same);
    let all = (CapSet::ALL, CapSet::ALL, 6);
    story.executes(101, all);
    story.forks(101, 102, all, same, same);
    story.executes(102, (CapSet::ALL, CapSet::ALL, 7));
    story.ends_with(102, (CapSet::ALL, CapSet::ALL, 7));
    story.ends_with(101, all);
    let gains = story.gains();
    let [(alert, 101)] = gains.as_slice() else { panic!("{gains:#?}") };
    let sets = alert.evidence.capabilities.as_ref().expect("the sets");
    assert_eq!((sets.against.as_str(), sets.before.len(), sets.gained.len()), ("granted", 14, 27));
}

#[test]
fn a_fork_shows_what_the_parent_has() {
    let mut story = Story::begin();
    story.container_starts();
    let same = container_tuple();
    story.executes(100, (NONE, DOCKER, 5));
    story.forks(100, 101, (DOCKER, DOCKER, 5), same, same);
    story.ends_with(101, (DOCKER, DOCKER, 5));
    story.forks(100, 102, (DOCKER, DOCKER, 5), same, same);
    let gains = story.gains();
    assert!(matches!(gains.as_slice(), [(_, 100)]), "{gains:#?}");
}

#[test]
fn a_refused_capability_is_one_alert_whose_count_catches_up() {
    let mut story = Story::begin();
    story.container_starts();
    let mut refused = CapabilityRefusal {
        slot: SLOT,
        capability: 25,
        count: 1,
        last_ns: 3_000_000_000,
        user_ns: 4_026_531_837,
        tgid: 101,
        start_ns: 1_900_000_000,
        uid: 33,
        gid: 34,
        comm: "date".into(),
    };
    let mut tick = |seconds: u64, count: u64| {
        let now_ns = seconds * 1_000_000_000;
        (refused.count, refused.last_ns) = (count, now_ns);
        // Of a slot that nobody knows, and of the container's.
        let capabilities = vec![CapabilityRefusal { slot: 5, ..refused.clone() }, refused.clone()];
        let tick = Tick { capabilities, ..Tick::quiet(now_ns) };
        story.recorder.tick(&tick);
    };
    for (seconds, count) in [(10, 1), (11, 4), (12, 4), (80, 5)] {
        tick(seconds, count);
    }
    let alerts = story.ends();
    let [first, second] = alerts.as_slice() else { panic!("{alerts:#?}") };
    assert_eq!((first.rule.as_str(), first.severity), ("capability.denied", Severity::Notice));
    assert_eq!((first.count, second.count, &second.incident), (1, 5, &first.id));
    assert_eq!(first.evidence.capability.as_deref(), Some("CAP_SYS_TIME"));
    // As the kernel side noted it: the process was never seen.
    let process = first.process.as_ref().expect("the first process");
    assert_eq!((process.pid, process.comm.as_str(), process.uid, process.gid), (101, "date", 33, 34));
}
