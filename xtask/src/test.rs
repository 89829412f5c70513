//! `cargo xtask test`

use crate::{
    bpf_toolchain, build, image,
    setup::{self, Purpose},
    shell::{self, step},
};
use anyhow::{Context, Result, bail};
use std::{
    env,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};

#[derive(clap::Args)]
pub struct Args {
    /// Run only tests whose name contains this
    filter: Option<String>,
    /// Only the tests that need neither root nor eBPF: unit, golden and replay
    #[arg(long, conflicts_with = "live")]
    unit: bool,
    /// Only the live tests
    #[arg(long)]
    live: bool,
    /// Only live tests on other kernels, in virtual machines
    #[arg(long, conflicts_with_all = ["live", "unit"])]
    vm: bool,
}

pub fn verb(args: &Args) -> Result<()> {
    setup::ensure(if args.unit { Purpose::Build } else { Purpose::Test })?;
    if !args.live && !args.vm {
        // Without the live tests, which come below.
        step("unit, golden and replay tests", build::tests().args(&args.filter))?;
    }
    if !args.unit && !args.vm {
        // What ships is what is tested: the static build, in the image and by itself.
        let image = image::prepare()?;
        // Machines wait most of their time, as the tests here do: both at once.
        let machines = if args.live { None } else { Machines::start()? };
        let mut tests = build::tests();
        // One at a time: they count events, and share the machine's cgroups and runtimes.
        tests.args(["--test", "live", "--", "--test-threads=1"]);
        tests.args(&args.filter).env("OBSERVER_BIN", image.join("observer"));
        tests.env("OBSERVER_IMAGE", image);
        if !shell::is_root() {
            // Only the test program runs as root, so that no file in target/ becomes root's.
            if shell::find("sudo").is_none() {
                bail!("root is needed for the live tests, and there is no sudo here; --unit leaves them out");
            }
            eprintln!("Root is needed for the live tests; asking sudo.");
            let runner =
                format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", env::consts::ARCH.to_uppercase());
            tests.env(runner, "sudo --preserve-env=OBSERVER_BIN,OBSERVER_IMAGE,RUST_BACKTRACE,CI --");
        }
        let live = step("live tests", &mut tests);
        let others = machines.map_or(Ok(()), Machines::end);
        live.and(others)?;
    }
    if args.vm
        && let Some(machines) = Machines::start()?
    {
        machines.end()?;
    }
    Ok(())
}

/// Two kernels: that the main job is done there. (`cargo xtask vm --all` runs everything everywhere.)
struct Machines {
    child: Child,
    /// What it says, in one piece when it has ended.
    log: PathBuf,
    started: Instant,
}

impl Machines {
    /// None, and that is said, where there is nothing to boot.
    fn start() -> Result<Option<Self>> {
        if !bpf_toolchain::has_apt() {
            eprintln!("SKIPPED: other kernels: they come as Debian's packages, and there is no apt here");
            return Ok(None);
        }
        setup::ensure(Purpose::Vm)?;
        let log = shell::target_dir().join("vm/other-kernels.log");
        fs::create_dir_all(shell::target_dir().join("vm"))?;
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        // Behind everything else: emulation takes all that it can get.
        let mut command = Command::new("nice");
        command
            .args(["-n", "19"])
            .arg(env::current_exe()?)
            .args(["vm", "--kernel", "6.1", "--kernel", "6.12"]);
        command.args(["--", "escape::", "nested::", "roots::"]);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        eprintln!("==> other kernels, meanwhile");
        let child = command.spawn().context("cannot start nice")?;
        Ok(Some(Machines { child, log, started: Instant::now() }))
    }

    fn end(mut self) -> Result<()> {
        let status = self.child.wait()?;
        eprintln!("==> other kernels: {:.0} s", self.started.elapsed().as_secs_f64());
        eprint!("{}", String::from_utf8_lossy(&fs::read(&self.log)?));
        if !status.success() {
            bail!("other kernels failed ({status})");
        }
        Ok(())
    }
}
