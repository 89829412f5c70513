//! What a declared seccomp filter lets pass (runtime-spec: config-linux.md, seccomp).

use observer_common::CallSet;
use serde::Deserialize;

use crate::model::syscall;

/// A filter as config.json has it, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    default_action: String,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    #[serde(default)]
    names: Vec<String>,
    action: String,
    #[serde(default)]
    args: Option<Vec<serde::de::IgnoredAny>>,
}

/// What a declaration says of system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeclaredCalls {
    /// Whatever their arguments are.
    pub allowed: CallSet,
    /// Whatever their arguments are, and whoever else is asked.
    pub refused: CallSet,
    /// Filters that the runtime installs: one, or none.
    pub filters: u32,
}

impl DeclaredCalls {
    pub fn of(filter: Option<&Filter>) -> Self {
        match filter {
            None => DeclaredCalls { allowed: CallSet::ALL, refused: CallSet::NONE, filters: 0 },
            Some(filter) => {
                DeclaredCalls { allowed: filter.allowed(), refused: filter.refused(), filters: 1 }
            }
        }
    }
}

/// Whether it can end with the call being made: also by the word of a tracer, or of who is notified.
fn may_pass(action: &str) -> bool {
    passes(action) || matches!(action, "SCMP_ACT_TRACE" | "SCMP_ACT_NOTIFY")
}

fn passes(action: &str) -> bool {
    matches!(action, "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG")
}

impl Filter {
    /// The calls that it never lets pass.
    pub fn refused(&self) -> CallSet {
        let named = |rule: &Rule| syscall::set(rule.names.iter().map(String::as_str));
        let mut refused = if may_pass(&self.default_action) { CallSet::NONE } else { CallSet::ALL };
        for rule in self.syscalls.iter().filter(|rule| !may_pass(&rule.action)) {
            if rule.args.as_ref().is_none_or(Vec::is_empty) {
                refused.0.iter_mut().zip(named(rule).0).for_each(|(word, more)| *word |= more);
            }
        }
        // Whatever one rule may let pass, if only with some arguments, is not always refused.
        for rule in self.syscalls.iter().filter(|rule| may_pass(&rule.action)) {
            refused.0.iter_mut().zip(named(rule).0).for_each(|(word, less)| *word &= !less);
        }
        refused
    }

    /// The calls that it lets pass whatever their arguments are.
    pub fn allowed(&self) -> CallSet {
        let mut allowed = if passes(&self.default_action) { CallSet::ALL } else { CallSet::NONE };
        let named = |rule: &Rule| syscall::set(rule.names.iter().map(String::as_str));
        for rule in self.syscalls.iter().filter(|rule| passes(&rule.action)) {
            if rule.args.as_ref().is_none_or(Vec::is_empty) {
                allowed.0.iter_mut().zip(named(rule).0).for_each(|(word, more)| *word |= more);
            }
        }
        // Whatever one rule refuses, if only for some arguments, is not let pass.
        for rule in self.syscalls.iter().filter(|rule| !passes(&rule.action)) {
            allowed.0.iter_mut().zip(named(rule).0).for_each(|(word, less)| *word &= !less);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(filter: &str) -> CallSet {
        serde_json::from_str::<Filter>(filter).expect("a filter").allowed()
    }

    #[test]
    fn only_what_passes_with_all_arguments_is_allowed() {
        let rules = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["read","write","clone","socketcall"],"action":"SCMP_ACT_ALLOW"},
            {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"op":"SCMP_CMP_NE"}]},
            {"names":["close"],"action":"SCMP_ACT_LOG","args":[]},
            {"names":["clone"],"action":"SCMP_ACT_ERRNO","errnoRet":38,"args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#;
        assert_eq!(syscall::names(&allowed(rules)), ["close", "read", "write"]);
    }

    #[test]
    fn what_passes_sometimes_is_neither() {
        let rules = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["read"],"action":"SCMP_ACT_ALLOW"},
            {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"op":"SCMP_CMP_NE"}]},
            {"names":["mount"],"action":"SCMP_ACT_NOTIFY"},
            {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}"#;
        let filter: Filter = serde_json::from_str(rules).expect("a filter");
        let declared = DeclaredCalls::of(Some(&filter));
        let is = |set: &CallSet, name: &str| set.contains(syscall::number(name).unwrap());
        for name in ["socket", "mount"] {
            assert!(!is(&declared.allowed, name) && !is(&declared.refused, name), "{name}");
        }
        assert!(is(&declared.refused, "clone3") && is(&declared.refused, "bpf"));
        assert!(is(&declared.allowed, "read") && !is(&declared.refused, "read"));
        assert_eq!((declared.filters, DeclaredCalls::of(None).filters), (1, 0));
        let open =
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["bpf"],"action":"SCMP_ACT_ERRNO"}]}"#;
        let open: Filter = serde_json::from_str(open).expect("a filter");
        assert_eq!(syscall::names(&open.refused()), ["bpf"]);
    }

    #[test]
    fn a_filter_that_lets_all_pass_refuses_what_it_names() {
        let rules = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mount"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#;
        let allowed = allowed(rules);
        let mount = syscall::number("mount").unwrap();
        assert!(!allowed.contains(mount) && allowed.contains(0) && allowed.contains(511));
        assert_eq!(allowed.len(), 511);
    }
}
