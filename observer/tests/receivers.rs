//! The sinks against receivers that are not ours: rsyslog, Prometheus's Alertmanager, and a collector made of OpenTelemetry's own
//! messages and tonic. What they have received is read back, and held against what was sent.
//!
//! Only loopback. The programs are Debian's packages; where one is missing the test fails, and says what to install.

#[path = "receivers/alertmanager.rs"]
mod alertmanager;
mod http;
#[path = "receivers/otlp.rs"]
mod otlp;
#[path = "receivers/rsyslog.rs"]
mod rsyslog;

use std::{
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use observer::{config::Config, delivery::Delivery, model::Alert, sinks::Fanout, telemetry::Metrics};
use serde_json::{Value, json};

/// The longest that anything here is waited for; on a quiet machine nothing takes more than some seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of this test's own.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("observer-receivers-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let scratch = Scratch(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&scratch.0).expect("a directory");
        scratch
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("written");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program of a package, which must be there.
fn program(name: &str, package: &str) -> Command {
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|it| it.is_file());
    Command::new(found.unwrap_or_else(|| {
        panic!("{name} is not installed: Debian's package {package}, or `cargo xtask setup --for test`")
    }))
}

/// A receiver, ended by its pid.
struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    fn start(mut command: Command, scratch: &Scratch) -> Self {
        let log = scratch.0.join("log");
        let out = std::fs::File::create(&log).expect("a log");
        command.stdin(Stdio::null()).stdout(out.try_clone().expect("a descriptor")).stderr(out);
        // SAFETY: prctl is async-signal-safe and touches only the new child.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        Daemon { child: command.spawn().expect("started"), log }
    }

    fn wait<T>(&mut self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = probe() {
                return found;
            }
            let ended = self.child.try_wait().expect("its state");
            let late = Instant::now() >= deadline;
            let log = || String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned();
            assert!(ended.is_none() && !late, "no {what} (ended: {ended:?}): {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on just now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port()
}

/// An agent's sinks without the rest of it.
struct Agent {
    runtime: tokio::runtime::Runtime,
    fanout: Fanout,
    metrics: Metrics,
    delivery: Delivery,
}

impl Agent {
    fn start(scratch: &Scratch, sinks: &str) -> Agent {
        let text = format!(
            "node: node-1.observer.test\nstore: {{path: {}}}\nsinks:\n{sinks}",
            scratch.0.join("store").display()
        );
        let config = Config::parse(Path::new("test.yaml"), &text).expect("a configuration");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (fanout, metrics) = (Fanout::new(), Metrics::new());
        let delivery = Delivery::start(&config, &fanout, &metrics).expect("started");
        Agent { runtime, fanout, metrics, delivery }
    }

    fn send(&self, alerts: &[Alert]) {
        alerts.iter().for_each(|alert| self.fanout.alert(&Arc::new(alert.clone())));
    }

    fn value(&self, series: &str) -> u64 {
        let text = self.metrics.expose(false);
        let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        found.unwrap_or_else(|| panic!("no {series} in {text}"))
    }

    /// Waits until the sink has so many.
    fn wait(&self, sink: &str, count: u64) {
        let series = format!("observer_sink_alerts_total{{sink=\"{sink}\"}}");
        let deadline = Instant::now() + PATIENCE;
        while self.value(&series) != count {
            assert!(Instant::now() < deadline, "{series} is {} instead of {count}", self.value(&series));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end(self) {
        self.fanout.close();
        self.runtime.block_on(self.delivery.ended());
    }
}

/// An alert with text that receivers have spoilt before: several lines, other alphabets, an emoji, quotes, what looks like the
/// syntax of a format, a control character, and more than the 8 KiB that rsyslog's default takes of a message.
fn alert(n: u64) -> Alert {
    let mut alert = json!({
        "schema": "observer.alert/1",
        "id": format!("0194263c-6e08-7000-8000-{n:012}"),
        "incident": format!("0194263c-6e08-7000-8000-{n:012}"),
        "time": "2026-01-02T03:04:05.000000006Z",
        "node": "node-1.observer.test",
        "rule": "namespace.escape",
        "severity": "critical",
        "title": "Container process in a foreign namespace",
        "message": format!("number {n}\nsecond line\r\n\tthird: «ünïcödé» 日本語 🐳 \\ \" | = ] <13>1 - %s {{}}"),
        "mitre": ["T1611"],
        "container": {
            "id": "3f2a9c1b0d4e", "name": "web", "image": "registry.example/web:1.2", "runtime": "docker",
            "cgroup_id": 18_446_744_073_709_551_615_u64, "cgroup_path": "/kubepods/pod1/web",
            "pod": {"namespace": "shop", "name": "web-0", "uid": "7d9f3f0e-2f0c-4a43-9d9c-1f7e0a4a1b2c", "container": "web"},
        },
        "process": {
            "pid": 4242, "tid": 4243, "start_time": "2026-01-02T03:04:00.500000000Z", "comm": "nsenter",
            "exe": "/usr/bin/nsenter", "args": ["nsenter", "-t", "1", "näme", "\u{1b}[2J", "a\nb"], "uid": 0, "gid": 0,
            "ancestors": [{"pid": 4000, "comm": "sh"}],
        },
        "namespaces": {
            "expected": {"mnt": 4_026_531_840_u64}, "actual": {"mnt": 4_026_532_000_u64}, "changed": ["mnt"], "host": ["mnt"],
        },
        "evidence": {"syscall": "setns", "door": "setns"},
        "attribution": "exact",
        "events_lost_before": 0,
        "count": 1,
    });
    if n % 7 == 3 {
        let args: Vec<Value> = (0..2000).map(|n| format!("argument-ä-{n}").into()).collect();
        alert["process"]["args"] = args.into();
    }
    serde_json::from_value(alert).expect("an alert")
}
