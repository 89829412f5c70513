//! A runtime that writes what its container is called when the container has run for a while. The clock is made up; each
//! run is recorded, and its replay gives the same bytes.

use std::{cell::Cell, path::PathBuf, rc::Rc, sync::atomic::AtomicU32};

use observer_common::{Cgroup, Exec, Inodes, Kind, NS_NET, Syscall, flags};

use crate::{
    decode::build::{frame, header},
    host::{Host, RuntimeFacts},
    model::{Alert, Clock, Label, MetadataMark, Severity},
    pipeline::{
        Core, Recorder, Replay, Tick,
        record::RecordingHost,
        tests::{CGROUP, ID, JOIN, SLOT, container_tuple, host_tuple, out, snapshot},
    },
};

const MS: u64 = 1_000_000;
const BIRTH_NS: u64 = 2_000_000_000;

/// Knows the container from this time on.
struct Writer {
    from_ns: u64,
    now_ns: Rc<Cell<u64>>,
    /// How often it was asked.
    asked: Rc<Cell<usize>>,
    facts: RuntimeFacts,
}

impl Host for Writer {
    fn runtime(&mut self, _id: &str) -> Option<RuntimeFacts> {
        self.asked.set(self.asked.get() + 1);
        (self.now_ns.get() >= self.from_ns).then(|| self.facts.clone())
    }

    fn sweep(&mut self, pids: &[(u32, u64)]) -> Vec<Option<Inodes>> {
        vec![None; pids.len()]
    }

    fn image(&mut self, _pid: u32, _start_ticks: u64) -> Option<(Option<String>, Vec<String>)> {
        None
    }

    fn labels(&mut self, pids: &[(u32, u64)]) -> Vec<Option<Label>> {
        vec![None; pids.len()]
    }

    fn cgroup_path(&mut self, _hierarchy: u32, _id: u64) -> Option<String> {
        None
    }
}

fn facts() -> RuntimeFacts {
    RuntimeFacts {
        runtime: Some("docker".into()),
        name: Some("web".into()),
        image: Some("nginx:1".into()),
        ..RuntimeFacts::default()
    }
}

/// The live loop without rings: what comes, and what is due in between.
struct Run {
    core: Core,
    host: RecordingHost<Writer>,
    now_ns: Rc<Cell<u64>>,
    asked: Rc<Cell<usize>>,
    /// What has gone out, and when, since the container's birth.
    out: Vec<(u64, Alert)>,
    path: PathBuf,
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Run {
    /// A container is born, at this path, whose runtime writes its state so much later.
    fn begin(path: &str, writes_after_ms: u64, facts: RuntimeFacts) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("observer-held-{}-{number}", std::process::id()));
        let recorder = Recorder::create(&file).expect("a file in the temporary directory");
        let clock = Clock { offset_ns: 1_700_000_000_000_000_000 };
        recorder.start("node", clock, &snapshot(), &Default::default());
        let (now_ns, asked) = (Rc::new(Cell::new(BIRTH_NS)), Rc::new(Cell::new(0)));
        let from_ns = BIRTH_NS.saturating_add(writes_after_ms.saturating_mul(MS));
        let writer = Writer { from_ns, now_ns: now_ns.clone(), asked: asked.clone(), facts };
        let mut host = RecordingHost { host: writer, recorder };
        let mut core = Core::new("node".into(), clock, &snapshot(), Default::default());
        assert!(core.start(&snapshot(), &mut host).is_empty());
        let mut run = Run { core, host, now_ns, asked, out: Vec::new(), path: file };
        let cgroup = Cgroup {
            hierarchy: 0,
            level: 2,
            id: CGROUP,
            parent_id: 3,
            slot: SLOT,
            path_len: path.len() as u32,
            reserved: 0,
        };
        run.event(0, Kind::CgroupMkdir, flags::PRIORITY, host_tuple(), |h| {
            frame(h, &cgroup, path.as_bytes())
        });
        run.exec(0, flags::JUDGE | flags::PRIORITY);
        run
    }

    fn event(
        &mut self,
        at_ms: u64,
        kind: Kind,
        bits: u32,
        inodes: Inodes,
        make: impl FnOnce(observer_common::Header) -> Vec<u8>,
    ) {
        self.until(at_ms);
        // docker makes the cgroup; all else is the container's first process.
        let (pid, slot) = if kind == Kind::CgroupMkdir { (50, 0) } else { (100, SLOT) };
        let mut h = header(kind);
        (h.time_ns, h.tgid, h.tid, h.ppid) = (BIRTH_NS + at_ms * MS, pid, pid, 50);
        (h.start_ns, h.slot, h.flags, h.inodes, h.cgroup_v2) = (1_900_000_000, slot, bits, inodes, CGROUP);
        let bytes = make(h);
        self.host.recorder.frame(&bytes);
        let (_, alerts) = self.core.frame(&bytes, &mut self.host).expect("a frame");
        self.keep(alerts);
    }

    fn exec(&mut self, at_ms: u64, bits: u32) {
        let exec = Exec { old_tid: 100, filename_len: 7, args_len: 0, args_total: 0 };
        self.event(at_ms, Kind::Exec, bits, container_tuple(), |h| frame(h, &exec, b"/bin/sh"));
    }

    /// A refused join: an alert at once.
    fn refused(&mut self, at_ms: u64) {
        let call = Syscall { nr: 308, reserved: 0, ret: -1, args: [3, 0] };
        let bits = flags::PRIORITY;
        self.event(at_ms, Kind::Setns, bits, container_tuple(), |h| frame(h, &call, b""));
    }

    /// An escape, told at the latest 10 ms after it.
    fn escapes(&mut self, at_ms: u64) {
        let call = Syscall { nr: 308, reserved: 0, ret: 0, args: [3, 0] };
        let bits = JOIN | flags::PRIORITY;
        self.event(at_ms, Kind::Setns, bits, out(&[NS_NET]), |h| frame(h, &call, b""));
    }

    /// Lets time pass, as the live loop does: what is due is done when it is due, ticks come once a second.
    fn until(&mut self, at_ms: u64) {
        let end = BIRTH_NS + at_ms * MS;
        loop {
            let now = self.now_ns.get();
            let tick = (now / 1_000_000_000 + 1) * 1_000_000_000;
            let due = self.core.next_deadline().map_or(tick, |due| due.max(now + 1).min(tick));
            if due > end {
                break;
            }
            self.now_ns.set(due);
            let alerts = if due == tick {
                let tick = Tick::quiet(due);
                self.host.recorder.tick(&tick);
                self.core.tick(&tick, &mut self.host)
            } else {
                self.host.recorder.expire(due);
                self.core.expire(due, &mut self.host)
            };
            self.keep(alerts);
        }
        self.now_ns.set(end);
    }

    fn keep(&mut self, alerts: Vec<Alert>) {
        let after = self.now_ns.get() - BIRTH_NS;
        self.out.extend(alerts.into_iter().map(|alert| (after / MS, alert)));
    }

    /// All that went out; a replay says the same.
    fn ends(mut self) -> Vec<(u64, Alert)> {
        let rest = self.core.finish();
        self.keep(rest);
        self.host.recorder.finish().expect("the recording is written");
        let mut replayed = Vec::new();
        Replay::open(&self.path)
            .expect("a recording")
            .run(|alert| replayed.push(alert))
            .expect("a whole one");
        let live: Vec<&Alert> = self.out.iter().map(|(_, alert)| alert).collect();
        let bytes = |alerts: &[&Alert]| serde_json::to_vec(alerts).expect("alerts are JSON");
        assert_eq!(bytes(&live), bytes(&replayed.iter().collect::<Vec<_>>()));
        std::mem::take(&mut self.out)
    }
}

fn docker() -> String {
    format!("/docker/{ID}")
}

/// Name and mark.
fn said(alert: &Alert) -> (Option<&str>, Option<MetadataMark>) {
    let container = alert.container.as_ref().expect("a container");
    (container.name.as_deref(), container.metadata)
}

#[test]
fn an_alert_waits_for_its_containers_name_but_not_long() {
    // (the runtime writes after, the alert goes out between, with a name).
    for (writes_ms, from_ms, to_ms, named) in
        [(0, 10, 10, true), (200, 200, 250, true), (2_000, 509, 511, false), (u64::MAX / MS, 509, 511, false)]
    {
        let mut run = Run::begin(&docker(), writes_ms, facts());
        run.refused(10);
        run.until(3_000);
        let asked = run.asked.get();
        let alerts = run.ends();
        let [(at_ms, alert)] = alerts.as_slice() else { panic!("{writes_ms}: {alerts:#?}") };
        assert!((from_ms..=to_ms).contains(at_ms), "written after {writes_ms} ms, told after {at_ms} ms");
        let expected = if named { (Some("web"), None) } else { (None, Some(MetadataMark::Missing)) };
        assert_eq!(said(alert), expected, "{writes_ms}");
        assert_eq!(alert.message.contains("container web"), named, "{}", alert.message);
        let image = alert.container.as_ref().and_then(|container| container.image.as_deref());
        assert_eq!(image, named.then_some("nginx:1"));
        // The event's time is the event's.
        assert!(alert.time.ends_with("22.010000000Z"), "{}", alert.time);
        assert!(asked <= 12, "asked {asked} times");
    }
}

#[test]
fn an_escape_is_not_held_up_when_the_name_is_known() {
    for (writes_ms, at_most_ms) in [(0, 20), (200, 250), (u64::MAX / MS, 510)] {
        let mut run = Run::begin(&docker(), writes_ms, facts());
        run.escapes(10);
        run.until(1_000);
        let alerts = run.ends();
        let [(at_ms, alert)] = alerts.as_slice() else { panic!("{writes_ms}: {alerts:#?}") };
        assert_eq!((alert.rule.as_str(), alert.severity), ("namespace.escape", Severity::Critical));
        assert!(*at_ms <= at_most_ms, "written after {writes_ms} ms, told after {at_ms} ms");
    }
}

#[test]
fn order_is_kept_and_what_another_exec_made_known_goes_out_at_once() {
    let mut run = Run::begin(&docker(), 20, facts());
    run.refused(10);
    // A newcomer (docker exec): the agent looks for the name anyway.
    run.exec(30, flags::JUDGE | flags::PRIORITY);
    run.escapes(40);
    run.until(1_000);
    let alerts = run.ends();
    let told: Vec<(u64, &str, Severity)> =
        alerts.iter().map(|(at, alert)| (*at, alert.rule.as_str(), alert.severity)).collect();
    assert_eq!(
        told,
        [(30, "namespace.escape", Severity::Notice), (50, "namespace.escape", Severity::Critical)]
    );
    assert!(alerts.iter().all(|(_, alert)| said(alert) == (Some("web"), None)), "{alerts:#?}");
}

#[test]
fn only_the_young_wait_and_only_where_there_is_something_to_wait_for() {
    let user = format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope");
    let runc = RuntimeFacts { runtime: Some("runc".into()), ..RuntimeFacts::default() };
    let missing = Some(MetadataMark::Missing);
    // docker's own state is elsewhere, and its runc's is not.
    let partial =
        RuntimeFacts { runtime: Some("docker".into()), init_pid: Some(100), ..RuntimeFacts::default() };
    // (path, facts, written after, event at, waits, mark)
    let cases = [
        ("an old container", docker(), facts(), u64::MAX / MS, 6_000, false, missing),
        ("a user's container", user, facts(), u64::MAX / MS, 10, false, None),
        ("LXC", "/lxc.payload.web".into(), facts(), u64::MAX / MS, 10, false, None),
        ("runc, which has no names", "/web".into(), runc, 0, 10, false, None),
        ("docker with another data root", docker(), partial, 0, 10, false, missing),
        ("nobody's, as far as is known", "/web".into(), facts(), u64::MAX / MS, 10, true, missing),
    ];
    for (what, path, facts, writes_ms, at_ms, waits, mark) in cases {
        let mut run = Run::begin(&path, writes_ms, facts);
        run.refused(at_ms);
        run.until(at_ms + 1_000);
        let alerts = run.ends();
        let [(told_ms, alert)] = alerts.as_slice() else { panic!("{what}: {alerts:#?}") };
        assert_eq!(*told_ms > at_ms, waits, "{what}: told after {told_ms} ms");
        assert_eq!(said(alert).1, mark, "{what}");
    }
}

#[test]
fn what_only_a_part_comes_of_does_not_wait_for_the_rest() {
    let partial = RuntimeFacts { init_pid: Some(100), ..RuntimeFacts::default() };
    let mut run = Run::begin(&docker(), 200, partial);
    run.refused(10);
    run.until(1_000);
    let alerts = run.ends();
    let [(at_ms, alert)] = alerts.as_slice() else { panic!("{alerts:#?}") };
    assert!((200..=250).contains(at_ms), "told after {at_ms} ms");
    assert_eq!(said(alert), (None, Some(MetadataMark::Missing)));
}

#[test]
fn what_still_waits_at_the_end_is_told() {
    let mut run = Run::begin(&docker(), u64::MAX / MS, facts());
    run.refused(10);
    let alerts = run.ends();
    assert_eq!(alerts.len(), 1, "{alerts:#?}");
    assert_eq!(said(&alerts[0].1), (None, Some(MetadataMark::Missing)));
}

#[test]
fn no_more_wait_than_there_is_room_for_and_none_is_dropped() {
    use super::*;
    let mut world = World::new(observer_common::Host {
        inodes: host_tuple(),
        found: 1,
        told: 0,
        root: observer_common::Root { mnt_ns: 0, dev: 0, mount_root_ino: 0, ino: 0 },
    });
    let key = world.make_container(ID, crate::model::Runtime::Docker, BIRTH_NS, false);
    let alert = crate::sinks::protocol::sample::alert("a message");
    let mut alert = Alert::clone(&alert);
    alert.container = world.container_ref(key);
    let mut held = Held::default();
    let given_back =
        (0..MOST + 10).filter(|_| held.hold(alert.clone(), Some(key), BIRTH_NS, &world).is_some());
    assert_eq!(given_back.count(), 10);
    assert_eq!(held.next_deadline(), Some(BIRTH_NS + ASK_NS));
    assert_eq!(held.flush().len(), MOST);
    assert_eq!(held.next_deadline(), None);
}
