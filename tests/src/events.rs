//! The event stream: `observer tail --events --json`, connected to a running agent.

use crate::agent::{self, Agent};
use crate::host::{self, Guard};
use crate::wait;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug)]
pub struct Events {
    seen: Arc<Mutex<Vec<Value>>>,
    _tail: Guard,
}

impl Events {
    /// Connects; returns once the first event has come, so that nothing later is missed.
    pub fn follow(agent: &Agent) -> Self {
        let mut command = agent::observer(&["tail", "--config", agent.config().arg(), "--events", "--json"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut tail = Guard::spawn(&mut command).expect("start observer tail");
        let stdout = tail.child().stdout.take().expect("the tail's stdout");
        let seen = Arc::new(Mutex::new(Vec::new()));
        std::thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let event =
                        serde_json::from_str(&line).unwrap_or_else(|e| panic!("no JSON: {e}: {line}"));
                    seen.lock().expect("the events").push(event);
                }
            }
        });
        let events = Self { seen, _tail: tail };
        let connected = wait::until_true(Duration::from_secs(10), || {
            drop(host::target());
            !events.all().is_empty()
        });
        assert!(connected, "observer tail --events shows nothing");
        events
    }

    pub fn all(&self) -> Vec<Value> {
        self.seen.lock().expect("the events").clone()
    }

    /// The first event that fits, within 5 s.
    pub fn wait_for(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait::until(Duration::from_secs(5), || self.all().into_iter().find(|event| fits(event)))
            .unwrap_or_else(|| {
                let all = self.all();
                let last: Vec<String> = all.iter().rev().take(20).map(Value::to_string).collect();
                panic!("no event: {what}; the last of {} were\n{}", all.len(), last.join("\n"))
            })
    }
}
