//! `observer docs`

use std::{
    io::{self, Write},
    process::ExitCode,
};

use super::Global;
use crate::docs::Document;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    kind: Document,
}

pub fn run(args: Args, _global: &Global) -> anyhow::Result<ExitCode> {
    io::stdout().lock().write_all(args.kind.text().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
