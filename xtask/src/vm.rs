//! `cargo xtask vm`: the live tests on other kernels, in small virtual machines.

pub mod boot;
mod gdb;
mod image;
pub mod kernels;
mod record;

use crate::{
    setup::{self, Purpose},
    shell,
};
use anyhow::{Context, Result, anyhow, bail};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use kernels::{KERNELS, Kernel};
pub use record::table;

#[derive(clap::Args)]
pub struct Args {
    /// The kernel's series; may be given several times
    #[arg(long = "kernel", value_name = "SERIES", value_parser = kernels::by_series, default_value = "6.1")]
    kernels: Vec<Kernel>,
    /// The whole matrix: every kernel, and one of them in every layout
    #[arg(long, conflicts_with_all = ["kernels", "layout"])]
    all: bool,
    /// How the machine is laid out
    #[arg(long, value_enum, default_value_t = Layout::V2)]
    layout: Layout,
    /// Only what `observer check` says, no tests
    #[arg(long)]
    check: bool,
    /// Keep what `observer check` says as golden files
    #[arg(long)]
    bless: bool,
    /// Keep the results in docs/kernels.json, of which README's table is made
    #[arg(long, conflicts_with_all = ["check", "filter"])]
    record: bool,
    /// All live tests, not only those of the main job: floods, missing features, load, too
    #[arg(long, conflicts_with_all = ["check", "filter"])]
    whole: bool,
    /// What to pass to the test program: parts of tests' names
    #[arg(last = true)]
    filter: Vec<String>,
}

/// What a machine is like, besides its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Layout {
    /// cgroup v2 alone, processes in its root
    V2,
    /// The same with v1 refused (`cgroup_no_v1=all`) and systemd's slices, scopes and services
    Slices,
    /// v2, and a kernel that refuses to let its memory be read (`lockdown=confidentiality`)
    Lockdown,
}

impl Layout {
    fn name(self) -> &'static str {
        match self {
            Layout::V2 => "v2",
            Layout::Slices => "slices",
            Layout::Lockdown => "lockdown",
        }
    }

    fn append(self) -> &'static str {
        match self {
            Layout::V2 => "",
            Layout::Slices => "cgroup_no_v1=all",
            Layout::Lockdown => "lockdown=confidentiality",
        }
    }
}

/// The tests that hold where kernel memory cannot be read.
const LOCKDOWN_TESTS: [&str; 6] =
    ["escape::", "cgroups::", "entered::", "nested::", "refused::", "capabilities::"];

/// The main job: who left its container, by which door, and who did not.
const MAIN_JOB: [&str; 10] = [
    "escape::",
    "nested::",
    "roots::",
    "cgroups::",
    "entered::",
    "sharing::",
    "reuse::",
    "threads::",
    "late::",
    "runtimes::",
];

/// What rests on programs of its own, or on the kernel's modules, besides: `--all` and `--record` run these as well. `--whole` runs all that there is, which takes
/// a machine more than a quarter of an hour.
const OTHER_PROGRAMS: [&str; 6] =
    ["refused::", "capabilities::", "limits_events::", "seccomp::", "drift::", "apparmor::"];

/// Longer than any run has taken here, by far.
const LIMIT: Duration = Duration::from_secs(40 * 60);

pub fn verb(args: &Args) -> Result<()> {
    setup::ensure(Purpose::Vm)?;
    let image = image()?;
    let mut failed = Vec::new();
    let machines: Vec<(Kernel, Layout)> =
        if args.all { matrix() } else { args.kernels.iter().map(|kernel| (*kernel, args.layout)).collect() };
    for (kernel, layout) in machines {
        let name = format!("Linux {} ({})", kernel.series, layout.name());
        if let Err(error) = run(kernel, layout, &image, args) {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Every kernel on plain v2; the newest of the stable ones in the other layouts, too.
fn matrix() -> Vec<(Kernel, Layout)> {
    let mut machines: Vec<(Kernel, Layout)> = KERNELS.map(|kernel| (kernel, Layout::V2)).into();
    let stable = KERNELS[KERNELS.len() - 2];
    machines.extend([(stable, Layout::Slices), (stable, Layout::Lockdown)]);
    machines
}

fn run(kernel: Kernel, layout: Layout, image: &Path, args: &Args) -> Result<()> {
    let tests = match layout {
        _ if args.check => "none".to_owned(),
        // What does not rest on reading kernel memory.
        Layout::Lockdown if args.filter.is_empty() => LOCKDOWN_TESTS.join(" "),
        _ if !args.filter.is_empty() || args.whole => args.filter.join(" "),
        _ if args.all || args.record => [&MAIN_JOB[..], &OTHER_PROGRAMS].concat().join(" "),
        _ => MAIN_JOB.join(" "),
    };
    let name = format!("{}-{}", kernel.series, layout.name());
    let logs = shell::target_dir().join("vm/logs").join(&name);
    let kernel_image = kernel.image()?;
    eprintln!("==> Linux {} ({}), emulated", kernel.series, layout.name());
    let machine = boot::Machine {
        kernel: &kernel_image,
        image,
        disks: &[],
        append: format!(
            "{} observer.layout={} observer.report={} observer.tests={}",
            layout.append(),
            layout.name(),
            if args.record { "yes" } else { "no" },
            base64(tests.as_bytes())
        ),
        logs: &logs,
        limit: LIMIT,
        // As text, and as JSON.
        files: ["check.txt", "check.json"],
    };
    let mut outcome = machine.run()?;
    for _ in 0..2 {
        if outcome.failed_emulation() {
            eprintln!("==> the emulator stumbled over code that the kernel changed meanwhile; once more");
            outcome = machine.run()?;
        }
    }
    let counts = outcome.counts().map_or_else(String::new, |boot::Counts { passed, failed, skipped }| {
        format!("{passed} passed, {failed} failed, {skipped} skipped, ")
    });
    eprintln!(
        "==> Linux {} ({}): {counts}{:.0} s; logs in {}",
        kernel.series,
        layout.name(),
        outcome.took.as_secs_f64(),
        logs.display()
    );
    if args.check {
        print!("{}", std::fs::read_to_string(&outcome.files[0])?.replace('\r', ""));
    }
    record::golden_check(&name, &outcome, args.bless)?;
    if args.record && outcome.code.is_some() {
        record::put(&name, kernel.series, layout.name(), &outcome)?;
    }
    match outcome.code {
        Some(0) => Ok(()),
        Some(code) => bail!("the tests ended with {code}"),
        None => bail!("the machine ended before its tests; its console: {}", outcome.console.display()),
    }
}

/// Builds what runs in the machines.
fn image() -> Result<PathBuf> {
    let observer = crate::image::prepare()?.join("observer");
    let tests = build_tests()?;
    let attacks = shell::target_dir().join("debug/observer-attacks");
    let to = shell::target_dir().join("vm/image.cpio");
    std::fs::create_dir_all(shell::target_dir().join("vm"))?;
    image::write(&image::Contents { observer: &observer, tests: &tests, attacks: &attacks }, &to)
        .context("the machine's image")?;
    Ok(to)
}

/// Builds the live tests without running them; returns the program.
fn build_tests() -> Result<PathBuf> {
    eprintln!("==> building the live tests");
    let output = crate::build::tests()
        .args(["--test", "live", "--no-run", "--message-format=json"])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        bail!("the live tests do not build");
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let built = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    built
        .filter(|message| message["target"]["name"] == "live" && message["profile"]["test"] == true)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| anyhow!("cargo does not say where it put the live tests"))
}

/// So that any filter is one word of a kernel's command line.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |chunk: &[u8]| {
        let word = (0..3).fold(0u32, |word, i| word << 8 | u32::from(chunk.get(i).copied().unwrap_or(0)));
        let digit = |i: usize| {
            if i <= chunk.len() { char::from(DIGITS[(word >> (18 - 6 * i)) as usize & 63]) } else { '=' }
        };
        [0, 1, 2, 3].map(digit)
    };
    bytes.chunks(3).flat_map(digits).collect()
}
