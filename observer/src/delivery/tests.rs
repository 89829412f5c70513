//! The whole way: from the fan-out to a receiver on loopback.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use super::{store::tests::Scratch, *};
use crate::{config::Config, model::Alert, sinks::sample};

/// A request as a receiver sees it.
pub(super) struct Request {
    pub path: String,
    pub headers: String,
    pub body: Vec<u8>,
}

/// An HTTP server that answers each request with what `answer` says: a status, or `None` to hang up.
pub(super) fn receiver(
    answer: impl Fn(&Request) -> Option<u16> + Send + Sync + 'static,
) -> (u16, mpsc::Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let (sender, received) = mpsc::channel();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let (sender, answer) = (sender.clone(), Arc::clone(&answer));
            std::thread::spawn(move || serve(stream, &*answer, &sender));
        }
    });
    (port, received)
}

fn serve(
    stream: TcpStream,
    answer: &dyn Fn(&Request) -> Option<u16>,
    sender: &mpsc::Sender<Request>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let mut first = String::new();
        reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
        let (mut headers, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            headers.push_str(&line.to_ascii_lowercase());
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let path = first.split(' ').nth(1)?.to_owned();
        let request = Request { path, headers, body };
        let status = answer(&request)?;
        let good = (200..300).contains(&status);
        if good {
            sender.send(request).ok()?;
        }
        let text = if good { "" } else { "no thanks\x1b[2J" };
        write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{text}", text.len()).ok()?;
    }
}

fn alert(n: usize) -> Arc<Alert> {
    let mut alert = (*sample::alert(&format!("number {n}"))).clone();
    alert.id = format!("0194263c-6e08-7000-8000-{n:012}");
    Arc::new(alert)
}

pub(super) fn numbers(lines: &str) -> Vec<usize> {
    let number = |line: &str| {
        let alert: Alert = serde_json::from_str(line).expect("an alert");
        alert.message.strip_prefix("number ").expect("ours").parse().expect("a number")
    };
    lines.lines().map(number).collect()
}

/// An agent's sinks without the rest of it.
pub(super) struct Agent {
    runtime: tokio::runtime::Runtime,
    fanout: Fanout,
    pub metrics: Metrics,
    pub delivery: Delivery,
}

pub(super) fn config(store: &Path, sinks: &str) -> Config {
    let text = format!("store: {{path: {}}}\nsinks:\n{sinks}", store.display());
    Config::parse(Path::new("test.yaml"), &text).expect("a configuration")
}

impl Agent {
    pub fn start(config: &Config) -> Agent {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (fanout, metrics) = (Fanout::new(), Metrics::new());
        let delivery = Delivery::start(config, &fanout, &metrics).expect("started");
        Agent { runtime, fanout, metrics, delivery }
    }

    pub fn send(&self, numbers: impl IntoIterator<Item = usize>) {
        for n in numbers {
            self.fanout.alert(&alert(n));
            if n % 500 == 499 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    pub fn end(self) -> Metrics {
        self.fanout.close();
        self.runtime.block_on(self.delivery.ended());
        self.metrics
    }

    pub fn value(&self, series: &str) -> u64 {
        value(&self.metrics, series)
    }

    pub fn wait(&self, series: &str, expected: u64) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.value(series) != expected {
            assert!(Instant::now() < deadline, "{series} is {} instead of {expected}", self.value(series));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub(super) fn value(metrics: &Metrics, series: &str) -> u64 {
    let text = metrics.expose(false);
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    found.unwrap_or_else(|| panic!("no {series} in {text}"))
}

fn dropped(sink: &str, reason: &str) -> String {
    format!("observer_sink_dropped_total{{reason=\"{reason}\",sink=\"{sink}\"}}")
}

#[test]
fn without_sinks_there_is_no_store_and_no_thread() {
    let scratch = Scratch::new("delivery-none");
    let agent = Agent::start(&config(&scratch.0, "  []\n"));
    assert!(agent.delivery.running.is_none());
    agent.send(0..3);
    agent.end();
    assert!(!scratch.0.exists());
}

#[test]
fn everything_arrives_in_order_whatever_the_receiver_does() {
    let scratch = Scratch::new("delivery-order");
    let count = Mutex::new(0);
    let (port, received) = receiver(move |_| {
        let mut count = count.lock().expect("not poisoned");
        *count += 1;
        [Some(503), Some(200), None, Some(429)][*count % 4]
    });
    let file = scratch.0.join("alerts.json");
    let agent = Agent::start(&config(
        &scratch.0,
        &format!(
            "  - {{type: webhook, name: siem, url: \"http://127.0.0.1:{port}/in?x=1\", batch: 50}}\n  \
             - {{type: file, name: local, path: {}}}\n",
            file.display()
        ),
    ));
    agent.send(0..200);
    agent.wait("observer_sink_alerts_total{sink=\"local\"}", 200);
    agent.wait("observer_sink_alerts_total{sink=\"siem\"}", 200);
    agent.wait("observer_sink_backlog{sink=\"siem\"}", 0);
    assert!(agent.value("observer_sink_retries_total{sink=\"siem\"}") >= 4);
    assert_eq!(agent.value("observer_sink_retries_total{sink=\"local\"}"), 0);
    agent.end();
    let requests: Vec<Request> = received.try_iter().collect();
    let lines: String = requests.iter().map(|it| String::from_utf8_lossy(&it.body).into_owned()).collect();
    assert_eq!(numbers(&lines), (0..200).collect::<Vec<_>>());
    assert!(requests.iter().all(|it| it.path == "/in?x=1" && it.headers.contains("application/x-ndjson")));
    assert_eq!(numbers(&std::fs::read_to_string(file).expect("the file")), (0..200).collect::<Vec<_>>());
}

#[test]
fn what_is_refused_is_skipped_alone_and_counted() {
    let scratch = Scratch::new("delivery-refused");
    let (port, received) = receiver(|request| {
        let text = String::from_utf8_lossy(&request.body);
        Some(if text.contains("number 7\"") { 400 } else { 204 })
    });
    let agent = Agent::start(&config(
        &scratch.0,
        &format!("  - {{type: webhook, name: siem, url: \"http://127.0.0.1:{port}\"}}\n"),
    ));
    agent.send(0..20);
    agent.wait("observer_sink_alerts_total{sink=\"siem\"}", 19);
    agent.wait("observer_sink_backlog{sink=\"siem\"}", 0);
    let metrics = agent.end();
    let lines: String =
        received.try_iter().map(|it| String::from_utf8_lossy(&it.body).into_owned()).collect();
    assert_eq!(numbers(&lines), (0..20).filter(|n| *n != 7).collect::<Vec<_>>());
    assert_eq!(value(&metrics, &dropped("siem", "rejected")), 1);
}

/// A token that has run out, then the right to use it, then the path: each is mended, and nothing is lost or out of order.
#[test]
fn what_denies_the_agent_is_waited_for() {
    let scratch = Scratch::new("delivery-denied");
    std::fs::create_dir_all(&scratch.0).expect("a directory");
    let token = scratch.0.join("token");
    std::fs::write(&token, "Bearer old\n").expect("written");
    let right = Arc::new(AtomicU64::new(403));
    let now = Arc::clone(&right);
    let (port, received) = receiver(move |request| {
        let known = request.headers.contains("authorization: bearer new\r\n");
        Some(if known { now.load(Ordering::Relaxed) as u16 } else { 401 })
    });
    let agent = Agent::start(&config(
        &scratch.0,
        &format!(
            "  - {{type: webhook, name: siem, url: \"http://127.0.0.1:{port}\", batch: 7, header_files: {{Authorization: {}}}}}\n",
            token.display()
        ),
    ));
    let retries = "observer_sink_retries_total{sink=\"siem\"}";
    let wait_more = || {
        let before = agent.value(retries);
        let deadline = Instant::now() + Duration::from_secs(30);
        while agent.value(retries) < before + 2 {
            assert!(Instant::now() < deadline, "it does not try again");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(agent.value("observer_sink_up{sink=\"siem\"}"), 0);
    };
    agent.send(0..20);
    wait_more();
    std::fs::write(&token, "Bearer new\n").expect("written");
    wait_more();
    right.store(404, Ordering::Relaxed);
    agent.send(20..30);
    wait_more();
    assert_eq!(agent.value("observer_sink_backlog{sink=\"siem\"}"), 30);
    right.store(200, Ordering::Relaxed);
    agent.wait("observer_sink_alerts_total{sink=\"siem\"}", 30);
    let metrics = agent.end();
    let lines: String =
        received.try_iter().map(|it| String::from_utf8_lossy(&it.body).into_owned()).collect();
    assert_eq!(numbers(&lines), (0..30).collect::<Vec<_>>());
    assert_eq!(value(&metrics, &dropped("siem", "rejected")), 0);
}

/// A firewall in front of the receiver does not like what one container does. That must not be a way to silence the sink.
#[test]
fn what_is_denied_for_its_content_holds_up_nothing() {
    let scratch = Scratch::new("delivery-firewall");
    let (port, received) = receiver(|request| {
        let text = String::from_utf8_lossy(&request.body);
        Some(if text.contains("number 7\"") || text.contains("number 8\"") { 403 } else { 200 })
    });
    let agent = Agent::start(&config(
        &scratch.0,
        &format!("  - {{type: webhook, name: siem, url: \"http://127.0.0.1:{port}\", batch: 5}}\n"),
    ));
    agent.send(0..20);
    agent.wait("observer_sink_alerts_total{sink=\"siem\"}", 18);
    agent.wait("observer_sink_backlog{sink=\"siem\"}", 0);
    let metrics = agent.end();
    let lines: String =
        received.try_iter().map(|it| String::from_utf8_lossy(&it.body).into_owned()).collect();
    // What was tried alone came twice, and once too early.
    let mut got = numbers(&lines);
    got.sort_unstable();
    got.dedup();
    assert_eq!(got, (0..20).filter(|n| ![7, 8].contains(n)).collect::<Vec<_>>());
    assert_eq!(value(&metrics, &dropped("siem", "rejected")), 2);
}

#[test]
fn a_receiver_that_is_away_gets_it_from_the_next_agent() {
    let scratch = Scratch::new("delivery-away");
    // A port where nobody listens: bound, and let go.
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
    let sink = |port| format!("  - {{type: webhook, name: siem, url: \"http://127.0.0.1:{port}\"}}\n");
    let agent = Agent::start(&config(&scratch.0, &sink(port)));
    agent.send(0..1000);
    agent.wait("observer_sink_backlog{sink=\"siem\"}", 1000);
    agent.wait("observer_sink_up{sink=\"siem\"}", 0);
    agent.end();
    let (port, received) = receiver(|_| Some(200));
    let agent = Agent::start(&config(&scratch.0, &sink(port)));
    agent.wait("observer_sink_alerts_total{sink=\"siem\"}", 1000);
    agent.send(1000..1003);
    agent.end();
    let lines: String =
        received.try_iter().map(|it| String::from_utf8_lossy(&it.body).into_owned()).collect();
    assert_eq!(numbers(&lines), (0..1003).collect::<Vec<_>>());
}

#[test]
fn sinks_come_and_go() {
    let scratch = Scratch::new("delivery-reload");
    let (a, b) = (scratch.0.join("a.json"), scratch.0.join("b.json"));
    let sink =
        |name: &str, path: &Path| format!("  - {{type: file, name: {name}, path: {}}}\n", path.display());
    let mut agent = Agent::start(&config(&scratch.0, &sink("a", &a)));
    agent.send(0..5);
    agent.wait("observer_sink_alerts_total{sink=\"a\"}", 5);
    let both = config(&scratch.0, &(sink("a", &a) + &sink("b", &b)));
    agent.delivery.reload(&both.sinks).expect("reloaded");
    std::thread::sleep(Duration::from_millis(300));
    agent.send(5..10);
    agent.wait("observer_sink_alerts_total{sink=\"b\"}", 5);
    agent.wait("observer_sink_alerts_total{sink=\"a\"}", 10);
    agent.delivery.reload(&config(&scratch.0, &sink("b", &b)).sinks).expect("reloaded");
    let deadline = Instant::now() + Duration::from_secs(10);
    while agent.metrics.expose(false).contains("sink=\"a\"") {
        assert!(Instant::now() < deadline, "the series stay");
        std::thread::sleep(Duration::from_millis(10));
    }
    agent.send(10..12);
    agent.wait("observer_sink_alerts_total{sink=\"b\"}", 7);
    agent.end();
    assert_eq!(numbers(&std::fs::read_to_string(a).expect("a")), (0..10).collect::<Vec<_>>());
    assert_eq!(numbers(&std::fs::read_to_string(b).expect("b")), (5..12).collect::<Vec<_>>());
}

/// A file in the store's place: as good as a disk that cannot be written.
#[test]
fn without_a_disk_it_goes_on_in_memory_and_tells_what_it_drops() {
    let scratch = Scratch::new("delivery-memory");
    std::fs::create_dir_all(&scratch.0).expect("a directory");
    let store = scratch.0.join("store");
    std::fs::write(&store, "no directory").expect("written");
    let file = scratch.0.join("a.json");
    let (port, received) = receiver(|_| Some(500));
    let agent = Agent::start(&config(
        &store,
        &format!(
            "  - {{type: file, name: local, path: {}}}\n  - {{type: webhook, name: siem, url: \"http://127.0.0.1:{port}\"}}\n",
            file.display()
        ),
    ));
    for start in [0, 2000, 4000] {
        agent.send(start..start + 2000);
        agent.wait("observer_sink_alerts_total{sink=\"local\"}", start as u64 + 2000);
    }
    assert!(agent.value("observer_store_errors_total") > 0);
    // 4,096 are kept for the other.
    agent.wait(&dropped("siem", "memory_full"), 6000 - 4096);
    agent.wait("observer_sink_backlog{sink=\"siem\"}", 4096);
    assert_eq!(agent.value(&dropped("local", "memory_full")), 0);
    // The disk is back: what is in memory goes there within seconds, and outlives the agent.
    std::fs::remove_file(&store).expect("removed");
    let deadline = Instant::now() + Duration::from_secs(20);
    while agent.value("observer_store_bytes") == 0 {
        assert!(Instant::now() < deadline, "the store stays shut");
        std::thread::sleep(Duration::from_millis(50));
    }
    agent.end();
    assert!(received.try_iter().next().is_none());
    assert_eq!(numbers(&std::fs::read_to_string(file).expect("the file")), (0..6000).collect::<Vec<_>>());
    let (port, received) = receiver(|_| Some(200));
    let agent = Agent::start(&config(
        &store,
        &format!("  - {{type: webhook, name: siem, url: \"http://127.0.0.1:{port}\"}}\n"),
    ));
    agent.wait("observer_sink_alerts_total{sink=\"siem\"}", 4096);
    agent.end();
    let lines: String =
        received.try_iter().map(|it| String::from_utf8_lossy(&it.body).into_owned()).collect();
    assert_eq!(numbers(&lines), (6000 - 4096..6000).collect::<Vec<_>>());
}

#[test]
fn headers_come_from_files_and_bodies_can_be_small() {
    let scratch = Scratch::new("delivery-headers");
    std::fs::create_dir_all(&scratch.0).expect("a directory");
    let token = scratch.0.join("token");
    std::fs::write(&token, "Bearer s3cret\n").expect("written");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    let (port, received) = receiver(|_| Some(200));
    let agent = Agent::start(&config(
        &scratch.0,
        &format!(
            "  - {{type: webhook, name: siem, url: \"http://127.0.0.1:{port}/\", body: array, gzip: true, headers: {{X-Scope: t1}}, \
             header_files: {{Authorization: {}}}}}\n",
            token.display()
        ),
    ));
    agent.send(0..3);
    agent.wait("observer_sink_alerts_total{sink=\"siem\"}", 3);
    agent.end();
    let mut got = Vec::new();
    for request in received.try_iter() {
        for header in ["authorization: bearer s3cret\r\n", "x-scope: t1\r\n", "content-encoding: gzip\r\n"] {
            assert!(request.headers.contains(header), "{}", request.headers);
        }
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*request.body).read_to_string(&mut text).expect("gzip");
        got.extend(serde_json::from_str::<Vec<Alert>>(&text).expect("an array of alerts"));
    }
    assert_eq!(got, (0..3).map(|n| (*alert(n)).clone()).collect::<Vec<_>>());
}
