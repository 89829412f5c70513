//! `observer man`

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::{Cli, Global, NAME, UsageError, VERSION};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Verb whose page to print, such as `tail` or `config check`; without one, that of observer as a whole
    verb: Vec<String>,
    /// Write all pages into this directory instead, which is made if it is not there
    #[arg(long, value_name = "DIR", conflicts_with = "verb")]
    out: Option<PathBuf>,
}

pub fn run(args: Args, _global: &Global) -> anyhow::Result<ExitCode> {
    let command = command();
    match args.out {
        Some(directory) => write_all(&command, &directory)?,
        None => io::stdout().lock().write_all(&page(find(&command, &args.verb)?)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// System administration commands, with daemons.
const SECTION: &str = "8";

/// What man(1) expects and the command line does not say of itself.
const EXIT_STATUS: &str = "\
.SH \"EXIT STATUS\"
.TP
0
All is well, or whoever read the output had seen enough.
.TP
1
It failed, or what was asked about is not well.
.TP
2
The command line or the configuration is wrong.
";

/// The whole command line, without clap's own `help`, which has no page.
fn command() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// The verb of this name, and what is below it, without what is hidden from users.
fn verbs(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|verb| !verb.is_hide_set())
}

fn find<'a>(command: &'a Command, path: &[String]) -> Result<&'a Command, UsageError> {
    path.iter().try_fold(command, |command, word| {
        verbs(command).find(|verb| verb.get_name() == word).ok_or_else(|| {
            let names: Vec<&str> = verbs(command).map(Command::get_name).collect();
            let of = command.get_bin_name().unwrap_or(NAME);
            UsageError(if names.is_empty() {
                format!("`{of}` has no verbs of its own, such as `{word}`: expected nothing more")
            } else {
                format!("`{of}` has no verb `{word}`, expected one of `{}`", names.join("`, `"))
            })
        })
    })
}

/// A page in roff.
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone()).section(SECTION).source(format!("{NAME} {VERSION}")).render(&mut page)?;
    page.extend_from_slice(EXIT_STATUS.as_bytes());
    Ok(page)
}

/// `observer-config-check.8`
fn file_name(command: &Command) -> String {
    format!("{}.{SECTION}", command.get_display_name().unwrap_or_else(|| command.get_name()))
}

/// The pages of a command and of all that is below it.
fn write_all(command: &Command, directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let path = directory.join(file_name(command));
    fs::write(&path, page(command)?).with_context(|| path.display().to_string())?;
    verbs(command).try_for_each(|verb| write_all(verb, directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_a_page_that_begins_as_one() {
        let command = command();
        let mut names = Vec::new();
        let mut left = vec![&command];
        while let Some(command) = left.pop() {
            left.extend(verbs(command));
            let page = String::from_utf8(page(command).expect("in memory")).expect("UTF-8");
            let name = file_name(command);
            // roff(7): a conditional that defines quotes, then the title.
            assert!(page.starts_with(".ie ") || page.starts_with(".TH "), "{name}: {page}");
            let title = page.lines().find(|line| line.starts_with(".TH ")).expect("a title");
            let display = name.trim_end_matches(".8");
            assert!(title.starts_with(&format!(".TH {display} 8 ")), "{title}");
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "\"EXIT STATUS\""] {
                assert_eq!(page.matches(&format!(".SH {section}\n")).count(), 1, "{name}: {section}");
            }
            names.push(name);
        }
        for expected in ["observer.8", "observer-run.8", "observer-caps.8", "observer-config-check.8"] {
            assert!(names.iter().any(|name| name == expected), "{names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("help") || name.contains("docs")), "{names:?}");
    }

    #[test]
    fn verbs_are_found_by_their_words() {
        let command = command();
        let found = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            find(&command, &words).map(file_name).map_err(|error| error.to_string())
        };
        assert_eq!(found(&[]), Ok("observer.8".into()));
        assert_eq!(found(&["config", "check"]), Ok("observer-config-check.8".into()));
        assert_eq!(
            found(&["config", "chekc"]),
            Err("`observer config` has no verb `chekc`, expected one of `check`, `default`, `schema`".into())
        );
        assert!(found(&["docs"]).is_err_and(|error| error.contains("`caps`")), "hidden");
        assert!(found(&["caps", "x"]).is_err_and(|error| error.ends_with("expected nothing more")));
    }
}
