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

/// Measurements per side, those of one round together.
type Rounds = Vec<Vec<f64>>;

/// Measures the sides in turns, every second round backwards. The rounds of each side, and the most agents of others
/// that were there.
fn in_turns(rounds: usize, sides: &[Side], batches: fn() -> Vec<f64>) -> Result<(Vec<Rounds>, usize)> {
    let mut measured = vec![Rounds::new(); sides.len()];
    let mut others = 0;
    for round in 0..rounds {
        others = others.max(machine::wait_for_other_agents()?);
        let mut order: Vec<usize> = (0..sides.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for at in order {
            machine::go_on()?;
            let floor = if sides[at] == Side::Floor { Some(EmptyProgram::attach("setns")?) } else { None };
            let agent = (sides[at] == Side::Agent).then(Agent::start);
            // What starting it has stirred up (and what stopping the last one has) is over.
            machine::sleep(Duration::from_millis(300))?;
            measured[at].push(machine::on_one_cpu(batches));
            drop(floor);
            agent.map(Agent::stop);
        }
    }
    Ok((measured, others))
}

/// The median over the rounds of one side's best batch to the untraced one's of the same round.
fn round_ratios(untraced: &Rounds, side: &Rounds, of: fn(&[f64]) -> f64) -> Vec<f64> {
    untraced.iter().zip(side).map(|(a, b)| of(b) / of(a)).collect()
}

fn disturbed(others: usize) -> Option<String> {
    (others > 0)
        .then(|| format!("{others} agents of others ran meanwhile: the untraced side is not untraced"))
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
    let sides = [Side::Untraced, Side::Floor, Side::Agent];
    let (measured, others) = in_turns(6, &sides, getppid)?;
    let [untraced, floor, agent] = &measured[..] else { unreachable!("three sides") };
    let best = |side: &Rounds| stats::min(&side.concat());
    let figure = |name, side: &Rounds| {
        let ratios = round_ratios(untraced, side, stats::min);
        let mut figure = Figure::new(name, best(side) / best(untraced), "x untraced").note(format!(
            "best of {} batches of {GETPPID_CALLS} calls: {:.1} ns, untraced {:.1} ns; per round {:.3} to {:.3}, median {:.3}",
            side.concat().len(),
            best(side),
            best(untraced),
            stats::min(&ratios),
            stats::max(&ratios),
            stats::median(&ratios)
        ));
        figure.notes.extend(disturbed(others));
        figure.detail(json!({
            "untraced_ns": best(untraced), "traced_ns": best(side), "round_ratios": ratios,
            "other_agents": others,
        }))
    };
    Ok(vec![
        figure("syscall", agent).bound(1.12).aim(1.08),
        figure("syscall_floor", floor).note("an empty program on sys_exit_setns instead of the agent"),
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
    let (measured, others) = in_turns(8, &[Side::Untraced, Side::Agent], spawn)?;
    let [untraced, agent] = &measured[..] else { unreachable!("two sides") };
    let best = |side: &Rounds| stats::min(&side.concat());
    let middle = |side: &Rounds| stats::median(&side.concat());
    let ratios = round_ratios(untraced, agent, stats::median);
    let mut figure = Figure::new("fork_exec", best(agent) / best(untraced), "x untraced")
        .bound(1.05)
        .note(format!(
            "posix_spawn of /bin/true, one CPU, best of {} batches of {SPAWNS}: {:.1} us, untraced {:.1} us",
            agent.concat().len(),
            best(agent),
            best(untraced)
        ))
        .note(format!(
            "medians {:.1} and {:.1} us, ratio {:.3}; ratios of the rounds' medians {:.3} to {:.3}, median {:.3}",
            middle(agent),
            middle(untraced),
            middle(agent) / middle(untraced),
            stats::min(&ratios),
            stats::max(&ratios),
            stats::median(&ratios)
        ));
    figure.notes.extend(disturbed(others));
    Ok(vec![figure.detail(json!({
        "untraced_us": best(untraced), "traced_us": best(agent),
        "median_ratio": middle(agent) / middle(untraced), "round_ratios": ratios, "other_agents": others,
    }))])
}
