//! Names that try to break the reader.

use crate::{assert_escape, lab};
use observer_live::agent::{self, Config};
use observer_live::pty::{Terminal, unsafe_for_terminal};
use observer_live::spec::Spec;
use observer_live::{host, http, wait};
use std::process::Stdio;
use std::time::Duration;

/// Valid JSON on one line (the harness checks every line for it), the names in it as they were.
#[test]
fn json_survives() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let agent = lab.agent();
    let container = lab.container(Spec::privileged("hostile"));
    container.sh(&format!("observer-attacks hostile-exec {} net", target.pid())).ok();
    let alert = agent.wait_for("namespace.escape", &container.id);
    assert_escape(&alert, container.pid, target.pid(), &["net"]);
    // \x1b]0;x\x07"\\\n\xff{} as the kernel keeps it, the byte that is no UTF-8 replaced.
    assert_eq!(alert.text("/process/comm"), "\u{1b}]0;x\u{7}\"\\\n\u{fffd}{}", "{}", alert.line);
    let args = alert.args();
    assert_eq!(args.first(), Some(&"\u{1b}[31mred\u{1b}[0m"), "{}", alert.line);
    assert!(
        args.contains(&"quote\" back\\slash 'tick' {\"severity\":\"info\"}\n{\"rule\":\"fake\"}"),
        "{}",
        alert.line
    );
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    // The metrics stay readable too; the harness parses them.
    assert_eq!(agent.lost(), 0.0);
    agent.finish();
}

/// The readable form of `run`, and `tail`, on a terminal: nothing reaches it but text and colours.
#[test]
fn a_terminal_survives() {
    let Some(lab) = lab() else { return };
    let target = host::target();
    let config = Config::new("");
    let mut command = agent::observer(&["run", "--config", config.arg()]);
    let run =
        Terminal::spawn(command.stdin(Stdio::null()).stderr(Stdio::null()).env("TERM", "xterm-256color"));
    let ready = || http::get(config.address, "/readyz").is_ok_and(|(status, _)| status == 200);
    assert!(wait::until_true(Duration::from_secs(10), ready), "the agent was not ready within 10 s");
    let mut command = agent::observer(&["tail", "--config", config.arg()]);
    let tail =
        Terminal::spawn(command.stdin(Stdio::null()).stderr(Stdio::null()).env("TERM", "xterm-256color"));
    let mut command = agent::observer(&["tail", "--config", config.arg(), "--events"]);
    let events =
        Terminal::spawn(command.stdin(Stdio::null()).stderr(Stdio::null()).env("TERM", "xterm-256color"));
    // The tails have no way to say that they are connected but to show something.
    let shows = || {
        drop(host::target());
        !events.bytes().is_empty()
    };
    assert!(wait::until_true(Duration::from_secs(10), shows), "observer tail --events shows nothing");
    let container = lab.container(Spec::privileged("hostile-tty"));
    container.sh(&format!("observer-attacks hostile-exec {} net", target.pid())).ok();
    for (name, terminal, needle) in [
        ("run", &run, "namespace.escape"),
        ("tail", &tail, "namespace.escape"),
        ("tail --events", &events, "observer-attack"),
    ] {
        let shown = wait::until_true(Duration::from_secs(5), || {
            String::from_utf8_lossy(&terminal.bytes()).contains(needle)
        });
        let bytes = terminal.bytes();
        assert!(shown, "observer {name} shows no {needle}: {}", String::from_utf8_lossy(&bytes));
        if let Some(why) = unsafe_for_terminal(&bytes) {
            panic!("observer {name} sends the terminal {why}: {:?}", String::from_utf8_lossy(&bytes));
        }
    }
}
