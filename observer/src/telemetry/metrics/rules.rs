//! Tests of the alerting rules in deploy/prometheus: `promtool` takes them, they fire when they should, and what they ask for
//! exists.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::families;

/// Runs it with this input. Whether it is content, and what it said. It must be there.
pub(super) fn promtool(args: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("promtool");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            panic!(
                "promtool is not installed: Debian's package prometheus, or `cargo xtask setup --for test`"
            )
        }
        Err(error) => panic!("promtool: {error}"),
    };
    let mut stdin = promtool.stdin.take().expect("its stdin");
    stdin.write_all(input.as_bytes()).expect("feed promtool");
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool's end");
    let words = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    (output.status.success(), words.into_owned())
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus").join(name)
}

#[test]
fn promtool_takes_the_rules() {
    let rules = file("observer.rules.yaml");
    let (fine, words) = promtool(&["check", "rules", rules.to_str().expect("UTF-8")], "");
    assert!(fine, "{words}");
}

#[test]
fn the_rules_fire_when_they_should() {
    let tests = file("observer.rules.test.yaml");
    let (fine, words) = promtool(&["test", "rules", tests.to_str().expect("UTF-8")], "");
    assert!(fine, "{words}");
}

#[test]
fn the_rules_ask_for_what_there_is() {
    let rules = std::fs::read_to_string(file("observer.rules.yaml")).expect("the rules");
    let expressions = rules.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = expressions.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let mut asked = 0;
    for name in words.filter(|word| word.starts_with("observer_")) {
        asked += 1;
        assert!(families().any(|family| family.name == name), "{name}");
    }
    assert!(asked > 5, "{asked}");
}
