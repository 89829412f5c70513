//! `observer ps`

use std::process::ExitCode;

use super::{Global, look};
use crate::{
    inventory::{self, Wanted},
    render,
};

/// The containers of this host: who made them, what they use, what they may do.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: look::Options,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let wanted = Wanted { resources: true, mounts: true, ..Wanted::default() };
    let mut look = look::look(&args.options, global, wanted)?;
    let verdicts = inventory::judge(&look, None);
    let risks: Vec<Vec<render::Risk<'_>>> = verdicts
        .iter()
        .map(|verdict| verdict.findings.iter().map(|finding| (finding.rule, finding.severity)).collect())
        .collect();
    // Of the processes only their number is told.
    look.processes.clear();
    look::write(&args.options, &look, |surface| render::ps(&look, &risks, surface))?;
    look::tell_unread(&look);
    Ok(ExitCode::SUCCESS)
}
