//! `observer run`

use std::process::ExitCode;

use super::Global;

/// Alerts go to stdout, one JSON line each (a readable form on a terminal); what observer says of itself to stderr.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// This node's name in alerts and events, whatever the configuration says: for one configuration on many nodes
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    node: Option<String>,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let mut config = global.config()?;
    config.node = args.node.or(config.node);
    crate::app::run(&config, global.config_path())?;
    Ok(ExitCode::SUCCESS)
}
