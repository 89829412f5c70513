//! Debian's packages from suites that the machine's own package lists do not have.
//!
//! The lists are kept apart, so that the machine's own and its choices stay as they are. The mirror is the one that its apt
//! already uses.

use anyhow::{Context, Result, anyhow, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// apt that knows some suites and no others.
pub struct Apt {
    pub dir: PathBuf,
}

impl Apt {
    pub fn new(dir: &Path, suites: &[&str]) -> Result<Self> {
        let _ = fs::remove_dir_all(dir);
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(below))?;
        }
        let lines = suites.iter().map(|suite| Ok(source(suite)? + "\n")).collect::<Result<String>>()?;
        fs::write(dir.join("sources.list"), lines)?;
        Ok(Apt { dir: dir.to_owned() })
    }

    /// What makes apt know these suites alone.
    pub fn options(&self) -> Vec<String> {
        let option = |name: &str, value: &str| format!("-o{name}={}", self.dir.join(value).display());
        let mut options = vec![
            option("Dir::Etc::SourceList", "sources.list"),
            option("Dir::State::Lists", "lists"),
            option("Dir::Cache", "cache"),
        ];
        options.extend(
            [
                "-oDir::Etc::SourceParts=/dev/null",
                "-oAcquire::Languages=none",
                "-qq",
                // Lists of icons and the like, and a user that may not write here.
                "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
                "-oAPT::Sandbox::User=",
            ]
            .map(str::to_owned),
        );
        options
    }

    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = Command::new(program)
            .args(self.options())
            .args(args)
            .current_dir(&self.dir)
            .output()
            .with_context(|| format!("cannot start {program}"))?;
        if !output.status.success() {
            bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A suite as a line of sources.list.
pub fn source(suite: &str) -> Result<String> {
    Ok(format!("deb {} {suite} main", mirror()?))
}

/// Where this machine's apt gets Debian from.
fn mirror() -> Result<String> {
    let codename = codename();
    let targets = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"])
        .output()
        .context("no apt here: this needs Debian's packages")?;
    let targets = String::from_utf8_lossy(&targets.stdout).into_owned();
    let mirrors = targets.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (uri, release, component) = (words.next()?, words.next()?, words.next()?);
        (release == codename && component == "main").then(|| uri.to_owned())
    });
    let found: Option<String> = mirrors.into_iter().next();
    found.ok_or_else(|| anyhow!("apt's configuration names no archive of {codename:?} that has `main`"))
}

/// This machine's release of Debian, such as `bookworm`; empty if it does not say.
pub fn codename() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or_default().to_owned()
}
