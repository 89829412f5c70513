//! The kernels that virtual machines are booted with: Debian's cloud kernels, one per suite, by package name.
//!
//! Each suite gets an apt state of its own below `target/vm`.

use crate::{apt::Apt, shell};
use anyhow::{Context, Result, anyhow, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A kernel by its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    pub series: &'static str,
    /// The Debian suite that has it.
    pub suite: &'static str,
}

/// Oldest first.
pub const KERNELS: [Kernel; 4] = [
    Kernel { series: "5.10", suite: "bullseye" },
    Kernel { series: "6.1", suite: "bookworm" },
    Kernel { series: "6.12", suite: "trixie" },
    Kernel { series: "7.3", suite: "trixie-backports" },
];

pub fn by_series(series: &str) -> Result<Kernel, String> {
    KERNELS.into_iter().find(|kernel| kernel.series == series).ok_or_else(|| {
        format!("no kernel {series:?} here; there are {}", KERNELS.map(|kernel| kernel.series).join(", "))
    })
}

/// The package that depends on the suite's current kernel.
const NEWEST: &str = "linux-image-cloud-amd64";

impl Kernel {
    /// The kernel image, fetched if it is not here yet.
    pub fn image(self) -> Result<PathBuf> {
        let dir = shell::target_dir().join("vm/kernels").join(self.series);
        let image = dir.join("vmlinuz");
        if !image.is_file() {
            eprintln!("==> fetching Linux {} (Debian's cloud kernel in {})", self.series, self.suite);
            self.fetch(&dir, &image).with_context(|| format!("the kernel package of {}", self.suite))?;
        }
        Ok(image)
    }

    fn fetch(self, dir: &Path, image: &Path) -> Result<()> {
        let apt = Apt::new(&dir.join("apt"), &[self.suite])?;
        apt.run("apt-get", &["update"])?;
        let mut tried = Vec::new();
        let mut packages = vec![NEWEST.to_owned()];
        while let Some(package) = packages.pop() {
            let depends = apt.run("apt-cache", &["depends", &package])?;
            let names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
            // Newer kernels have their image in a package of its own, which the first one depends on.
            packages.extend(
                names
                    .filter(|name| ["linux-image-", "linux-binary-"].iter().any(|it| name.starts_with(it)))
                    .map(str::to_owned),
            );
            if package != NEWEST && take_image(&apt, &package, image)? {
                fs::remove_dir_all(&apt.dir)?;
                return Ok(());
            }
            tried.push(package);
        }
        bail!("none of {} holds a kernel image", tried.join(", "))
    }
}

/// Downloads a package and takes the kernel image out of it, if there is one in it.
fn take_image(apt: &Apt, package: &str, image: &Path) -> Result<bool> {
    apt.run("apt-get", &["download", package])?;
    let files = fs::read_dir(&apt.dir)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut debs = files.filter(|path| path.extension().is_some_and(|it| it == "deb"));
    let deb = debs.next().ok_or_else(|| anyhow!("apt-get download {package} left nothing"))?;
    let tree = apt.dir.join("tree");
    let _ = fs::remove_dir_all(&tree);
    let unpacked = Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&tree).status()?;
    fs::remove_file(&deb)?;
    if !unpacked.success() {
        bail!("dpkg-deb cannot unpack {package}");
    }
    let Some(found) = vmlinuz(&tree, 5) else { return Ok(false) };
    fs::copy(found, image)?;
    Ok(true)
}

/// The first file called vmlinuz or vmlinuz-VERSION.
fn vmlinuz(dir: &Path, depth: u32) -> Option<PathBuf> {
    let entries: Vec<PathBuf> =
        fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let named =
        |path: &&PathBuf| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("vmlinuz"));
    if let Some(found) = entries.iter().find(|path| named(path) && path.is_file()) {
        return Some(found.clone());
    }
    entries.iter().filter(|path| depth > 0 && path.is_dir()).find_map(|path| vmlinuz(path, depth - 1))
}
