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

/// The agent, not optimised: for what takes no time anyway.
pub fn quick() -> Result<()> {
    step("building observer (debug)", shell::cargo().args(["build", "-p", "observer"]))
}
