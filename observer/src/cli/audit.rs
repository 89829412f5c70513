//! `observer audit`

use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use super::{Global, look};
use crate::{
    app, host,
    inventory::{self, ContainerView, Deeds, Found, Look, Wanted},
    model::{Observed, Severity},
    posture::{Finding, Unknown, Verdict},
    render,
};

/// What speaks against the way each container is set up, the worst first.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this container: its name, its id or the beginning of it, NAMESPACE/POD, or the pid of one of its processes
    #[arg(value_name = "CONTAINER|PID")]
    container: Option<String>,
    /// Only findings of this severity and above
    #[arg(long, value_enum, value_name = "MIN", default_value_t = Severity::Info)]
    severity: Severity,
    /// Exit with 1 if there is a finding of this severity or above
    #[arg(long, value_enum, value_name = "MIN")]
    fail_on: Option<Severity>,
    #[command(flatten)]
    options: look::Options,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    time: &'a str,
    node: &'a str,
    /// Said of the host once.
    host: &'a Verdict,
    containers: Vec<Audited<'a>>,
}

#[derive(Serialize)]
struct Audited<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    runtime: &'a str,
    findings: &'a [Finding],
    unknown: &'a [Unknown],
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<&'a Deeds>,
}

/// What one container may do, and what it was seen to do; `None` where no agent knows.
fn deeds(
    observed: Option<&mut Observed>,
    global: &Global,
    look: &Look,
    container: &ContainerView,
) -> anyhow::Result<Option<Deeds>> {
    let Some(observed) = observed else { return Ok(None) };
    look::add_present_calls(observed, global, look, &container.id)?;
    let granted = host::declared_calls(&app::roots(&global.config()?), &container.id);
    let capabilities = container.security.as_ref().and_then(|security| security.capabilities);
    Ok(Deeds::of(
        observed,
        &container.id,
        granted.as_ref().map(|declared| &declared.allowed),
        capabilities.map(|sets| sets.permitted),
    ))
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let wanted = Wanted {
        host_processes: false,
        programs: false,
        every_security: true,
        mounts: true,
        details: true,
        resources: true,
    };
    let look = look::look(&args.options, global, wanted)?;
    let mut observed = look::observed(&args.options, global)?;
    let mut verdicts = inventory::judge(&look, observed.as_ref());
    for verdict in &mut verdicts {
        verdict.findings.retain(|finding| finding.severity >= args.severity);
    }
    let chosen = match &args.container {
        None => None,
        Some(what) => Some(match inventory::find(&look, what)? {
            Found::Container(container) => container.id.clone(),
            Found::Process(process) => process
                .container
                .clone()
                .with_context(|| format!("process {} is in no container", process.pid))?,
        }),
    };
    let of: Vec<_> = look
        .containers
        .iter()
        .zip(&verdicts)
        .filter(|(container, _)| chosen.as_ref().is_none_or(|id| *id == container.id))
        .collect();
    let mut host = inventory::judge_host(&look);
    host.findings.retain(|finding| finding.severity >= args.severity);
    let deeds = match of.as_slice() {
        [(container, _)] if chosen.is_some() => deeds(observed.as_mut(), global, &look, container)?,
        _ => None,
    };
    let document = Document {
        schema: "observer.audit/1",
        time: &look.time,
        node: &look.node,
        host: &host,
        containers: of
            .iter()
            .map(|(container, verdict)| Audited {
                id: &container.id,
                name: container.name.as_deref(),
                runtime: &container.runtime,
                findings: &verdict.findings,
                unknown: &verdict.unknown,
                observed: deeds.as_ref(),
            })
            .collect(),
    };
    look::write(&args.options, &document, |surface| {
        let mut text = render::audit(&of, &host, surface);
        if let Some(deeds) = &deeds {
            text.push_str(&render::deeds(deeds, surface));
        }
        text
    })?;
    look::tell_unread(&look);
    let worst = of.iter().filter_map(|(_, verdict)| verdict.worst()).max();
    let failed = args.fail_on.is_some_and(|limit| worst.is_some_and(|worst| worst >= limit));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
