//! Alerts and events for a person at a terminal. Everything that an attacker can choose (names, arguments, paths)
//! passes through [`Untrusted`]: a terminal obeys what it is sent.

mod alert;
mod audit;
mod deeds;
mod escape;
mod event;
mod inspect;
mod ns;
mod ps;
mod table;
pub mod top;
mod tree;
pub mod words;

use std::{
    fmt::{self, Display, Write as _},
    io::IsTerminal,
};

use anstyle::{AnsiColor, Style};

pub use alert::alert;
pub use audit::audit;
pub use deeds::deeds;
pub use escape::{Untrusted, escape, escape_bytes};
pub use event::event;
pub use inspect::{Page, inspect, process};
pub use ns::ns;
pub use ps::{Risk, ps};
pub use table::{Cell, Column, Surface, Table};

pub use tree::tree;

use crate::model::{Ancestor, ContainerRef, PathSource, ProcessRef, Severity};

/// Whether to colour. What is said never depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colours {
    on: bool,
}

impl Colours {
    pub const ON: Colours = Colours { on: true };
    pub const OFF: Colours = Colours { on: false };

    /// On for a terminal that knows colours, unless the user refuses them (<https://no-color.org>).
    pub fn of(stream: &impl IsTerminal) -> Colours {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Colours { on: stream.is_terminal() && !refused && !dumb }
    }

    fn style(self, style: Style) -> Style {
        if self.on { style } else { Style::new() }
    }

    fn severity(self, severity: Severity) -> Style {
        self.style(match severity {
            Severity::Info => AnsiColor::Green.on_default(),
            Severity::Notice => AnsiColor::Cyan.on_default(),
            Severity::Warning => AnsiColor::Yellow.on_default().bold(),
            Severity::Critical => AnsiColor::Red.on_default().bold(),
        })
    }

    fn strong(self) -> Style {
        self.style(Style::new().bold())
    }

    fn faint(self) -> Style {
        self.style(Style::new().dimmed())
    }
}

/// The line that stands where others are missing.
pub fn missed(count: u64, colours: Colours) -> String {
    let style = colours.severity(Severity::Warning);
    let lines = if count == 1 { "line" } else { "lines" };
    format!("{style}... {count} {lines} missed here: the reader was too slow{style:#}\n")
}

/// `web (3f2a9c1b0d4e)`; the id is cut as docker cuts it, and for a pod its own name comes first.
struct Container<'a>(Option<&'a ContainerRef>);

impl Display for Container<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(container) = self.0 else { return f.write_str("host") };
        // `ns-4026532001` says nothing when cut.
        let bound = if container.id.starts_with("ns-") { 24 } else { SHORT_ID };
        let end = container.id.char_indices().nth(bound).map_or(container.id.len(), |(at, _)| at);
        let short = escape(&container.id[..end]);
        match (&container.pod, &container.name) {
            (Some(pod), _) => write!(
                f,
                "{}/{}/{} ({short})",
                Untrusted(&pod.namespace, NAME),
                Untrusted(&pod.name, NAME),
                Untrusted(&pod.container, NAME)
            ),
            (None, Some(name)) => write!(f, "{} ({short})", Untrusted(name, NAME)),
            (None, None) => f.write_str(&short),
        }
    }
}

/// Digits of an id that are enough for people, as docker has it.
const SHORT_ID: usize = 12;

/// Bounds, in characters: what is longer ends in an ellipsis.
const NAME: usize = 64;
const COMM: usize = 16;
const PATH: usize = 256;
const MESSAGE: usize = 1024;
const COMMAND: usize = 200;
/// Ancestors shown: the way up to a container's init is rarely longer.
const ANCESTORS: usize = 8;

/// `nsenter[1234]`, or `nsenter[1234/1236]` for a thread that is not the leader.
fn process_name(process: &ProcessRef) -> String {
    let comm = Untrusted(&process.comm, COMM);
    if process.tid == process.pid {
        format!("{comm}[{}]", process.pid)
    } else {
        format!("{comm}[{}/{}]", process.pid, process.tid)
    }
}

fn ancestor_name(ancestor: &Ancestor) -> String {
    format!("{}[{}]", Untrusted(&ancestor.comm, COMM), ancestor.pid)
}

/// ` <- sh[1200] <- sleep[1100]`
fn lineage(ancestors: &[Ancestor]) -> String {
    let mut text = String::new();
    for ancestor in ancestors.iter().take(ANCESTORS) {
        let _ = write!(text, " <- {}", ancestor_name(ancestor));
    }
    if ancestors.len() > ANCESTORS {
        let _ = write!(text, " <- {} more", ancestors.len() - ANCESTORS);
    }
    text
}

/// The arguments as a shell would need them typed, near enough for a reader: quoted where a blank, a quote or
/// nothing at all would mislead.
fn command(args: &[String]) -> String {
    let mut text = String::new();
    for arg in args {
        // Everything beyond the bound is cut off below anyhow.
        if text.len() > COMMAND * 4 {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        if arg.is_empty() || arg.contains(|c: char| c.is_whitespace() || c == '\'' || c == '"') {
            text.push('\'');
            text.push_str(&arg.replace('\'', r"'\''"));
            text.push('\'');
        } else {
            text.push_str(arg);
        }
    }
    Untrusted(&text, COMMAND).to_string()
}

/// What to say behind a path that only its caller vouches for.
fn whose_word(source: Option<PathSource>) -> &'static str {
    match source {
        Some(PathSource::Caller) => " (the caller's word)",
        Some(PathSource::Kernel) | None => "",
    }
}

/// A path; the 64 digits of a container's id in it are cut as everywhere else.
fn path(path: &str) -> String {
    Untrusted(&cut_ids(path), PATH).to_string()
}

fn cut_ids(path: &str) -> String {
    const ID: usize = 64;
    let mut short = String::new();
    let mut rest = path;
    while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let (before, digits) = rest.split_at(start);
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        short.push_str(before);
        if end == ID {
            short.push_str(&digits[..SHORT_ID]);
            short.push('…');
        } else {
            short.push_str(&digits[..end]);
        }
        rest = &digits[end..];
    }
    short.push_str(rest);
    short
}

/// Times of day are read by the millisecond; the JSON has all nine digits.
fn short_time(time: &str) -> String {
    let whole = time.is_ascii() && time.len() == 30 && time.ends_with('Z');
    match time.get(..23).filter(|_| whole) {
        Some(cut) => format!("{}Z", escape(cut)),
        None => Untrusted(time, NAME).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted_where_it_matters_and_bounded() {
        let args = |args: &[&str]| command(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        assert_eq!(args(&["sh", "-c", "echo hi", "", "it's"]), r"sh -c 'echo hi' '' 'it'\''s'");
        assert_eq!(args(&["a\x1b[2J"]), r"a\x1b[2J");
        assert!(args(&["x".repeat(5000).as_str(); 50]).chars().count() <= COMMAND + 1);
    }

    #[test]
    fn ids_in_paths_are_cut() {
        let id = "3f2a9c1b0d4e5f60".repeat(4);
        assert_eq!(path(&format!("/docker/{id}/abc")), "/docker/3f2a9c1b0d4e…/abc");
        assert_eq!(path(&format!("/s/docker-{id}.scope")), "/s/docker-3f2a9c1b0d4e….scope");
        assert_eq!(path("/docker/3f2a9c1b0d4e"), "/docker/3f2a9c1b0d4e");
        assert_eq!(path(&format!("/{id}a")), format!("/{id}a"));
        assert_eq!(path(""), "");
    }

    #[test]
    fn a_time_of_another_shape_is_shown_as_it_is() {
        assert_eq!(short_time("2026-01-02T03:04:05.123456789Z"), "2026-01-02T03:04:05.123Z");
        assert_eq!(short_time("yesterday"), "yesterday");
        assert_eq!(short_time("\u{1b}[31m"), r"\x1b[31m");
    }
}
