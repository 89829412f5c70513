//! An independent count of what the kernel did: bpftrace on the same tracepoints.
//!
//! bpftrace counts in per-CPU maps, so it misses nothing at any rate. It needs tracefs, which is mounted in a mount
//! namespace of its own and disappears with it. A count and the agent's metrics cannot be read at the same instant;
//! [`Counter::quiet_pair`] therefore looks for a moment at which neither changes, and reads both then. Two such
//! moments, one before and one after the load, give an exact difference.

use crate::agent::Agent;
use crate::host::Guard;
use crate::metrics::Metrics;
use crate::{lab, wait};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What is counted, by the agent's name of the event's kind: tracepoint and filter. The agent reports processes, not
/// threads, and no kernel threads (PF_KTHREAD, 0x200000).
const PROBES: [(&str, &str, &str); 3] = [
    ("exec", "sched:sched_process_exec", "1"),
    // 0x10000 is CLONE_THREAD.
    ("fork", "task:task_newtask", "(args->clone_flags & 0x10000) == 0 && (curtask->flags & 0x200000) == 0"),
    ("exit", "sched:sched_process_exit", "args->group_dead && (curtask->flags & 0x200000) == 0"),
];

type Counts = BTreeMap<String, u64>;

#[derive(Debug)]
pub struct Counter {
    latest: Arc<Mutex<(u64, Counts)>>,
    _bpftrace: Guard,
}

impl Counter {
    /// `None`, and said so, without bpftrace.
    pub fn start() -> Option<Self> {
        if let Some(reason) = lab::missing("bpftrace") {
            lab::left_out("the counts by bpftrace", &reason);
            return None;
        }
        let counts = PROBES
            .map(|(name, point, filter)| format!("tracepoint:{point} /{filter}/ {{ @{name} = count(); }}"))
            .join(" ");
        let prints = PROBES.map(|(name, ..)| format!("print(@{name});")).join(" ");
        // The last line of a round is the mark of its end.
        let program = format!("{counts} interval:ms:50 {{ {prints} printf(\"round\\n\"); }}");
        let script = "mount -t tracefs tracefs /sys/kernel/tracing && exec bpftrace -f json -e \"$1\"";
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", script, "sh", &program])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut bpftrace = Guard::spawn(&mut command).expect("start bpftrace");
        let stdout = bpftrace.child().stdout.take().expect("bpftrace's stdout");
        let latest = Arc::new(Mutex::new((0, Counts::new())));
        std::thread::spawn({
            let latest = Arc::clone(&latest);
            move || read_rounds(BufReader::new(stdout), &latest)
        });
        let counter = Self { latest, _bpftrace: bpftrace };
        let counting = wait::until_true(Duration::from_secs(20), || {
            // Something must have been counted before a map is printed at all.
            drop(crate::host::target());
            PROBES.iter().all(|(name, ..)| counter.counts().contains_key(*name))
        });
        assert!(counting, "bpftrace counts nothing");
        Some(counter)
    }

    fn counts(&self) -> Counts {
        self.latest.lock().expect("the counts").1.clone()
    }

    /// The counts of a round that began after this call.
    pub fn fresh(&self) -> Counts {
        let round = self.latest.lock().expect("the counts").0;
        let newer = wait::until(Duration::from_secs(5), || {
            let latest = self.latest.lock().expect("the counts");
            (latest.0 >= round + 2).then(|| latest.1.clone())
        });
        newer.expect("bpftrace has stopped counting")
    }

    /// Both counts at a moment at which nothing happened for at least 300 ms; `None` if the machine is never that
    /// quiet within `limit`.
    pub fn quiet_pair(&self, agent: &Agent, limit: Duration) -> Option<(Counts, Metrics)> {
        let numbers = |metrics: &Metrics| {
            (metrics.family("observer_events_total"), metrics.family("observer_events_lost_total"))
        };
        wait::until(limit, || {
            let (counts, metrics) = (self.fresh(), agent.metrics());
            std::thread::sleep(Duration::from_millis(300));
            let (counts_after, metrics_after) = (self.fresh(), agent.metrics());
            let still = counts == counts_after && numbers(&metrics) == numbers(&metrics_after);
            still.then_some((counts, metrics))
        })
    }
}

fn read_rounds(reader: impl BufRead, latest: &Mutex<(u64, Counts)>) {
    let mut counts = Counts::new();
    for line in reader.lines().map_while(Result::ok) {
        let Ok(json) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        match json["type"].as_str() {
            Some("map") => {
                for (name, value) in json["data"].as_object().into_iter().flatten() {
                    counts
                        .insert(name.trim_start_matches('@').to_owned(), value.as_u64().unwrap_or_default());
                }
            }
            Some("printf") => {
                let mut latest = latest.lock().expect("the counts");
                *latest = (latest.0 + 1, counts.clone());
            }
            _ => {}
        }
    }
}
