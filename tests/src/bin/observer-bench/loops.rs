//! What other programs pay: an unwatched system call, and fork and exec.

use crate::bpf::EmptyProgram;
use crate::figure::Figure;
use crate::machine::Ticks;
use crate::{Result, machine, stats};
use observer_live::agent::{Agent, Config};
use serde_json::json;
use std::time::{Duration, Instant};

/// What is attached while a loop runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Untraced,
    Floor,
    Agent,
}

const SIDES: [Side; 3] = [Side::Untraced, Side::Floor, Side::Agent];

/// One measurement, per call or process.
#[derive(Clone, Copy)]
struct Batch {
    /// What the figure is about.
    cost: f64,
    /// CPU time, which does not count when others had the CPU; what it does count, the agent's threads excepted, is the
    /// same work.
    cpu: f64,
}

fn costs(batches: &[Batch]) -> Vec<f64> {
    batches.iter().map(|batch| batch.cost).collect()
}

/// The batches of one round, by side in the order of `SIDES`.
type Round = [Vec<Batch>; 3];

/// How the sides are compared. What disturbs a batch only ever makes it longer.
#[derive(Clone, Copy)]
enum Good {
    /// The best batch of each side: where batches are short and many.
    Best,
    /// The first quartiles of each round, and of their ratios the median: where a batch is long enough to hold some
    /// luck. Of several runs in a row, this differs the least.
    FirstQuartile,
}

impl Good {
    fn of(self, batches: &[f64]) -> f64 {
        match self {
            Good::Best => stats::min(batches),
            Good::FirstQuartile => stats::percentile(batches, 0.25),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Good::Best => "best",
            Good::FirstQuartile => "first quartile",
        }
    }
}

/// What is compared to nothing.
#[derive(Clone, Copy)]
struct Sides {
    floor: fn() -> Result<EmptyProgram>,
    agent: fn() -> Agent,
}

/// The agent as it comes, and one of the hooks that it has then.
const PLAIN: Sides = Sides { floor: || EmptyProgram::attach("setns"), agent: Agent::start };

struct Turns {
    good: Good,
    rounds: Vec<Round>,
    /// Rounds in which somebody else's agent was there, whose probes were part of all sides, or in which others kept the
    /// other CPUs busy: two CPUs may be one core, and then both are slower.
    disturbed: usize,
    /// There were too few others, so they are used all the same.
    disturbed_used: bool,
}

impl Turns {
    /// Measures the sides in turns, every second round backwards, until there are `wanted` rounds that were not
    /// disturbed, or half as many again in all.
    fn take(wanted: usize, good: Good, sides: Sides, batches: fn() -> Vec<Batch>) -> Result<Self> {
        let (mut rounds, mut disturbed) = (Vec::new(), Vec::new());
        while rounds.len() < wanted && rounds.len() + disturbed.len() < wanted + wanted / 2 {
            machine::wait_for_other_agents()?;
            let backwards = (rounds.len() + disturbed.len()) % 2 == 1;
            let (round, quiet) = Self::round(backwards, sides, batches)?;
            if quiet { &mut rounds } else { &mut disturbed }.push(round);
        }
        let (count, used) = (disturbed.len(), rounds.len() < wanted / 2);
        if used {
            rounds.append(&mut disturbed);
        }
        Ok(Self { good, rounds, disturbed: count, disturbed_used: used })
    }

    /// One round, and whether it was undisturbed.
    fn round(backwards: bool, sides: Sides, batches: fn() -> Vec<Batch>) -> Result<(Round, bool)> {
        let mut round = Round::default();
        let mut quiet = machine::other_agents() == 0;
        let mut order = [0, 1, 2];
        if backwards {
            order.reverse();
        }
        for at in order {
            machine::go_on()?;
            let floor = if SIDES[at] == Side::Floor { Some((sides.floor)()?) } else { None };
            let agent = (SIDES[at] == Side::Agent).then(sides.agent);
            // What starting it has stirred up (and what stopping the last one has) is over.
            machine::sleep(Duration::from_millis(300))?;
            let before = Ticks::of_others();
            round[at] = machine::on_one_cpu(batches);
            quiet &= Ticks::of_others().busy_since(before) < 0.15;
            drop(floor);
            agent.map(Agent::stop);
            quiet &= machine::other_agents() == 0;
        }
        Ok((round, quiet))
    }

    fn batches(&self, side: Side) -> Vec<Batch> {
        self.rounds.iter().flat_map(|round| round[side as usize].clone()).collect()
    }

    fn all(&self, side: Side) -> Vec<f64> {
        costs(&self.batches(side))
    }

    fn cost(&self, side: Side) -> f64 {
        self.good.of(&self.all(side))
    }

    /// A side to the untraced one of the same round.
    fn round_ratios(&self, side: Side) -> Vec<f64> {
        let of = |round: &Round, side: Side| self.good.of(&costs(&round[side as usize]));
        let ratio = |round: &Round| of(round, side) / of(round, Side::Untraced);
        self.rounds.iter().map(ratio).collect()
    }

    /// A side to the untraced one.
    fn ratio(&self, side: Side) -> f64 {
        match self.good {
            Good::Best => self.cost(side) / self.cost(Side::Untraced),
            Good::FirstQuartile => stats::median(&self.round_ratios(side)),
        }
    }

    fn figure(&self, name: &'static str, side: Side, unit: &str, what: &str) -> Figure {
        let (untraced, traced) = (self.cost(Side::Untraced), self.cost(side));
        let middle = stats::median(&self.all(side)) / stats::median(&self.all(Side::Untraced));
        let ratios = self.round_ratios(side);
        let mut figure = Figure::new(name, self.ratio(side), "x untraced")
            .note(format!(
                "{what}, {} of {}: {traced:.1} {unit}, untraced {untraced:.1} {unit}",
                self.good.name(),
                self.all(side).len()
            ))
            .note(format!(
                "ratio of these {:.3}, of the medians {middle:.3}; within a round {:.3} to {:.3}, median {:.3}",
                traced / untraced,
                stats::min(&ratios),
                stats::max(&ratios),
                stats::median(&ratios)
            ));
        if self.disturbed > 0 {
            let used = if self.disturbed_used { "used all the same" } else { "left out" };
            figure = figure.note(format!("{} rounds that others disturbed {used}", self.disturbed));
        }
        figure.detail(json!({
            "untraced": untraced, "traced": traced, "in": unit, "median_ratio": middle, "round_ratios": ratios,
            "floor": self.cost(Side::Floor), "disturbed_rounds": self.disturbed,
            "untraced_batches": self.all(Side::Untraced), "traced_batches": self.all(side),
        }))
    }

    fn cpu_note(&self) -> String {
        let cpu = |side| {
            let all: Vec<f64> = self.batches(side).iter().map(|batch| batch.cpu).collect();
            self.good.of(&all)
        };
        let (untraced, agent) = (cpu(Side::Untraced), cpu(Side::Agent));
        format!(
            "CPU time instead, which leaves out both others and the agent's own threads: {:.3} x untraced",
            agent / untraced
        )
    }

    fn floor_note(&self) -> String {
        format!("an empty program on sys_exit_setns alone: {:.3} x untraced", self.ratio(Side::Floor))
    }
}

const GETPPID_CALLS: u32 = 50_000;

/// ns of CPU time per call, one number per batch.
fn getppid() -> Vec<Batch> {
    let batch = || {
        let begin = machine::thread_cpu_ns();
        for _ in 0..GETPPID_CALLS {
            // SAFETY: takes nothing and touches nothing. Not libc's wrapper of the call, so that it is the bare call.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
        let cpu = (machine::thread_cpu_ns() - begin) as f64 / f64::from(GETPPID_CALLS);
        Batch { cost: cpu, cpu }
    };
    (0..80).map(|_| batch()).collect()
}

pub fn syscall() -> Result<Vec<Figure>> {
    let turns = Turns::take(6, Good::Best, PLAIN, getppid)?;
    let what = format!("batches of {GETPPID_CALLS} calls");
    let figure = |name, side| turns.figure(name, side, "ns", &what);
    Ok(vec![
        figure("syscall", Side::Agent).bound(1.12).aim(1.08).note(turns.floor_note()),
        figure("syscall_floor", Side::Floor).note("an empty program on sys_exit_setns instead of the agent"),
    ])
}

/// With everything audited: single beginnings where they can be had, and all of them, as where they cannot.
pub fn audit() -> Result<Vec<Figure>> {
    const ALL: &str = "audit: {syscalls: true, seccomp: true, capabilities: true}\n";
    let floor = || EmptyProgram::attach_raw(c"sys_exit");
    let single = Sides { floor, agent: || Agent::with(Config::new(ALL)) };
    let general = Sides {
        floor,
        agent: || {
            let hidden = "kernel: {pretend_without: [\"hook:tracepoint/syscalls/sys_enter_*\"]}\n";
            Agent::with(Config::new(&format!("{ALL}{hidden}")))
        },
    };
    let what = format!("batches of {GETPPID_CALLS} calls that no container makes");
    let single = Turns::take(6, Good::Best, single, getppid)?;
    let general = Turns::take(6, Good::Best, general, getppid)?;
    let empty = |turns: &Turns| {
        format!(
            "an empty program on sys_exit instead of the agent: {:.3} x untraced",
            turns.ratio(Side::Floor)
        )
    };
    Ok(vec![
        single.figure("audit", Side::Agent, "ns", &what).bound(1.50).aim(1.40).note(empty(&single)),
        general.figure("audit_general", Side::Agent, "ns", &what).note(empty(&general)),
    ])
}

/// So many that a batch spans several of the agent's readings of its rings: what it does there is part of the price.
const SPAWNS: u32 = 200;

/// us per process: wall clock, and CPU time of this thread and its children.
fn spawn() -> Vec<Batch> {
    let batch = || {
        let begin = machine::thread_cpu_ns() + machine::children_cpu_ns();
        let cost = spawn_batch(SPAWNS);
        let cpu = machine::thread_cpu_ns() + machine::children_cpu_ns() - begin;
        Batch { cost, cpu: cpu as f64 / 1e3 / f64::from(SPAWNS) }
    };
    (0..8).map(|_| batch()).collect()
}

/// Starts `/bin/true` and waits for its end, `count` times; us each.
pub fn spawn_batch(count: u32) -> f64 {
    let path = c"/bin/true";
    let mut argv = [path.as_ptr().cast_mut(), std::ptr::null_mut()];
    let mut envp = [std::ptr::null_mut()];
    let begin = Instant::now();
    for _ in 0..count {
        let (mut pid, mut status) = (0, 0);
        // SAFETY: NUL-terminated strings in null-terminated arrays, no actions and no attributes; then a wait for the
        // child just made. The pointers are locals that outlive the calls.
        let failed = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                path.as_ptr(),
                std::ptr::null(),
                std::ptr::null(),
                argv.as_mut_ptr(),
                envp.as_mut_ptr(),
            ) != 0
                || libc::waitpid(pid, &raw mut status, 0) != pid
        };
        assert!(!failed && status == 0, "cannot run /bin/true: {}", std::io::Error::last_os_error());
    }
    begin.elapsed().as_secs_f64() * 1e6 / f64::from(count)
}

pub fn fork_exec() -> Result<Vec<Figure>> {
    let turns = Turns::take(15, Good::FirstQuartile, PLAIN, spawn)?;
    let what = format!("posix_spawn of /bin/true on one CPU, batches of {SPAWNS}");
    let figure = turns.figure("fork_exec", Side::Agent, "us", &what);
    Ok(vec![figure.bound(1.05).note(turns.cpu_note()).note(turns.floor_note())])
}
