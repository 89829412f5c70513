//! The agent under test: `observer run` with a configuration of its own, its alerts as they come.

use crate::alert::{self, Alert};
use crate::metrics::Metrics;
use crate::{host, http, own, pace, scratch, wait};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// `$OBSERVER_BIN`, else the release build of this workspace.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("OBSERVER_BIN") {
        return path.into();
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join("release/observer")
}

/// A subcommand of the agent, to be spawned.
pub fn observer(args: &[&str]) -> Command {
    let binary = binary();
    assert!(binary.is_file(), "{} does not exist: build it first, or set OBSERVER_BIN", binary.display());
    let mut command = Command::new(binary);
    command.args(args);
    command
}

/// A configuration file with addresses that nobody else uses.
#[derive(Debug, Clone)]
pub struct Config {
    pub path: PathBuf,
    pub address: SocketAddr,
    pub socket: PathBuf,
}

impl Config {
    /// `extra` is appended as it is, for the settings that a test is about.
    pub fn new(extra: &str) -> Self {
        let dir = scratch::subdir("agent");
        let (port, socket) = (http::free_port(), dir.join("observer.sock"));
        let text = format!(
            "http:\n  listen: \"127.0.0.1:{port}\"\nsocket:\n  path: \"{}\"\nsweep_seconds: {}\n{extra}",
            socket.display(),
            pace::sweep_seconds()
        );
        let path = dir.join("observer.yaml");
        std::fs::write(&path, text).expect("write the configuration");
        Self { path, address: (Ipv4Addr::LOCALHOST, port).into(), socket }
    }

    /// Ring sizes other than the default ones.
    pub fn rings(events_bytes: u64, priority_bytes: u64) -> Self {
        Self::new(&format!("rings:\n  events_bytes: {events_bytes}\n  priority_bytes: {priority_bytes}\n"))
    }

    pub fn arg(&self) -> &str {
        self.path.to_str().expect("a path in UTF-8")
    }
}

/// What the reader thread has collected.
#[derive(Debug, Default)]
struct Seen {
    alerts: Vec<Alert>,
    /// Lines that no alert may be; any of them fails the test at the end.
    malformed: Vec<String>,
}

/// A running agent. Ends with [`Agent::finish`], [`Agent::stop`] or [`Agent::kill`]; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    reader: Option<JoinHandle<()>>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    config: Config,
    log: PathBuf,
    /// From the start of the process to the first 200 of /readyz.
    pub ready_after: Duration,
    /// Whether it outlives the test, for the next one.
    kept: bool,
    /// Where this test's part begins: the alerts before it, and those about what happened before (a line about repeats
    /// comes a minute late), are former tests'.
    since: Option<(usize, SystemTime)>,
}

/// The agent that waits for the next test that needs nothing special of one.
static KEPT: Mutex<Option<Agent>> = Mutex::new(None);

impl Agent {
    pub fn start() -> Self {
        Self::with(Config::new(""))
    }

    /// An agent that the test does not configure, stop or kill: one that former tests had as well, as agents run for long in
    /// earnest, and a start and an end take as long as many a test. It is handed on by [`Agent::finish`], never by a test
    /// that fails.
    pub fn share() -> Self {
        let kept = KEPT.lock().expect("the kept agent").take();
        let Some(mut agent) = kept else {
            scratch::at_exit(Self::end_kept);
            return Self::launch(Config::new(""), true, |_| ());
        };
        let before = agent.seen.0.lock().expect("the alerts").alerts.len();
        agent.since = Some((before, SystemTime::now()));
        agent
    }

    /// For a test in whose load another agent would suffer, or take part.
    pub fn end_kept() {
        let kept = KEPT.lock().expect("the kept agent").take();
        if let Some(agent) = kept {
            agent.stop();
        }
    }

    /// Starts it and waits until it says that it is armed.
    pub fn with(config: Config) -> Self {
        Self::launch(config, false, |_| ())
    }

    /// The same, with files in `/etc` that are not the host's.
    pub fn with_own_etc(config: Config, files: &[(&str, &str)]) -> Self {
        let dir = scratch::subdir("etc");
        Self::launch(config, false, |command| {
            host::with_own_etc(command, &dir, files);
        })
    }

    fn launch(config: Config, kept: bool, prepare: impl FnOnce(&mut Command)) -> Self {
        let log = config.path.with_extension(format!("{}.log", scratch::unique()));
        let started = Instant::now();
        let mut command = observer(&["run", "--config", config.arg()]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).expect("the agent's log"));
        prepare(&mut command);
        let child = if kept {
            host::spawn_lasting(command)
        } else {
            host::die_with_parent(&mut command, libc::SIGKILL).spawn()
        };
        let mut child = child.expect("start the agent");
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let stdout = child.stdout.take().expect("the agent's stdout");
        let reader = std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || read_alerts(stdout, &seen)
        });
        let reader = Some(reader);
        let ready_after = Duration::ZERO;
        let mut agent = Self { child, reader, seen, config, log, ready_after, kept, since: None };
        let ready = wait::until_true(Duration::from_secs(10), || {
            if let Ok(Some(status)) = agent.child.try_wait() {
                panic!("the agent ended before it was ready: {status}");
            }
            http::get(agent.config.address, "/readyz").is_ok_and(|(status, _)| status == 200)
        });
        assert!(ready, "the agent was not ready within 10 s");
        agent.ready_after = started.elapsed();
        agent
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything so far, whoever's it is.
    pub fn alerts(&self) -> Vec<Alert> {
        self.of_this_test(&self.seen.0.lock().expect("the alerts").alerts).cloned().collect()
    }

    fn of_this_test<'a>(&self, alerts: &'a [Alert]) -> impl Iterator<Item = &'a Alert> {
        let (before, since) = self.since.unzip();
        let new = alerts.iter().skip(before.unwrap_or_default());
        new.filter(move |alert| since.is_none_or(|since| alert.time().is_none_or(|time| time >= since)))
    }

    /// What is about things that this test process started.
    pub fn own_alerts(&self) -> Vec<Alert> {
        self.alerts().into_iter().filter(own::is).collect()
    }

    /// The alerts of one container.
    pub fn alerts_of(&self, container: &str) -> Vec<Alert> {
        self.alerts().into_iter().filter(|alert| alert.container() == Some(container)).collect()
    }

    /// The first alert that fits, seen already or within `limit`.
    pub fn try_wait_for(&self, limit: Duration, fits: impl Fn(&Alert) -> bool) -> Option<Alert> {
        let deadline = Instant::now() + pace::patience(limit);
        let (mutex, arrived) = &*self.seen;
        let mut seen = mutex.lock().expect("the alerts");
        loop {
            if let Some(alert) = self.of_this_test(&seen.alerts).find(|alert| fits(alert)) {
                return Some(alert.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            seen = arrived.wait_timeout(seen, left).expect("the alerts").0;
        }
    }

    /// The first alert of a rule about a container; the test fails when none comes within 5 s.
    pub fn wait_for(&self, rule: &str, container: &str) -> Alert {
        self.wait_for_matching(rule, container, |_| true)
    }

    pub fn wait_for_matching(&self, rule: &str, container: &str, fits: impl Fn(&Alert) -> bool) -> Alert {
        self.try_wait_for(Duration::from_secs(5), |alert| {
            alert.rule() == rule && alert.container() == Some(container) && fits(alert)
        })
        .unwrap_or_else(|| panic!("no fitting {rule} about {container} within 5 s"))
    }

    /// The `namespace.escape` by several joins in a row: one alert about all of them.
    pub fn wait_for_escape(&self, container: &str, types: &[&str]) -> Alert {
        self.wait_for_matching("namespace.escape", container, |alert| {
            !pace::joins_may_part() || alert.changed() == types
        })
    }

    pub fn metrics(&self) -> Metrics {
        let (status, text) = http::get(self.config.address, "/metrics").expect("scrape the agent");
        assert_eq!(status, 200, "{text}");
        Metrics::parse(&text).unwrap_or_else(|e| panic!("/metrics: {e}"))
    }

    /// Every event that the agent says it lost, for whatever reason.
    pub fn lost(&self) -> f64 {
        self.metrics().sum("observer_events_lost_total", &[])
    }

    pub fn events(&self, kind: &str) -> f64 {
        self.metrics().sum("observer_events_total", &[("kind", kind)])
    }

    /// Waits until everything that has happened has gone through the pipeline: no new event for a while. Others may
    /// keep the machine busy, so it gives up after 5 s; the least is many times the 10 ms for which joins are put
    /// together.
    pub fn settle(&self) {
        let (first, still) = pace::settle();
        std::thread::sleep(first);
        let mut before = self.metrics().sum("observer_events_total", &[]);
        wait::until_true(Duration::from_secs(5), || {
            std::thread::sleep(still);
            let now = self.metrics().sum("observer_events_total", &[]);
            std::mem::replace(&mut before, now) == now
        });
    }

    /// Settles, then lives through one sweep of the container tasks, which must find nothing either.
    pub fn settle_through_sweep(&self) {
        std::thread::sleep(pace::sweep());
        self.settle();
    }

    /// Asserts that what is above `info` and ours is exactly this: (rule, severity, container), each as often as
    /// it is listed.
    pub fn assert_only(&self, expected: &[(&str, &str, &str)]) {
        let mut wanted: Vec<_> = expected.iter().map(|(r, s, c)| format!("{s} {r} {c}")).collect();
        let own = self.own_alerts();
        let part = |alert: &Alert| pace::joins_may_part() && own.iter().any(|whole| alert.is_part_of(whole));
        let mut got: Vec<_> = own
            .iter()
            .filter(|alert| alert.above_info() && !part(alert))
            .map(|alert| {
                format!("{} {} {}", alert.severity(), alert.rule(), alert.container().unwrap_or("-"))
            })
            .collect();
        wanted.sort();
        got.sort();
        assert_eq!(
            got, wanted,
            "the alerts above info about what the test started (left) are not those expected"
        );
    }

    /// Nothing above `info` about anything of ours.
    pub fn assert_nothing(&self) {
        self.assert_only(&[]);
    }

    /// The end of a test: nothing lost, every line well formed, SIGTERM obeyed with 0, unless the agent is kept.
    pub fn finish(self) {
        let lost = self.metrics();
        let skipped = lost.sum("observer_events_lost_total", &[("reason", "skipped")]);
        println!("skipped: {skipped}");
        // What the kernel skips for the slowness of emulated programs says nothing about the agent.
        let tolerated = if pace::emulated() { skipped } else { 0.0 };
        assert_eq!(
            lost.sum("observer_events_lost_total", &[]),
            tolerated,
            "{:?}",
            lost.family("observer_events_lost_total")
        );
        let others: Vec<_> = self.alerts().into_iter().filter(|a| a.above_info() && !own::is(a)).collect();
        for alert in others {
            println!("about somebody else: {}", alert.summary());
        }
        if self.kept {
            self.assert_sound();
            *KEPT.lock().expect("the kept agent") = Some(self);
        } else {
            self.stop();
        }
    }

    /// SIGTERM; it must drain and exit with 0 within 5 s. Returns every alert it ever gave.
    pub fn stop(mut self) -> Vec<Alert> {
        host::signal(self.child.id(), libc::SIGTERM);
        let status =
            self.wait_end(Duration::from_secs(5)).expect("the agent did not end within 5 s of SIGTERM");
        assert_eq!(status.code(), Some(0), "the agent's end: {status}");
        self.join_reader();
        self.assert_sound();
        self.alerts()
    }

    /// What must hold for all alerts together, and for every line.
    fn assert_sound(&self) {
        let seen = self.seen.0.lock().expect("the alerts");
        assert!(seen.malformed.is_empty(), "malformed alerts: {:#?}", seen.malformed);
        let mut ids: Vec<&str> = seen.alerts.iter().map(|alert| alert.text("/id")).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "two alerts with one id");
    }

    /// SIGKILL, as the OOM killer would. The configuration can be used again.
    pub fn kill(mut self) -> Config {
        self.end();
        self.config.clone()
    }

    fn wait_end(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait::until(limit, || self.child.try_wait().ok().flatten())
    }

    fn join_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.join_reader();
    }

    /// The end of what the agent said about itself.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

/// The last 40 lines of a log.
pub fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

fn read_alerts(stdout: ChildStdout, seen: &(Mutex<Seen>, Condvar)) {
    let mut reader = BufReader::new(stdout);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
        let (received, received_at) = (Instant::now(), SystemTime::now());
        let whole = bytes.pop_if(|last| *last == b'\n').is_some();
        let parsed = std::str::from_utf8(&bytes)
            .map_err(|e| e.to_string())
            .and_then(|line| Ok((line, serde_json::from_str(line).map_err(|e| e.to_string())?)));
        let mut seen_now = seen.0.lock().expect("the alerts");
        match parsed {
            Ok((line, json)) => {
                if let Err(why) = alert::check_shape(line, &json) {
                    seen_now.malformed.push(format!("{why}: {line}"));
                }
                seen_now.alerts.push(Alert { line: line.to_owned(), json, received, received_at });
            }
            // A line cut off by SIGKILL is no fault of the agent's; a whole one that is no JSON is.
            Err(why) if whole => {
                seen_now.malformed.push(format!("{why}: {}", String::from_utf8_lossy(&bytes)));
            }
            Err(_) => {}
        }
        drop(seen_now);
        seen.1.notify_all();
        bytes.clear();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // What a person needs to understand a failed test.
        if std::thread::panicking() {
            let alerts = self.alerts();
            let (own, others): (Vec<_>, Vec<_>) = alerts.iter().partition(|alert| own::is(alert));
            eprintln!("--- {} alerts about what the tests started, {} about others", own.len(), others.len());
            for alert in own {
                eprintln!("{}", alert.line);
            }
            for alert in others.iter().filter(|alert| alert.above_info()) {
                eprintln!("(others) {}", alert.summary());
            }
            if let Ok((_, text)) = http::get(self.config.address, "/metrics") {
                let counts = text.lines().filter(|line| line.starts_with("observer_events"));
                eprintln!("--- counts\n{}", counts.collect::<Vec<_>>().join("\n"));
            }
            eprintln!("--- the agent's log\n{}", self.log_tail());
        }
        self.end();
    }
}
