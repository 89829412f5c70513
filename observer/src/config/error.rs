//! Errors of the configuration, in one line each: where, what was found, what was expected.

use std::path::{Path, PathBuf};

use serde_saphyr::Error;

use crate::render::{self, Untrusted};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: {source}", render::escape(&path.to_string_lossy()))]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: is larger than {limit} bytes", render::escape(&path.to_string_lossy()))]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{}:{line}: {what}", render::escape(&path.to_string_lossy()))]
    Invalid { path: PathBuf, line: u64, what: String },
    #[error("environment variable {}: {what}", Untrusted(name, MAX_WORDS))]
    Environment { name: String, what: String },
}

impl ConfigError {
    /// `what` may quote the file.
    pub(super) fn invalid(path: &Path, line: u64, what: &str) -> ConfigError {
        ConfigError::Invalid { path: path.to_owned(), line, what: Untrusted(what, MAX_WORDS).to_string() }
    }

    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, ConfigError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// An error is a line, not a page.
const MAX_WORDS: usize = 400;
/// How much of a value is quoted.
const MAX_QUOTED: usize = 60;

/// Says in our words what the reader found.
pub(super) fn explain(path: &Path, text: &str, error: &Error) -> ConfigError {
    let line = error.location().map_or(1, |it| it.line().max(1));
    // What an alias stands for is wrong at the place where it is used; what it is stands where its anchor does.
    let mut error = error;
    while let Error::AliasError { error: inner, .. } = error {
        error = inner;
    }
    let found = error.location().and_then(|location| {
        let span = location.span();
        let (start, length) =
            (usize::try_from(span.byte_offset()?).ok()?, usize::try_from(span.byte_len()?).ok()?);
        let value = text.get(start..start.checked_add(length)?)?.trim();
        (!value.is_empty()).then(|| format!("`{}`", Untrusted(value, MAX_QUOTED)))
    });
    let mismatch = |expected: &str| match &found {
        Some(found) => format!("found {found}, expected {expected}"),
        None => format!("found nothing, expected {expected}"),
    };
    let what = match error {
        Error::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
        Error::SerdeUnknownVariant { variant, expected, .. } => unknown("value", variant, expected),
        // Made by the value's own type, after it was read: the place is only that of its key.
        Error::SerdeInvalidValue { unexpected, expected, .. }
        | Error::SerdeInvalidType { unexpected, expected, .. } => {
            format!("found {}, expected {expected}", Untrusted(unexpected, MAX_QUOTED))
        }
        Error::InvalidScalar { ty, .. } => mismatch(plain(ty)),
        Error::InvalidBooleanStrict { .. } => mismatch(plain("bool")),
        Error::SerdeMissingField { field, .. } => {
            format!("the key `{}` is missing", Untrusted(field, MAX_QUOTED))
        }
        Error::NullIntoString { .. } => mismatch("text"),
        Error::Unexpected { expected, .. } => mismatch(plain(expected)),
        Error::MultipleDocuments { .. } => "a second document begins here, expected only one".to_owned(),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key `{}` is there twice", Untrusted(key, MAX_QUOTED))
        }
        other => first_line(&other.to_string()),
    };
    ConfigError::invalid(path, line, &what)
}

/// What it is, what could have been meant, and everything that could stand there.
fn unknown(what: &str, found: &str, expected: &[&'static str]) -> String {
    let list: Vec<String> = expected.iter().map(|name| format!("`{name}`")).collect();
    let nearest = expected
        .iter()
        .map(|name| (strsim::damerau_levenshtein(name, found), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min_by_key(|(distance, _)| *distance);
    let hint = nearest.map(|(_, name)| format!(" (did you mean `{name}`?)")).unwrap_or_default();
    format!("unknown {what} `{}`{hint}, expected one of {}", Untrusted(found, MAX_QUOTED), list.join(", "))
}

/// The reader speaks of Rust's types and of its own events.
fn plain(expected: &'static str) -> &'static str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a number that is not negative",
        "bool" => "true or false",
        "mapping start" => "keys with values",
        "sequence start" => "a list",
        "string scalar" => "text",
        other => other,
    }
}

/// Without the place at its end, which stands in front already.
fn first_line(message: &str) -> String {
    let line = message.lines().next().unwrap_or("unreadable");
    line.rsplit_once(" at line ").map_or(line, |(words, _)| words).trim_end_matches([',', ':']).to_owned()
}
