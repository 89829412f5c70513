//! `cargo xtask build`

use crate::{
    setup::{self, Purpose},
    shell::{self, step},
};
use anyhow::Result;

#[derive(clap::Args)]
pub struct Args {
    /// Optimise (the default)
    #[arg(long)]
    release: bool,
    /// Build quickly instead, without optimising the agent; the kernel programs are always optimised
    #[arg(long, conflicts_with = "release")]
    debug: bool,
}

pub fn verb(args: &Args) -> Result<()> {
    setup::ensure(Purpose::Build)?;
    if args.debug { quick() } else { release() }
}

/// The release build of the agent; leaves the setting-up to the caller.
pub fn release() -> Result<()> {
    step("building observer", shell::cargo().args(["build", "--release", "-p", "observer"]))
}

/// The agent, not optimised: for what takes no time anyway. Built for a test, so that it and what it uses are not built again for the
/// others.
pub fn quick() -> Result<()> {
    step("building observer (debug)", tests().args(["--test", "cli", "--no-run"]))
}

/// `cargo test` of whatever is chosen besides. Always out of the same packages: cargo builds what they use with the features that
/// all those packages ask for, and once more for each other set of them.
pub fn tests() -> std::process::Command {
    let mut tests = shell::cargo();
    // Kernel programs do not build for this machine.
    tests.args(["test", "--workspace", "--exclude", "observer-ebpf"]);
    tests
}
