//! `observer ns`

use std::process::ExitCode;

use clap::builder::PossibleValuesParser;

use super::{Global, look};
use crate::{
    inventory::{self, Namespace, Wanted},
    model::NsType,
    render,
};

/// The namespaces of this host, and which containers share them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only namespaces of this type; can be repeated
    #[arg(long = "type", value_name = "TYPE", value_parser = PossibleValuesParser::new(types()))]
    types: Vec<String>,
    /// Only those that more than one container, or a container and the host, are in
    #[arg(long)]
    shared: bool,
    /// Those, too, that only processes outside containers are in
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    options: look::Options,
}

fn types() -> Vec<&'static str> {
    NsType::all().filter(|ns| ns.kind() == *ns).map(NsType::name).collect()
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let look = look::look(&args.options, global, Wanted { host_processes: true, ..Wanted::default() })?;
    let roots = crate::app::roots(&global.config()?);
    let mut namespaces = inventory::sharing(&look);
    let wanted = |ns: &Namespace| {
        let by_type = args.types.is_empty() || args.types.contains(&ns.r#type);
        let shared = ns.members.len() + usize::from(ns.host_processes > 0) > 1 && !ns.members.is_empty();
        let ours = ns.host || !ns.members.is_empty() || args.all;
        by_type && ours && (shared || !args.shared)
    };
    namespaces.retain(wanted);
    inventory::ask_owners(&roots.proc, &mut namespaces);
    look::write(&args.options, &namespaces, |surface| render::ns(&look, &namespaces, surface))?;
    look::tell_unread(&look);
    Ok(ExitCode::SUCCESS)
}
