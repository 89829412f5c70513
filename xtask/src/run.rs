//! `cargo xtask run`

use crate::{
    build,
    setup::{self, Purpose},
    shell,
};
use anyhow::{Context, Result};
use std::{ffi::OsString, os::unix::process::CommandExt};

#[derive(clap::Args)]
pub struct Args {
    /// What to pass to `observer run`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub fn verb(args: &Args) -> Result<()> {
    setup::ensure(Purpose::Run)?;
    build::release()?;
    let observer = shell::observer();
    // In place of xtask, so that signals, the terminal and the exit code are observer's own.
    let error = shell::as_root(&observer, "to load observer's probes")?.arg("run").args(&args.args).exec();
    Err(error).with_context(|| format!("cannot start {}", observer.display()))
}
