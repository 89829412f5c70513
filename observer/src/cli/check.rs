//! `observer check`

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Instant,
};

use serde::Serialize;

use super::Global;
use crate::{
    app,
    kernel::{FeatureStatus, Kernel, VMLINUX},
};

/// Loads and attaches everything, looks, and takes it all away again. Exit code 1 if a required feature is missing.
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
    /// From the start of loading until everything was attached, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    load_ms: Option<u128>,
    facts: Vec<Fact>,
    features: Vec<FeatureReport>,
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
struct FeatureReport {
    name: &'static str,
    ok: bool,
    required: bool,
    /// The key of the configuration that would ask for it; nothing was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_configured: Option<&'static str>,
    /// By which means it is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'static str>,
    /// What this tier does not show that a better one does.
    #[serde(skip_serializing_if = "str::is_empty")]
    lacks: &'static str,
    /// What is not seen without the feature.
    without: &'static str,
    hooks: Vec<HookReport>,
    /// The better tiers, and why each is not to be had here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<Refused>,
}

#[derive(Serialize)]
struct HookReport {
    program: &'static str,
    hook: String,
    /// The kernel function behind the hook.
    source: &'static str,
}

#[derive(Serialize)]
struct Refused {
    tier: &'static str,
    error: String,
}

impl FeatureReport {
    fn of(status: &FeatureStatus) -> Self {
        let hook = |probe: &crate::kernel::Probe| HookReport {
            program: probe.program,
            hook: probe.hook.to_string(),
            source: probe.source,
        };
        FeatureReport {
            name: status.feature.name,
            ok: status.tier.is_some(),
            required: status.feature.required,
            not_configured: status.feature.asked_by.filter(|_| !status.asked),
            tier: status.tier.map(|tier| tier.name),
            lacks: status.tier.map_or("", |tier| tier.lacks),
            without: status.feature.without,
            hooks: status.tier.map_or(&[][..], |tier| tier.probes).iter().map(hook).collect(),
            refused: status
                .refused
                .iter()
                .map(|(tier, error)| Refused { tier: tier.name, error: error.to_string() })
                .collect(),
        }
    }
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
    let mut features = Vec::new();
    let mut load_ms = None;
    let fact = |name, required, result: Result<String, String>| {
        let ok = result.is_ok();
        Fact { name, ok, required, found: result.unwrap_or_else(|error| error) }
    };
    let types = std::fs::metadata(VMLINUX).map(|_| VMLINUX.to_owned()).map_err(|e| format!("{VMLINUX}: {e}"));
    facts.push(fact("kernel types (BTF)", true, types));
    let started = Instant::now();
    match Kernel::load(&app::load_options(config)) {
        Err(error) => facts.push(fact("kernel programs", true, Err(error.to_string()))),
        Ok(mut kernel) => {
            load_ms = Some(started.elapsed().as_millis());
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
            features.extend(kernel.features.iter().map(FeatureReport::of));
        }
    }
    let ok = facts.iter().all(|fact| fact.ok || !fact.required)
        && features.iter().all(|feature| feature.ok || !feature.required);
    Report { kernel, ok, load_ms, facts, features }
}

fn lockdown() -> Fact {
    let mode = std::fs::read_to_string("/sys/kernel/security/lockdown")
        .ok()
        .and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned()));
    // Confidentiality refuses the helper that reads kernel memory, and tracefs: the features below say what that means.
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
    if !report.features.is_empty() {
        writeln!(out, "\n{:<4} {:<19} {:<11} by", "", "feature", "")?;
    }
    let mut told: Vec<&str> = Vec::new();
    for feature in &report.features {
        let need = if feature.required { "required" } else { "optional" };
        if let Some(key) = feature.not_configured {
            writeln!(out, "{:<4} {:<19} {need:<11} not configured ({key})", "off", feature.name)?;
            continue;
        }
        let mark = mark(feature.ok, feature.required);
        write!(out, "{mark:<4} {:<19} {need:<11} {}", feature.name, feature.tier.unwrap_or("nothing"))?;
        match (feature.tier, feature.lacks) {
            (None, _) => write!(out, "; not seen: {}", feature.without)?,
            (Some(_), "") => {}
            (Some(_), lacks) => write!(out, ", which does not show {lacks}")?,
        }
        writeln!(out)?;
        for refused in &feature.refused {
            // Several features may be refused the same thing.
            let known = told.contains(&refused.error.as_str());
            let error = if known { "as above" } else { &refused.error };
            writeln!(out, "       not {}: {error}", refused.tier)?;
            told.push(&refused.error);
        }
    }
    writeln!(out, "\n{}", if report.ok { "observer can run here." } else { "observer cannot run here." })
}
