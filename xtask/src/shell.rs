//! What the verbs share: where things are, and how other programs are started.

use anyhow::{Context, Result, bail};
use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The release build of the agent.
pub fn observer() -> PathBuf {
    target_dir().join("release/observer")
}

/// `cargo` in the workspace, free of what the cargo that started xtask told it about the package `xtask`: build
/// scripts that watch such variables would run again each time.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs one named step, whose output goes where xtask's goes; how long it took is said.
pub fn step(name: &str, command: &mut Command) -> Result<()> {
    eprintln!("==> {name}");
    let program = command.get_program().to_string_lossy().into_owned();
    let started = Instant::now();
    let status = command.status().with_context(|| format!("{name}: cannot start {program}"))?;
    eprintln!("==> {name}: {:.0} s", started.elapsed().as_secs_f64());
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(())
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0)
}

/// Finds a command as a root shell would: Debian keeps daemons in the sbin directories, which may not be on PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// A command that runs as root: by itself when xtask does, else through sudo, which is announced. `why` completes
/// "root is needed ...".
pub fn as_root(program: &Path, why: &str) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let Some(sudo) = find("sudo") else { bail!("root is needed {why}, and there is no sudo here") };
    eprintln!("Root is needed {why}; asking sudo.");
    let mut command = Command::new(sudo);
    command.arg("--").arg(program);
    Ok(command)
}
