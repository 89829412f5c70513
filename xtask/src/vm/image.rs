//! The initramfs of a virtual machine: what the live tests need, copied from this machine with its libraries.

use crate::shell;
use anyhow::{Context, Result, anyhow, bail};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What the tests start, or put into their containers. Not docker, containerd, systemd and bpftrace: those are tried on
/// the machine that one has, and would make the image several times as large. A test that needs them says that it is
/// skipped.
const PROGRAMS: [&str; 8] =
    ["runc", "bwrap", "stress-ng", "nsenter", "unshare", "setpriv", "apparmor_parser", "capable"];

/// The first process: moves from the initramfs, on which no runtime can pivot_root, to a tmpfs.
const INIT: &str = include_str!("init.sh");
/// What it does there.
const JOB: &str = include_str!("job.sh");
/// `ldd`, which is a script for a shell that the machine does not have.
const LDD: &str = "#!/bin/sh\nLD_TRACE_LOADED_OBJECTS=1 exec /lib64/ld-linux-x86-64.so.2 \"$@\"\n";

/// What runs in the machine.
pub struct Contents<'a> {
    pub observer: &'a Path,
    /// The test program, and the helper that it expects at the path where it was built.
    pub tests: &'a Path,
    pub attacks: &'a Path,
}

/// Writes the image (an uncompressed cpio: under emulation, unpacking takes longer than copying).
pub fn write(contents: &Contents<'_>, to: &Path) -> Result<()> {
    let stage = to.with_extension("tree");
    let _ = fs::remove_dir_all(&stage);
    let root = Tree(stage.join("root"));
    for dir in [
        "bin", "dev", "etc", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin", "var",
    ] {
        fs::create_dir_all(root.0.join(dir))?;
    }
    let busybox = crate::setup::static_busybox().ok_or_else(|| anyhow!("no static busybox here"))?;
    for place in [&stage, &root.0] {
        fs::create_dir_all(place.join("bin"))?;
        fs::copy(&busybox, place.join("bin/busybox"))?;
    }
    script(&stage.join("init"), INIT)?;
    fs::create_dir_all(stage.join("new"))?;
    script(&root.0.join("sbin/job"), JOB)?;
    script(&root.0.join("usr/bin/ldd"), LDD)?;
    fs::write(root.0.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")?;
    fs::write(root.0.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    for program in PROGRAMS {
        let file = shell::find(program).ok_or_else(|| anyhow!("{program} is not installed"))?;
        root.install(&file, &Path::new("/usr/bin").join(program))?;
    }
    root.install(contents.observer, Path::new("/usr/bin/observer"))?;
    root.install(contents.tests, Path::new("/usr/bin/live"))?;
    root.install(contents.attacks, contents.attacks)?;
    pack(&stage, to)?;
    fs::remove_dir_all(&stage)?;
    Ok(())
}

fn script(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text)?;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o755))?)
}

/// The machine's file tree to be.
struct Tree(PathBuf);

impl Tree {
    /// A program without its debug information, and the libraries that it names.
    fn install(&self, program: &Path, at: &Path) -> Result<()> {
        let inside = self.place(at)?;
        let stripped =
            Command::new("strip").arg("-o").arg(&inside).arg(program).stderr(Stdio::null()).status();
        if !stripped.is_ok_and(|status| status.success()) {
            fs::copy(program, &inside).with_context(|| format!("copy {}", program.display()))?;
        }
        let libraries = Command::new("ldd").arg(program).output().context("ldd")?;
        for library in String::from_utf8_lossy(&libraries.stdout).split_whitespace() {
            if library.starts_with('/') && !self.0.join(library.trim_start_matches('/')).exists() {
                fs::copy(library, self.place(Path::new(library))?)
                    .with_context(|| format!("copy {library}"))?;
            }
        }
        Ok(())
    }

    fn place(&self, at: &Path) -> Result<PathBuf> {
        let inside = self.0.join(at.strip_prefix("/").unwrap_or(at));
        if let Some(dir) = inside.parent() {
            fs::create_dir_all(dir)?;
        }
        Ok(inside)
    }
}

fn pack(stage: &Path, to: &Path) -> Result<()> {
    let mut find = Command::new("find").arg(".").current_dir(stage).stdout(Stdio::piped()).spawn()?;
    let names = find.stdout.take().ok_or_else(|| anyhow!("find has no output"))?;
    let packed = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet", "--owner=+0:+0"])
        .current_dir(stage)
        .stdin(names)
        .stdout(fs::File::create(to)?)
        .status()
        .context("cannot start cpio")?;
    if !find.wait()?.success() || !packed.success() {
        bail!("cpio cannot write {}", to.display());
    }
    Ok(())
}
