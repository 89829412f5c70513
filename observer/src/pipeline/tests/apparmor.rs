//! What AppArmor denied, from a recording.

use super::*;
use crate::model::{AppArmorRecord, AppArmorVerdict};

/// A denial by a process that has ended when the log is read; one of the host's; one that only would have been.
#[test]
fn denials_are_in_a_recording() {
    let mut story = Story::begin();
    story.container_starts();
    let same = container_tuple();
    // So old that no alert waits for its name; and soon enough that the loss below makes nobody look at all processes.
    story.time_ns = 8_000_000_000;
    story.fork(100, 101, same);
    let mut record = AppArmorRecord {
        time_ns: story.time_ns,
        count: 2,
        pid: 101,
        comm: "sh".into(),
        operation: "open".into(),
        class: Some("file".into()),
        profile: "web".into(),
        name: Some("/etc/shadow".into()),
        requested: Some("r".into()),
        denied: Some("r".into()),
        ..AppArmorRecord::default()
    };
    story.exit(101, same);
    let host = AppArmorRecord { pid: 50, ..record.clone() };
    let complaint = AppArmorRecord { verdict: AppArmorVerdict::Allowed, ..record.clone() };
    story.recorder.denied_access(&[record.clone(), host, complaint]);
    record.time_ns += 61_000_000_000;
    (record.pid, record.count) = (100, 5);
    story.recorder.denied_access(&[record.clone()]);
    // Nobody has heard of that one: a loss, and said.
    record.pid = 999;
    story.recorder.denied_access(&[record]);
    let now_ns = story.time_ns + 1_000_000_000;
    story.recorder.tick(&Tick { audit_log: 3, ..Tick::quiet(now_ns) });
    let alerts = story.ends();
    let [first, second, lost] = alerts.as_slice() else { panic!("{alerts:#?}") };
    assert_eq!((first.rule.as_str(), first.severity), ("apparmor.denied", Severity::Notice));
    assert_eq!((first.count, second.count, &second.incident), (2, 7, &first.id));
    let pid = |alert: &Alert| alert.process.as_ref().map(|process| process.pid);
    assert_eq!((pid(first), pid(second)), (Some(101), Some(100)));
    assert_eq!(first.container.as_ref().map(|container| container.id.as_str()), Some(ID));
    assert_eq!(first.evidence.name.as_deref(), Some("/etc/shadow"));
    let expected = [("audit_log".to_owned(), 3), ("unattributed".to_owned(), 5)];
    assert_eq!((lost.rule.as_str(), &lost.evidence.lost), ("agent.events_lost", &expected.into()));
}
