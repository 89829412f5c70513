//! `cargo xtask VERB`: everything about observer that is not observer itself. One file per verb.

mod apt;
mod bench;
mod bpf_toolchain;
mod build;
mod ci;
mod demo;
mod deploy_check;
mod docs;
mod image;
mod package;
mod run;
mod setup;
mod shell;
mod test;
mod vm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Set up, build, run and test observer.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing on this machine
    Setup(setup::Args),
    /// Build observer, kernel programs and all
    Build(build::Args),
    /// Build observer and run it as root
    Run(run::Args),
    /// Run the tests: first those that need no kernel, then the live ones, as root
    Test(test::Args),
    /// Check formatting, lints, documentation and the generated documents
    Ci,
    /// Write the documents that observer generates about itself
    Docs(docs::Args),
    /// Check the chart, the manifests, the rules for Prometheus and the dashboard
    DeployCheck(deploy_check::Args),
    /// Build the static agent for the container image
    Image(image::Args),
    /// Build the Debian package, and try it on a Debian that runs systemd, in a virtual machine
    Package(package::Args),
    /// Watch a container break out, and observer explain it
    Demo(demo::Args),
    /// Measure what observer costs, and how fast it is, against its bounds
    Bench(bench::Args),
    /// Run the live tests on other kernels, in small virtual machines
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Setup(args) => setup::verb(&args),
        Verb::Build(args) => build::verb(&args),
        Verb::Run(args) => run::verb(&args),
        Verb::Test(args) => test::verb(&args),
        Verb::Ci => ci::verb(),
        Verb::Docs(args) => docs::verb(&args),
        Verb::DeployCheck(args) => deploy_check::verb(&args),
        Verb::Image(args) => image::verb(&args),
        Verb::Package(args) => package::verb(&args),
        Verb::Demo(args) => demo::verb(&args),
        Verb::Bench(args) => bench::verb(&args),
        Verb::Vm(args) => vm::verb(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
