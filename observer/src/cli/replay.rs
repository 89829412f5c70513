//! `observer replay`

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;

use super::Global;
use crate::{
    model::Alert,
    pipeline::Replay,
    render::{self, Colours},
};

/// Writes the alerts that the recording leads to, the same bytes each time. Needs no privileges and no host.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Recording to read
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// JSON lines also on a terminal
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, _global: &Global) -> anyhow::Result<ExitCode> {
    let name = args.file.display().to_string();
    let replay = Replay::open(&args.file).with_context(|| name.clone())?;
    let stdout = io::stdout();
    let text = stdout.is_terminal() && !args.json;
    let colours = Colours::of(&stdout);
    let mut out = BufWriter::new(stdout.lock());
    let mut failure: Option<io::Error> = None;
    let mut write = |alert: Alert| -> io::Result<()> {
        if text {
            return out.write_all(render::alert(&alert, colours).as_bytes());
        }
        serde_json::to_writer(&mut out, &alert)?;
        out.write_all(b"\n")
    };
    let result = replay.run(|alert| {
        if failure.is_none() {
            failure = write(alert).err();
        }
    });
    if let Some(error) = failure {
        return Err(error.into());
    }
    out.flush()?;
    result.with_context(|| name)?;
    Ok(ExitCode::SUCCESS)
}
