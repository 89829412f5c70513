//! `cargo xtask ci`: what must hold besides the tests.

use crate::{
    bpf_toolchain, build, deploy_check, docs,
    setup::{self, Purpose},
    shell::{self, step},
};
use anyhow::{Error, Result};

pub fn verb() -> Result<()> {
    setup::ensure(Purpose::Ci)?;
    step("formatting", shell::cargo().args(["fmt", "--all", "--check"]))?;

    let mut clippy = shell::cargo();
    clippy.args([
        "clippy",
        "--workspace",
        "--exclude",
        "observer-ebpf",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    step("lints", &mut clippy)?;
    lint_kernel_programs(&[], "lints of the kernel programs")?;
    lint_kernel_programs(&["--features", "log"], "lints of the kernel programs with logging")?;

    let mut doc = shell::cargo();
    doc.args(["doc", "--no-deps", "--workspace", "--exclude", "observer-ebpf"])
        .env("RUSTDOCFLAGS", "-D warnings");
    step("documentation", &mut doc)?;

    build::quick()?;
    docs::check()?;

    deploy_check::check(false)
}

/// Lints the kernel programs as what they are: code for the BPF target, seen by the clippy that belongs to the
/// compiler that builds them. Linting them for this machine instead would take the wrong side of every
/// `cfg(target_arch = "bpf")`, aya-ebpf's among them, and trip over BPF's inline assembly.
fn lint_kernel_programs(features: &[&str], name: &str) -> Result<()> {
    let compiler =
        bpf_toolchain::find_compiler(bpf_toolchain::wanted().map_err(Error::msg)?).map_err(Error::msg)?;
    let linker = bpf_toolchain::find_linker().map_err(Error::msg)?;
    let target_dir = shell::target_dir().join("bpf/lint");
    let mut clippy =
        compiler.cargo("clippy", &linker, &target_dir, !features.is_empty()).map_err(Error::msg)?;
    step(name, clippy.args(features).current_dir(shell::workspace()))
}
