//! The command as its users meet it: exit codes, one-line errors, and `tail` against an agent's socket.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

fn observer(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
    command.args(args).stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}

fn run(args: &[&str]) -> Output {
    observer(args).output().expect("start observer")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// A directory of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("observer-cli-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a scratch directory");
        Scratch(path)
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a scratch file");
        path.to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_bad_configuration_exits_with_2_and_one_line() {
    let scratch = Scratch::new("config");
    let bad = scratch.file("bad.yaml", "rings:\n  event_bytes: 1\n");
    for args in [["config", "check", "--config", &bad], ["--config", &bad, "config", "check"]] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(
            text(&output.stderr),
            format!(
                "observer: {bad}:2: unknown key `event_bytes` (did you mean `events_bytes`?), \
                 expected one of `events_bytes`, `priority_bytes`\n"
            )
        );
    }
    let missing = run(&["tail", "--config", "/nonexistent/observer.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).starts_with("observer: /nonexistent/observer.yaml: No such file"));
}

#[test]
fn the_environment_can_name_files_of_secrets_and_nothing_else() {
    let scratch = Scratch::new("environment");
    let file = scratch
        .file("observer.yaml", "sinks: [{type: webhook, name: siem, url: \"https://siem.example/\"}]\n");
    let check = |name: &str, value: &str| {
        observer(&["config", "check", "--config", &file]).env(name, value).output().expect("start observer")
    };
    let good = check("OBSERVER_SINK_SIEM_HEADER_AUTHORIZATION_FILE", "/run/token");
    assert_eq!((good.status.code(), text(&good.stderr)), (Some(0), ""));
    for (name, value, what) in [
        ("OBSERVER_SINK_SEIM_TLS_KEY_FILE", "/run/key", "unknown, expected OBSERVER_SINK_<NAME>_TLS_CA_FILE"),
        ("OBSERVER_SINK_SIEM_TLS_KEY_FILE", "s3cret", "its value is no absolute path"),
    ] {
        let bad = check(name, value);
        let said = text(&bad.stderr);
        assert_eq!(bad.status.code(), Some(2), "{said}");
        assert!(said.starts_with(&format!("observer: environment variable {name}: {what}")), "{said}");
        assert!(said.lines().count() == 1 && !said.contains("s3cret"), "{said}");
    }
}

#[test]
fn the_default_configuration_is_a_good_one() {
    let scratch = Scratch::new("default");
    let output = run(&["config", "default"]);
    assert_eq!(output.status.code(), Some(0));
    let file = scratch.file("observer.yaml", text(&output.stdout));
    let check = run(&["config", "check", "--config", &file]);
    assert_eq!((check.status.code(), text(&check.stdout)), (Some(0), format!("{file}: fine\n").as_str()));
}

/// By the schema alone, without the agent: what an editor does.
#[test]
fn the_configurations_schema_tells_good_from_bad() {
    let output = run(&["config", "schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let validator = jsonschema::draft202012::new(&schema).expect("a schema");
    let is_good = |value: serde_json::Value| validator.is_valid(&value);
    assert!(is_good(serde_json::json!({ "rings": { "events_bytes": 4096 }, "node": null })));
    assert!(!is_good(serde_json::json!({ "rings": { "event_bytes": 4096 } })));
    assert!(!is_good(serde_json::json!({ "rings": { "events_bytes": 4097 } })));
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [
        &["fly"][..],
        &[],
        &["tail", "--kind", "exec"],
        &["tail", "--events", "--kind", "open"],
        &["tail", "--events", "--severity", "critical"],
        &["tail", "--severity", "high"],
        &["docs", "novel"],
    ] {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn documents_are_printed() {
    for kind in ["alert-schema", "event-schema", "metrics", "rules"] {
        let output = run(&["docs", kind]);
        assert!(output.status.success() && output.stdout.ends_with(b"\n"), "{kind}");
    }
}

const ONE: &str = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
    {"names": ["read", "write", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
    {"names": ["socket", "clone"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]}]}"#;
const OTHER: &str = r#"{"defaultAction": "SCMP_ACT_KILL", "syscalls": [
    {"names": ["mount", "read"], "action": "SCMP_ACT_ALLOW"}]}"#;

/// Two files become one that lets pass what either does, without an agent; what the result no longer could say is told.
#[test]
fn profiles_are_merged_and_compared_without_an_agent() {
    let scratch = Scratch::new("profiles");
    let (one, other) = (scratch.file("one.json", ONE), scratch.file("other.json", OTHER));
    let merged = run(&["profile", "seccomp", "--merge", &one, &other]);
    assert_eq!(
        (merged.status.code(), text(&merged.stderr)),
        (
            Some(0),
            format!("observer: {one} lets these pass with some arguments only; left out: clone, socket\n")
                .as_str()
        )
    );
    let json: serde_json::Value = serde_json::from_slice(&merged.stdout).expect("JSON");
    let expected = serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mount", "read", "write"], "action": "SCMP_ACT_ALLOW"}],
    });
    assert_eq!(json, expected);
    // What is merged can be merged again, and is then what it was.
    let both = scratch.file("both.json", text(&merged.stdout));
    let again = run(&["profile", "seccomp", "--merge", &both]);
    assert_eq!((again.status.code(), text(&again.stdout)), (Some(0), text(&merged.stdout)));

    let diff = run(&["profile", "seccomp", "--merge", &other, "--diff", &both]);
    let expected = format!("0 calls beyond {both}:\n1 calls of {both} that it does without:\n- write\n");
    assert_eq!((diff.status.code(), text(&diff.stdout)), (Some(0), expected.as_str()));
    let diff = run(&["profile", "seccomp", "--merge", &other, "--diff"]);
    assert!(
        text(&diff.stdout).starts_with("1 calls beyond docker's default:\n+ mount\n"),
        "{}",
        text(&diff.stdout)
    );
}

/// Each mistake, its one line, and its exit code.
#[test]
fn a_bad_profile_is_told_in_one_line() {
    let scratch = Scratch::new("profile");
    let good = scratch.file("good.json", OTHER);
    let cut = scratch.file(
        "cut.json",
        r#"{"defaultAction": "SCMP_ACT_ERRNO",
 "syscalls": ["#,
    );
    let (yaml, empty) = (scratch.file("profile.yaml", "a: 1\n"), scratch.file("empty.json", ""));
    let bare = scratch.file("bare.json", r#"{"syscalls": []}"#);
    let names = scratch
        .file("names.json", r#"{"defaultAction": "a", "syscalls": [{"names": "read", "action": "b"}]}"#);
    let large = scratch.file("large.json", &" ".repeat((1 << 20) + 1));
    let expected = "expected a seccomp profile in OCI's format, with defaultAction";
    for (file, said) in [
        (&cut, format!("{cut}: {expected}: EOF while parsing a list at line 2 column 14")),
        (&yaml, format!("{yaml}: {expected}: expected value at line 1 column 1")),
        (&empty, format!("{empty}: {expected}: EOF while parsing a value at line 1 column 0")),
        (&bare, format!("{bare}: {expected}: missing field `defaultAction` at line 1 column 16")),
        (
            &names,
            format!(
                "{names}: {expected}: invalid type: string \"read\", expected a sequence at line 1 column 52"
            ),
        ),
        (&large, format!("{large} is too large for a seccomp profile, expected at most 1048576 bytes")),
        (
            &"/nonexistent/a.json".to_owned(),
            "/nonexistent/a.json: No such file or directory (os error 2)".to_owned(),
        ),
    ] {
        for args in [
            &["--merge", &good, file][..],
            &["--merge", &good, "--diff", file],
            &["a-container", "--diff", file],
        ] {
            let output = run(&[&["profile", "seccomp"], args].concat());
            assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""), "{args:?}");
            assert_eq!(text(&output.stderr), format!("observer: {said}\n"), "{args:?}");
        }
    }
    // Nothing to make it of.
    for args in [
        &["profile", "seccomp"][..],
        &["profile", "seccomp", "--diff", &good],
        &["profile", "caps"],
        &["profile"],
    ] {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
}

/// An agent's socket with a scripted agent behind it.
struct Agent {
    listener: UnixListener,
    config: String,
    _scratch: Scratch,
}

impl Agent {
    fn new(name: &str) -> Agent {
        let scratch = Scratch::new(name);
        let socket = scratch.0.join("observer.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let config = scratch.file("observer.yaml", &format!("socket:\n  path: \"{}\"\n", socket.display()));
        Agent { listener, config, _scratch: scratch }
    }

    /// Starts a tail, and takes its connection and request.
    fn tailed(&self, args: &[&str]) -> (Tail, UnixStream, serde_json::Value) {
        let mut command = observer(&["tail", "--config", &self.config]);
        let child =
            command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start tail");
        let (stream, _) = self.listener.accept().expect("its connection");
        let mut request = String::new();
        BufReader::new(stream.try_clone().expect("a copy")).read_line(&mut request).expect("its request");
        (Tail(child), stream, serde_json::from_str(&request).expect("JSON"))
    }
}

/// Killed if the test ends early.
struct Tail(Child);

impl Tail {
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let stdout = self.0.stdout.as_mut().expect("its stdout");
        let mut byte = [0];
        while stdout.read(&mut byte).expect("its output") > 0 {
            line.push(byte[0]);
            if byte[0] == b'\n' {
                break;
            }
        }
        text(&line).to_owned()
    }

    fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().expect("its end") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("tail does not end");
    }

    fn stderr(&mut self) -> String {
        let mut words = String::new();
        self.0.stderr.as_mut().expect("its stderr").read_to_string(&mut words).expect("its words");
        words
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    fs::read_to_string(path).expect("a golden file")
}

/// A golden JSON file as the one line that it is on the wire.
fn one_line(name: &str) -> String {
    golden(name).lines().map(str::trim_start).collect()
}

#[test]
fn tail_passes_json_on_as_it_came() {
    let agent = Agent::new("json");
    let (mut tail, mut stream, request) = agent.tailed(&[
        "--json",
        "--recent",
        "--severity",
        "warning",
        "--container",
        "web",
        "--rule",
        "namespace.*",
    ]);
    assert_eq!(
        request,
        serde_json::json!({
            "subscribe": "alerts", "recent": true,
            "filter": { "severity": "warning", "containers": ["web"], "rules": ["namespace.*"] },
        })
    );
    let alert = one_line("alert-escape.json").replacen('{', "{\"from_a_newer_agent\": 1.50,", 1);
    write!(
        stream,
        "{{\"subscribed\":\"alerts\"}}\n{{\"news\":1}}\n{{\"alert\":{alert}}}\n{{\"missed\":3}}\n"
    )
    .expect("send");
    assert_eq!(tail.line(), format!("{alert}\n"));
    assert_eq!(tail.line(), "{\"missed\":3}\n");
    drop(stream);
    assert_eq!(tail.end(), Some(1));
    let words = tail.stderr();
    let mut words = words.lines();
    assert!(words.next().is_some_and(|line| line.starts_with("observer: alerts from the agent on /")));
    assert_eq!(words.next(), Some("observer: the agent has ended"));
}

#[test]
fn tail_shows_text_without_colours_to_a_pipe() {
    let agent = Agent::new("text");
    let (mut tail, mut stream, request) = agent.tailed(&["--events", "--kind", "setns"]);
    assert_eq!(request["filter"], serde_json::json!({ "kinds": ["setns"] }));
    writeln!(stream, "{{\"event\":{}}}", one_line("event-setns.json")).expect("send");
    assert_eq!(tail.line(), golden("event-setns.txt"));
    writeln!(stream, "{{\"missed\":1}}").expect("send");
    assert_eq!(tail.line(), "... 1 line missed here: the reader was too slow\n");
}

#[test]
fn tail_says_why_it_is_refused() {
    let agent = Agent::new("refused");
    let (mut tail, mut stream, _) = agent.tailed(&[]);
    writeln!(stream, "{{\"error\":\"too many\\u001b[2J clients\"}}").expect("send");
    assert_eq!(tail.end(), Some(1));
    assert!(tail.stderr().ends_with("observer: the agent refuses: too many\\x1b[2J clients\n"));
}

#[test]
fn tail_ends_with_0_when_its_user_has_seen_enough() {
    let agent = Agent::new("enough");
    for signal in ["INT", "TERM"] {
        let (mut tail, mut stream, _) = agent.tailed(&["--json"]);
        writeln!(stream, "{{\"missed\":1}}").expect("send");
        assert_eq!(tail.line(), "{\"missed\":1}\n");
        let pid = tail.0.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().expect("kill").success());
        assert_eq!(tail.end(), Some(0), "{signal}");
    }
    // As in `observer tail | head -1`.
    let (mut tail, mut stream, _) = agent.tailed(&["--json"]);
    drop(tail.0.stdout.take());
    // Another test's child that is just being started has the pipe's other end, too, for a moment: a line may still find it.
    let sender = std::thread::spawn(move || {
        while writeln!(stream, "{{\"missed\":1}}").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(tail.end(), Some(0));
    sender.join().expect("the end of the sender");
}
