//! docs/rules.md, from the detectors' definitions.

use std::fmt::Write as _;

use super::cell;
use crate::detect::DEFINITIONS;

pub fn document() -> String {
    let mut text = String::from(
        "# Rules\n\n\
         What observer alerts on. This page is made by `observer docs rules`.\n\n\
         | rule | severity, at most | |\n|---|---|---|\n",
    );
    for definition in DEFINITIONS {
        let (id, severity) = (definition.id, definition.severity);
        // As GitHub makes anchors of headings: the dot goes.
        let anchor = id.replace('.', "");
        let _ = writeln!(text, "| [`{id}`](#{anchor}) | {severity} | {} |", cell(definition.title));
    }
    for definition in DEFINITIONS {
        let _ = write!(
            text,
            "\n## `{}`\n\n{}. {}\n\n",
            definition.id,
            definition.title.trim_end_matches('.'),
            definition.what.trim()
        );
        let _ = writeln!(text, "- Severity: {} at most", definition.severity);
        if !definition.mitre.is_empty() {
            let techniques: Vec<String> = definition.mitre.iter().map(|id| technique(id)).collect();
            let _ = writeln!(text, "- MITRE ATT&CK: {}", techniques.join(", "));
        }
        if !definition.needs.is_empty() {
            let needs: Vec<String> = definition.needs.iter().map(|kind| format!("`{kind}`")).collect();
            let _ = writeln!(text, "- Needs the events: {}", needs.join(", "));
        }
        let _ = writeln!(text, "- False positives: {}", definition.false_positives.trim());
        let _ = writeln!(text, "- Response: {}", definition.response.trim());
    }
    text
}

/// `T1611` or `T1068.001`, linked.
fn technique(id: &str) -> String {
    format!("[{id}](https://attack.mitre.org/techniques/{}/)", id.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_section() {
        let text = document();
        for definition in DEFINITIONS {
            assert!(text.contains(&format!("\n## `{}`\n", definition.id)), "{}", definition.id);
        }
        assert_eq!(technique("T1548.001"), "[T1548.001](https://attack.mitre.org/techniques/T1548/001/)");
    }
}
