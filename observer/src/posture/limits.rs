//! Limits that a container should have.

use super::{Definition, Evidence, Host, Limit, Rule, Subject, Verdict};
use crate::model::Severity;

pub const MEMORY: Rule = Rule { definition: &MEMORY_DEFINITION, judge: memory };
pub const PIDS: Rule = Rule { definition: &PIDS_DEFINITION, judge: pids };

static MEMORY_DEFINITION: Definition = Definition {
    id: "posture.memory_unlimited",
    title: "No limit of memory",
    severity: Severity::Notice,
    what: "memory.max (v2) or memory.limit_in_bytes (v1) of the container's cgroup and of those above it.",
    why: "One container that leaks or is made to use memory takes it from all others and the host; whom the OOM \
          killer then ends is anybody's guess.",
    advice: "Give it a limit: docker run --memory, resources.limits.memory in Kubernetes.",
};

static PIDS_DEFINITION: Definition = Definition {
    id: "posture.pids_unlimited",
    title: "No limit of processes",
    severity: Severity::Notice,
    what: "pids.max of the container's cgroup and of those above it.",
    why: "A fork bomb in the container uses up the process ids of the whole host.",
    advice: "Give it a limit: docker run --pids-limit, podPidsLimit of the kubelet.",
};

fn memory(subject: &Subject, _: &Host, verdict: &mut Verdict) {
    let reason = "it may use all memory of the host: neither its cgroup nor one above it has a limit";
    judge(&MEMORY_DEFINITION, subject.memory_limit_bytes, "its limit of memory", reason, verdict);
}

fn pids(subject: &Subject, _: &Host, verdict: &mut Verdict) {
    let reason = "it may have as many processes as the host: neither its cgroup nor one above it has a limit";
    judge(&PIDS_DEFINITION, subject.pids_limit, "its limit of processes", reason, verdict);
}

fn judge(
    definition: &'static Definition,
    limit: Option<Limit>,
    what: &str,
    reason: &str,
    verdict: &mut Verdict,
) {
    match limit {
        None => verdict.not_known(definition, what),
        Some(Limit::None) => {
            verdict.find(definition, Severity::Notice, reason.to_owned(), Evidence::default());
        }
        Some(Limit::AtMost(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    #[test]
    fn no_limit_is_a_notice() {
        type Set = fn(&mut Subject, Option<Limit>);
        let rules: [(Rule, Set); 2] =
            [(MEMORY, |s, limit| s.memory_limit_bytes = limit), (PIDS, |s, limit| s.pids_limit = limit)];
        for (rule, set) in rules {
            let mut subject = docker_default();
            set(&mut subject, Some(Limit::None));
            assert_eq!(severities(rule, &subject), [Severity::Notice]);
            for at_most in [0, 1, u64::MAX] {
                set(&mut subject, Some(Limit::AtMost(at_most)));
                assert_eq!(severities(rule, &subject), []);
            }
            set(&mut subject, None);
            assert_unknown(rule, &subject, &host());
        }
    }
}
