//! `cargo xtask package`: the Debian package, and a Debian that runs systemd to try it on.

mod debs;
mod system;

use crate::{
    demo::container::specification,
    setup::{self, Purpose},
    shell::{self, step},
    vm::{
        boot::{Disk, Machine, Outcome},
        kernels::{self, Kernel},
    },
};
use anyhow::{Context, Result, bail};
use debs::Debs;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use system::System;

#[derive(clap::Args)]
pub struct Args {
    /// The kernel's series, and with it Debian's release: 6.1 is bookworm's; may be given several times
    #[arg(long = "kernel", value_name = "SERIES", value_parser = by_series, default_value = "6.1")]
    kernels: Vec<Kernel>,
    /// Only build the package
    #[arg(long, conflicts_with = "kernels")]
    build: bool,
}

/// The releases on which all of it was seen to hold. bullseye has a runc that cannot enter containers as those here are.
fn by_series(series: &str) -> Result<Kernel, String> {
    let kernel = kernels::by_series(series)?;
    if ["bookworm", "trixie"].contains(&kernel.suite) {
        Ok(kernel)
    } else {
        Err(format!("not on {}; there are 6.1 (bookworm) and 6.12 (trixie)", kernel.suite))
    }
}

/// What the machine does, and holds against what must be.
const JOB: &str = include_str!("package/job.sh");

/// For each start of a machine; the first takes half of this on an idle machine.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// What the job says at the end of a start that is to be followed by another one.
const AGAIN: &str = "again";
const MOST_STARTS: usize = 3;

pub fn verb(args: &Args) -> Result<()> {
    setup::ensure(Purpose::Package)?;
    fs::create_dir_all(dir())?;
    if args.build {
        println!("{}", debs::release()?.display());
        return Ok(());
    }
    let debs = debs::build()?;
    let job = job(&debs)?;
    let mut failed = Vec::new();
    for kernel in &args.kernels {
        let name = format!("{} (Linux {})", kernel.suite, kernel.series);
        eprintln!("==> Debian {name}, emulated");
        match run(*kernel, &job) {
            Ok(said) => eprintln!("==> Debian {name}: {said}"),
            Err(error) => {
                eprintln!("Debian {name}: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed on Debian {}", failed.join(", "));
    }
    println!("{}", debs.first.display());
    Ok(())
}

fn dir() -> PathBuf {
    shell::target_dir().join("package")
}

/// What the machine is given, as an archive that it reads from a disk.
fn job(debs: &Debs) -> Result<PathBuf> {
    let files = dir().join("job");
    let _ = fs::remove_dir_all(&files);
    fs::create_dir_all(&files)?;
    fs::write(files.join("job.sh"), JOB)?;
    for (deb, name) in [(&debs.first, "first"), (&debs.second, "second"), (&debs.third, "third")] {
        fs::copy(deb, files.join(name).with_extension("deb")).with_context(|| deb.display().to_string())?;
    }
    // Three that are allowed too much: by runc's own cgroup, by a scope that systemd makes, and in a service.
    for (name, cgroup) in
        [("web", json!("/web")), ("shop", json!("system.slice:runc:shop")), ("mail", json!(null))]
    {
        let mut config = specification(name);
        config["linux"]["cgroupsPath"] = cgroup;
        // Longer than the machine runs.
        config["process"]["args"] = json!(["sleep", "100000"]);
        fs::write(files.join(name).with_extension("json"), config.to_string())?;
    }
    let archive = dir().join("job.tar");
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(&archive).arg("--directory").arg(&files).arg(".");
    step("what the machine is given", &mut tar)?;
    Ok(archive)
}

/// Starts the machine until its job is done; how it went, for people.
fn run(kernel: Kernel, job: &Path) -> Result<String> {
    let system = system::prepare(kernel)?;
    let mut outcomes = starts(kernel, &system, job)?;
    for _ in 0..2 {
        if outcomes.iter().any(Outcome::failed_emulation) {
            eprintln!("==> the emulator stumbled over code that the kernel changed meanwhile; once more");
            outcomes = starts(kernel, &system, job)?;
        }
    }
    let lines = outcomes.iter().flat_map(|outcome| &outcome.lines);
    let (mut held, mut failed) = (0, 0);
    for line in lines {
        held += u32::from(line.starts_with("ok "));
        failed += u32::from(line.starts_with("FAILED "));
    }
    let took: Duration = outcomes.iter().map(|outcome| outcome.took).sum();
    let said = format!(
        "{held} held, {failed} failed, {:.0} s; logs in {}",
        took.as_secs_f64(),
        logs(kernel).display()
    );
    match outcomes.last().and_then(|outcome| outcome.code) {
        Some(0) if failed == 0 && held > 0 => Ok(said),
        Some(_) => bail!("{said}"),
        None => bail!("the machine ended before its job was done: {said}"),
    }
}

fn logs(kernel: Kernel) -> PathBuf {
    dir().join("logs").join(kernel.series)
}

/// All starts of one machine, on one fresh disk.
fn starts(kernel: Kernel, system: &System, job: &Path) -> Result<Vec<Outcome>> {
    let disk = dir().join("running.ext2");
    // With its holes, which are most of it.
    step("a fresh disk", Command::new("cp").arg("--sparse=always").arg(&system.disk).arg(&disk))?;
    let _ = fs::remove_dir_all(logs(kernel));
    let mut outcomes = Vec::new();
    while outcomes.len() < MOST_STARTS {
        let machine = Machine {
            kernel: &system.kernel,
            image: &system.initrd,
            disks: &[
                Disk { name: "system", file: &disk, read_only: false },
                Disk { name: "job", file: job, read_only: true },
            ],
            append: "root=/dev/disk/by-id/virtio-system rootfstype=ext4 rw systemd.show_status=no".to_owned(),
            logs: &logs(kernel).join(format!("start-{}", outcomes.len() + 1)),
            limit: LIMIT,
            files: ["commands.txt", "journal.txt"],
        };
        let outcome = machine.run()?;
        let again = outcome.lines.last().is_some_and(|line| line == AGAIN);
        outcomes.push(outcome);
        if !again {
            break;
        }
    }
    fs::remove_file(&disk)?;
    Ok(outcomes)
}
