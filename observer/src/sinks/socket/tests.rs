use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::UnixStream as Std,
};

use serde_json::{Value, json};

use super::*;
use crate::{
    config::Config,
    sinks::{Want, protocol::sample},
    telemetry::Metrics,
};
use tokio::sync::Notify;

/// A directory of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("observer-socket-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::DirBuilder::new().mode(0o755).create(&path).expect("a scratch directory");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Runs a server on a thread of its own until the fan-out is closed.
struct Running {
    path: PathBuf,
    fanout: Fanout,
    metrics: Metrics,
    thread: Option<std::thread::JoinHandle<bool>>,
    _scratch: Scratch,
}

impl Running {
    fn start(name: &str) -> Running {
        let scratch = Scratch::new(name);
        let path = scratch.0.join("made").join("observer.sock");
        let (fanout, metrics) = (Fanout::new(), Metrics::new());
        let mut config = Config::default();
        config.socket.path = path.clone();
        let (ready, started) = std::sync::mpsc::channel();
        let thread = std::thread::spawn({
            let (fanout, metrics) = (fanout.clone(), metrics.clone());
            move || {
                runtime().block_on(async {
                    let reader_gone = Arc::new(Notify::new());
                    let start = Start { config: &config, fanout: &fanout, metrics: &metrics, reader_gone };
                    let mut running = super::start(&start).unwrap_or_else(|error| panic!("{error}"));
                    ready.send(()).expect("the test waits");
                    fanout.closed().await;
                    tokio::time::timeout(Duration::from_secs(3), running.done.recv()).await.is_ok()
                })
            }
        });
        started.recv().expect("the server starts");
        Running { path, fanout, metrics, thread: Some(thread), _scratch: scratch }
    }

    fn client(&self, request: &Value) -> BufReader<Std> {
        let mut stream = Std::connect(&self.path).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time limit");
        // A server without room says so and hangs up, maybe before it was asked anything.
        match stream.write_all(format!("{request}\n").as_bytes()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            sent => sent.expect("send"),
        }
        BufReader::new(stream)
    }

    /// A client that the server is known to have heard.
    fn subscribed(&self, request: &Value) -> BufReader<Std> {
        let mut client = self.client(request);
        assert_eq!(line(&mut client), json!({"subscribed": request["subscribe"]}));
        client
    }

    fn close(&mut self) -> bool {
        self.fanout.close();
        self.thread.take().expect("closed once").join().expect("the server")
    }
}

fn line(client: &mut BufReader<Std>) -> Value {
    let mut line = String::new();
    client.read_line(&mut line).expect("a line");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

#[test]
fn streams_what_was_asked_for_and_ends_with_the_agent() {
    let mut server = Running::start("streams");
    server.fanout.alert(&sample::alert("before"));
    let mut all = server.subscribed(&json!({"subscribe": "alerts", "recent": true}));
    let mut none = server.subscribed(&json!({"subscribe": "alerts", "filter": {"rules": ["root.*"]}}));
    let mut events = server.subscribed(&json!({"subscribe": "events", "filter": {"kinds": ["exec"]}}));
    server.fanout.alert(&sample::alert("after"));
    for kind in ["fork", "exec"] {
        server.fanout.event(&sample::event(kind));
    }
    assert_eq!(line(&mut all)["alert"]["message"], "before");
    assert_eq!(line(&mut all)["alert"]["message"], "after");
    assert_eq!(line(&mut events)["event"]["kind"], "exec");
    assert!(server.close(), "not everything was written");
    let mut rest = String::new();
    none.read_to_string(&mut rest).expect("the end");
    assert_eq!(rest, "");
    assert!(!server.path.exists());
    assert!(server.metrics.expose(false).contains("observer_sink_alerts_total{sink=\"socket\"} 2\n"));
}

#[test]
fn the_socket_is_for_its_owner() {
    let server = Running::start("mode");
    let mode = |path: &Path| fs::metadata(path).expect("it exists").mode() & 0o777;
    assert_eq!(mode(&server.path), 0o600);
    assert_eq!(mode(server.path.parent().expect("a directory")), 0o700);
}

#[test]
fn a_request_that_is_none_is_refused() {
    let server = Running::start("refused");
    for (request, reason) in [
        (json!({"subscribe": "all"}), "unknown variant"),
        (json!({"subscribe": "alerts", "fliter": {}}), "unknown field"),
        (json!({"subscribe": "alerts", "filter": {"rule": "x"}}), "unknown field"),
        (json!([]), "invalid length"),
        (json!({"subscribe": "alerts", "filter": {"rules": ["x".repeat(5000)]}}), "at most 4096 bytes"),
    ] {
        let mut client = server.client(&request);
        let answer = line(&mut client);
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains(reason), "{answer}");
        assert_eq!(client.read_line(&mut String::new()).unwrap_or(0), 0, "it hangs up");
    }
}

#[test]
fn there_is_room_for_so_many_and_a_place_is_given_back() {
    let server = Running::start("room");
    let mut clients: Vec<_> =
        (0..MAX_CLIENTS).map(|_| server.subscribed(&json!({"subscribe": "alerts"}))).collect();
    let refused = line(&mut server.client(&json!({"subscribe": "alerts"})));
    assert_eq!(refused, json!({"error": "too many clients"}));
    clients.pop();
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(20));
        let mut client = server.client(&json!({"subscribe": "alerts"}));
        if line(&mut client) == json!({"subscribed": "alerts"}) {
            return;
        }
    }
    panic!("the place of a client that left is not given back");
}

#[test]
fn a_client_that_is_too_slow_is_told_what_it_missed_and_stops_nobody() {
    let mut server = Running::start("slow");
    let mut slow = server.subscribed(&json!({"subscribe": "alerts"}));
    let mut quick = server.subscribed(&json!({"subscribe": "events"}));
    const SENT: u64 = 20_000;
    for n in 0..SENT {
        server.fanout.alert(&sample::alert(&n.to_string()));
    }
    server.fanout.event(&sample::event("exec"));
    assert_eq!(line(&mut quick)["event"]["kind"], "exec");
    drop(quick);
    let reader = std::thread::spawn(move || {
        let (mut got, mut missed) = (0, 0);
        let mut text = String::new();
        while slow.read_line(&mut text).expect("a line") > 0 {
            let line: Value = serde_json::from_str(&text).expect("JSON");
            missed += line["missed"].as_u64().unwrap_or(0);
            got += u64::from(line.get("alert").is_some());
            text.clear();
        }
        (got, missed)
    });
    assert!(server.close());
    let (got, missed) = reader.join().expect("the reader");
    assert!(missed > 0 && got + missed == SENT, "{got} + {missed}");
}

#[test]
fn events_are_wanted_only_while_somebody_reads_them() {
    let server = Running::start("wanted");
    assert!(!server.fanout.wants_events());
    let client = server.subscribed(&json!({"subscribe": "events"}));
    assert!(server.fanout.wants_events());
    drop(client);
    for _ in 0..100 {
        if !server.fanout.wants_events() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("a client that left still costs events");
}

#[test]
fn only_a_dead_socket_is_replaced() {
    let _runtime = runtime();
    let _entered = _runtime.enter();
    let scratch = Scratch::new("dead");
    let path = scratch.0.join("observer.sock");
    let first = bind(&path).expect("a fresh path");
    assert_eq!(bind(&path).expect_err("in use").to_string(), "another observer answers on it");
    drop(first);
    drop(bind(&path).expect("left behind by a dead one"));
    fs::remove_file(&path).and_then(|()| fs::write(&path, "x")).expect("a file in its place");
    assert_eq!(bind(&path).expect_err("a file").to_string(), "is there, and is no socket");
    fs::remove_file(&path).expect("remove it");
    fs::set_permissions(&scratch.0, fs::Permissions::from_mode(0o777)).expect("open the directory");
    assert_eq!(bind(&path).expect_err("open").to_string(), "others than root can write to its directory");
    assert!(Want::Alerts != Want::Events);
}
