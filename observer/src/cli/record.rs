//! `observer record`

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;

use super::Global;

/// Until Ctrl-C, or for the given time. The file holds file names and arguments of all processes: it is made
/// readable by its owner only.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// How long to record, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    duration: Option<u64>,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let config = global.config()?;
    let time = args.duration.map(Duration::from_secs);
    let path = args.output.display().to_string();
    let recorded = crate::app::record(&config, &args.output, time, || eprintln!("recording to {path}"))
        .with_context(|| format!("cannot record to {path}"))?;
    eprintln!(
        "recorded {} events, {} alerts, {} events lost",
        recorded.events, recorded.alerts, recorded.lost
    );
    Ok(ExitCode::SUCCESS)
}
