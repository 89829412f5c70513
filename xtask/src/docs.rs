//! `cargo xtask docs`: the documents that observer prints about itself, kept in the repository for readers.

use crate::{
    build,
    setup::{self, Purpose},
    shell, vm,
};
use anyhow::{Context, Result, bail};
use std::{collections::HashSet, fs, io, process::Command};

#[derive(clap::Args)]
pub struct Args {
    /// Change nothing; fail if a document is not what observer prints
    #[arg(long)]
    check: bool,
}

/// What `observer docs KIND` takes, and where its output is kept.
const DOCUMENTS: [(&str, &str); 5] = [
    ("alert-schema", "docs/schema/alert.schema.json"),
    ("event-schema", "docs/schema/event.schema.json"),
    ("config-schema", "docs/schema/config.schema.json"),
    ("metrics", "docs/metrics.md"),
    ("rules", "docs/rules.md"),
];

pub fn verb(args: &Args) -> Result<()> {
    setup::ensure(Purpose::Build)?;
    build::quick()?;
    if args.check { check() } else { write() }
}

fn write() -> Result<()> {
    for (kind, path) in DOCUMENTS {
        put(path, generated(kind)?)?;
    }
    put(README, readme()?)
}

fn put(path: &str, text: String) -> Result<()> {
    if kept(path)?.as_ref() != Some(&text) {
        let file = shell::workspace().join(path);
        fs::create_dir_all(file.parent().expect("a document lies in a directory"))
            .and_then(|()| fs::write(&file, text))
            .with_context(|| path.to_owned())?;
        println!("{path}: written");
    }
    Ok(())
}

const README: &str = "README.md";
/// Between these lines of README stands the table of kernels, made of the runs on record.
const TABLE: (&str, &str) = ("<!-- made of docs/kernels.json by cargo xtask docs -->\n", "<!-- end -->");

fn readme() -> Result<String> {
    let text = kept(README)?.context("there is no README.md")?;
    let parts = text.split_once(TABLE.0).and_then(|(head, rest)| Some((head, rest.split_once(TABLE.1)?.1)));
    let (head, tail) = parts.context("README.md has no place for the table of kernels")?;
    Ok(format!("{head}{}\n{}\n{}{tail}", TABLE.0, vm::table()?, TABLE.1))
}

/// Needs the release build.
pub fn check() -> Result<()> {
    eprintln!("==> generated documents");
    let mut drifted = Vec::new();
    for (kind, path) in DOCUMENTS {
        if let Some(summary) = difference(kept(path)?.as_deref(), &generated(kind)?) {
            eprintln!("{path}: {summary}");
            drifted.push(path);
        }
    }
    if let Some(summary) = difference(kept(README)?.as_deref(), &readme()?) {
        eprintln!("{README}: {summary}");
        drifted.push(README);
    }
    if !drifted.is_empty() {
        bail!("{} drifted from what observer prints; run: cargo xtask docs", drifted.join(", "));
    }
    Ok(())
}

fn generated(kind: &str) -> Result<String> {
    // What it prints does not depend on how it was optimised.
    let observer = shell::target_dir().join("debug/observer");
    let output = Command::new(&observer)
        .args(["docs", kind])
        .output()
        .with_context(|| format!("cannot start {}", observer.display()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("observer docs {kind} fails: {}", words.lines().next_back().unwrap_or("it says nothing"));
    }
    if output.stdout.is_empty() {
        bail!("observer docs {kind} prints nothing");
    }
    String::from_utf8(output.stdout).with_context(|| format!("observer docs {kind} prints no UTF-8"))
}

fn kept(path: &str) -> Result<Option<String>> {
    match fs::read_to_string(shell::workspace().join(path)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.to_owned()),
    }
}

/// Enough to recognise the change by: how much, and where it begins.
fn difference(kept: Option<&str>, generated: &str) -> Option<String> {
    let Some(kept) = kept else { return Some("is missing".to_owned()) };
    if kept == generated {
        return None;
    }
    let lines_only_in = |a: &str, b: &str| {
        let b: HashSet<&str> = b.lines().collect();
        a.lines().filter(|line| !b.contains(line)).count()
    };
    let (mut has, mut wants) = (kept.lines(), generated.lines());
    let mut number = 0;
    let (has, wants) = loop {
        number += 1;
        match (has.next(), wants.next()) {
            (None, None) => break (None, None),
            (has, wants) if has != wants => break (has, wants),
            _ => {}
        }
    };
    let quoted = |line: Option<&str>| {
        line.map_or("the end of the file".to_owned(), |line| format!("`{}`", line.trim()))
    };
    Some(if (has, wants) == (None, None) {
        "differs in its line ends only".to_owned()
    } else {
        format!(
            "line {number} is {}, should be {} ({} lines to add, {} to remove)",
            quoted(has),
            quoted(wants),
            lines_only_in(generated, kept),
            lines_only_in(kept, generated),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn a_difference_names_its_first_line_and_its_size() {
        let cases = [
            (Some("a\nb\n"), "a\nb\n", None),
            (None, "a\n", Some("is missing")),
            (Some("a\nb\n"), "a\nc\nd\n", Some("line 2 is `b`, should be `c` (2 lines to add, 1 to remove)")),
            (
                Some("a\n"),
                "a\nb\n",
                Some("line 2 is the end of the file, should be `b` (1 lines to add, 0 to remove)"),
            ),
            (Some("a"), "a\n", Some("differs in its line ends only")),
        ];
        for (kept, generated, expected) in cases {
            assert_eq!(difference(kept, generated).as_deref(), expected, "{kept:?} against {generated:?}");
        }
    }
}
