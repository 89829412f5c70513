//! The command line: one file per verb.

mod agent;
mod audit;
mod caps;
mod check;
mod completions;
mod config;
mod docs;
mod inspect;
mod look;
mod man;
mod ns;
mod profile;
mod ps;
mod record;
mod replay;
mod run;
mod tail;
mod top;
mod tree;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    config::{Config, ConfigError},
    render,
    telemetry::log,
};

/// Watches containers with eBPF, and says when a process leaves the one it belongs to.
#[derive(Debug, Parser)]
#[command(name = NAME, version = VERSION)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

const NAME: &str = "observer";

/// With the commit, which the build script finds out.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("OBSERVER_GIT_COMMIT"), ")");

/// What every verb takes.
#[derive(Debug, clap::Args)]
pub struct Global {
    /// Configuration file; /etc/observer/observer.yaml if it exists and no other is given
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How much observer says about itself on stderr
    #[arg(long, global = true, value_name = "LEVEL", value_enum, default_value_t = log::Level::Info)]
    log_level: log::Level,
}

impl Global {
    /// The file that was named.
    pub fn config_path(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The configuration that these options name.
    pub fn config(&self) -> Result<Config, ConfigError> {
        Config::load(self.config.as_deref())
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Watch this machine, and write alerts to stdout
    Run(run::Args),
    /// Show alerts or events as they come
    Tail(tail::Args),
    /// List the containers of this host
    Ps(ps::Args),
    /// Show the processes of the containers as a tree
    Tree(tree::Args),
    /// Explain one container: everything about it on one page
    Inspect(inspect::Args),
    /// Say what speaks against the way containers are set up
    Audit(audit::Args),
    /// Show which containers share which namespaces
    Ns(ns::Args),
    /// Show what every container uses, as it changes
    Top(top::Args),
    /// Show what this kernel and these privileges allow, hook by hook
    Check(check::Args),
    /// Record what the pipeline is given, for `replay`
    Record(record::Args),
    /// Run the pipeline on a recording
    Replay(replay::Args),
    /// Check a configuration, or print the default one
    Config(config::Args),
    /// Explain a mask of capabilities, or make one of names
    ///
    /// A mask, as /proc/PID/status shows it (CapEff and others), is explained capability by capability and held
    /// against what docker gives a container that asks for nothing. Names alone give their mask; names and masks
    /// together are joined and explained. Without either, all capabilities are listed.
    Caps(caps::Args),
    /// Make a seccomp profile, or the least set of capabilities, of what a container was seen to do
    ///
    /// The agent must run, with audit.syscalls or audit.seccomp for the one and audit.capabilities for the other. What the
    /// container has not done since the agent knows it is not in it: let it do all its work first.
    Profile(profile::Args),
    /// Print what a shell needs to complete verbs and options
    ///
    /// For bash: observer completions bash > /usr/share/bash-completion/completions/observer. For zsh, into a file
    /// _observer in a directory of $fpath; for fish, into ~/.config/fish/completions/observer.fish.
    Completions(completions::Args),
    /// Print a manual page, or write all of them
    ///
    /// Pages are in roff, as man(1) reads it: observer man tail | man -l -. To install them:
    /// observer man --out /usr/share/man/man8
    Man(man::Args),
    /// Print documents made from what observer is made of
    #[command(hide = true)]
    Docs(docs::Args),
}

/// Exit codes: 0 fine, 1 failed, 2 usage or configuration.
const FAILED: u8 = 1;
const BAD_USAGE: u8 = 2;

/// The whole program.
pub fn main() -> ExitCode {
    let Cli { global, verb } = Cli::parse();
    log::set_level(global.log_level);
    let result = match verb {
        Verb::Run(args) => run::run(args, &global),
        Verb::Tail(args) => tail::run(args, &global),
        Verb::Ps(args) => ps::run(args, &global),
        Verb::Tree(args) => tree::run(args, &global),
        Verb::Inspect(args) => inspect::run(args, &global),
        Verb::Audit(args) => audit::run(args, &global),
        Verb::Ns(args) => ns::run(args, &global),
        Verb::Top(args) => top::run(args, &global),
        Verb::Check(args) => check::run(args, &global),
        Verb::Record(args) => record::run(args, &global),
        Verb::Replay(args) => replay::run(args, &global),
        Verb::Config(args) => config::run(args, &global),
        Verb::Caps(args) => caps::run(args, &global),
        Verb::Profile(args) => profile::run(args, &global),
        Verb::Completions(args) => completions::run(args, &global),
        Verb::Man(args) => man::run(args, &global),
        Verb::Docs(args) => docs::run(args, &global),
    };
    result.unwrap_or_else(|error| ExitCode::from(failed(&error)))
}

/// A mistake on the command line that only its verb can see; exits with 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Tells why, and returns the code to exit with.
fn failed(error: &anyhow::Error) -> u8 {
    // Whoever read our output has seen enough, as in `observer tail | head`.
    if error.chain().any(is_broken_pipe) {
        return 0;
    }
    // (`eprintln!` would panic if nobody listens.)
    let _ = writeln!(io::stderr(), "observer: {}", render::escape(&in_one_line(error)));
    let usage =
        |cause: &(dyn std::error::Error + 'static)| cause.is::<ConfigError>() || cause.is::<UsageError>();
    if error.chain().any(usage) { BAD_USAGE } else { FAILED }
}

fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// An error and its causes; one that quotes its cause already is not followed by it again.
fn in_one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = io::Error::other("no room");
        let error = anyhow::Error::new(cause).context("map m: no room").context("cannot start");
        assert_eq!(in_one_line(&error), "cannot start: map m: no room");
    }

    #[test]
    fn exit_codes_tell_usage_from_failure() {
        let config = Config::load(Some("/nonexistent".as_ref())).expect_err("no such file");
        assert_eq!(failed(&anyhow::Error::new(config).context("start")), 2);
        assert_eq!(failed(&anyhow::Error::new(UsageError("no such thing".into())).context("caps")), 2);
        assert_eq!(failed(&anyhow::anyhow!("x")), 1);
        assert_eq!(failed(&anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe))), 0);
    }
}
