//! The containers' root: busybox, the attack helper, util-linux's nsenter, unshare and setpriv, stress-ng, and the libraries
//! they need. Made once per test process.

use crate::scratch;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the attack helper lies inside.
pub const ATTACKS: &str = "/usr/bin/observer-attacks";

/// Where util-linux's own programs lie inside, beside busybox's of the same names on PATH.
pub const UTIL_LINUX: &str = "/opt/util-linux";

static ROOTFS: OnceLock<PathBuf> = OnceLock::new();

/// The root directory. `attacks` is the helper's path on the host (`CARGO_BIN_EXE_observer-attacks`).
pub fn get(attacks: &Path) -> &'static Path {
    ROOTFS.get_or_init(|| build(attacks))
}

/// A tar of it, for `docker import` and `ctr image import`'s layers.
pub fn tar(attacks: &Path) -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        let root = get(attacks);
        let tar = scratch::dir().join("rootfs.tar");
        run(Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&tar).arg("."));
        tar
    })
}

fn build(attacks: &Path) -> PathBuf {
    let root = scratch::dir().join("rootfs");
    for dir in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "proc",
        "sys",
        "dev",
        "tmp",
        "etc",
        "root",
        "run",
        "var",
        "mnt",
    ] {
        fs::create_dir_all(root.join(dir)).expect("make the root");
    }
    // runc gives a tmpfs the mode of the directory that it covers, whatever its mount options say.
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))
        .expect("open /tmp to everybody");
    // Mount points for what tests bind in. They exist beforehand because the root is mounted read-only.
    for dir in ["ctl", "host", "vol", "scratch", "cg", "opt/util-linux"] {
        fs::create_dir_all(root.join(dir)).expect("make the root");
    }
    // Merged /usr, without which systemd-nspawn refuses the tree. Relative, so that copies below resolve inside.
    for dir in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{dir}"), root.join(dir)).expect("link into /usr");
    }
    fs::write(root.join("etc/os-release"), "ID=observer-live\nVERSION_ID=1\n").expect("os-release");
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
        .expect("passwd");
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n").expect("group");

    let busybox = which("busybox");
    fs::copy(&busybox, root.join("usr/bin/busybox")).expect("copy busybox");
    let list = Command::new(&busybox).arg("--list").output().expect("list busybox's applets");
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|applet| *applet != "busybox") {
        let link = root.join("usr/bin").join(applet);
        if !link.exists() {
            symlink("busybox", link).expect("link an applet");
        }
    }
    install(&root, attacks, ATTACKS);
    for tool in ["nsenter", "unshare", "setpriv"] {
        install(&root, &which(tool), &format!("{UTIL_LINUX}/{tool}"));
    }
    install(&root, &which("stress-ng"), "/usr/bin/stress-ng");
    root
}

/// Copies a program and the libraries that ldd names, at their own paths.
pub(crate) fn install(root: &Path, program: &Path, to: &str) {
    fs::copy(program, root.join(to.trim_start_matches('/')))
        .unwrap_or_else(|e| panic!("copy {}: {e}", program.display()));
    let ldd = Command::new("ldd").arg(program).output().expect("run ldd");
    for word in String::from_utf8_lossy(&ldd.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        let inside = root.join(word.trim_start_matches('/'));
        if inside.exists() {
            continue;
        }
        fs::create_dir_all(inside.parent().expect("a library's directory"))
            .expect("make a library's directory");
        fs::copy(word, &inside).unwrap_or_else(|e| panic!("copy {word}: {e}"));
    }
}

/// A program of the host, by PATH.
pub fn which(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(sbin)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed"))
}

/// Runs a command to its end and panics with its words if it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stdout}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout.trim_end().to_owned()
}
