//! Where the time goes: each kernel program's runs and run time, and the CPU time of the agent's threads, over a loop
//! of fork and exec and over a flood.

use crate::bpf::{self, Program};
use crate::flood::Flood;
use crate::{Result, figure, latency, loops, machine};
use observer_live::agent::Agent;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

const SPAWNS: u32 = 2000;
const FLOOD: Duration = Duration::from_secs(5);

/// One load.
struct Part {
    what: String,
    seconds: f64,
    programs: Vec<Program>,
    /// CPU seconds, user and system, by thread.
    threads: BTreeMap<String, (f64, f64)>,
}

pub struct Profile(Vec<Part>);

impl Profile {
    pub fn json(&self) -> Value {
        let part = |part: &Part| {
            let programs = part.programs.iter();
            json!({
                "load": part.what, "seconds": part.seconds,
                "programs": programs.map(|p| json!({"name": p.name, "runs": p.runs, "run_ns": p.run_ns}))
                    .collect::<Vec<_>>(),
                "threads": part.threads.iter().map(|(name, (user, system))| {
                    json!({"name": name, "user_seconds": user, "system_seconds": system})
                }).collect::<Vec<_>>(),
            })
        };
        self.0.iter().map(part).collect()
    }

    pub fn table(&self) -> String {
        self.0.iter().map(Part::table).collect::<Vec<_>>().join("\n")
    }
}

impl Part {
    /// Runs `load` with an agent and the kernel's statistics on.
    fn take(agent: &Agent, what: String, load: impl FnOnce() -> Result<()>) -> Result<Self> {
        let (programs, threads) = (bpf::programs_of(agent.pid()), threads(agent.pid()));
        let begin = Instant::now();
        load()?;
        let seconds = begin.elapsed().as_secs_f64();
        let mut after = bpf::programs_of(agent.pid());
        for program in &mut after {
            if let Some(before) = programs.iter().find(|before| before.id == program.id) {
                program.runs -= before.runs;
                program.run_ns -= before.run_ns;
            }
        }
        after.retain(|program| program.runs > 0);
        after.sort_by_key(|program| std::cmp::Reverse(program.run_ns));
        let mut spent = self::threads(agent.pid());
        for (name, (user, system)) in &mut spent {
            let before = threads.get(name).copied().unwrap_or_default();
            (*user, *system) = (*user - before.0, *system - before.1);
        }
        Ok(Self { what, seconds, programs: after, threads: spent })
    }

    fn table(&self) -> String {
        let mut rows = vec![["program", "runs", "ns each", "ms in all"].map(str::to_owned)];
        rows.extend(self.programs.iter().map(|program| {
            [
                program.name.clone(),
                program.runs.to_string(),
                format!("{}", program.run_ns / program.runs),
                format!("{:.2}", program.run_ns as f64 / 1e6),
            ]
        }));
        let mut text = format!("profile: {}, {:.2} s\n{}", self.what, self.seconds, figure::columns(&rows));
        for (name, (user, system)) in &self.threads {
            text.push_str(&format!("thread {name}: {user:.2} s user, {system:.2} s system\n"));
        }
        text
    }
}

/// CPU seconds by thread name; threads of one name together.
fn threads(pid: u32) -> BTreeMap<String, (f64, f64)> {
    // SAFETY: a plain question.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let mut all: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let parts = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") "));
        let Some((name, rest)) = parts else { continue };
        // utime and stime are the 14th and 15th fields; the first two are gone.
        let field =
            |n: usize| rest.split(' ').nth(n - 3).and_then(|it| it.parse::<f64>().ok()).unwrap_or(0.0);
        let entry = all.entry(name.to_owned()).or_default();
        *entry = (entry.0 + field(14) / ticks, entry.1 + field(15) / ticks);
    }
    all
}

pub fn measure() -> Result<Profile> {
    eprintln!("==> profile");
    let _lab = latency::lab()?;
    let _stats = bpf::enable_stats()?;
    let agent = Agent::start();
    let spawns = Part::take(&agent, format!("{SPAWNS} times fork and exec"), || {
        machine::on_one_cpu(|| loops::spawn_batch(SPAWNS));
        machine::go_on()
    })?;
    let flood = Flood::on_host()?;
    machine::sleep(Duration::from_secs(1))?;
    let flooded = Part::take(&agent, "a flood on the host".to_owned(), || machine::sleep(FLOOD))?;
    drop(flood);
    agent.stop();
    Ok(Profile(vec![spawns, flooded]))
}
