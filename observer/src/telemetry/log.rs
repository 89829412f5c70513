//! The agent's own log: lines on stderr, `2026-01-02T03:04:05.123456Z info armed hooks=13 took_ms=240`.
//!
//! `log::warn!("events were lost", count = n, reason)`: a message, then values by name. The message is the program's
//! own; every value may come from outside and is escaped.
//!
//! A line never waits: the pipeline logs too, and a reader of stderr that has stopped reading (a paused pager) must
//! not stop it. What stderr cannot take at once is dropped, counted, and told with the next line that it takes.

use std::{
    fmt::{Display, Write as _},
    io::Write as _,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
};

use crate::render;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[repr(u8)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines of this level and of those that matter more are written.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

pub fn enabled(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// What a pipe that polls as writable takes without blocking, and as one piece (PIPE_BUF).
const MAX_LINE: usize = 4096;

/// Writes one line. The macros below ask [`enabled`] first.
pub fn write(level: Level, message: &str, values: &[(&str, &dyn Display)]) {
    if !stderr_takes_a_line() {
        DROPPED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    let mut lines = String::new();
    if dropped > 0 {
        lines = line(Level::Warn, "log lines were dropped: stderr took no more", &[("count", &dropped)]);
    }
    lines.push_str(&line(level, message, values));
    // There is nowhere left to say that stderr is closed.
    let _ = std::io::stderr().write_all(lines.as_bytes());
}

fn line(level: Level, message: &str, values: &[(&str, &dyn Display)]) -> String {
    let now = jiff::Timestamp::now();
    let mut line = format!("{now:.6} {} {}", level.name(), render::escape(message));
    for (name, value) in values {
        let value = value.to_string();
        let bare = !value.is_empty() && !value.contains([' ', '"', '=', '\\']);
        let value = render::escape(&value);
        let _ = if bare && !value.contains('\\') {
            write!(line, " {name}={value}")
        } else {
            write!(line, " {name}=\"{}\"", quoted(&value))
        };
    }
    // Room for the line about dropped ones.
    let bound = MAX_LINE - 256;
    if line.len() > bound {
        line.truncate(line.floor_char_boundary(bound));
        line.push('…');
    }
    line.push('\n');
    line
}

/// Quotes inside quotes; the backslashes of escapes stay as they are.
fn quoted(value: &str) -> String {
    value.replace('"', "\\\"")
}

fn stderr_takes_a_line() -> bool {
    let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid structure that outlives the call, which does not wait.
    let ready = unsafe { libc::poll(&raw mut stderr, 1, 0) };
    // An error of poll itself is no reason to be silent.
    ready != 0
}

macro_rules! at_level {
    ($level:ident, $message:expr $(, $name:ident $(= $value:expr)?)* $(,)?) => {
        if $crate::telemetry::log::enabled($crate::telemetry::log::Level::$level) {
            $crate::telemetry::log::write(
                $crate::telemetry::log::Level::$level,
                &$message,
                &[$((stringify!($name), $crate::telemetry::log::value!($name $(, $value)?))),*],
            );
        }
    };
}
macro_rules! value {
    ($name:ident) => {
        &$name as &dyn std::fmt::Display
    };
    ($name:ident, $value:expr) => {
        &$value as &dyn std::fmt::Display
    };
}
macro_rules! error {
    ($($line:tt)+) => { $crate::telemetry::log::at_level!(Error, $($line)+) };
}
macro_rules! warning {
    ($($line:tt)+) => { $crate::telemetry::log::at_level!(Warn, $($line)+) };
}
macro_rules! info {
    ($($line:tt)+) => { $crate::telemetry::log::at_level!(Info, $($line)+) };
}
macro_rules! debug {
    ($($line:tt)+) => { $crate::telemetry::log::at_level!(Debug, $($line)+) };
}
// `warn` alone is also the name of a built-in attribute, and would be ambiguous.
pub(crate) use {at_level, debug, error, info, value, warning as warn};

#[cfg(test)]
mod tests {
    use super::*;

    fn without_time(line: &str) -> &str {
        line.split_once(' ').expect("a time and the rest").1
    }

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        let hostile = "a\nb\x1b[2J \u{202e}";
        let text = line(
            Level::Warn,
            "odd",
            &[("n", &3), ("path", &"/a=b"), ("s", &hostile), ("q", &"say \"x\""), ("e", &"")],
        );
        assert_eq!(
            without_time(&text),
            "warn odd n=3 path=\"/a=b\" s=\"a\\nb\\x1b[2J \\u{202e}\" q=\"say \\\"x\\\"\" e=\"\"\n"
        );
        let time = text.split(' ').next().expect("a time");
        assert!(time.len() == 27 && time.ends_with('Z'), "{time}");
    }

    #[test]
    fn a_line_is_bounded() {
        let text = line(Level::Info, "long", &[("a", &"ä".repeat(9000))]);
        assert!(text.len() <= MAX_LINE - 200 && text.ends_with("…\n"));
    }

    #[test]
    fn levels_hide_what_matters_less() {
        assert!(enabled(Level::Error) && enabled(Level::Info) && !enabled(Level::Debug));
    }
}
