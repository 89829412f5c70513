//! `observer check`

use std::{
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;

use super::Global;
use crate::{
    app,
    kernel::{Kernel, VMLINUX},
};

/// Loads and attaches everything, looks, and takes it all away again. Exit code 1 if a required hook is missing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    kernel: String,
    ok: bool,
    facts: Vec<Fact>,
    hooks: Vec<HookReport>,
}

/// Something about this machine that everything rests on.
#[derive(Serialize)]
struct Fact {
    name: &'static str,
    ok: bool,
    /// Without it the agent does not start.
    required: bool,
    found: String,
}

#[derive(Serialize)]
struct HookReport {
    program: &'static str,
    hook: String,
    ok: bool,
    required: bool,
    /// What is not seen without it.
    without: &'static str,
    /// The kernel function behind the hook.
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let config = global.config()?;
    let report = report(&config);
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print(&report, &mut out)?;
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn report(config: &crate::config::Config) -> Report {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
    let mut facts = vec![lockdown()];
    let mut hooks = Vec::new();
    let fact = |name, required, result: Result<String, String>| {
        let ok = result.is_ok();
        Fact { name, ok, required, found: result.unwrap_or_else(|error| error) }
    };
    let types = std::fs::metadata(VMLINUX).map(|_| VMLINUX.to_owned()).map_err(|e| format!("{VMLINUX}: {e}"));
    facts.push(fact("kernel types (BTF)", true, types));
    match Kernel::load(app::load_options(config)) {
        Err(error) => facts.push(fact("kernel programs", true, Err(error.to_string()))),
        Ok(mut kernel) => {
            facts.push(fact("kernel programs", true, Ok("loaded".into())));
            let host =
                kernel.host().map(|_| "found by walking up to pid 1".into()).map_err(|e| e.to_string());
            facts.push(fact("the host's namespaces", true, host));
            let hierarchies = crate::host::hierarchies(&config.host.proc, &config.host.cgroup);
            let hierarchies = match hierarchies {
                Ok(found) if !found.is_empty() => {
                    let v2 = found.iter().any(|h| h.id == 0);
                    let v1 = found.iter().filter(|h| h.id != 0).count();
                    Ok(match (v2, v1) {
                        (true, 0) => "v2".into(),
                        (true, v1) => format!("hybrid: v2 and {v1} v1 hierarchies"),
                        (false, v1) => format!("v1: {v1} hierarchies"),
                    })
                }
                Ok(_) => Err(format!("none mounted below {}", config.host.cgroup.display())),
                Err(error) => Err(error.to_string()),
            };
            facts.push(fact("cgroups", false, hierarchies));
            hooks.extend(kernel.probes.iter().map(|status| HookReport {
                program: status.probe.program,
                hook: status.probe.hook.to_string(),
                ok: status.result.is_ok(),
                required: status.probe.required,
                without: status.probe.without,
                source: status.probe.source,
                error: status.result.as_ref().err().map(ToString::to_string),
            }));
        }
    }
    facts.push(Fact {
        name: "32-bit system calls (int 0x80)",
        ok: true,
        required: false,
        found: "no hook shows them at this tier: what they changed shows at the task's next fork, exec or exit, or in \
                the next sweep"
            .into(),
    });
    let ok = facts.iter().all(|fact| fact.ok || !fact.required)
        && hooks.iter().all(|hook| hook.ok || !hook.required);
    Report { kernel, ok, facts, hooks }
}

fn lockdown() -> Fact {
    let mode = std::fs::read_to_string("/sys/kernel/security/lockdown")
        .ok()
        .and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned()));
    // Confidentiality refuses reading kernel memory, which the programs need for pid namespaces and roots.
    let ok = mode.as_deref() != Some("confidentiality");
    Fact { name: "kernel lockdown", ok, required: false, found: mode.unwrap_or_else(|| "not shown".into()) }
}

fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mark = |ok: bool, required: bool| match (ok, required) {
        (true, _) => "yes",
        (false, true) => "NO",
        (false, false) => "no",
    };
    writeln!(out, "kernel {}\n", report.kernel)?;
    for fact in &report.facts {
        writeln!(out, "{:<4} {:<32} {}", mark(fact.ok, fact.required), fact.name, fact.found)?;
    }
    if !report.hooks.is_empty() {
        writeln!(out, "\n{:<4} {:<42} {:<9} without it, not seen", "", "hook", "")?;
    }
    for hook in &report.hooks {
        let need = if hook.required { "required" } else { "optional" };
        writeln!(out, "{:<4} {:<42} {need:<9} {}", mark(hook.ok, hook.required), hook.hook, hook.without)?;
        if let Some(error) = &hook.error {
            writeln!(out, "     {error}")?;
        }
    }
    writeln!(out, "\n{}", if report.ok { "observer can run here." } else { "observer cannot run here." })
}
