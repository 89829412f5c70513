//! Nothing that was stored is lost, whoever is killed when: ten thousand alerts through a webhook that fails every other
//! call and is away for half a minute, and a sender that is killed five times, before and meanwhile.
//!
//! The sender is this program again, so it has a main of its own.

mod http;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::request;
use observer::{
    config::Config,
    delivery::Delivery,
    model::{ALERT_SCHEMA, Alert, Attribution, Evidence, Severity},
    sinks::Fanout,
    telemetry::Metrics,
};

const ALERTS: u64 = 10_000;
const KILLS: u32 = 5;
/// The kill at which the receiver goes away.
const GOES_AT: u32 = 2;
const AWAY: Duration = Duration::from_secs(30);
/// Between hundred alerts, so that they do not all come before the second kill: three of them are while the receiver is away.
const PACE: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(240);

fn main() {
    let mut args = std::env::args().skip(1);
    if let (Some("send"), Some(config), Some(from)) = (args.next().as_deref(), args.next(), args.next()) {
        send(Path::new(&config), from.parse().expect("a number"));
    } else {
        let start = Instant::now();
        killed_senders_lose_nothing();
        println!("killed_senders_lose_nothing ... ok ({:.0?})", start.elapsed());
    }
}

fn id(n: u64) -> String {
    format!("0194263c-6e08-7000-8000-{n:012}")
}

fn alert(n: u64) -> Arc<Alert> {
    Arc::new(Alert {
        schema: ALERT_SCHEMA.into(),
        id: id(n),
        incident: id(n),
        state: None,
        time: "2026-01-02T03:04:05Z".into(),
        node: "n1".into(),
        rule: "namespace.escape".into(),
        severity: Severity::Critical,
        title: "Container escape".into(),
        message: format!("number {n}"),
        mitre: Vec::new(),
        container: None,
        process: None,
        namespaces: None,
        evidence: Evidence::default(),
        attribution: Attribution::Exact,
        events_lost_before: 0,
        count: 1,
    })
}

fn value(metrics: &Metrics, series: &str) -> u64 {
    let text = metrics.expose(false);
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0)
}

/// An agent's delivery without the rest of it. Says on stdout up to which number alerts are stored.
fn send(config: &Path, from: u64) {
    let config = Config::load(Some(config)).expect("the configuration");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (fanout, metrics) = (Fanout::new(), Metrics::new());
    let delivery = Delivery::start(&config, &fanout, &metrics).expect("started");
    let mut stdout = std::io::stdout();
    let mut next = from;
    while next < ALERTS {
        let end = (next + 100).min(ALERTS);
        (next..end).for_each(|n| fanout.alert(&alert(n)));
        next = end;
        while value(&metrics, "observer_store_alerts_total") < next - from {
            std::thread::sleep(Duration::from_millis(2));
        }
        writeln!(stdout, "{next}").expect("said");
        std::thread::sleep(PACE);
    }
    while value(&metrics, "observer_sink_backlog{sink=\"siem\"}") > 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    fanout.close();
    runtime.block_on(delivery.ended());
    writeln!(stdout, "done").expect("said");
}

/// Every other call fails, one way or another; while it is away nobody listens at all.
#[derive(Default)]
struct Receiver {
    calls: AtomicU64,
    away: AtomicBool,
    /// Messages in the order in which they came.
    got: Mutex<Vec<u64>>,
}

impl Receiver {
    fn listen(self: &Arc<Self>, listener: TcpListener) {
        listener.set_nonblocking(true).expect("non-blocking");
        while !self.away.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    let receiver = Arc::clone(self);
                    std::thread::spawn(move || {
                        let _ = stream.set_nonblocking(false);
                        receiver.serve(stream)
                    });
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut stream = stream;
        loop {
            let (_, body) = request(&mut reader)?;
            if self.away.load(Ordering::Relaxed) {
                return None;
            }
            let status = match self.calls.fetch_add(1, Ordering::Relaxed) % 6 {
                1 => 503,
                3 => return None,
                5 => 429,
                _ => {
                    let mut got = self.got.lock().expect("not poisoned");
                    for line in std::str::from_utf8(&body).ok()?.lines() {
                        let alert: Alert = serde_json::from_str(line).ok()?;
                        got.push(alert.message.strip_prefix("number ")?.parse().ok()?);
                    }
                    200
                }
            };
            write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").ok()?;
        }
    }
}

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn spawn(config: &Path, from: u64, stored: &Arc<AtomicU64>, done: &Arc<AtomicBool>) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["send", config.to_str().expect("UTF-8"), &from.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let lines = BufReader::new(child.stdout.take().expect("its stdout")).lines();
    let (stored, done) = (Arc::clone(stored), Arc::clone(done));
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            match line.parse() {
                Ok(n) => drop(stored.fetch_max(n, Ordering::Relaxed)),
                Err(_) => done.store(true, Ordering::Relaxed),
            }
        }
    });
    child
}

fn killed_senders_lose_nothing() {
    let directory = Directory(std::env::temp_dir().join(format!("observer-killed-{}", std::process::id())));
    std::fs::create_dir_all(&directory.0).expect("a directory");
    let receiver = Arc::new(Receiver::default());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let config = directory.0.join("observer.yaml");
    let text = format!(
        "store: {{path: {}/store}}\nsinks:\n  - {{type: webhook, name: siem, url: \"http://127.0.0.1:{port}/\", batch: 100}}\n",
        directory.0.display()
    );
    std::fs::write(&config, text).expect("written");
    let listening = {
        let receiver = Arc::clone(&receiver);
        std::thread::spawn(move || receiver.listen(listener))
    };
    let (stored, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut listening = Some(listening);
    let mut again = None;
    let killed = Arc::new(AtomicBool::new(false));
    for n in 1..=KILLS {
        let from = stored.load(Ordering::Relaxed);
        let mut child = spawn(&config, from, &stored, &done);
        // Somewhere in the middle of its work, wherever that is.
        let target = ALERTS * u64::from(n) / u64::from(KILLS + 2);
        let deadline = Instant::now() + PATIENCE;
        while stored.load(Ordering::Relaxed) < target {
            assert!(Instant::now() < deadline, "only {} are stored", stored.load(Ordering::Relaxed));
            std::thread::sleep(Duration::from_millis(3 + u64::from(n)));
        }
        if n == GOES_AT {
            receiver.away.store(true, Ordering::Relaxed);
        }
        child.kill().expect("killed");
        child.wait().expect("its end");
        // What it had said last is in the pipe.
        std::thread::sleep(Duration::from_millis(100));
        if n == GOES_AT {
            listening.take().expect("the listener").join().expect("its end");
            let (receiver, killed) = (Arc::clone(&receiver), Arc::clone(&killed));
            again = Some(std::thread::spawn(move || {
                std::thread::sleep(AWAY);
                // On a machine that is slow, longer.
                while !killed.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(50));
                }
                let listener = TcpListener::bind(("127.0.0.1", port)).expect("the same port");
                receiver.away.store(false, Ordering::Relaxed);
                receiver.listen(listener);
            }));
        }
    }
    killed.store(true, Ordering::Relaxed);
    let before = receiver.got.lock().expect("not poisoned").len();
    assert!(before > 0, "nothing came before it went");
    let mut last = spawn(&config, stored.load(Ordering::Relaxed), &stored, &done);
    let deadline = Instant::now() + PATIENCE;
    while !done.load(Ordering::Relaxed) {
        assert!(
            Instant::now() < deadline,
            "{} stored, {} came",
            stored.load(Ordering::Relaxed),
            receiver.got.lock().expect("not poisoned").len()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(last.wait().expect("its end").success());
    receiver.away.store(true, Ordering::Relaxed);
    again.expect("it went").join().expect("the listener");
    let got = receiver.got.lock().expect("not poisoned");
    let different: BTreeSet<u64> = got.iter().copied().collect();
    let missing: Vec<u64> = (0..ALERTS).filter(|n| !different.contains(n)).collect();
    assert!(missing.is_empty(), "{} are missing: {missing:?}", missing.len());
    // In order, apart from what came again.
    let mut seen = BTreeSet::new();
    let first: Vec<u64> = got.iter().copied().filter(|n| seen.insert(*n)).collect();
    assert!(first.is_sorted(), "out of order");
    println!("{} alerts, {} deliveries", ALERTS, got.len());
}
