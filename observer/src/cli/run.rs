//! `observer run`

use std::process::ExitCode;

use super::Global;

/// Alerts go to stdout, one JSON line each (a readable form on a terminal); what observer says of itself to stderr.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    crate::app::run(&global.config()?, global.config_path())?;
    Ok(ExitCode::SUCCESS)
}
