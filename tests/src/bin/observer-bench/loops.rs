//! What other programs pay: an unwatched system call, and fork and exec.

use crate::bpf::EmptyProgram;
use crate::figure::Figure;
use crate::{Result, machine, stats};
use observer_live::agent::Agent;
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

/// The batches of one round, by side in the order of `SIDES`.
type Round = [Vec<f64>; 3];

/// Which of a side's batches tells what it costs. What disturbs a batch only ever makes it longer.
#[derive(Clone, Copy)]
enum Good {
    /// Where batches are short and many.
    Best,
    /// Where each is long enough to hold some luck: of several runs in a row, the ratio of these differs the least.
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

struct Turns {
    good: Good,
    rounds: Vec<Round>,
    /// Rounds in which somebody else's agent was there: its probes were part of all sides.
    disturbed: usize,
    /// All of them were like that, so they are used all the same.
    all_disturbed: bool,
}

impl Turns {
    /// Measures the sides in turns, every second round backwards.
    fn take(rounds: usize, good: Good, batches: fn() -> Vec<f64>) -> Result<Self> {
        let mut taken: Vec<(Round, bool)> = Vec::new();
        for n in 0..rounds {
            machine::wait_for_other_agents()?;
            let mut quiet = machine::other_agents() == 0;
            let mut round = Round::default();
            let mut order = [0, 1, 2];
            if n % 2 == 1 {
                order.reverse();
            }
            for at in order {
                machine::go_on()?;
                let floor =
                    if SIDES[at] == Side::Floor { Some(EmptyProgram::attach("setns")?) } else { None };
                let agent = (SIDES[at] == Side::Agent).then(Agent::start);
                // What starting it has stirred up (and what stopping the last one has) is over.
                machine::sleep(Duration::from_millis(300))?;
                round[at] = machine::on_one_cpu(batches);
                drop(floor);
                agent.map(Agent::stop);
                quiet &= machine::other_agents() == 0;
            }
            taken.push((round, quiet));
        }
        let disturbed = taken.iter().filter(|(_, quiet)| !quiet).count();
        let all_disturbed = disturbed == taken.len();
        if !all_disturbed {
            taken.retain(|(_, quiet)| *quiet);
        }
        Ok(Self {
            good,
            rounds: taken.into_iter().map(|(round, _)| round).collect(),
            disturbed,
            all_disturbed,
        })
    }

    fn all(&self, side: Side) -> Vec<f64> {
        self.rounds.iter().flat_map(|round| round[side as usize].clone()).collect()
    }

    fn cost(&self, side: Side) -> f64 {
        self.good.of(&self.all(side))
    }

    /// A side to the untraced one of the same round.
    fn round_ratios(&self, side: Side) -> Vec<f64> {
        let of = |round: &Round, side: Side| self.good.of(&round[side as usize]);
        let ratio = |round: &Round| of(round, side) / of(round, Side::Untraced);
        self.rounds.iter().map(ratio).collect()
    }

    fn figure(&self, name: &'static str, side: Side, unit: &str, what: &str) -> Figure {
        let (untraced, traced) = (self.cost(Side::Untraced), self.cost(side));
        let middle = stats::median(&self.all(side)) / stats::median(&self.all(Side::Untraced));
        let ratios = self.round_ratios(side);
        let mut figure = Figure::new(name, traced / untraced, "x untraced")
            .note(format!(
                "{what}, {} of {}: {traced:.1} {unit}, untraced {untraced:.1} {unit}",
                self.good.name(),
                self.all(side).len()
            ))
            .note(format!(
                "ratio of the medians {middle:.3}; ratios within a round {:.3} to {:.3}, median {:.3}",
                stats::min(&ratios),
                stats::max(&ratios),
                stats::median(&ratios)
            ));
        if self.disturbed > 0 {
            let used = if self.all_disturbed { "used all the same" } else { "left out" };
            figure = figure.note(format!("{} rounds with agents of others {used}", self.disturbed));
        }
        figure.detail(json!({
            "untraced": untraced, "traced": traced, "in": unit, "median_ratio": middle, "round_ratios": ratios,
            "floor": self.cost(Side::Floor), "disturbed_rounds": self.disturbed,
            "untraced_batches": self.all(Side::Untraced), "traced_batches": self.all(side),
        }))
    }

    fn floor_note(&self) -> String {
        let (untraced, floor, agent) =
            (self.cost(Side::Untraced), self.cost(Side::Floor), self.cost(Side::Agent));
        format!(
            "an empty program on sys_exit_setns alone: {:.3} x untraced; the agent to that: {:.3}",
            floor / untraced,
            agent / floor
        )
    }
}

const GETPPID_CALLS: u32 = 50_000;

/// ns of CPU time per call, one number per batch.
fn getppid() -> Vec<f64> {
    let batch = || {
        let begin = machine::thread_cpu_ns();
        for _ in 0..GETPPID_CALLS {
            // SAFETY: takes nothing and touches nothing. Not libc's wrapper of the call, so that it is the bare call.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
        (machine::thread_cpu_ns() - begin) as f64 / f64::from(GETPPID_CALLS)
    };
    (0..80).map(|_| batch()).collect()
}

pub fn syscall() -> Result<Vec<Figure>> {
    let turns = Turns::take(6, Good::Best, getppid)?;
    let what = format!("batches of {GETPPID_CALLS} calls");
    let figure = |name, side| turns.figure(name, side, "ns", &what);
    Ok(vec![
        figure("syscall", Side::Agent).bound(1.12).aim(1.08).note(turns.floor_note()),
        figure("syscall_floor", Side::Floor).note("an empty program on sys_exit_setns instead of the agent"),
    ])
}

/// So many that a batch spans several of the agent's readings of its rings: what it does there is part of the price.
const SPAWNS: u32 = 200;

/// us of wall clock per process, one number per batch.
fn spawn() -> Vec<f64> {
    (0..8).map(|_| spawn_batch(SPAWNS)).collect()
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
    let turns = Turns::take(8, Good::FirstQuartile, spawn)?;
    let what = format!("posix_spawn of /bin/true on one CPU, batches of {SPAWNS}");
    let figure = turns.figure("fork_exec", Side::Agent, "us", &what);
    Ok(vec![figure.bound(1.05).note(turns.floor_note())])
}
