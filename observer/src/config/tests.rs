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
    assert_eq!(expected.len(), 51);
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
         stdout:\n  format: json\naudit:\n  capabilities: true\n  syscalls: true\n  apparmor: true\n  first_use_after_seconds: 90\nmetrics: {max_containers: 0}\nself_protection: false\n",
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
    let first_use_after_seconds = Switch::On(values::Seconds(90));
    let audit =
        Audit { capabilities: true, syscalls: true, seccomp: false, apparmor: true, first_use_after_seconds };
    assert_eq!(config.audit, audit);
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
    let thresholds = |name: &str, runtime| {
        let container = crate::limits::testing::container();
        limits.of(&crate::model::Container { name: Some(name.to_owned()), runtime, ..container })
    };
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
fn mistakes() -> Vec<(&'static str, &'static str, String)> {
    let top = "`node`, `http`, `socket`, `rings`, `host`, `host_namespaces`, `sweep_seconds`, `stdout`, `sinks`, `store`, `exceptions`, `audit`, `metrics`, `limits`, `self_protection`, `kernel`";
    let ring = "a number of bytes that is a power of two, from 4096 to 1073741824";
    let address = "an IP address and a port, such as \"127.0.0.1:9736\", or off";
    let webhook = "`name`, `filter`, `format`, `url`, `body`, `batch`, `gzip`, `headers`, `header_files`, `tls`, `timeout_seconds`";
    let any = "`type`, `name`, `filter`, `format`, `path`, `rotate_bytes`, `rotate_hours`, `keep`, `address`, `facility`, `url`, `body`, `batch`, `protocol`, `gzip`, `labels`, `headers`, `header_files`, `tls`, `timeout_seconds`";
    let name = "a name of at most 63 of a-z, 0-9, - and _, other than stdout, socket and store";
    let cri = "a socket's absolute path of at most 107 bytes";
    vec![
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
        ("a word for a switch", "audit:\n  apparmor: yes\n", "2: found `yes`, expected true or false".to_owned()),
        ("no time to settle", "audit:\n  first_use_after_seconds: 0\n", "2: found integer `0`, expected a number of seconds from 1 to 604800, or off".to_owned()),
        ("a time with its unit", "audit:\n  first_use_after_seconds: 10m\n", "2: found string \"10m\", expected a number of seconds from 1 to 604800, or off".to_owned()),
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
        ("a sink that does not say what it is", "sinks:\n  - name: a\n    path: /a\n", "3: the key `type` is missing".to_owned()),
        ("an empty sink", "sinks:\n  - {}\n", "2: the key `type` is missing".to_owned()),
        ("a sink that says late what it is, with a key of another", "sinks:\n  - name: a\n    path: /a\n    type: webhook\n    url: http://h/\n", format!("2: unknown key `path`, expected one of {webhook}")),
        ("a sink that says late what it is, without its path", "sinks:\n  - name: a\n    type: file\n", "2: the key `path` is missing".to_owned()),
        ("a bad value before the type", "sinks:\n  - name: a\n    keep: 0\n    type: file\n", "3: found integer `0`, expected a number of files, from 1 to 1000".to_owned()),
        ("a misspelt key before the type", "sinks:\n  - name: a\n    pth: /a\n    type: file\n", format!("3: unknown key `pth` (did you mean `path`?), expected one of {any}")),
        ("a misspelt key before all others", "sinks:\n  - nmae: a\n    path: /a\n    type: file\n", format!("2: unknown key `nmae` (did you mean `name`?), expected one of {any}")),
        ("nothing for an address before the type", "sinks:\n  - name: a\n    address: ~\n    type: syslog\n", "3: found `~`, expected text".to_owned()),
        ("nothing for an address behind the type", "sinks:\n  - type: syslog\n    name: a\n    address: ~\n", "4: found `~`, expected text".to_owned()),
        ("a port with its sign", "sinks:\n  - {type: syslog, name: a, address: \"udp://h:+514\"}\n", "2: found string \"udp://h:+514\", expected udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH".to_owned()),
        ("an alias of a bad value", "node: &n a\nsweep_seconds: *n\n", "2: found `a`, expected a number that is not negative".to_owned()),
        ("an alias of a value that is bad elsewhere", "limits: {resolve_seconds: &n 4000}\nsweep_seconds: *n\n", "2: found integer `4000`, expected a number of seconds, from 1 to 3600".to_owned()),
        ("an alias of a sink", "sinks:\n  - &a {name: a, type: file, path: /a}\n  - *a\n", "3: a second sink with the name `a`, expected different names".to_owned()),
        ("an alias with an unknown key", "rings: &r {events_bytes: 4096}\nhttp: *r\n", "2: unknown key `events_bytes`, expected one of `listen`".to_owned()),
        ("an unknown type, late", "sinks:\n  - name: a\n    type: sylog\n", "3: unknown value `sylog` (did you mean `syslog`?), expected one of `file`, `syslog`, `webhook`, `alertmanager`, `otlp`".to_owned()),
        ("a sink of an unknown type", "sinks:\n  - type: sylog\n", "2: unknown value `sylog` (did you mean `syslog`?), expected one of `file`, `syslog`, `webhook`, `alertmanager`, `otlp`".to_owned()),
        ("a key of another sink", "sinks:\n  - type: file\n    name: a\n    url: http://a\n", "4: unknown key `url`, expected one of `name`, `filter`, `format`, `path`, `rotate_bytes`, `rotate_hours`, `keep`".to_owned()),
        ("a sink without its path", "sinks:\n  - type: file\n    name: a\n", "3: the key `path` is missing".to_owned()),
        ("a name twice", "sinks:\n  - {type: file, name: a, path: /a}\n  - {type: file, name: a, path: /b}\n", "3: a second sink with the name `a`, expected different names".to_owned()),
        ("a name that a metric has", "sinks:\n  - {type: file, name: stdout, path: /a}\n", format!("2: found string \"stdout\", expected {name}")),
        ("a name with spaces", "sinks:\n  - type: file\n    name: \"a b\"\n", format!("3: found string \"a b\", expected {name}")),
        ("a password in a URL", "sinks:\n  - type: webhook\n    name: a\n    url: http://u:p@h/\n", "4: found string \"http://u:p@h/\", expected http://HOST[:PORT][/PATH] or https://..., without user and password".to_owned()),
        ("another protocol", "sinks:\n  - type: webhook\n    name: a\n    url: ftp://h/\n", "4: found string \"ftp://h/\", expected http://HOST[:PORT][/PATH] or https://..., without user and password".to_owned()),
        ("no such severity", "sinks:\n  - type: file\n    name: a\n    path: /a\n    filter:\n      severity: warn\n", "6: unknown value `warn`, expected one of `info`, `notice`, `warning`, `critical`".to_owned()),
        ("no syslog address", "sinks:\n  - {type: syslog, name: a, address: \"tcp://h\"}\n", "2: found string \"tcp://h\", expected udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH".to_owned()),
        ("a header of ours", "sinks:\n  - type: webhook\n    name: a\n    url: http://h/\n    headers:\n      Host: b\n", "6: found string \"Host\", expected the name of a header that is not set anyway".to_owned()),
        ("too small a store", "store:\n  max_bytes: 1000\n", "2: found integer `1000`, expected a number of bytes, from 8388608 to 1099511627776".to_owned()),
        ("an exception without an end", "exceptions:\n  - name: e\n    reason: r\n    rules: [a]\n", "4: the key `expires` is missing".to_owned()),
        ("an end that is no day", "exceptions:\n  - name: e\n    reason: r\n    expires: soon\n", "4: found string \"soon\", expected a date, such as 2027-01-31".to_owned()),
        ("an end with its time", "exceptions:\n  - name: e\n    reason: r\n    expires: 2027-01-31T10:00\n", "4: found string \"2027-01-31T10:00\", expected a date, such as 2027-01-31".to_owned()),
        ("an exception from nothing named", "exceptions:\n  - {name: e, reason: r, expires: 2027-01-31, rules: []}\n", "2: the exception `e` hides everything, expected rules, images, image_digests, containers or namespaces".to_owned()),
        ("an exception without a reason", "exceptions:\n  - name: e\n    reason: \" \"\n", "3: found string \" \", expected a reason of at most 1024 bytes".to_owned()),
        ("an exception by comm", "exceptions:\n  - name: e\n    comm: runc\n", "3: unknown key `comm`, expected one of `name`, `reason`, `expires`, `rules`, `images`, `image_digests`, `containers`, `namespaces`, `executables`".to_owned()),
        ("a path alone", "exceptions:\n  - {name: e, reason: r, expires: 2027-01-31, executables: [/bin/a]}\n", "2: the exception `e` names executables alone, expected image_digests with them".to_owned()),
        ("an exception from everything", "exceptions:\n  - {name: e, reason: r, expires: 2027-01-31}\n", "2: the exception `e` hides everything, expected rules, images, image_digests, containers or namespaces".to_owned()),
        ("half a digest", "exceptions:\n  - name: e\n    reason: r\n    expires: 2027-01-31\n    image_digests: [\"sha256:12\"]\n", "5: found string \"sha256:12\", expected sha256: and 64 hexadecimal digits".to_owned()),
        ("two documents", "node: a\n---\nnode: b\n", "3: a second document begins here, expected only one".to_owned()),
        ("broken YAML", "node: \"a\nrings: {\n", "1: unclosed quote".to_owned()),
        ("a tab", "http:\n\tlisten: off\n", "2: tabs disallowed within this context (block indentation)".to_owned()),
    ]
}

#[test]
fn a_mistake_is_told_in_one_line() {
    let mut wrong = Vec::new();
    for (name, text, expected) in mistakes() {
        let Err(error) = parse(text) else { panic!("{name} is accepted") };
        assert!(error.lines().count() == 1 && !error.contains(char::is_control), "{name}: {error:?}");
        let rest = error.strip_prefix(&format!("{FILE}:")).unwrap_or_else(|| panic!("{name}: {error}"));
        if rest != expected {
            wrong.push((name, rest.to_owned(), expected));
        }
    }
    assert!(wrong.is_empty(), "name, is, should be: {wrong:#?}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Some(Path::new("/nonexistent/observer.yaml"))).expect_err("no such file");
    assert_eq!(error.to_string(), "/nonexistent/observer.yaml: No such file or directory (os error 2)");
    let error = Config::load(Some(Path::new("/proc/self"))).expect_err("a directory");
    assert!(error.to_string().starts_with("/proc/self: "), "{error}");
    assert!(Config::load(Some(Path::new("/dev/zero"))).is_err());
}

const SINKS: &str = "sinks:
  - type: file
    name: archive
    filter: {severity: warning, rules: [\"namespace.*\"], namespaces: [\"shop-*\"]}
    format: ocsf
    path: /var/log/observer/alerts.json
    rotate_bytes: 104857600
    rotate_hours: 24
    keep: 5
  - type: syslog
    name: logs
    address: tls://logs.example:6514
    facility: local3
    format: cef
    tls: {ca: /ca.pem, cert: /c.pem, key: /k.pem}
    timeout_seconds: 3
  - {type: syslog, name: v6, address: \"udp://[::1]:514\"}
  - {type: syslog, name: local, address: \"unix:///dev/log\"}
  - type: webhook
    name: siem
    url: https://siem.example/in
    body: array
    batch: 7
    gzip: true
    headers: {X-Scope: node}
    header_files: {Authorization: /token}
    tls: {}
    timeout_seconds: 10
  - {type: alertmanager, name: am, url: \"http://am.example:9093\", labels: {cluster: c1}}
  - {type: otlp, name: otel, url: \"https://c.example:4317\", protocol: grpc, gzip: false}
store: {path: /data, max_bytes: 8388608}
";

/// Every key that the comments of the default file show is one.
#[test]
fn sinks_are_read() {
    let config = parse(SINKS).expect("valid");
    let names: Vec<&str> = config.sinks.iter().map(SinkConfig::name).collect();
    assert_eq!(names, ["archive", "logs", "v6", "local", "siem", "am", "otel"]);
    assert_eq!(config.store, Store { path: "/data".into(), max_bytes: 8 << 20 });
    let SinkConfig::File(file) = &config.sinks[0] else { panic!("{:?}", config.sinks[0]) };
    assert_eq!(
        (file.format, file.rotate_hours, file.filter.severity),
        (Format::Ocsf, 24, Some(crate::model::Severity::Warning))
    );
    let addresses: Vec<String> = config.sinks[1..4]
        .iter()
        .map(|sink| match sink {
            SinkConfig::Syslog(syslog) => syslog.address.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(addresses, ["tls://logs.example:6514", "udp://[::1]:514", "unix:///dev/log"]);
    let SinkConfig::Webhook(webhook) = &config.sinks[4] else { panic!("{:?}", config.sinks[4]) };
    assert_eq!((webhook.body, webhook.batch, webhook.gzip), (Body::Array, 7, true));
    // What is written down can be read again.
    let again = serde_json::to_string(&config.sinks).expect("JSON");
    assert_eq!(parse(&format!("sinks: {again}")).expect("valid").sinks, config.sinks);
}

/// As Helm writes them.
#[test]
fn sinks_are_read_in_whatever_order_their_keys_are() {
    let config = parse(SINKS).expect("valid");
    let sorted: serde_json::Value = serde_json::to_value(&config.sinks).expect("JSON");
    let types = sorted.as_array().expect("a list").iter();
    assert!(
        types
            .clone()
            .all(|sink| sink.as_object().is_some_and(|it| it.keys().next() != Some(&"type".to_owned())))
    );
    assert_eq!(types.len(), 7);
    assert_eq!(parse(&format!("sinks: {sorted}")).expect("valid").sinks, config.sinks);
    // Text that looks like something else is text, wherever it stands.
    let text = |entry: &str| parse(&format!("sinks: [{entry}]")).expect(entry).sinks;
    let first = text("{type: webhook, name: 7, url: \"http://h/\", headers: {A: 1.50}}");
    assert_eq!(text("{name: 7, url: \"http://h/\", headers: {A: 1.50}, type: webhook}"), first);
}

fn validator() -> jsonschema::Validator {
    let schema = serde_json::Value::from(schema());
    jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("no schema: {error}"));
    jsonschema::draft202012::options().should_validate_formats(true).build(&schema).expect("a schema")
}

fn json(text: &str) -> Option<serde_json::Value> {
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true }).ok()
}

#[test]
fn the_schema_takes_what_the_agent_takes() {
    let validator = validator();
    let exception = "exceptions: [{name: e, reason: r, expires: 2027-01-31, image_digests: [\"sha256:\
         0123456789012345678901234567890123456789012345678901234567890123\"], executables: [/bin/a]}]";
    let thresholds = "limits:\n  overrides:\n    - containers: {name: a}\n      memory: {near_percent: off, near_seconds: 0}\n";
    let headers = "sinks: [{type: webhook, name: a, url: \"HTTP://[::1]:80\", headers: {Hosts: b, X-Te: c}}]";
    for text in [
        DEFAULT_YAML,
        SINKS,
        exception,
        thresholds,
        headers,
        "exceptions: [{name: e, reason: r, expires: 2027-01-31, rules: [a], executables: []}]",
        "{}",
        "node:\n",
        "http: {listen: \"[::1]:1\"}",
        "http: {listen: \"[fe80::1%2]:1\"}",
        "http: {listen: off}",
        "http: {listen: false}",
        "http: {listen: }",
        "limits: {pids: {growth_per_second: false}}",
        "host: {cri_sockets: [/run/a.sock, \"unix:///b\"]}",
        "kernel: {pretend_without: [\"type:iter\"]}",
    ] {
        parse(text).expect(text);
        let value = json(text).expect(text);
        let errors: Vec<String> = validator.iter_errors(&value).map(|it| it.to_string()).collect();
        assert!(errors.is_empty(), "{text}: {errors:?}");
    }
}

#[test]
fn the_schema_refuses_what_the_agent_refuses() {
    // No schema can see these.
    let mut unseen = vec!["a name twice", "an alias of a sink"];
    let validator = validator();
    let mut refused = 0;
    for (name, text, _) in mistakes() {
        let Some(value) = json(text) else { continue };
        if validator.is_valid(&value) {
            assert!(unseen.contains(&name), "{name} is accepted: {text}");
            unseen.retain(|it| *it != name);
        } else {
            refused += 1;
        }
    }
    assert!(unseen.is_empty(), "refused: {unseen:?}");
    // All but those two, and what is no YAML.
    assert_eq!(refused, mistakes().len() - 6);
}

/// An editor shows it beside the key.
#[test]
fn the_schema_says_of_every_key_what_it_is() {
    use serde_json::Value;
    fn look(value: &Value, definitions: &Value, at: &str, silent: &mut Vec<String>, keys: &mut usize) {
        // Not conditions about keys that stand elsewhere.
        let whole = value.get("additionalProperties") == Some(&Value::Bool(false));
        if let Some(properties) = value.get("properties").and_then(Value::as_object).filter(|_| whole) {
            for (key, property) in properties.iter().filter(|(key, _)| *key != "type") {
                let name = property.get("$ref").and_then(Value::as_str).and_then(|it| it.rsplit('/').next());
                let behind = name.and_then(|name| definitions.get(name));
                let said = [Some(property), behind].into_iter().flatten();
                if said.filter_map(|it| it.get("description")).next().is_none() {
                    silent.push(format!("{at}/{key}"));
                }
                *keys += 1;
            }
        }
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter().filter(|(key, _)| *key != "default") {
                    look(value, definitions, &format!("{at}/{key}"), silent, keys);
                }
            }
            Value::Array(list) => {
                for (index, value) in list.iter().enumerate() {
                    look(value, definitions, &format!("{at}/{index}"), silent, keys);
                }
            }
            _ => {}
        }
    }
    let schema = Value::from(schema());
    let (mut silent, mut keys) = (Vec::new(), 0);
    look(&schema, &schema["$defs"], "", &mut silent, &mut keys);
    assert!(keys > 100, "{keys} keys");
    assert!(silent.is_empty(), "{silent:#?}");
}
