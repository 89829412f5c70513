//! `observer completions`

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Global, NAME, VERSION};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: Args, _global: &Global) -> anyhow::Result<ExitCode> {
    // Into memory first: the generators panic if what they write to fails.
    io::stdout().lock().write_all(&script(args.shell))?;
    Ok(ExitCode::SUCCESS)
}

/// What the shell is to read.
fn script(shell: Shell) -> Vec<u8> {
    let whole = Cli::command();
    // The generators do not leave out what is hidden.
    let visible = whole.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    let mut command =
        Command::new(NAME).version(VERSION).args(whole.get_arguments().cloned()).subcommands(visible);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, NAME, &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_is_told_every_verb_and_its_options() {
        let command = Cli::command();
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell)).expect("UTF-8");
            assert!(!script.contains("docs"), "{shell}: a hidden verb");
            for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
                assert!(script.contains(verb.get_name()), "{shell}: {}", verb.get_name());
                for option in verb.get_arguments().filter_map(|argument| argument.get_long()) {
                    assert!(script.contains(option), "{shell}: {} --{option}", verb.get_name());
                }
            }
        }
    }
}
