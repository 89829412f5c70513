//! The kernels that virtual machines are booted with: Debian's cloud kernels, one per suite, by package name.
//!
//! Each suite gets an apt state of its own below `target/vm`, so that the machine's own package lists and choices
//! stay as they are. The mirror is the one that the machine's apt already uses.

use crate::shell;
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
        let apt = Apt::new(&dir.join("apt"), self.suite)?;
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
            if package != NEWEST && apt.take_image(&package, image)? {
                fs::remove_dir_all(&apt.dir)?;
                return Ok(());
            }
            tried.push(package);
        }
        bail!("none of {} holds a kernel image", tried.join(", "))
    }
}

/// apt with a state of its own, for one suite.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn new(dir: &Path, suite: &str) -> Result<Self> {
        let _ = fs::remove_dir_all(dir);
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(below))?;
        }
        fs::write(dir.join("sources.list"), format!("deb {} {suite} main\n", mirror()?))?;
        Ok(Apt { dir: dir.to_owned() })
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let option = |name: &str, value: &str| format!("-o{name}={}", self.dir.join(value).display());
        let output = Command::new(program)
            .args([option("Dir::Etc::SourceList", "sources.list"), option("Dir::State::Lists", "lists")])
            .arg(option("Dir::Cache", "cache"))
            .args(["-oDir::Etc::SourceParts=/dev/null", "-oAcquire::Languages=none", "-qq"])
            // Lists of icons and the like, and a user that may not write here.
            .args(["-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false", "-oAPT::Sandbox::User="])
            .args(args)
            .current_dir(&self.dir)
            .output()
            .with_context(|| format!("cannot start {program}"))?;
        if !output.status.success() {
            bail!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Downloads a package and takes the kernel image out of it, if there is one in it.
    fn take_image(&self, package: &str, image: &Path) -> Result<bool> {
        self.run("apt-get", &["download", package])?;
        let files = fs::read_dir(&self.dir)?.filter_map(|entry| Some(entry.ok()?.path()));
        let mut debs = files.filter(|path| path.extension().is_some_and(|it| it == "deb"));
        let deb = debs.next().ok_or_else(|| anyhow!("apt-get download {package} left nothing"))?;
        let tree = self.dir.join("tree");
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

/// Where this machine's apt gets Debian from.
fn mirror() -> Result<String> {
    let wanted = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = wanted.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or_default();
    let targets = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"])
        .output()
        .context("no apt here: virtual machines are booted with Debian's kernels")?;
    let targets = String::from_utf8_lossy(&targets.stdout).into_owned();
    let mirrors = targets.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (uri, release, component) = (words.next()?, words.next()?, words.next()?);
        (release == codename && component == "main").then(|| uri.to_owned())
    });
    let found: Option<String> = mirrors.into_iter().next();
    found.ok_or_else(|| anyhow!("apt's configuration names no archive of {codename:?} that has `main`"))
}
