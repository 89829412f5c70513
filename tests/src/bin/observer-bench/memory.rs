//! A full node: how soon the agent is armed on it, and how much memory it takes.

use crate::figure::Figure;
use crate::population::Population;
use crate::{Result, latency, machine, stats};
use observer_live::agent::Agent;
use observer_live::wait;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

const CONTAINERS: usize = 200;
const PROCESSES_EACH: usize = 10;
const STARTS: usize = 5;

/// The memory of one agent, MiB.
struct Memory {
    fields: BTreeMap<String, f64>,
    containers: f64,
    processes: f64,
}

impl Memory {
    /// Once the agent knows the whole node and has gone through a sweep of it.
    fn of(agent: &Agent) -> Result<Self> {
        let known = |name: &str| agent.metrics().sum(name, &[]);
        let whole = wait::until_true(Duration::from_secs(10), || {
            machine::interrupted()
                || known("observer_containers") >= CONTAINERS as f64
                    && known("observer_processes") >= (CONTAINERS * PROCESSES_EACH) as f64
        });
        machine::sleep(Duration::from_millis(5500))?;
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid()))?;
        let fields = status.lines().filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let kib: f64 = rest.trim().strip_suffix(" kB")?.parse().ok()?;
            let wanted = ["VmRSS", "VmHWM", "RssAnon", "RssFile", "RssShmem"].contains(&name);
            wanted.then(|| (name.to_owned(), kib / 1024.0))
        });
        let memory = Self {
            fields: fields.collect(),
            containers: known("observer_containers"),
            processes: known("observer_processes"),
        };
        if whole {
            Ok(memory)
        } else {
            Err(format!("the agent does not see the node: {}", memory.note()).into())
        }
    }

    fn field(&self, name: &str) -> f64 {
        self.fields.get(name).copied().unwrap_or(f64::NAN)
    }

    fn resident(&self) -> f64 {
        self.field("VmRSS")
    }

    fn json(&self) -> Value {
        json!({"mib": self.fields, "containers": self.containers, "processes": self.processes})
    }

    fn note(&self) -> String {
        format!(
            "{:.1} MiB (anonymous {:.1}, of files {:.1}), peak {:.1}; {} containers, {} processes known",
            self.resident(),
            self.field("RssAnon"),
            self.field("RssFile"),
            self.field("VmHWM"),
            self.containers,
            self.processes
        )
    }
}

pub fn measure() -> Result<Vec<Figure>> {
    // For its turn, and so that orphans are reaped here.
    let _lab = latency::lab()?;
    let (others, dead) = machine::processes();
    let agent = Agent::start();
    let begin = Instant::now();
    let population = Population::start(CONTAINERS, PROCESSES_EACH)?;
    eprintln!("    {CONTAINERS} containers in {:.1} s", begin.elapsed().as_secs_f64());
    let grown = Memory::of(&agent)?;
    agent.stop();

    let (mut ready_ms, mut last) = (Vec::new(), None);
    for _ in 0..STARTS {
        machine::go_on()?;
        last.take().map(Agent::stop);
        // What the last one's end has stirred up is over.
        machine::sleep(Duration::from_millis(300))?;
        let agent = Agent::start();
        ready_ms.push(agent.ready_after.as_secs_f64() * 1e3);
        last = Some(agent);
    }
    let agent = last.ok_or("no agent")?;
    let found = Memory::of(&agent)?;
    agent.stop();
    drop(population);

    let memory = Figure::new("memory", f64::max(grown.resident(), found.resident()), "MiB resident")
        .bound(30.0)
        .note(format!("agent first: {}", grown.note()))
        .note(format!("node first:  {}", found.note()))
        .note(format!("{others} processes were there before, {dead} of them dead and not waited for"))
        .detail(
            json!({"others": others, "dead": dead, "agent_first": grown.json(), "node_first": found.json()}),
        );
    let armed = Figure::new("armed", stats::median(&ready_ms), "ms")
        .bound(500.0)
        .note(format!(
            "median of {STARTS} starts, from the start of the process to /readyz, with {} processes: {:.0} to {:.0} ms",
            found.processes,
            stats::min(&ready_ms),
            stats::max(&ready_ms)
        ))
        .detail(json!({"ready_ms": ready_ms, "processes": found.processes}));
    Ok(vec![memory, armed])
}
