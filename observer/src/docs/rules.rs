//! docs/rules.md, from the detectors' definitions.

use std::fmt::Write as _;

use super::cell;
use crate::detect::DEFINITIONS;

pub fn document() -> String {
    let mut text = String::from(
        "# Rules\n\n\
         What observer alerts on. This page is made by `observer docs rules`. Of each rule it says what it means, how its alerts \
         look (one of its messages, and which fields of `evidence` it fills where there is something to say: \
         [schema](schema/alert.schema.json)), what else it may be, and what to do.\n\n\
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
        let evidence: Vec<String> = definition.evidence.iter().map(|field| format!("`{field}`")).collect();
        let _ = writeln!(text, "- Looks like: \"{}\". Evidence: {}", definition.looks, evidence.join(", "));
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
    use crate::docs::schema;

    /// What a rule fills is there to be filled, and explained by the schema.
    #[test]
    fn evidence_is_in_the_schema() {
        let schema: serde_json::Value = serde_json::from_str(&schema::alert()).expect("JSON");
        let fields = &schema["$defs"]["Evidence"]["properties"];
        let mut named: Vec<&str> = DEFINITIONS.iter().flat_map(|it| it.evidence).copied().collect();
        named.sort_unstable();
        named.dedup();
        let mut all: Vec<&str> = fields.as_object().expect("fields").keys().map(String::as_str).collect();
        all.sort_unstable();
        assert_eq!(named, all, "fields that rules name, and those that there are");
        for field in all {
            assert!(fields[field]["description"].is_string(), "{field}");
        }
    }

    #[test]
    fn every_rule_has_a_section() {
        let text = document();
        for definition in DEFINITIONS {
            let id = definition.id;
            let (_, section) = text.split_once(&format!("\n## `{id}`\n\n")).expect(id);
            let section = section.split("\n## ").next().unwrap_or_default();
            assert!(section.starts_with(definition.title), "{id}: {section}");
            let about = &section[section.find(". ").expect(id)..section.find("\n\n").expect(id)];
            assert!(about.len() > 80, "{id}: {about}");
            for part in ["- Looks like: ", "- False positives: ", "- Response: "] {
                let line = section.lines().find_map(|line| line.strip_prefix(part)).unwrap_or_default();
                assert!(line.len() > 20, "{id}: {part}{line}");
            }
        }
        assert_eq!(technique("T1548.001"), "[T1548.001](https://attack.mitre.org/techniques/T1548/001/)");
    }
}
