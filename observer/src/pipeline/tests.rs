//! A made-up recording, from a container's birth to its process's escape: the alerts are checked, and that each replay
//! gives the same bytes. Needs no privileges.

mod apparmor;
mod capabilities;

use std::{path::PathBuf, sync::atomic::AtomicU32};

use observer_common::{
    Cgroup, CgroupMove, Exec, Exit, Fork, Header, Inodes, Kind, NS_IPC, NS_MNT, NS_NET, NS_PID,
    NS_PID_FOR_CHILDREN, NS_UTS, Syscall, door, flags, verdict,
};

use super::*;
use crate::{
    decode::build::{frame, header},
    enrich::{DenialCount, FirstUse, HostRecord, Snapshot},
    host::{Hierarchy, ProcFacts},
    model::{Alert, Clock, Label, Severity},
};

pub(super) const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
pub(super) const SLOT: u64 = 0x10_0000_0001;
pub(super) const CGROUP: u64 = 77;

pub(super) fn host_tuple() -> Inodes {
    std::array::from_fn(|i| 4_026_531_830 + i as u32)
}

pub(super) fn container_tuple() -> Inodes {
    let mut tuple = host_tuple();
    for ns in [NS_IPC, NS_MNT, NS_NET, NS_PID, NS_PID_FOR_CHILDREN, NS_UTS] {
        tuple[ns] = 4_026_532_000 + ns as u32;
    }
    tuple[NS_PID_FOR_CHILDREN] = tuple[NS_PID];
    tuple
}

fn facts(pid: u32, comm: &str) -> ProcFacts {
    ProcFacts {
        pid,
        ppid: 1,
        start_ticks: 1,
        comm: comm.into(),
        exe: None,
        args: Vec::new(),
        uid: 0,
        gid: 0,
        ns_pid: pid,
        inodes: host_tuple(),
        cgroups: vec![(0, "/".into())],
        kernel_thread: false,
    }
}

pub(super) fn snapshot() -> Snapshot {
    let hierarchies = vec![Hierarchy { id: 0, controllers: Vec::new(), mount: "/sys/fs/cgroup".into() }];
    let host = HostRecord {
        inodes: host_tuple(),
        told: false,
        root_mnt_ns: host_tuple()[NS_MNT],
        root_dev: 1,
        root_mount_ino: 2,
        root_ino: 2,
    };
    let processes = vec![facts(1, "init"), facts(50, "dockerd")];
    Snapshot { time_ns: 1_000, host, hierarchies, cgroups: Vec::new(), processes, apparmor: false }
}

/// Writes the story into a file.
struct Story {
    recorder: Recorder,
    time_ns: u64,
    path: PathBuf,
}

impl Drop for Story {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Story {
    fn begin() -> Self {
        Story::begin_with(&snapshot())
    }

    fn begin_with(snapshot: &Snapshot) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("observer-story-{}-{number}", std::process::id()));
        let recorder = Recorder::create(&path).expect("a file in the temporary directory");
        recorder.start("node", Clock { offset_ns: 1_700_000_000_000_000_000 }, snapshot, &Default::default());
        Story { recorder, time_ns: 2_000_000_000, path }
    }

    fn header(&mut self, kind: Kind, pid: u32, bits: u32, inodes: Inodes) -> Header {
        self.time_ns += 1_000_000;
        let mut header = header(kind);
        header.time_ns = self.time_ns;
        header.tgid = pid;
        header.tid = pid;
        header.ppid = 50;
        header.start_ns = 1_900_000_000;
        header.slot = SLOT;
        header.flags = bits;
        header.inodes = inodes;
        header.cgroup_v2 = CGROUP;
        header
    }

    /// docker makes the cgroup, puts its child in, and the child executes the container's program.
    fn container_starts(&mut self) {
        let path = format!("/docker/{ID}");
        let cgroup = Cgroup {
            hierarchy: 0,
            level: 2,
            id: CGROUP,
            parent_id: 3,
            slot: SLOT,
            path_len: path.len() as u32,
            reserved: 0,
        };
        let mut h = self.header(Kind::CgroupMkdir, 50, flags::PRIORITY, host_tuple());
        h.slot = 0;
        self.recorder.frame(&frame(h, &cgroup, path.as_bytes()));
        let change = CgroupMove {
            to: cgroup,
            mover_tgid: 50,
            mover_tid: 50,
            mover_start_ns: 0,
            mover_slot: 0,
            mover_comm: [0; 16],
            threadgroup: 1,
            door: door::WRITE,
        };
        let h = self.header(Kind::CgroupMove, 100, flags::ENTERING, host_tuple());
        self.recorder.frame(&frame(h, &change, path.as_bytes()));
        self.exec(100, "/bin/sh", flags::JUDGE | flags::PRIORITY, container_tuple());
        // docker's state is asked for once: nothing there.
        self.answer_nothing();
    }

    fn answer_nothing(&self) {
        self.recorder.answer_runtime(ID, None);
    }

    fn exec(&mut self, pid: u32, program: &str, bits: u32, inodes: Inodes) {
        let args = format!("{program}\0-c\0true\0");
        let exec = Exec {
            old_tid: pid,
            filename_len: program.len() as u32,
            args_len: args.len() as u32,
            args_total: args.len() as u32,
        };
        let h = self.header(Kind::Exec, pid, bits, inodes);
        self.recorder.frame(&frame(h, &exec, format!("{program}{args}").as_bytes()));
    }

    fn fork(&mut self, parent: u32, child: u32, inodes: Inodes) {
        let fork = Fork {
            parent_tgid: parent,
            parent_tid: parent,
            parent_start_ns: 1_900_000_000,
            parent_cgroup_v2: CGROUP,
            parent_inodes: inodes,
        };
        let h = self.header(Kind::Fork, child, 0, inodes);
        self.recorder.frame(&frame(h, &fork, b""));
    }

    fn setns(&mut self, pid: u32, ret: i64, bits: u32, inodes: Inodes) {
        let call = Syscall { nr: 308, reserved: 0, ret, args: [3, 0] };
        let h = self.header(Kind::Setns, pid, bits | flags::PRIORITY, inodes);
        self.recorder.frame(&frame(h, &call, b""));
    }

    fn exit(&mut self, pid: u32, inodes: Inodes) {
        let h = self.header(Kind::Exit, pid, 0, inodes);
        self.recorder.frame(&frame(h, &Exit { status: 0, reserved: 0 }, b""));
    }

    fn tick(&mut self, called: Vec<FirstUse>, denied: Vec<DenialCount>) {
        self.time_ns += 1_000_000_000;
        let tick = Tick { denied, called, ..Tick::quiet(self.time_ns) };
        self.recorder.tick(&tick);
    }

    /// The alerts, the same at each of three replays.
    fn ends(&self) -> Vec<Alert> {
        self.recorder.finish().expect("the recording is written");
        let run = || {
            let mut alerts = Vec::new();
            Replay::open(&self.path)
                .expect("a recording")
                .run(|alert| alerts.push(alert))
                .expect("a whole recording");
            alerts
        };
        let (first, second, third) = (run(), run(), run());
        let bytes = |alerts: &[Alert]| serde_json::to_vec(alerts).expect("alerts are JSON");
        assert_eq!(bytes(&first), bytes(&second));
        assert_eq!(bytes(&first), bytes(&third));
        first
    }
}

/// A job of the host, in a cgroup so young that it might be a container's, looks into a container: it entered, and its
/// cgroup is no container.
#[test]
fn a_visitor_makes_no_container_of_its_own_cgroup() {
    let mut story = Story::begin();
    story.container_starts();
    visitor(story);
}

/// The runtime's unshare comes by the ordinary ring and is read after the exec that it was made for: what it made is the
/// container's all the same, and whoever enters it is told.
#[test]
fn a_runtimes_unshare_that_is_read_late_takes_nothing_from_its_container() {
    const FOUR: u64 = 0x6c02_0000;
    let mut story = Story::begin();
    let before = story.time_ns;
    story.container_starts();
    let mut h = story.header(Kind::Unshare, 100, flags::ENTERING, container_tuple());
    (h.slot, h.time_ns) = (0, before);
    let call = Syscall { nr: 272, reserved: 0, ret: 0, args: [FOUR, 0] };
    story.recorder.frame(&frame(h, &call, b""));
    visitor(story);
}

fn visitor(mut story: Story) {
    const JOB: u64 = 77;
    let path = "/jobs/build";
    let cgroup = Cgroup {
        hierarchy: 0,
        level: 2,
        id: JOB,
        parent_id: 3,
        slot: JOB,
        path_len: path.len() as u32,
        reserved: 0,
    };
    let mut h = story.header(Kind::CgroupMkdir, 50, flags::PRIORITY, host_tuple());
    h.slot = 0;
    story.recorder.frame(&frame(h, &cgroup, path.as_bytes()));
    let exec = Exec { old_tid: 200, filename_len: 7, args_len: 0, args_total: 0 };
    let inside = out(&[NS_PID, NS_PID_FOR_CHILDREN]);
    let mut h = story.header(Kind::Exec, 200, flags::JUDGE | flags::PRIORITY, inside);
    (h.slot, h.cgroup_v2) = (JOB, JOB);
    story.recorder.frame(&frame(h, &exec, b"/bin/sh"));
    story.recorder.answer_runtime("build", None);
    let alerts = story.ends();
    let told: Vec<&str> = alerts.iter().map(|alert| alert.rule.as_ref()).collect();
    assert_eq!(told, ["namespace.entered"], "{alerts:#?}");
}

/// The container's tuple with these types as the host has them.
pub(super) fn out(types: &[usize]) -> Inodes {
    let mut tuple = container_tuple();
    for ns in types {
        tuple[*ns] = host_tuple()[*ns];
    }
    tuple
}

/// Which calls are new is found at the kernel side's tables, so a recording has it, and a replay tells it as the live run did.
#[test]
fn first_uses_and_refusals_are_in_a_recording() {
    let mut story = Story::begin();
    story.container_starts();
    let first_use = |nr| FirstUse { slot: SLOT, nr, observed_ns: 610_000_000_000, known: 45 };
    let mut denied = vec![DenialCount {
        slot: SLOT,
        nr: 272,
        verdict: verdict::DENIED,
        count: 3,
        errno: 1,
        last_ns: story.time_ns,
        tgid: 100,
        start_ns: 1_900_000_000,
    }];
    // The second tick tells of a slot that nobody knows.
    for called in [vec![first_use(101), first_use(165)], vec![FirstUse { slot: SLOT + 7, ..first_use(1) }]] {
        story.tick(called, std::mem::take(&mut denied));
    }
    // Alerts of so young a container wait for its name, and then go out without.
    story.answer_nothing();
    let alerts = story.ends();
    let told: Vec<_> = alerts
        .iter()
        .map(|alert| (alert.rule.as_str(), alert.evidence.syscall.as_deref().unwrap_or(""), alert.count))
        .collect();
    let expected = [
        ("seccomp.denied", "unshare", 3),
        ("syscall.first_use", "ptrace", 1),
        ("syscall.first_use", "mount", 1),
    ];
    assert_eq!(told, expected);
    assert!(alerts[0].process.is_some() && alerts[1].process.is_none());
    assert!(alerts.iter().all(|alert| alert.container.as_ref().is_some_and(|it| it.id == ID)));
}

pub(super) const JOIN: u32 = flags::CHANGED | flags::EXPLAINED;

#[test]
fn an_escape_by_several_joins_is_one_alert() {
    let mut story = Story::begin();
    story.container_starts();
    story.fork(100, 101, container_tuple());
    story.exec(101, "/bin/nsenter", 0, container_tuple());
    let types = [NS_IPC, NS_UTS, NS_NET, NS_MNT];
    for joined in 1..=types.len() {
        story.setns(101, 0, JOIN, out(&types[..joined]));
    }
    story.exec(101, "/bin/true", flags::PRIORITY, out(&types));
    story.exit(101, out(&types));
    let alerts = story.ends();
    assert_eq!(alerts.len(), 1, "{alerts:#?}");
    let alert = &alerts[0];
    assert_eq!((alert.rule.as_str(), alert.severity), ("namespace.escape", Severity::Critical));
    let view = alert.namespaces.as_ref().expect("namespaces");
    assert_eq!(view.changed, ["ipc", "mnt", "net", "uts"]);
    assert_eq!(view.host, ["ipc", "mnt", "net", "uts"]);
    assert_eq!(alert.container.as_ref().expect("a container").id, ID);
    let process = alert.process.as_ref().expect("a process");
    assert_eq!((process.pid, process.exe.as_deref()), (101, Some("/bin/nsenter")));
    assert_eq!(process.ancestors.iter().map(|a| a.pid).collect::<Vec<_>>(), [100]);
}

#[test]
fn an_escape_that_nobody_saw_shows_at_the_next_exec_or_exit() {
    for by_exit in [false, true] {
        let mut story = Story::begin();
        story.container_starts();
        story.fork(100, 101, container_tuple());
        if by_exit {
            story.exit(101, out(&[NS_NET]));
        } else {
            story.exec(101, "/bin/true", flags::CHANGED | flags::PRIORITY, out(&[NS_NET]));
        }
        let alerts = story.ends();
        assert_eq!(alerts.len(), 1, "{alerts:#?}");
        assert_eq!(alerts[0].rule, "namespace.escape");
        assert_eq!(alerts[0].evidence.door.as_deref(), Some("unseen"));
    }
}

#[test]
fn a_tuple_that_belongs_to_nobody_and_that_no_call_explains_is_drift() {
    let mut story = Story::begin();
    story.container_starts();
    let mut drifted = container_tuple();
    drifted[NS_UTS] = 4_026_539_999;
    let h = story.header(Kind::Drift, 100, flags::CHANGED | flags::PRIORITY, drifted);
    story.recorder.frame(&frame(h, &[0u8; 0], b""));
    let alerts = story.ends();
    assert_eq!(alerts.iter().map(|a| a.rule.as_str()).collect::<Vec<_>>(), ["namespace.drift"]);
}

#[test]
fn a_refused_join_is_a_notice_and_coming_home_is_nothing() {
    let mut story = Story::begin();
    story.container_starts();
    story.setns(100, -1, 0, container_tuple());
    story.setns(100, 0, 0, container_tuple());
    let alerts = story.ends();
    assert_eq!(alerts.len(), 1, "{alerts:#?}");
    assert_eq!((alerts[0].rule.as_str(), alerts[0].severity), ("namespace.escape", Severity::Notice));
}

#[test]
fn news_that_come_late_do_not_undo_newer_ones() {
    let mut story = Story::begin();
    story.container_starts();
    story.fork(100, 101, container_tuple());
    // The ordinary ring was slower: an exec from before the join arrives after it.
    let before = story.time_ns + 500_000;
    story.setns(101, 0, JOIN, out(&[NS_NET]));
    let mut h = story.header(Kind::Exec, 101, 0, container_tuple());
    h.time_ns = before;
    let exec = Exec { old_tid: 101, filename_len: 0, args_len: 0, args_total: 0 };
    story.recorder.frame(&frame(h, &exec, b""));
    story.exit(101, out(&[NS_NET]));
    let alerts = story.ends();
    assert_eq!(alerts.len(), 1, "{alerts:#?}");
    assert_eq!(alerts[0].evidence.door.as_deref(), Some("setns"));
}

/// On a host with AppArmor: what each program is confined by is asked at its exec, and now and then of all.
#[test]
fn a_process_that_leaves_its_containers_profile_is_found_at_its_exec_or_later() {
    const START_TICKS: u64 = 190;
    let mut story = Story::begin_with(&Snapshot { apparmor: true, ..snapshot() });
    let says = |story: &Story, pids: &[(u32, &str)]| {
        let asked: Vec<(u32, u64)> = pids.iter().map(|(pid, _)| (*pid, START_TICKS)).collect();
        let answer: Vec<Option<Label>> = pids.iter().map(|(_, text)| Label::parse(text.as_bytes())).collect();
        story.recorder.answer_labels(&asked, &answer);
    };
    story.container_starts();
    says(&story, &[(100, "docker-default (enforce)\n")]);
    for (pid, label) in [
        (101, "docker-default (enforce)\n"),
        (102, "docker-default//helper (enforce)\n"),
        (103, "unconfined\n"),
    ] {
        story.fork(100, pid, container_tuple());
        story.exec(pid, "/bin/true", 0, container_tuple());
        says(&story, &[(pid, label)]);
    }
    // It is told once, whatever it executes, and its child is the same thing.
    story.exec(103, "/bin/true", 0, container_tuple());
    says(&story, &[(103, "unconfined\n")]);
    story.fork(103, 104, container_tuple());
    story.exec(104, "/bin/sleep", 0, container_tuple());
    says(&story, &[(104, "unconfined\n")]);
    // Without an exec.
    story.time_ns += 1_000_000_000;
    let tick = Tick { labels: true, ..Tick::quiet(story.time_ns) };
    story.recorder.tick(&tick);
    // The first alert has waited for its container's name.
    story.answer_nothing();
    says(
        &story,
        &[
            (100, "docker-default (enforce)\n"),
            (101, "other (enforce)\n"),
            (102, ""),
            (103, "unconfined\n"),
            (104, "unconfined\n"),
        ],
    );
    let alerts = story.ends();
    let told: Vec<(&str, Severity, u32, Option<&str>)> = alerts
        .iter()
        .map(|alert| {
            let pid = alert.process.as_ref().expect("a process").pid;
            (alert.rule.as_str(), alert.severity, pid, alert.evidence.to.as_deref())
        })
        .collect();
    assert_eq!(
        told,
        [
            ("apparmor.changed", Severity::Critical, 103, Some("unconfined")),
            ("apparmor.changed", Severity::Warning, 101, Some("other (enforce)")),
        ],
        "{alerts:#?}"
    );
    assert_eq!(alerts[0].evidence.from.as_deref(), Some("docker-default (enforce)"));
}

/// A user may make a cgroup in their own part of the tree that is called as a container of the system's: what runs there is
/// not in that container.
#[test]
fn a_cgroup_that_only_calls_itself_like_a_container_is_another_one() {
    const FAKE: u64 = 78;
    let mut story = Story::begin();
    story.container_starts();
    let path = format!("/user.slice/user-1000.slice/user@1000.service/docker-{ID}.scope");
    let cgroup = Cgroup {
        hierarchy: 0,
        level: 4,
        id: FAKE,
        parent_id: 3,
        slot: FAKE,
        path_len: path.len() as u32,
        reserved: 0,
    };
    let mut h = story.header(Kind::CgroupMkdir, 60, flags::PRIORITY, host_tuple());
    h.slot = 0;
    story.recorder.frame(&frame(h, &cgroup, path.as_bytes()));
    let exec = Exec { old_tid: 201, filename_len: 7, args_len: 0, args_total: 0 };
    let mut h = story.header(Kind::Exec, 201, flags::JUDGE | flags::PRIORITY, host_tuple());
    (h.slot, h.cgroup_v2, h.start_ns) = (FAKE, FAKE, 2_000_000_000);
    story.recorder.frame(&frame(h, &exec, b"/bin/sh"));
    // Called by its path, which no runtime's state is asked by as if it were the id.
    story.recorder.answer_runtime(path.trim_start_matches('/'), None);
    // It joins the real one: out of its own, into another's.
    let call = Syscall { nr: 308, reserved: 0, ret: 0, args: [3, 0] };
    let mut h = story.header(Kind::Setns, 201, JOIN | flags::PRIORITY, container_tuple());
    (h.slot, h.cgroup_v2, h.start_ns) = (FAKE, FAKE, 2_000_000_000);
    story.recorder.frame(&frame(h, &call, b""));
    // The container itself goes on as before.
    story.setns(100, -1, 0, container_tuple());
    let alerts = story.ends();
    let container = |alert: &Alert| alert.container.as_ref().expect("a container").clone();
    let [refused, joined] = alerts.as_slice() else { panic!("{alerts:#?}") };
    assert_eq!((container(refused).id.as_str(), refused.severity), (ID, Severity::Notice));
    assert_eq!(container(refused).cgroup_id, Some(CGROUP));
    assert_eq!(container(joined).id, path.trim_start_matches('/'));
    assert_eq!(joined.evidence.target_container.as_ref().map(|target| target.id.as_str()), Some(ID));
}
