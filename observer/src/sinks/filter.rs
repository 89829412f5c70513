//! Which alerts and events a reader wants.

use serde::{Deserialize, Serialize};

use crate::model::{Alert, ContainerRef, EventRecord, Severity};

/// Empty parts let everything through; what is named in several of them must fit all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Alerts of this severity and above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// Containers by the beginning of their id, or by their whole name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
    /// Rules by their id; `namespace.*` is all that begin with `namespace.`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// Events by their kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
}

impl Filter {
    pub fn passes_alert(&self, alert: &Alert) -> bool {
        self.severity.is_none_or(|least| alert.severity >= least)
            && (self.rules.is_empty() || self.rules.iter().any(|rule| matches(rule, &alert.rule)))
            && self.passes_container(alert.container.as_ref())
    }

    pub fn passes_event(&self, event: &EventRecord) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.passes_container(event.container.as_ref())
    }

    fn passes_container(&self, container: Option<&ContainerRef>) -> bool {
        self.containers.is_empty()
            || container.is_some_and(|container| {
                let fits = |wanted: &String| {
                    container.id.starts_with(wanted.as_str()) || container.name.as_ref() == Some(wanted)
                };
                self.containers.iter().any(fits)
            })
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => text.starts_with(beginning),
        None => text == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::protocol::sample;

    #[test]
    fn alerts_pass_by_severity_rule_and_container() {
        // A critical namespace.escape in container "web", id 3f2a...
        let alert = sample::alert("a");
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let rules = |words| Filter { rules: list(words), ..Filter::default() };
        let containers = |words| Filter { containers: list(words), ..Filter::default() };
        for (filter, passes) in [
            (Filter::default(), true),
            (Filter { severity: Some(Severity::Warning), ..Filter::default() }, true),
            (rules(&["namespace.escape"]), true),
            (rules(&["root.escape", "namespace.*"]), true),
            (rules(&["namespace"]), false),
            (rules(&["*"]), true),
            (containers(&["3f2a"]), true),
            (containers(&["web"]), true),
            (containers(&["we"]), false),
            (containers(&["db", "f2a"]), false),
            (Filter { containers: list(&["web"]), ..rules(&["root.*"]) }, false),
        ] {
            assert_eq!(filter.passes_alert(&alert), passes, "{filter:?}");
        }
        let mut host = (*alert).clone();
        (host.container, host.severity) = (None, Severity::Notice);
        assert!(!containers(&["web"]).passes_alert(&host));
        assert!(!Filter { severity: Some(Severity::Warning), ..Filter::default() }.passes_alert(&host));
    }

    #[test]
    fn events_pass_by_kind_and_container() {
        let event = sample::event("exec");
        let kinds = |kind: &str| Filter { kinds: vec![kind.to_owned()], ..Filter::default() };
        assert!(kinds("exec").passes_event(&event) && !kinds("exe").passes_event(&event));
        assert!(Filter { containers: vec!["web".to_owned()], ..kinds("exec") }.passes_event(&event));
        assert!(!Filter { containers: vec!["db".to_owned()], ..kinds("exec") }.passes_event(&event));
    }
}
