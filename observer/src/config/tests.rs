use super::*;

const FILE: &str = "/etc/observer/observer.yaml";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new(FILE), text).map_err(|error| error.to_string())
}

#[test]
fn the_default_file_is_the_default() {
    assert_eq!(parse(DEFAULT_YAML), Ok(Config::default()));
}

/// Nobody can add a key and forget to explain it.
#[test]
fn the_default_file_has_every_key() {
    fn keys(value: &serde_json::Value, depth: usize, found: &mut Vec<String>) {
        for (key, value) in value.as_object().into_iter().flatten() {
            found.push(format!("{}{key}:", "  ".repeat(depth)));
            keys(value, depth + 1, found);
        }
    }
    let mut expected = Vec::new();
    keys(&serde_json::to_value(Config::default()).expect("plain values"), 0, &mut expected);
    assert_eq!(expected.len(), 44);
    for key in expected {
        assert!(DEFAULT_YAML.lines().any(|line| line.starts_with(&key)), "default.yaml lacks `{key}`");
    }
}

#[test]
fn an_empty_file_means_the_defaults() {
    for text in ["", "# nothing\n", "{}\n"] {
        assert_eq!(parse(text), Ok(Config::default()), "{text:?}");
    }
}

#[test]
fn values_are_read() {
    let config = parse(
        "node: n1\nhttp: {listen: \"[::1]:1234\"}\nsocket:\n  path: /tmp/s\nrings:\n  events_bytes: 65536\n\
         host: {proc: /host/proc}\nhost_namespaces: own\nsweep_seconds: 1\n\
         stdout:\n  format: json\naudit:\n  capabilities: true\n  syscalls: true\nmetrics: {max_containers: 0}\nself_protection: false\n",
    )
    .expect("valid");
    assert_eq!(config.node_name(), "n1");
    assert_eq!(config.http.listen, Some("[::1]:1234".parse().expect("an address")));
    assert_eq!(config.socket.path, Path::new("/tmp/s"));
    assert_eq!(config.rings, Rings { events_bytes: 65536, ..Rings::default() });
    assert_eq!(config.host, HostRoots { proc: "/host/proc".into(), ..HostRoots::default() });
    assert_eq!(config.host_namespaces, HostNamespaces::Own);
    assert_eq!(config.sweep_seconds, 1);
    assert_eq!(config.stdout.format, StdoutFormat::Json);
    assert_eq!(config.audit, Audit { capabilities: true, syscalls: true, seccomp: false });
    assert!(!config.self_protection);
    assert_eq!(config.metrics.max_containers, 0);
}

#[test]
fn thresholds_of_all_and_of_some() {
    use values::{PerSecond, Percent};
    let config = parse(
        "limits:\n  poll_seconds: 2\n  memory: {near_percent: off}\n  pids:\n    growth_per_second: 7\n  overrides:\n  \
         - containers: {name: \"web-*\"}\n    changes: false\n    memory: {near_percent: 50, near_seconds: 0}\n  \
         - containers: {runtime: docker}\n    memory: {near_seconds: 1}\n    cpu: {throttled_percent: off}\n",
    )
    .expect("valid");
    let limits = &config.limits;
    assert_eq!((limits.poll_seconds, limits.resolve_seconds, limits.overrides.len()), (2, 15, 2));
    let thresholds = |name: &str, runtime| limits.of(&super::selector::tests::container(name, runtime));
    use crate::model::Runtime;
    let all = thresholds("db", Runtime::Podman);
    assert_eq!((all.memory.near_percent, all.memory.near_seconds, all.changes), (Switch::Off, 30, true));
    assert_eq!(all.pids.growth_per_second, Switch::On(PerSecond(7)));
    let both = thresholds("web-1", Runtime::Docker);
    assert_eq!((both.memory.near_percent, both.memory.near_seconds), (Switch::On(Percent(50)), 1));
    assert_eq!((both.cpu.throttled_percent, both.changes), (Switch::Off, false));
    // A recording keeps them.
    let text = serde_json::to_string(limits).expect("JSON");
    assert_eq!(serde_json::from_str::<Limits>(&text).expect("what was written"), *limits);
}

#[test]
fn http_can_be_switched_off() {
    for text in ["off", "\"off\"", "null", "~", ""] {
        let config = parse(&format!("http:\n  listen: {text}\n")).expect(text);
        assert_eq!(config.http.listen, None, "{text:?}");
    }
}

#[test]
fn cri_sockets_are_found_named_or_none() {
    let sockets =
        |text: &str| parse(&format!("host:\n  cri_sockets: {text}\n")).expect(text).host.cri_sockets;
    for text in ["", "~", "null"] {
        assert_eq!(sockets(text), None, "{text:?}");
    }
    assert_eq!(sockets("[]"), Some(Vec::new()));
    let both: Vec<PathBuf> = vec!["/run/a.sock".into(), "/b".into()];
    assert_eq!(sockets("[/run/a.sock, \"unix:///b\"]"), Some(both));
}

#[test]
fn the_node_has_a_name_anyhow() {
    assert!(!Config::default().node_name().is_empty());
}

/// Each mistake, and the one line that it gives.
#[test]
fn a_mistake_is_told_in_one_line() {
    let top = "`node`, `http`, `socket`, `rings`, `host`, `host_namespaces`, `sweep_seconds`, `stdout`, `audit`, `metrics`, `limits`, `self_protection`, `kernel`";
    let ring = "a number of bytes that is a power of two, from 4096 to 1073741824";
    let address = "an IP address and a port, such as \"127.0.0.1:9736\", or off";
    let cri = "a socket's absolute path of at most 107 bytes";
    let cases: &[(&str, &str, String)] = &[
        ("a misspelt key", "node: a\nhtpp:\n  listen: off\n", format!("2: unknown key `htpp` (did you mean `http`?), expected one of {top}")),
        ("a key from nowhere", "colour: red\n", format!("1: unknown key `colour`, expected one of {top}")),
        ("a misspelt key further down", "\n\nrings:\n  event_bytes: 4096\n", "4: unknown key `event_bytes` (did you mean `events_bytes`?), expected one of `events_bytes`, `priority_bytes`".to_owned()),
        ("a hostile key", "\"a\\nb\\e[2J\": 1\n", format!("1: unknown key `a\\nb\\x1b[2J`, expected one of {top}")),
        ("a key twice", "node: a\nnode: b\n", "2: the key `node` is there twice".to_owned()),
        ("no power of two", "rings:\n  events_bytes: 5000\n", format!("2: found integer `5000`, expected {ring}")),
        ("too small a ring", "rings:\n  events_bytes: 4096\n  priority_bytes: 2048\n", format!("3: found integer `2048`, expected {ring}")),
        ("too large a ring", "rings:\n  events_bytes: 8589934592\n", format!("2: found integer `8589934592`, expected {ring}")),
        ("a negative ring", "rings:\n  events_bytes: -1\n", "2: found `-1`, expected a number that is not negative".to_owned()),
        ("words for a number", "sweep_seconds: often\n", "1: found `often`, expected a number that is not negative".to_owned()),
        ("out of range", "sweep_seconds: 0\n", "1: found integer `0`, expected a number of seconds, from 1 to 3600".to_owned()),
        ("too many series", "metrics:\n  max_containers: 65537\n", "2: found integer `65537`, expected a number of containers, from 0 to 65536".to_owned()),
        ("no address", "http:\n  listen: localhost\n", format!("2: found string \"localhost\", expected {address}")),
        ("a port only", "http:\n  listen: 9736\n", format!("2: found string \"9736\", expected {address}")),
        ("more than all of it", "limits:\n  memory:\n    near_percent: 101\n", "3: found integer `101`, expected a whole number of percent from 1 to 100, or off".to_owned()),
        ("a threshold of zero", "limits:\n  pids: {growth_per_second: 0}\n", "2: found integer `0`, expected a number from 1 to 1000000, or off".to_owned()),
        ("neither number nor off", "limits:\n  cpu: {throttled_percent: never}\n", "2: found string \"never\", expected a whole number of percent from 1 to 100, or off".to_owned()),
        ("longer than a day", "limits:\n  resolve_seconds: 86401\n", "2: found integer `86401`, expected a number of seconds, from 0 to 86400".to_owned()),
        ("an override of everybody", "limits:\n  overrides:\n    - containers: {}\n      changes: false\n", "3: it selects nothing, expected name, image, runtime, namespace or pod".to_owned()),
        ("an override of nothing", "limits:\n  overrides:\n    - containers: {name: a}\n", "3: an override that changes nothing, expected changes, memory, cpu or pids".to_owned()),
        ("a misspelt selector", "limits:\n  overrides:\n    - containers: {nmae: a}\n      changes: false\n", "3: unknown key `nmae` (did you mean `name`?), expected one of `name`, `image`, `runtime`, `namespace`, `pod`".to_owned()),
        ("an unknown word", "stdout:\n  format: jsno\n", "2: unknown value `jsno` (did you mean `json`?), expected one of `auto`, `json`, `text`".to_owned()),
        ("a relative path", "socket:\n  path: observer.sock\n", "2: found string \"observer.sock\", expected an absolute path".to_owned()),
        ("a relative socket", "host:\n  cri_sockets:\n    - /run/a.sock\n    - b.sock\n", format!("4: found string \"b.sock\", expected {cri}")),
        ("a relative URL", "host:\n  cri_sockets: [\"unix://b.sock\"]\n", format!("2: found string \"unix://b.sock\", expected {cri}")),
        ("another kind of socket", "host:\n  cri_sockets: [\"tcp://127.0.0.1:1\"]\n", format!("2: found string \"tcp://127.0.0.1:1\", expected {cri}")),
        ("no list of sockets", "host:\n  cri_sockets: /run/a.sock\n", "2: found `/run/a.sock`, expected a list".to_owned()),
        ("an empty name", "node: \"\"\n", "1: found string \"\", expected a name".to_owned()),
        ("nothing that can be hidden", "kernel:\n  pretend_without: [fexit]\n", "2: found string \"fexit\", expected a word that begins with field:, helper:, hook:, type:".to_owned()),
        ("a word for yes or no", "self_protection: maybe\n", "1: found `maybe`, expected true or false".to_owned()),
        ("a list for a mapping", "rings: [1]\n", "1: found `[`, expected keys with values".to_owned()),
        ("nothing for a mapping", "node: a\nrings:\n", "2: found nothing, expected keys with values".to_owned()),
        ("text for the file", "hello\n", "1: found `hello`, expected keys with values".to_owned()),
        ("a list for text", "node: [a]\n", "1: found `[`, expected text".to_owned()),
        ("nothing for a path", "socket:\n  path:\n", "2: found nothing, expected text".to_owned()),
        ("two documents", "node: a\n---\nnode: b\n", "3: a second document begins here, expected only one".to_owned()),
        ("broken YAML", "node: \"a\nrings: {\n", "1: unclosed quote".to_owned()),
        ("a tab", "http:\n\tlisten: off\n", "2: tabs disallowed within this context (block indentation)".to_owned()),
    ];
    for (name, text, expected) in cases {
        let Err(error) = parse(text) else { panic!("{name} is accepted") };
        assert!(error.lines().count() == 1 && !error.contains(char::is_control), "{name}: {error:?}");
        let rest = error.strip_prefix(&format!("{FILE}:")).unwrap_or_else(|| panic!("{name}: {error}"));
        assert_eq!(rest, expected, "{name}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Some(Path::new("/nonexistent/observer.yaml"))).expect_err("no such file");
    assert_eq!(error.to_string(), "/nonexistent/observer.yaml: No such file or directory (os error 2)");
    let error = Config::load(Some(Path::new("/proc/self"))).expect_err("a directory");
    assert!(error.to_string().starts_with("/proc/self: "), "{error}");
    assert!(Config::load(Some(Path::new("/dev/zero"))).is_err());
}
