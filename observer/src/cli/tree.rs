//! `observer tree`

use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use super::{Global, look};
use crate::{
    inventory::{self, ContainerView, Found, ProcessView, Wanted},
    render,
};

/// The processes of the containers, below the host's processes that hold them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this container: its name, its id or the beginning of it, NAMESPACE/POD, or the pid of one of its processes
    #[arg(value_name = "CONTAINER|PID")]
    container: Option<String>,
    #[command(flatten)]
    options: look::Options,
}

/// A container with its processes; who is whose child is told by `ppid`.
#[derive(Serialize)]
struct Tree<'a> {
    #[serde(flatten)]
    container: &'a ContainerView,
    tree: Vec<&'a ProcessView>,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let wanted = Wanted { host_processes: true, programs: true, every_security: true, ..Wanted::default() };
    let look = look::look(&args.options, global, wanted)?;
    let chosen: Vec<&ContainerView> = match &args.container {
        None => look.containers.iter().collect(),
        Some(what) => vec![match inventory::find(&look, what)? {
            Found::Container(container) => container,
            Found::Process(process) => {
                let id = process.container.as_deref();
                id.and_then(|id| look.container(id))
                    .with_context(|| format!("process {} is in no container", process.pid))?
            }
        }],
    };
    let document: Vec<Tree<'_>> = chosen
        .iter()
        .map(|container| Tree { container, tree: look.members(&container.id).collect() })
        .collect();
    look::write(&args.options, &document, |surface| render::tree(&look, &chosen, surface))?;
    look::tell_unread(&look);
    Ok(ExitCode::SUCCESS)
}
