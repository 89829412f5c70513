//! The package, and two that could follow it.

use crate::{
    image, setup,
    shell::{self, step},
};
use anyhow::{Context, Result, anyhow};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub struct Debs {
    pub first: PathBuf,
    /// The same of a higher version.
    pub second: PathBuf,
    /// Of a still higher one, whose default configuration is another.
    pub third: PathBuf,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The package as it ships, of the static agent: it depends on no release's C library.
pub fn release() -> Result<PathBuf> {
    image::prepare()?;
    cargo_deb("observer.deb", None)
}

pub fn build() -> Result<Debs> {
    let first = release()?;
    let second = cargo_deb("second.deb", Some(&format!("{VERSION}+1-1")))?;
    let third = with_another_default(&second, &format!("{VERSION}+2-1"))?;
    Ok(Debs { first, second, third })
}

fn cargo_deb(name: &str, version: Option<&str>) -> Result<PathBuf> {
    let deb = super::dir().join(name);
    let mut command = Command::new(setup::cargo_deb());
    command.current_dir(shell::workspace());
    command
        .args([
            "--package",
            "observer",
            "--target",
            image::TARGET,
            "--no-build",
            "--strip",
            "--quiet",
            "--output",
        ])
        .arg(&deb);
    if let Some(version) = version {
        command.args(["--deb-version", version]);
    }
    step("the package", command.stdout(Stdio::null()))?;
    Ok(deb)
}

/// What a release does that changes its default configuration: whoever has changed it has to be asked.
fn with_another_default(deb: &Path, version: &str) -> Result<PathBuf> {
    let tree = super::dir().join("tree");
    let _ = fs::remove_dir_all(&tree);
    step("the package with another default", Command::new("dpkg-deb").arg("-R").arg(deb).arg(&tree))?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).with_context(|| control.display().to_string())?;
    let line =
        text.lines().find(|line| line.starts_with("Version: ")).ok_or_else(|| anyhow!("no version"))?;
    fs::write(&control, text.replace(line, &format!("Version: {version}")))?;
    let config = tree.join("etc/observer/observer.yaml");
    let mut config = fs::OpenOptions::new().append(true).open(config)?;
    writeln!(config, "# Of a later release.")?;
    let third = super::dir().join("third.deb");
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group", "-Znone", "--build"]).arg(&tree).arg(&third);
    step("packing it", pack.stdout(Stdio::null()))?;
    fs::remove_dir_all(&tree)?;
    Ok(third)
}
