//! Prometheus itself: it scrapes the agent, and the rules of deploy/ fire on a real escape and on the agent's own end. The
//! receivers of alerts that need no kernel are tried in observer/tests/receivers.rs.

use crate::lab;
use observer_live::agent::{self, Agent, Config};
use observer_live::lab::skipped;
use observer_live::spec::Spec;
use observer_live::{host, http, pace, rootfs, scratch, wait};
use serde_json::Value;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Whether the package is there. On hardware it must be: `cargo xtask setup --for test` installs it. The virtual machines are
/// for kernels, and have no Prometheus.
fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok() {
        return true;
    }
    assert!(
        pace::emulated(),
        "{program} is not installed: Debian's package prometheus, or `cargo xtask setup --for test`"
    );
    skipped(&format!("{program} is not in the virtual machines"));
    false
}

fn deployed_rules() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/observer.rules.yaml");
    std::fs::read_to_string(path).expect("the rules of deploy/")
}

/// The same rules, of which each that waits for minutes waits for a second.
fn impatient(rules: &str) -> String {
    let line = |line: &str| match line.split_once("for: ") {
        Some((indent, wait)) if wait.ends_with('m') && indent.trim().is_empty() => {
            format!("{indent}for: 1s\n")
        }
        _ => format!("{line}\n"),
    };
    let text: String = rules.lines().map(line).collect();
    assert_ne!(text, rules, "no rule waits");
    text
}

struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// One target, the agent, under the name that the rules and the chart give its job.
    fn start(agent: &Agent) -> Self {
        let dir = scratch::subdir("prometheus");
        std::fs::write(dir.join("rules.yaml"), impatient(&deployed_rules())).expect("write the rules");
        let config = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}\n\
             rule_files: [rules.yaml]\n\
             scrape_configs:\n  - job_name: observer\n    honor_labels: true\n    static_configs: [{{targets: [\"{}\"], labels: {{node: n1}}}}]\n",
            agent.config().address
        );
        std::fs::write(dir.join("prometheus.yml"), config).expect("write the configuration");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, http::free_port()));
        let log = std::fs::File::create(dir.join("log")).expect("its log");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = host::die_with_parent(&mut command, libc::SIGKILL).spawn().expect("start Prometheus");
        let prometheus = Prometheus { child, address };
        let ready = wait::until_true(Duration::from_secs(20), || {
            http::get(address, "/-/ready").is_ok_and(|(status, _)| status == 200)
        });
        let said = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        assert!(ready, "Prometheus is not ready: {said}");
        prometheus
    }

    fn get(&self, path: &str) -> Option<Value> {
        let (status, body) = http::get(self.address, path).ok()?;
        assert_eq!(status, 200, "{path}: {body}");
        Some(serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}")))
    }

    /// The alerts of that name in that state, by their labels.
    fn alerts(&self, name: &str, state: &str) -> Vec<Value> {
        let answer = self.get("/api/v1/alerts").unwrap_or_default();
        let all = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        all.into_iter()
            .filter(|it| it["state"] == state && it["labels"]["alertname"] == name)
            .map(|it| it["labels"].clone())
            .collect()
    }

    fn wait_for(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait::until(Duration::from_secs(20), || self.alerts(name, "firing").into_iter().find(&fits))
            .unwrap_or_else(|| panic!("{name} does not fire: {:?}", self.get("/api/v1/alerts")))
    }

    /// How often it has scraped a series of the agent.
    fn scrapes(&self, query: &str) -> f64 {
        let answer =
            self.get(&format!("/api/v1/query?query=count_over_time({query}[5m])")).unwrap_or_default();
        let value = &answer["data"]["result"][0]["value"][1];
        value.as_str().and_then(|it| it.parse().ok()).unwrap_or(0.0)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An escape, a sink that nobody listens for, and the agent's end: each fires its rule, and what is well fires none.
#[test]
fn prometheus_scrapes_and_the_rules_of_deploy_fire() {
    let Some(lab) = lab() else { return };
    if !have("prometheus") {
        return;
    }
    let target = host::target();
    let store = scratch::subdir("store");
    let sink = format!(
        "store: {{path: \"{}\"}}\nsinks:\n  - {{type: webhook, name: siem, url: \"http://127.0.0.1:{}/\"}}\n",
        store.display(),
        http::free_port()
    );
    let agent = lab.only_agent(Config::new(&sink));
    let container = lab.container(Spec::privileged("prometheus"));
    let prometheus = Prometheus::start(&agent);
    // A counter must have been seen before it can be seen to rise.
    let counter = "observer_alerts_total{rule=\"namespace.escape\",severity=\"critical\"}";
    let query = counter.replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
    let seen = wait::until_true(Duration::from_secs(20), || prometheus.scrapes(&query) >= 2.0);
    assert!(seen, "Prometheus does not scrape the agent: {:?}", prometheus.get("/api/v1/targets"));

    container.sh(&format!("nsenter -t {} -m sh -c true", target.pid())).ok();
    agent.wait_for("namespace.escape", &container.id);
    let fired = prometheus.wait_for("ObserverContainerEscape", |it| it["rule"] == "namespace.escape");
    assert_eq!(
        (&fired["severity"], &fired["job"], &fired["node"]),
        (&"critical".into(), &"observer".into(), &"n1".into())
    );
    let down = prometheus.wait_for("ObserverSinkDown", |it| it["sink"] == "siem");
    assert_eq!(down["severity"], "warning");
    for well in ["ObserverDown", "ObserverAbsent", "ObserverNotReady", "ObserverSinkDropping"] {
        assert_eq!(prometheus.alerts(well, "firing"), Vec::<Value>::new(), "{well}");
    }
    let problems = prometheus.get("/api/v1/rules").expect("the rules");
    for rule in problems["data"]["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|it| it["rules"].as_array())
        .flatten()
    {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    agent.settle();
    agent.assert_only(&[("namespace.escape", "critical", &container.id)]);
    agent.stop();
    prometheus.wait_for("ObserverDown", |it| it["job"] == "observer");
}

/// The whole of a running agent's /metrics, with containers, is as Prometheus wants it.
#[test]
fn promtool_has_nothing_to_say_about_a_running_agent() {
    let Some(lab) = lab() else { return };
    if !have("promtool") {
        return;
    }
    let agent = lab.only_agent(Config::new("audit: {capabilities: true, syscalls: true, seccomp: true}\n"));
    let container = lab.container(Spec::privileged("promtool"));
    container.sh("true").ok();
    let mut text = String::new();
    let labelled = format!("container=\"{}\"", container.id);
    let shown = wait::until_true(Duration::from_secs(10), || {
        text = http::get(agent.config().address, "/metrics").expect("scrape the agent").1;
        text.contains(&labelled)
    });
    assert!(shown, "no series with {labelled}: {text}");
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("start promtool");
    promtool.stdin.take().expect("its stdin").write_all(text.as_bytes()).expect("feed promtool");
    let output = promtool.wait_with_output().expect("promtool's end");
    let words = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && words.is_empty(), "{words}\n{text}");
    let rules = scratch::subdir("rules").join("rules.yaml");
    std::fs::write(&rules, impatient(&deployed_rules())).expect("write the rules");
    rootfs::run(Command::new("promtool").args(["check", "rules"]).arg(rules));
    agent.finish();
}

/// Answers every question for an IPv4 address with 127.0.0.1, and what else is asked with nothing (RFC 1035, section 4.1).
fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 18, 53, 1), 53)).expect("a name server's socket");
    let address = socket.local_addr().expect("its address");
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut question) {
            // The name, ended by a zero, then type and class.
            let Some(name) = question[12..length].iter().position(|byte| *byte == 0) else { continue };
            let end = 12 + name + 1 + 4;
            let is_a = question[end - 4..end] == [0, 1, 0, 1];
            let mut answer = question[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            answer.extend(&question[12..end]);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
            let _ = socket.send_to(&answer, peer);
        }
    });
    address
}

/// The static agent finds a sink by its name, and loads none of the modules that the host's nsswitch.conf names: they want the C
/// library that they were built with, and bring down a process that has another one.
#[test]
fn a_sinks_name_is_looked_up_without_the_hosts_modules() {
    let Some(lab) = lab() else { return };
    let binary = agent::binary();
    let segments = Command::new("readelf").arg("-lW").arg(&binary).output().expect("readelf of binutils");
    if String::from_utf8_lossy(&segments.stdout).contains("INTERP") {
        skipped(&format!("{} is linked dynamically: its modules are its own C library's", binary.display()));
        return;
    }
    let server = name_server().ip();
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a receiver");
    receiver.set_read_timeout(Some(pace::patience(Duration::from_secs(10)))).expect("a limit");
    let port = receiver.local_addr().expect("its address").port();
    let sink = format!(
        "store: {{path: \"{}\"}}\nsinks:\n  - {{type: syslog, name: logs, address: \"udp://siem.observer.test:{port}\"}}\n",
        scratch::subdir("store").display()
    );
    // hesiod comes with Debian's C library, and knows no hosts.
    let module = "/lib/x86_64-linux-gnu/libnss_hesiod.so.2";
    assert!(
        pace::emulated() || Path::new(module).exists(),
        "{module} is not there: nothing is proven without it"
    );
    let files = [
        ("nsswitch.conf", "hosts: hesiod files dns\n".to_owned()),
        ("resolv.conf", format!("nameserver {server}\n")),
        ("hosts", "127.0.0.1 localhost\n".to_owned()),
    ];
    Agent::end_kept();
    let agent =
        Agent::with_own_etc(Config::new(&sink), &files.each_ref().map(|(name, text)| (*name, text.as_str())));
    let container = lab.container(Spec::privileged("named"));
    let target = host::target();
    container.sh(&format!("nsenter -t {} -m sh -c true", target.pid())).ok();
    agent.wait_for("namespace.escape", &container.id);
    let mut message = [0; 65536];
    let arrived = receiver.recv(&mut message);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", agent.pid())).expect("the agent's maps");
    let loaded: Vec<&str> = maps.lines().filter(|line| line.contains(".so")).collect();
    assert_eq!(loaded, [""; 0], "the agent has loaded modules");
    let length = arrived.unwrap_or_else(|error| panic!("nothing arrived: {error}: {}", agent.log_tail()));
    let message = String::from_utf8_lossy(&message[..length]);
    assert!(message.contains(" namespace.escape ") && message.contains(&container.id), "{message}");
    agent.stop();
}
