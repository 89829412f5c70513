//! What a container has been given and does not use.

use super::{Checks, Definition, Evidence, Host, Rule, Subject, Verdict, listed};
use crate::model::{CapSet, Severity};

pub const RULE: Rule = Rule { definition: &DEFINITION, judge };

static DEFINITION: Definition = Definition {
    id: "capability.unused",
    title: "Capabilities that it does not use",
    severity: Severity::Notice,
    what: "The capabilities that the container's first process holds, less those that its processes were seen to be checked for \
           with success. Only where the agent counts checks (audit.capabilities), and has done so for an hour. `notice` if there \
           are some beyond docker's default, else `info`.",
    why: "What is not used can be taken away without harm, and is then nobody else's who gets into the container.",
    advice: "observer profile caps CONTAINER writes the least set. Let it be observed through a start, a busy day and a reload \
             first: what it used before the agent was there, or uses once a month, was not seen.",
};

/// Many uses come at the start, others with the first client; most daemons have shown them within this.
const LONG_ENOUGH_SECONDS: u64 = 3600;

fn judge(subject: &Subject, _: &Host, verdict: &mut Verdict) {
    let (seconds, used) = match subject.checks {
        // Nobody counts: there is nothing to say.
        Checks::Uncounted => return,
        Checks::Counted { seconds, used } => (seconds, used),
        Checks::Unknown => {
            verdict.not_known(&DEFINITION, "which capabilities it uses");
            return;
        }
    };
    let Some(sets) = subject.capabilities else {
        verdict.not_known(&DEFINITION, "its capabilities");
        return;
    };
    let unused = sets.permitted.without(used);
    if seconds < LONG_ENOUGH_SECONDS || unused.is_empty() {
        return;
    }
    let severity = if unused.beyond_default().is_empty() { Severity::Info } else { Severity::Notice };
    // The worst first, as far as a sentence goes.
    let (beyond, default) = (unused.beyond_default(), unused & CapSet::DOCKER_DEFAULT);
    let names: Vec<_> = beyond.names().into_iter().chain(default.names()).collect();
    let time = match seconds / 3600 {
        1 => "an hour".to_owned(),
        hours => format!("{hours} hours"),
    };
    let reason = format!("in {time} nothing has used {}", listed(&names));
    let evidence =
        Evidence { capabilities: Some(unused), observed_seconds: Some(seconds), ..Evidence::default() };
    verdict.find(&DEFINITION, severity, reason, evidence);
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn counted(hours: u64, used: CapSet) -> Subject {
        Subject { checks: Checks::Counted { seconds: hours * 3600, used }, ..docker_default() }
    }

    #[test]
    fn what_is_not_used_for_long_enough_is_found() {
        let default = CapSet::DOCKER_DEFAULT;
        for (hours, used, expected) in [
            (0, CapSet::EMPTY, &[][..]),
            (1, CapSet::EMPTY, &[Severity::Info]),
            (1, default, &[]),
            (1, default.without(CapSet::of(&[0])), &[Severity::Info]),
            // More than it was given, in a user namespace of its own: none of it is unused.
            (1, CapSet::ALL, &[]),
        ] {
            assert_eq!(severities(RULE, &counted(hours, used)), expected, "{hours} {used}");
        }
        let mut more = counted(26, default);
        if let Some(sets) = &mut more.capabilities {
            sets.permitted = default | CapSet::of(&[12, 21]);
        }
        let finding = &judged(RULE, &more, &host()).findings[0];
        assert_eq!(finding.severity, Severity::Notice);
        assert_eq!(finding.reason, "in 26 hours nothing has used NET_ADMIN and SYS_ADMIN");
        assert_eq!(finding.evidence.capabilities, Some(CapSet::of(&[12, 21])));
        assert_eq!(finding.evidence.observed_seconds, Some(26 * 3600));
    }

    #[test]
    fn what_nobody_counts_is_not_told_and_what_is_not_known_is_said() {
        assert_eq!(severities(RULE, &docker_default()), []);
        assert_unknown(RULE, &Subject { checks: Checks::Unknown, ..docker_default() }, &host());
        assert_unknown(RULE, &Subject { capabilities: None, ..counted(9, CapSet::EMPTY) }, &host());
    }
}
