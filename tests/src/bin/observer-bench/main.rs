//! The measuring side of `cargo xtask bench`: observer's figures on this machine, each against its bound.
//!
//! The machine is never quiet and its speed changes from one second to the next, so nothing is compared with a number
//! from another run: what is a ratio is measured with and without the agent in turns, and what is a time is told with
//! its percentiles. Times are taken by clocks of this program and its helpers, not by the agent's own.
//!
//! It wants root, `$OBSERVER_BIN` (as the live tests), and a build in which panics unwind: the harness's guards end
//! everything that was started, also after a failed wait or Ctrl-C.

mod bpf;
mod figure;
mod flood;
mod inside;
mod latency;
mod loops;
mod machine;
mod memory;
mod population;
mod profile;
mod stats;

use figure::Figure;
use observer_live::{host, lab};
use serde_json::json;
use std::os::unix::process::CommandExt;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Why a figure could not be measured.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Figures that one run gives together.
struct Group {
    names: &'static [&'static str],
    measure: fn() -> Result<Vec<Figure>>,
}

const GROUPS: [Group; 6] = [
    Group { names: &["syscall", "syscall_floor"], measure: loops::syscall },
    Group { names: &["audit", "audit_general"], measure: loops::audit },
    Group { names: &["fork_exec"], measure: loops::fork_exec },
    Group { names: &["latency_idle"], measure: latency::idle },
    Group { names: &["latency_flood", "flood_loss"], measure: flood::measure },
    Group { names: &["memory", "armed"], measure: memory::measure },
];

const USAGE: &str = "observer-bench [--json] [--only FIGURE]... [--no-fail] [--profile]";

#[derive(Default)]
struct Options {
    json: bool,
    only: Vec<String>,
    no_fail: bool,
    profile: bool,
}

fn options(args: impl Iterator<Item = String>) -> std::result::Result<Options, String> {
    let mut options = Options::default();
    let mut args = args;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => options.json = true,
            "--no-fail" => options.no_fail = true,
            "--profile" => options.profile = true,
            "--only" => options.only.push(args.next().ok_or("--only takes a figure")?),
            _ => return Err(format!("unknown argument {arg}\n{USAGE}")),
        }
    }
    let names: Vec<&str> = GROUPS.iter().flat_map(|group| group.names).copied().collect();
    match options.only.iter().find(|only| !names.contains(&only.as_str())) {
        Some(unknown) => Err(format!("no figure {unknown}; there are {}", names.join(", "))),
        None => Ok(options),
    }
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    // The same program is also the helper that runs inside containers.
    if args.next_if_eq("inside").is_some() {
        return inside::main(&args.collect::<Vec<_>>());
    }
    let options = match options(args) {
        Ok(options) => options,
        Err(words) => {
            eprintln!("{words}");
            return ExitCode::from(2);
        }
    };
    if !lab::require_root() {
        return ExitCode::from(2);
    }
    if std::env::var_os(WORKER).is_none() {
        return supervise();
    }
    machine::catch_interrupts();
    let begin = Instant::now();
    let figures = measure(&options);
    let profile = (options.profile && !machine::interrupted()).then(|| attempt("profile", profile::measure));
    let profile = profile.and_then(|outcome| {
        outcome.inspect_err(|error| eprintln!("the profile could not be taken: {error}")).ok()
    });
    if machine::interrupted() {
        eprintln!("interrupted; everything that was started is being ended");
        return ExitCode::from(130);
    }
    let seconds = begin.elapsed().as_secs_f64();
    if options.json {
        let mut document = json!({
            "schema": "observer.bench/1",
            "machine": machine::describe(),
            "seconds": seconds,
            "figures": figures.iter().map(Figure::json).collect::<Vec<_>>(),
        });
        if let Some(profile) = &profile {
            document["profile"] = profile.json();
        }
        println!("{document}");
    } else {
        println!("{}\n", machine::line());
        print!("{}", figure::table(&figures));
        if let Some(profile) = &profile {
            print!("\n{}", profile.table());
        }
        println!("\n{seconds:.0} s in all");
    }
    // What could not be measured is no pass, whatever is to be overlooked.
    let failed = figures.iter().any(|figure| figure.failure.is_some());
    let missed = figures.iter().any(Figure::missed);
    if failed || missed && !options.no_fail { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Set in the process that measures.
const WORKER: &str = "OBSERVER_BENCH_WORKER";

/// Measures in a process group of its own: a terminal's Ctrl-C goes to everything in a group at once, and would end
/// what the measuring has started before its guards do. This process hands on what it is told, and the outcome.
fn supervise() -> ExitCode {
    let mut command = Command::new(this_program());
    command.args(std::env::args_os().skip(1)).env(WORKER, "1").process_group(0);
    machine::catch_interrupts();
    let mut worker = match host::die_with_parent(&mut command, libc::SIGTERM).spawn() {
        Ok(worker) => worker,
        Err(error) => {
            eprintln!("cannot start the measuring: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut told = false;
    loop {
        if let Ok(Some(status)) = worker.try_wait() {
            return ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
        }
        if machine::interrupted() && !std::mem::replace(&mut told, true) {
            host::signal(worker.id(), libc::SIGTERM);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn measure(options: &Options) -> Vec<Figure> {
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut figures = Vec::new();
    for group in &GROUPS {
        if machine::interrupted() || !group.names.iter().any(|name| wanted(name)) {
            continue;
        }
        let what = group.names.join(" and ");
        eprintln!("==> {what}");
        let begin = Instant::now();
        let busy_before = machine::busy();
        let measured = attempt(&what, group.measure).unwrap_or_else(|error| {
            group.names.iter().map(|name| Figure::failed(name, error.to_string())).collect()
        });
        let measured = measured.into_iter().filter(|figure| wanted(figure.name));
        figures.extend(measured.map(|figure| Figure { busy_before, ..figure }));
        eprintln!("    {:.0} s", begin.elapsed().as_secs_f64());
    }
    figures
}

/// A panic is how the harness says that something did not happen; it costs one figure, not all.
fn attempt<T>(what: &str, measure: impl FnOnce() -> Result<T>) -> Result<T> {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(measure)).unwrap_or_else(|_| {
        let why = if machine::interrupted() { "interrupted" } else { "see above" };
        Err(format!("{what}: {why}").into())
    });
    // Its guards are gone, and with them every child.
    machine::reap_orphans();
    outcome
}

/// This program's file, for the helper's copies.
pub fn this_program() -> PathBuf {
    std::env::current_exe().expect("this program's own file")
}
