//! JSON for reading. The agent chose the order of an alert's fields for its readers; a parsed value would lose it
//! (serde_json sorts, unless a feature is switched on that would then hold for the agent as well), so the text
//! itself is laid out.

/// What fits stays on one line.
const WIDTH: usize = 100;

/// Lays out a valid JSON text; another text comes out with other white space, and nothing worse.
pub fn pretty(text: &str) -> String {
    let mut out = String::new();
    lay_out(&compact(text), 0, 0, &mut out);
    out
}

/// Without the white space between tokens, but one space behind `:` and `,`.
fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut string = InString::default();
    for c in text.chars() {
        let inside = string.step(c);
        if inside || !c.is_whitespace() {
            out.push(c);
        }
        if !inside && matches!(c, ':' | ',') {
            out.push(' ');
        }
    }
    out
}

/// `column` is where the value begins, `indent` where its closing bracket belongs.
fn lay_out(value: &str, column: usize, indent: usize, out: &mut String) {
    let inner = value.get(1..value.len().saturating_sub(1)).unwrap_or_default();
    if column + value.chars().count() <= WIDTH && indent > 0
        || !value.starts_with(['{', '['])
        || inner.is_empty()
    {
        out.push_str(value);
        return;
    }
    out.push_str(&value[..1]);
    let members = split(inner, ',');
    // An object of nothing but numbers and words reads well as a paragraph: it is full of them (a tuple of ten
    // namespaces), and one to a line would push the rest off the screen.
    let flat = indent > 0 && !members.iter().any(|member| member.contains(['{', '[']));
    let mut used = 0;
    for (n, member) in members.iter().enumerate() {
        let indent = indent + 2;
        let length = member.chars().count();
        used += 2 + length;
        if n > 0 && flat && used < WIDTH {
            out.push_str(", ");
        } else {
            used = indent + length;
            out.push_str(if n == 0 { "\n" } else { ",\n" });
            out.push_str(&" ".repeat(indent));
        }
        match split(member, ':')[..] {
            [key, value] => {
                out.push_str(key);
                out.push_str(": ");
                lay_out(value, indent + key.chars().count() + 2, indent, out);
            }
            _ => lay_out(member, indent, indent, out),
        }
    }
    out.push('\n');
    out.push_str(&" ".repeat(indent));
    out.push_str(&value[value.len() - 1..]);
}

/// Splits at a separator outside strings and brackets; drops the space behind it.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut begin, mut depth) = (Vec::new(), 0, 0_usize);
    let mut string = InString::default();
    for (at, c) in text.char_indices() {
        if string.step(c) {
            continue;
        }
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            c if c == separator && depth == 0 => {
                parts.push(text[begin..at].trim_start());
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[begin..].trim_start());
    parts
}

#[derive(Default)]
struct InString {
    inside: bool,
    escaped: bool,
}

impl InString {
    /// Whether this character belongs to a string, quotes included.
    fn step(&mut self, c: char) -> bool {
        let was_inside = self.inside;
        if self.escaped {
            self.escaped = false;
        } else if c == '"' {
            self.inside = !self.inside;
        } else {
            self.escaped = self.inside && c == '\\';
        }
        was_inside || self.inside
    }
}

#[cfg(test)]
mod tests {
    use super::pretty;

    #[test]
    fn keeps_the_order_and_every_string_as_it_is() {
        let text = r#"{"z":1,"a":{"list":["x, y: {z}","\"q\\"],"empty":{}},"none":[]}"#;
        let expected = "{\n  \"z\": 1,\n  \"a\": {\"list\": [\"x, y: {z}\", \"\\\"q\\\\\"], \"empty\": {}},\n  \"none\": []\n}";
        assert_eq!(pretty(text), expected);
        assert_eq!(pretty(expected), expected);
    }

    #[test]
    fn breaks_what_is_too_long() {
        let text = format!(r#"{{"list":["{}","{}"],"n":-1.5e3}}"#, "a".repeat(60), "b".repeat(60));
        let laid_out = pretty(&text);
        assert!(laid_out.lines().all(|line| line.len() <= 100), "{laid_out}");
        let before: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
        let after: serde_json::Value = serde_json::from_str(&laid_out).expect("still valid JSON");
        assert_eq!(before, after);
    }

    #[test]
    fn survives_what_is_no_json() {
        for text in ["", "{", "[", "\"", "{]}", "é{", "{\"a\":"] {
            pretty(text);
        }
    }
}
