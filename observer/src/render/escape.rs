//! Text from outside, made harmless for a terminal and for a line of a log.

use std::{
    borrow::Cow,
    fmt::{self, Display, Write as _},
};

/// Shows at most so many characters of a text, each that a terminal would obey or hide written out as `\x1b` or
/// `\u{202e}`. A backslash stays what it is: paths of systemd's cgroups are full of them, and one that imitates an
/// escape does no harm.
#[derive(Clone, Copy, Debug)]
pub struct Untrusted<'a>(pub &'a str, pub usize);

impl Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        for c in chars.by_ref().take(self.1) {
            write_char(f, c)?;
        }
        if chars.next().is_some() { f.write_char('…') } else { Ok(()) }
    }
}

/// The whole of a text, made harmless.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unsafe) {
        Cow::Owned(Untrusted(text, usize::MAX).to_string())
    } else {
        Cow::Borrowed(text)
    }
}

/// The same for bytes that may not be UTF-8: those that are none become `\xff`.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&escape(chunk.valid()));
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn write_char(f: &mut impl fmt::Write, c: char) -> fmt::Result {
    match c {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        c if !is_unsafe(c) => f.write_char(c),
        c if c.is_ascii() => write!(f, "\\x{:02x}", u32::from(c)),
        c => write!(f, "\\u{{{:x}}}", u32::from(c)),
    }
}

/// Control characters (C0, DEL, C1), and those that turn, hide or split text without being seen.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        for (text, shown) in [
            ("plain ä 日本 \\x2d", "plain ä 日本 \\x2d"),
            ("a\x1b[31mb", r"a\x1b[31mb"),
            ("\0\x07\x08\x7f", r"\x00\x07\x08\x7f"),
            ("a\nb\rc\td", r"a\nb\rc\td"),
            ("\u{9b}31m", r"\u{9b}31m"),
            ("\u{202e}cod.exe\u{2066}", r"\u{202e}cod.exe\u{2066}"),
            ("z\u{200b}w\u{feff}", r"z\u{200b}w\u{feff}"),
            ("tag\u{e0041}", r"tag\u{e0041}"),
        ] {
            assert_eq!(escape(text), shown);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_written_out() {
        assert_eq!(escape_bytes(b"a\xffb\xc3"), r"a\xffb\xc3");
        assert_eq!(escape_bytes("ä\x1b".as_bytes()), r"ä\x1b");
    }

    #[test]
    fn a_bound_is_in_characters() {
        assert_eq!(Untrusted("äöü", 2).to_string(), "äö…");
        assert_eq!(Untrusted("äöü", 3).to_string(), "äöü");
        assert_eq!(Untrusted("\x1b\x1b", 1).to_string(), r"\x1b…");
    }
}
