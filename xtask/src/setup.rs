//! `cargo xtask setup`: installs what is missing, and says so first.
//!
//! Everything is looked for as a file, not asked of a package manager: that takes milliseconds, so that every verb
//! can begin with it, and a tool that came some other way counts as well.

use crate::{
    apt,
    bpf_toolchain::{self, Compiler, Kind},
    shell::{self, as_root, find},
};
use anyhow::{Error, Result, bail};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

#[derive(clap::Args)]
pub struct Args {
    /// What the machine is to be made fit for; building is always included
    #[arg(long = "for", value_name = "PURPOSE", default_value = "build")]
    purpose: Purpose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Purpose {
    Build,
    Run,
    Test,
    Demo,
    Bench,
    Vm,
    Package,
    Ci,
}

/// A tool by the Debian package that brings it.
struct Tool {
    package: &'static str,
    present: fn() -> bool,
    /// Which purposes need it.
    needed_for: fn(Purpose) -> bool,
}

const TOOLS: [Tool; 26] = [
    Tool { package: "gcc", present: || find("cc").is_some(), needed_for: |_| true },
    Tool {
        package: "libc6-dev",
        present: || Path::new("/usr/include/stdlib.h").exists(),
        needed_for: |_| true,
    },
    Tool {
        package: "runc",
        present: || find("runc").is_some(),
        needed_for: |it| matches!(it, Purpose::Test | Purpose::Demo | Purpose::Bench | Purpose::Vm),
    },
    Tool {
        package: "busybox-static",
        present: || static_busybox().is_some(),
        needed_for: |it| matches!(it, Purpose::Test | Purpose::Demo | Purpose::Bench | Purpose::Vm),
    },
    Tool { package: "docker.io", present: || find("dockerd").is_some(), needed_for: tests },
    Tool { package: "containerd", present: || find("containerd").is_some(), needed_for: tests },
    Tool {
        package: "bubblewrap",
        present: || find("bwrap").is_some(),
        needed_for: |it| matches!(it, Purpose::Test | Purpose::Vm),
    },
    Tool {
        package: "qemu-system-x86",
        present: || find("qemu-system-x86_64").is_some(),
        needed_for: |it| machines(it) || package(it),
    },
    Tool { package: "cpio", present: || find("cpio").is_some(), needed_for: machines },
    // What makes a file system with a Debian in it.
    Tool { package: "mmdebstrap", present: || find("mmdebstrap").is_some(), needed_for: package },
    Tool { package: "genext2fs", present: || find("genext2fs").is_some(), needed_for: package },
    Tool { package: "e2fsprogs", present: || find("resize2fs").is_some(), needed_for: package },
    Tool { package: "systemd-container", present: || find("systemd-nspawn").is_some(), needed_for: tests },
    Tool {
        package: "stress-ng",
        present: || find("stress-ng").is_some(),
        needed_for: |it| matches!(it, Purpose::Test | Purpose::Bench | Purpose::Vm),
    },
    // For apparmor_parser, which compiles profiles where the kernel has AppArmor.
    Tool { package: "apparmor", present: || find("apparmor_parser").is_some(), needed_for: machines },
    // For capable, by which the counts of capability checks are tried: a kprobe, for kernels that have them.
    Tool { package: "libbpf-tools", present: || find("capable").is_some(), needed_for: machines },
    // The independent count that the flood tests hold the agent's against.
    Tool { package: "bpftrace", present: || find("bpftrace").is_some(), needed_for: tests },
    Tool { package: "strace", present: || find("strace").is_some(), needed_for: tests },
    // Services whose seccomp profiles are made, and tried, under their own benchmarks. redis-tools has redis-server's program, too,
    // and starts no server.
    Tool { package: "redis-tools", present: || find("redis-check-rdb").is_some(), needed_for: tests },
    Tool { package: "nginx", present: || find("nginx").is_some(), needed_for: tests },
    Tool { package: "apache2-utils", present: || find("ab").is_some(), needed_for: tests },
    // For promtool, which checks the metrics' format and the alerting rules.
    Tool {
        package: "prometheus",
        present: || find("promtool").is_some(),
        needed_for: |it| matches!(it, Purpose::Test | Purpose::Ci),
    },
    // Receivers that are not ours, for the tests of the sinks.
    Tool {
        package: "prometheus-alertmanager",
        present: || find("prometheus-alertmanager").is_some(),
        needed_for: tests,
    },
    Tool { package: "rsyslog", present: || find("rsyslogd").is_some(), needed_for: tests },
    Tool { package: "rsyslog-openssl", present: has_rsyslog_tls, needed_for: tests },
    // For what checks the chart and the manifests.
    Tool { package: "python3-venv", present: has_venv, needed_for: |it| it == Purpose::Ci },
];

/// Virtual machines boot Debian's kernels: without apt the tests do without.
fn machines(purpose: Purpose) -> bool {
    purpose == Purpose::Vm || tests(purpose) && bpf_toolchain::has_apt()
}

fn package(purpose: Purpose) -> bool {
    purpose == Purpose::Package
}

fn tests(purpose: Purpose) -> bool {
    purpose == Purpose::Test
}

/// rsyslog loads what speaks TLS from a file of its own.
fn has_rsyslog_tls() -> bool {
    let libraries = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib"].map(Path::new);
    libraries.iter().any(|dir| dir.join("rsyslog/lmnsd_ossl.so").exists())
}

/// Debian keeps the part that puts pip into a new environment in a package of its own.
fn has_venv() -> bool {
    let python =
        Command::new("python3").args(["-c", "import venv, ensurepip"]).stderr(Stdio::null()).status();
    python.is_ok_and(|status| status.success())
}

/// A busybox that runs in an otherwise empty file tree: Debian's other busybox package needs libraries.
pub fn static_busybox() -> Option<PathBuf> {
    let file = find("busybox")?;
    // A dynamic program names its loader right behind the ELF headers.
    let mut head = [0; 4096];
    let length = fs::File::open(&file).and_then(|mut file| file.read(&mut head)).ok()?;
    let dynamic = head[..length].windows(4).any(|window| window == b"/ld-");
    (!dynamic).then_some(file)
}

/// One installation, of the things that one command gets.
enum Installation {
    Packages(Vec<&'static str>),
    Nightly,
    Linker(String),
    CargoDeb,
}

pub fn verb(args: &Args) -> Result<()> {
    if !ensure(args.purpose)? {
        eprintln!("Nothing is missing.");
    }
    Ok(())
}

/// Makes the machine fit for `purpose`; tells whether it had to do anything.
pub fn ensure(purpose: Purpose) -> Result<bool> {
    let plan = plan(purpose)?;
    if plan.is_empty() {
        return Ok(false);
    }
    eprintln!("Setting up this machine:");
    for installation in &plan {
        match installation {
            Installation::Packages(names) => eprintln!("  with apt-get: {}", names.join(" ")),
            Installation::Nightly => {
                eprintln!("  with rustup: the nightly toolchain, with rust-src and clippy")
            }
            Installation::Linker(why) => {
                eprintln!(
                    "  with cargo: bpf-linker {} ({why}); takes a minute or two",
                    bpf_toolchain::LINKER_VERSION
                );
            }
            Installation::CargoDeb => {
                eprintln!("  with cargo: cargo-deb {CARGO_DEB_VERSION}, in target/tools; takes some minutes")
            }
        }
    }
    for installation in &plan {
        match installation {
            Installation::Packages(names) => packages(names)?,
            Installation::Nightly => nightly()?,
            Installation::Linker(_) => linker()?,
            Installation::CargoDeb => install_cargo_deb()?,
        }
    }
    verify(purpose)?;
    Ok(true)
}

fn plan(purpose: Purpose) -> Result<Vec<Installation>> {
    let mut plan = Vec::new();
    let mut names: Vec<_> = TOOLS
        .iter()
        .filter(|tool| (tool.needed_for)(purpose) && !(tool.present)())
        .map(|tool| tool.package)
        .collect();
    let wanted = bpf_toolchain::wanted().map_err(Error::msg)?;
    let compiler = bpf_toolchain::find_compiler(wanted);
    let kind = match (&compiler, wanted) {
        (Ok(compiler), _) => compiler.kind,
        (Err(_), Some(kind)) => kind,
        (Err(_), None) if bpf_toolchain::has_apt() && debian_offers_bpf() => Kind::Debian,
        (Err(_), None) => Kind::Nightly,
    };
    let lacks_clippy = purpose == Purpose::Ci && !compiler.as_ref().is_ok_and(has_clippy);
    match kind {
        Kind::Debian => {
            if compiler.is_err() {
                // Both, though one may be here: they must be of one version.
                names.extend(["rustc-web", "libstd-rust-web-dev-bpf"]);
            }
            if lacks_clippy {
                names.push("rust-web-clippy");
            }
        }
        Kind::Nightly if compiler.is_err() || lacks_clippy => plan.push(Installation::Nightly),
        Kind::Nightly => {}
    }
    if !names.is_empty() {
        // First, because what cargo installs is linked with gcc.
        plan.insert(0, Installation::Packages(names));
    }
    if let Err(why) = bpf_toolchain::find_linker() {
        plan.push(Installation::Linker(why));
    }
    if package(purpose) && !cargo_deb().is_file() {
        plan.push(Installation::CargoDeb);
    }
    Ok(plan)
}

/// Whether the kernel programs can be linted: another compiler's clippy does not know the BPF target's `core`.
fn has_clippy(compiler: &Compiler) -> bool {
    ["cargo-clippy", "clippy-driver"].iter().all(|program| compiler.bin.join(program).exists())
}

/// Whether this Debian, or what came of it, packages `core` for BPF.
fn debian_offers_bpf() -> bool {
    let known = || {
        let show = Command::new("apt-cache").args(["show", "libstd-rust-web-dev-bpf"]).output();
        show.is_ok_and(|output| !output.stdout.is_empty())
    };
    // Package lists that do not know it may be old, or not there yet.
    known() || (apt_get(&["update"]).is_ok() && known())
}

fn packages(names: &[&str]) -> Result<()> {
    if !bpf_toolchain::has_apt() {
        bail!(
            "missing here: {}; install it with your package manager (the names are Debian's)",
            names.join(", ")
        );
    }
    // Recommendations would bring dozens of packages that nothing here uses, and to make room for a package by
    // removing another is for the machine's owner to decide.
    let install = |names: &[&str]| apt_get(&[&INSTALL[..], names].concat());
    if install(names).is_ok() {
        return Ok(());
    }
    // The package lists may be old, or not there yet.
    apt_get(&["update"])?;
    if install(names).is_ok() {
        return Ok(());
    }
    // One that cannot be had must not keep the others away, and is then the only one that is spoken of.
    for name in names {
        if let Err(why) = install(&[name]) {
            from_backports(name).map_err(|error| why.context(format!("{error:#}")))?;
        }
    }
    Ok(())
}

const INSTALL: [&str; 4] = ["install", "--yes", "--no-install-recommends", "--no-remove"];

/// Where a part of a family of packages (QEMU's, say) came from backports, the other parts have to come from there as well.
fn from_backports(name: &str) -> Result<()> {
    let (release, dir) = (apt::codename(), shell::target_dir().join("apt"));
    let backports = format!("{release}-backports");
    eprintln!("  {name} does not go with what is installed; trying {backports}");
    let apt = apt::Apt::new(&dir, &[&release, &backports])?;
    let options = apt.options();
    let with =
        |args: &[&str]| apt_get(&[&options.iter().map(String::as_str).collect::<Vec<_>>(), args].concat());
    with(&["update"])?;
    with(&[&INSTALL[..], &["--target-release", &backports, name]].concat())?;
    fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Quiet, except for the error that it ends with.
fn apt_get(args: &[&str]) -> Result<()> {
    // The variable goes through env, because sudo does not pass it on. Another apt-get may be at work.
    let output = as_root(Path::new("/usr/bin/env"), "to install packages")?
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-oDPkg::Lock::Timeout=120"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let verb = args.iter().find(|arg| !arg.starts_with('-')).unwrap_or(&"");
        let error = words.lines().find(|line| line.starts_with("E:")).or(words.lines().next_back());
        bail!("apt-get {verb} fails: {}", error.unwrap_or("it does not say why"));
    }
    Ok(())
}

fn nightly() -> Result<()> {
    let Some(rustup) = find("rustup") else {
        bail!("a nightly Rust toolchain with rust-src is missing, and there is no rustup to install it with");
    };
    let mut install = Command::new(rustup);
    install.args(["toolchain", "install", "nightly", "--profile", "minimal"]);
    shell::step(
        "installing the nightly toolchain",
        install.args(["--component", "rust-src", "--component", "clippy"]),
    )
}

fn linker() -> Result<()> {
    let mut install = shell::cargo();
    install.args(["install", "--quiet", "--locked", "--force", "bpf-linker", "--version"]);
    shell::step("installing bpf-linker", install.arg(bpf_toolchain::LINKER_VERSION))
}

/// The one that the package's metadata was written for.
const CARGO_DEB_VERSION: &str = "3.8.0";

/// Only one verb needs it: not among the user's own tools.
pub fn cargo_deb() -> PathBuf {
    tools().join("bin/cargo-deb")
}

fn tools() -> PathBuf {
    shell::target_dir().join("tools")
}

fn install_cargo_deb() -> Result<()> {
    let mut install = shell::cargo();
    install.args(["install", "--quiet", "--locked", "cargo-deb", "--version", CARGO_DEB_VERSION, "--root"]);
    shell::step("installing cargo-deb", install.arg(tools()))
}

/// After an installation: names the first thing that is missing all the same.
fn verify(purpose: Purpose) -> Result<()> {
    if let Some(tool) = TOOLS.iter().find(|tool| (tool.needed_for)(purpose) && !(tool.present)()) {
        bail!("package {} is installed, but what it should bring is not here", tool.package);
    }
    let wanted = bpf_toolchain::wanted().map_err(Error::msg)?;
    let compiler = bpf_toolchain::find_compiler(wanted).map_err(Error::msg)?;
    let linker = bpf_toolchain::find_linker().map_err(Error::msg)?;
    if purpose == Purpose::Ci && !has_clippy(&compiler) {
        bail!("cargo-clippy is missing in {}", compiler.bin.display());
    }
    if let Some(mismatch) = compiler.llvm_mismatch(&linker) {
        eprintln!("warning: {mismatch}");
    }
    Ok(())
}
