//! `observer config`

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use super::Global;
use crate::{
    config::{DEFAULT_PATH, DEFAULT_YAML},
    docs::Document,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say whether the configuration can be used; exits with 2 if not
    Check,
    /// Print the default configuration, with comments
    Default,
    /// Print the configuration's JSON Schema, for editors and for programs that write the file
    Schema,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let mut stdout = io::stdout().lock();
    match args.action {
        Action::Check => {
            global.config()?;
            match &global.config {
                Some(path) => writeln!(stdout, "{}: fine", path.display())?,
                None if Path::new(DEFAULT_PATH).exists() => writeln!(stdout, "{DEFAULT_PATH}: fine")?,
                None => writeln!(stdout, "{DEFAULT_PATH} does not exist: the defaults apply")?,
            }
        }
        Action::Default => stdout.write_all(DEFAULT_YAML.as_bytes())?,
        Action::Schema => stdout.write_all(Document::ConfigSchema.text().as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}
