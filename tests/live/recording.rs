//! What is recorded replays to the same bytes.

use crate::{FOUR, lab};
use observer_live::agent::{self, Config};
use observer_live::recording::Recording;
use observer_live::spec::Spec;
use observer_live::{host, pace, scratch};
use serde_json::Value;

/// Two replays of one recording give the same bytes, among them the escape; and they need no host: the container is
/// gone by then.
#[test]
fn a_replay_gives_the_same_bytes() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let file = scratch::subdir("recording").join("escape.rec");
    let container = lab.container(Spec::privileged("recorded"));
    let recording = Recording::start(&file, &Config::new(""));
    container.sh(&format!("nsenter -t {} -m -n -u -i sh -c true", target.pid())).ok();
    // A while after what is to be in it.
    std::thread::sleep(pace::settle().1 * 2);
    let recorded = recording.end();
    let id = container.id.clone();
    drop(container);

    let alerts = recorded.replay();
    let escapes: Vec<&Value> = alerts
        .iter()
        .filter(|alert| alert["rule"] == "namespace.escape" && alert["container"]["id"] == id.as_str())
        .collect();
    assert!(escapes.len() == 1 || pace::joins_may_part(), "{alerts:#?}");
    let escape = escapes.last().expect("the escape");
    assert_eq!(escape["severity"], "critical");
    assert_eq!(escape["namespaces"]["changed"], serde_json::json!(FOUR));
}

/// A recording that is cut short or no recording at all is refused, not crashed on.
#[test]
fn a_broken_recording_is_refused() {
    let Some(_lab) = lab() else { return };
    let dir = scratch::subdir("recording");
    for (name, bytes) in
        [("empty", &b""[..]), ("noise", b"\x00\xff\x7fELF no recording at all"), ("text", b"{}\n")]
    {
        let file = dir.join(name);
        std::fs::write(&file, bytes).expect("write a broken recording");
        let output =
            agent::observer(&["replay", &file.display().to_string()]).output().expect("run observer replay");
        let code = output.status.code();
        assert!(code == Some(1) || code == Some(2), "{name}: {output:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{name}: {output:?}");
    }
}
