//! What is recorded replays to the same bytes.

use crate::{FOUR, lab};
use observer_live::agent::{self, Config};
use observer_live::host::{self, Guard};
use observer_live::spec::Spec;
use observer_live::{pace, scratch, wait};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

/// Two replays of one recording give the same bytes, among them the escape; and they need no host: the container is
/// gone by then.
#[test]
fn a_replay_gives_the_same_bytes() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let file = scratch::subdir("recording").join("escape.rec");
    let path = file.display().to_string();
    let config = Config::new("");
    let container = lab.container(Spec::privileged("recorded"));
    let mut command =
        agent::observer(&["record", "--output", &path, "--duration", "60", "--config", config.arg()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut record = Guard::spawn(&mut command).expect("start observer record");
    // Says so when it is armed; before, what is off on this kernel.
    let mut said = BufReader::new(record.child().stderr.take().expect("the recorder's stderr"));
    let mut line = String::new();
    while !line.starts_with("recording to ") {
        line.clear();
        assert!(said.read_line(&mut line).expect("read what the recorder says") > 0, "it was never armed");
    }
    container.sh(&format!("nsenter -t {} -m -n -u -i sh -c true", target.pid())).ok();
    // As Ctrl-C does, a while after what is to be in it.
    std::thread::sleep(pace::settle().1 * 2);
    host::signal(record.pid(), libc::SIGINT);
    let ended = wait::until(Duration::from_secs(20), || record.child().try_wait().ok().flatten());
    assert_eq!(ended.expect("observer record did not end").code(), Some(0));
    drop(said);
    let id = container.id.clone();
    drop(container);

    let replay = || {
        let output = agent::observer(&["replay", &path]).output().expect("run observer replay");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let (first, second) = (replay(), replay());
    assert_eq!(first, second, "two replays differ");
    let alerts: Vec<Value> = String::from_utf8(first)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
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
