//! Which alerts a sink gets.

use wildmatch::WildMatch;

use crate::{
    config::SinkFilter,
    model::{Alert, Severity},
};

/// A [`SinkFilter`] made ready.
#[derive(Debug)]
pub struct Filter {
    severity: Option<Severity>,
    rules: Vec<WildMatch>,
    namespaces: Vec<WildMatch>,
}

impl Filter {
    pub fn new(config: &SinkFilter) -> Self {
        let patterns = |list: &[String]| list.iter().map(|it| WildMatch::new(it)).collect();
        Filter {
            severity: config.severity,
            rules: patterns(&config.rules),
            namespaces: patterns(&config.namespaces),
        }
    }

    pub fn passes(&self, alert: &Alert) -> bool {
        let pod = alert.container.as_ref().and_then(|it| it.pod.as_ref());
        self.severity.is_none_or(|least| alert.severity >= least)
            && (self.rules.is_empty() || self.rules.iter().any(|it| it.matches(&alert.rule)))
            && (self.namespaces.is_empty()
                || pod.is_some_and(|pod| self.namespaces.iter().any(|it| it.matches(&pod.namespace))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::PodRef, sinks::sample};

    #[test]
    fn all_parts_must_fit() {
        let mut alert = (*sample::alert("a")).clone();
        let outside = alert.clone();
        if let Some(container) = &mut alert.container {
            container.pod = Some(PodRef {
                namespace: "kube-system".into(),
                name: "p".into(),
                uid: "u".into(),
                container: "c".into(),
            });
        }
        let list = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let filter = |severity, rules: &[&str], namespaces: &[&str]| {
            Filter::new(&SinkFilter { severity, rules: list(rules), namespaces: list(namespaces) })
        };
        for (name, filter, inside, out) in [
            ("nothing", filter(None, &[], &[]), true, true),
            ("severity", filter(Some(Severity::Critical), &[], &[]), true, true),
            ("rule", filter(None, &["root.*", "*.escape"], &[]), true, true),
            ("another rule", filter(None, &["root.*"], &[]), false, false),
            ("a part of a rule", filter(None, &["namespace"], &[]), false, false),
            ("namespace", filter(None, &[], &["kube-?ystem"]), true, false),
            ("another namespace", filter(None, &[], &["prod", "kube"]), false, false),
            ("rule and namespace", filter(None, &["root.*"], &["*"]), false, false),
        ] {
            assert_eq!((filter.passes(&alert), filter.passes(&outside)), (inside, out), "{name}");
        }
        alert.severity = Severity::Notice;
        assert!(!filter(Some(Severity::Warning), &[], &[]).passes(&alert));
    }
}
