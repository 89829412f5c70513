//! A small Debian with systemd, on a disk image: made of its packages, once for each release.

use crate::{
    apt,
    shell::{self, step},
    vm::kernels::Kernel,
};
use anyhow::{Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub struct System {
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub disk: PathBuf,
}

/// Besides what every Debian has.
const PACKAGES: [&str; 8] =
    ["systemd-sysv", "dbus", "udev", "initramfs-tools", "zstd", "runc", "busybox-static", "curl"];

/// In its initramfs nothing but what the disk takes: unpacking is slow under emulation.
const EARLY: &str = "\
mkdir -p \"$1/etc/initramfs-tools/conf.d\"
echo MODULES=list >\"$1/etc/initramfs-tools/conf.d/observer-test\"
printf '%s\\n' virtio_pci virtio_blk ext4 >\"$1/etc/initramfs-tools/modules\"
";

/// How its job is started: when all else has been.
const LATE: &str = include_str!("system.sh");

pub fn prepare(kernel: Kernel) -> Result<System> {
    let dir = super::dir().join(kernel.series);
    let file = |name: &str| dir.join(name);
    let system = System { kernel: file("vmlinuz"), initrd: file("initrd.img"), disk: file("system.ext2") };
    // A command for a shell, whose $1 is the root directory.
    let hook = |when: &str, name: &str| format!("--{when}-hook=sh '{}' \"$1\"", file(name).display());
    let arguments = vec![
        "--quiet".to_owned(),
        "--variant=apt".to_owned(),
        format!("--include={}", PACKAGES.join(",")),
        "--aptopt=Acquire::Languages \"none\"".to_owned(),
        "--dpkgopt=path-exclude=/usr/share/man/*".to_owned(),
        hook("essential", "early.sh"),
        hook("customize", "late.sh"),
        "--customize-hook=download /vmlinuz vmlinuz".to_owned(),
        "--customize-hook=download /initrd.img initrd.img".to_owned(),
        "--include=linux-image-cloud-amd64".to_owned(),
    ];
    let recipe = format!("{}\n{EARLY}{LATE}", arguments.join("\n"));
    if fs::read_to_string(file("recipe")).is_ok_and(|have| have == recipe) {
        return Ok(system);
    }
    eprintln!("==> making a Debian {} with Linux {}; takes some minutes", kernel.suite, kernel.series);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    fs::write(file("early.sh"), EARLY)?;
    fs::write(file("late.sh"), LATE)?;
    let mut make = Command::new("mmdebstrap");
    make.current_dir(&dir).args(arguments).arg(kernel.suite).arg("system.ext2");
    make.arg(apt::source(kernel.suite)?);
    step("a Debian of its packages", make.stdin(Stdio::null()).stdout(Stdio::null()))?;
    grow(&system.disk)?;
    fs::write(file("recipe"), recipe)?;
    Ok(system)
}

/// It is as full as can be.
fn grow(disk: &Path) -> Result<()> {
    let tool = |name: &str| Command::new(shell::find(name).unwrap_or_else(|| name.into()));
    let mut check = tool("e2fsck");
    // 1: there was something, and it is mended.
    let code =
        check.args(["-f", "-y"]).arg(disk).stdout(Stdio::null()).stderr(Stdio::null()).status()?.code();
    if !matches!(code, Some(0 | 1)) {
        bail!("e2fsck finds {} damaged ({code:?})", disk.display());
    }
    step(
        "room on the disk",
        tool("resize2fs").arg(disk).arg("2G").stdout(Stdio::null()).stderr(Stdio::null()),
    )
}
