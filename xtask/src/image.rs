//! `cargo xtask image`: what goes into the container image.

use crate::{
    setup::{self, Purpose},
    shell::{self, step},
};
use anyhow::{Context, Result};
use std::{fs, path::PathBuf};

#[derive(clap::Args)]
pub struct Args {}

/// The only one that the kernel programs' offsets are read for so far.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Authorities of the machine that builds, for sinks over TLS.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

pub fn verb(_: &Args) -> Result<()> {
    setup::ensure(Purpose::Build)?;
    let context = prepare()?;
    println!("docker build -f deploy/docker/prepared.Dockerfile -t observer {}", context.display());
    Ok(())
}

/// Builds the static agent, and lays out a build context around it: `target/image`.
pub fn prepare() -> Result<PathBuf> {
    let mut build = shell::cargo();
    // With a target named, the flags are for the agent alone, not for build scripts and macros.
    build.args(["build", "--release", "-p", "observer", "--target", TARGET]);
    build.env("RUSTFLAGS", "-C target-feature=+crt-static");
    step("building observer (static)", &mut build)?;
    let context = shell::target_dir().join("image");
    fs::create_dir_all(&context).with_context(|| context.display().to_string())?;
    let built = shell::target_dir().join(TARGET).join("release/observer");
    let image = context.join("observer");
    // Beside the old one first: it may be running.
    let fresh = context.join("observer.new");
    fs::copy(&built, &fresh).with_context(|| built.display().to_string())?;
    fs::rename(&fresh, &image).with_context(|| image.display().to_string())?;
    let authorities = fs::read(AUTHORITIES).unwrap_or_default();
    let file = context.join("ca-certificates.crt");
    fs::write(&file, authorities).with_context(|| file.display().to_string())?;
    Ok(context)
}
