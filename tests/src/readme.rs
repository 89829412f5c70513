//! README.md's pasted outputs: between two marks stands what a run of the program said, made and checked by the tests.

use std::path::{Path, PathBuf};

const END: &str = "<!-- end -->";

/// Set to anything, outputs and pictures are written anew instead of compared.
pub const BLESS: &str = "OBSERVER_LIVE_BLESS";

pub fn blessing() -> bool {
    std::env::var_os(BLESS).is_some()
}

/// A file of the repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn begin(name: &str) -> String {
    format!("<!-- a real run of: {name} -->\n")
}

/// What a document shows for `name`: its block without the indentation; `None` without such a block.
pub fn block(document: &str, name: &str) -> Option<String> {
    let (_, rest) = document.split_once(&begin(name))?;
    let (body, _) = rest.split_once(END)?;
    let lines: Vec<&str> =
        body.trim_matches('\n').lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    Some(lines.join("\n"))
}

/// The document with another block; `None` if it has no place for it.
pub fn with_block(document: &str, name: &str, text: &str) -> Option<String> {
    let mark = begin(name);
    let (head, rest) = document.split_once(&mark)?;
    let (_, tail) = rest.split_once(END)?;
    let mut body = String::new();
    for line in text.trim_matches('\n').lines() {
        if !line.is_empty() {
            body.push_str("    ");
            body.push_str(line);
        }
        body.push('\n');
    }
    Some(format!("{head}{mark}\n{body}\n{END}{tail}"))
}

/// Where two texts part: their lines from there on, a few of each.
pub fn difference(old: &[String], new: &[String]) -> Option<String> {
    if old == new {
        return None;
    }
    let at = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let some = |lines: &[String], sign: &str| {
        let shown: Vec<String> =
            lines.iter().skip(at).take(4).map(|line| format!("  {sign} {line}")).collect();
        if shown.is_empty() { format!("  {sign} (the end)") } else { shown.join("\n") }
    };
    Some(format!("line {}:\n{}\n{}", at + 1, some(old, "-"), some(new, "+")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str =
        "text\n\n<!-- a real run of: a -->\n\n    $ a\n    one\n\n    two\n\n<!-- end -->\n\nmore\n";

    #[test]
    fn blocks_are_found_and_replaced() {
        assert_eq!(block(DOCUMENT, "a").as_deref(), Some("$ a\none\n\ntwo"));
        assert_eq!(block(DOCUMENT, "b"), None);
        assert_eq!(with_block(DOCUMENT, "b", "x"), None);
        let same = with_block(DOCUMENT, "a", "$ a\none\n\ntwo\n");
        assert_eq!(same.as_deref(), Some(DOCUMENT));
        let other = with_block(DOCUMENT, "a", "x").expect("a place");
        assert_eq!(block(&other, "a").as_deref(), Some("x"));
        assert!(other.starts_with("text\n") && other.ends_with("\nmore\n"), "{other}");
    }

    #[test]
    fn differences_are_shown() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(difference(&lines("a\nb"), &lines("a\nb")), None);
        assert_eq!(difference(&lines("a\nb"), &lines("a\nc")).as_deref(), Some("line 2:\n  - b\n  + c"));
        assert_eq!(difference(&lines("a"), &lines("a\nc")).as_deref(), Some("line 2:\n  - (the end)\n  + c"));
    }
}
