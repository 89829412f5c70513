//! `cargo xtask bench`: observer's figures on this machine. The measuring is done by a program of its own beside the
//! live tests (tests/src/bin/observer-bench), which uses their harness.

use crate::{
    build,
    setup::{self, Purpose},
    shell::{self, step},
};
use anyhow::{Context, Result};
use std::{ffi::OsString, os::unix::process::CommandExt, path::Path};

#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// Measure only this figure; may be given more than once
    #[arg(long, value_name = "FIGURE", value_parser = [
        "syscall", "syscall_floor", "audit", "audit_general", "fork_exec", "latency_idle", "latency_flood", "flood_loss", "memory", "armed",
    ])]
    only: Vec<String>,
    /// Exit with 0 also when a bound is missed
    #[arg(long)]
    no_fail: bool,
    /// Also show what each kernel program and each of the agent's threads cost
    #[arg(long)]
    profile: bool,
    /// Measure this agent instead of a new release build
    #[arg(long, value_name = "FILE")]
    agent: Option<OsString>,
}

pub fn verb(args: &Args) -> Result<()> {
    setup::ensure(Purpose::Bench)?;
    if args.agent.is_none() {
        build::release()?;
    }
    let mut bench = shell::cargo();
    bench.args(["build", "--release", "-p", "observer-live", "--bin", "observer-bench"]);
    // Its guards end what it has started, and a panic must not get around them.
    step("building the bench", bench.args(["--config", "profile.release.panic='unwind'"]))?;

    // The variable goes through env, because sudo does not pass it on.
    let mut variable = OsString::from("OBSERVER_BIN=");
    variable.push(args.agent.clone().unwrap_or_else(|| shell::observer().into()));
    let mut run =
        shell::as_root(Path::new("/usr/bin/env"), "to load observer's probes and start containers")?;
    run.arg(variable).arg(shell::target_dir().join("release/observer-bench"));
    for (flag, given) in [("--json", args.json), ("--no-fail", args.no_fail), ("--profile", args.profile)] {
        run.args(given.then_some(flag));
    }
    for only in &args.only {
        run.args(["--only", only]);
    }
    // In place of xtask, so that signals, the terminal and the exit code are the bench's own.
    Err(run.exec()).context("cannot start the bench")
}
