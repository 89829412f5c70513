//! `observer inspect`

use std::process::ExitCode;

use serde::Serialize;

use super::{Global, agent, look};
use crate::{
    inventory::{self, ContainerView, Found, HostView, Mount, Namespace, ProcessView, Wanted},
    render,
};

/// Everything about one container, or about the container of a process.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its name, its id or the beginning of it, NAMESPACE/POD, or the pid of one of its processes
    #[arg(value_name = "CONTAINER|PID")]
    what: String,
    #[command(flatten)]
    options: look::Options,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    time: &'a str,
    node: &'a str,
    host: &'a HostView,
    container: &'a ContainerView,
    processes: Vec<&'a ProcessView>,
    /// The namespaces that it is in, with everybody who is.
    sharing: Vec<&'a Namespace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mounts: Option<&'a [Mount]>,
    /// Names only.
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<&'a [String]>,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let wanted = Wanted {
        host_processes: true,
        programs: true,
        every_security: true,
        mounts: true,
        details: true,
        resources: true,
    };
    let look = look::look(&args.options, global, wanted)?;
    let container = match inventory::find(&look, &args.what)? {
        Found::Container(container) => container,
        Found::Process(process) => match process.container.as_deref().and_then(|id| look.container(id)) {
            Some(container) => container,
            None => {
                look::write(&args.options, process, |surface| render::process(&look, process, surface))?;
                return Ok(ExitCode::SUCCESS);
            }
        },
    };
    let roots = crate::app::roots(&global.config()?);
    let mut sharing = inventory::sharing(&look);
    sharing.retain(|ns| ns.members.iter().any(|share| share.container == container.id));
    inventory::ask_owners(&roots.proc, &mut sharing);
    let environment = container.pid.and_then(|pid| {
        inventory::environment_names(&roots.proc.join(pid.to_string()))
            .inspect_err(|error| agent::say(&format!("not known: the environment of process {pid}: {error}")))
            .ok()
    });
    let document = Document {
        schema: look.schema,
        time: &look.time,
        node: &look.node,
        host: &look.host,
        container,
        processes: look.members(&container.id).collect(),
        sharing: sharing.iter().collect(),
        mounts: container.mounts.as_deref(),
        environment: environment.as_deref(),
    };
    let page =
        render::Page { look: &look, container, sharing: &sharing, environment: environment.as_deref() };
    look::write(&args.options, &document, |surface| render::inspect(&page, surface))?;
    look::tell_unread(&look);
    Ok(ExitCode::SUCCESS)
}
