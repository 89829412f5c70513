//! `cargo xtask test`

use crate::{
    bpf_toolchain, image,
    setup::{self, Purpose},
    shell::{self, step},
    vm,
};
use anyhow::{Result, bail};
use std::env;

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
        let mut tests = shell::cargo();
        // Kernel programs do not build for this machine; the live tests come below.
        tests.args(["test", "--workspace", "--exclude", "observer-ebpf", "--exclude", "observer-live"]);
        step("unit, golden and replay tests", tests.args(&args.filter))?;
    }
    if !args.unit && !args.vm {
        // What ships is what is tested: the static build, in the image and by itself.
        let image = image::prepare()?;
        let mut tests = shell::cargo();
        // One at a time: they count events, and share the machine's cgroups and runtimes.
        tests.args(["test", "-p", "observer-live", "--test", "live", "--", "--test-threads=1"]);
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
        step("live tests", &mut tests)?;
    }
    if args.vm || !args.unit && !args.live {
        other_kernels()?;
    }
    Ok(())
}

/// Two kernels: that the main job is done there. (`cargo xtask vm --all` runs everything
/// everywhere.)
fn other_kernels() -> Result<()> {
    if !bpf_toolchain::has_apt() {
        eprintln!("SKIPPED: other kernels: they come as Debian's packages, and there is no apt here");
        return Ok(());
    }
    vm::some(&["6.1", "6.12"], &["escape::", "nested::", "roots::"])
}
