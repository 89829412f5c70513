//! The audits' tables in the words of an answer.

use std::collections::BTreeMap;

use observer_common::{Denial, verdict};

use super::{
    ContainerAccesses, ContainerCalls, ContainerChecks,
    capabilities::{CheckCount, CheckSight},
};
use crate::{
    decode::text,
    enrich::{Access, AccessCount},
    model::{
        CheckedCapability, Checks, Clock, DeniedAccess, How, Observed, ObservedContainer, RefusedCall,
        capability_label, syscall,
    },
};

/// `checks` and `calls` as far as they are audited, each with how much is known of them: whether checks are classified,
/// whether refusals are counted. `accesses` if denials of AppArmor are read.
pub fn put_together(
    checks: Option<(bool, Vec<ContainerChecks>)>,
    calls: Option<(bool, Vec<ContainerCalls>)>,
    accesses: Option<Vec<ContainerAccesses>>,
    now_ns: u64,
    clock: &Clock,
) -> Observed {
    let mut observed = Observed {
        syscalls: calls.is_some(),
        seccomp: calls.as_ref().is_some_and(|(seccomp, _)| *seccomp),
        capabilities: checks.is_some(),
        capabilities_classified: checks.as_ref().is_some_and(|(classified, _)| *classified),
        apparmor: accesses.is_some(),
        containers: Vec::new(),
    };
    let mut containers: BTreeMap<String, ObservedContainer> = BTreeMap::new();
    for calls in calls.into_iter().flat_map(|(_, calls)| calls) {
        let container = entry(&mut containers, &calls.id);
        container.since = clock.rfc3339(calls.since_ns);
        container.seconds = now_ns.saturating_sub(calls.since_ns) / 1_000_000_000;
        container.syscalls = syscall::names(&calls.used).into_iter().map(|name| name.into_owned()).collect();
        let refused = calls.denied.iter();
        container.refused =
            refused.map(|((nr, how), denial)| refused_call(*nr, *how, denial, clock)).collect();
    }
    for checks in checks.into_iter().flat_map(|(_, checks)| checks) {
        let container = entry(&mut containers, &checks.id);
        container.capabilities_seconds = now_ns.saturating_sub(checks.since_ns) / 1_000_000_000;
        container.capabilities =
            checks.checks.iter().map(|(number, count)| checked(*number, count, clock)).collect();
    }
    for accesses in accesses.into_iter().flatten() {
        let container = entry(&mut containers, &accesses.id);
        container.apparmor_seconds = now_ns.saturating_sub(accesses.since_ns) / 1_000_000_000;
        container.apparmor =
            accesses.accesses.iter().map(|(access, count)| denied(access, count, clock)).collect();
    }
    observed.containers = containers.into_values().collect();
    observed
}

fn entry<'a>(containers: &'a mut BTreeMap<String, ObservedContainer>, id: &str) -> &'a mut ObservedContainer {
    containers
        .entry(id.to_owned())
        .or_insert_with(|| ObservedContainer { id: id.to_owned(), ..ObservedContainer::default() })
}

fn refused_call(nr: u32, verdict: u32, denial: &Denial, clock: &Clock) -> RefusedCall {
    RefusedCall {
        syscall: syscall::label(nr).into_owned(),
        how: match verdict {
            verdict::DENIED => How::Denied,
            verdict::UNCLASSIFIED => How::Unclassified,
            verdict::THREAD_KILLED => How::ThreadEnded,
            _ => How::Signalled,
        },
        errno: (denial.errno != 0).then(|| crate::detect::errno_name(denial.errno as i32)),
        count: denial.count,
        first: clock.rfc3339(denial.first_ns),
        last: clock.rfc3339(denial.last_ns),
        pid: denial.tgid,
        comm: text(&denial.comm),
    }
}

fn denied(access: &Access, count: &AccessCount, clock: &Clock) -> DeniedAccess {
    DeniedAccess {
        result: access.verdict,
        operation: access.operation.clone(),
        what: access.what.clone(),
        class: count.class.clone(),
        profile: access.profile.clone(),
        denied: count.denied.clone(),
        count: count.count,
        first: clock.rfc3339(count.first_ns),
        last: clock.rfc3339(count.last_ns),
        pid: count.pid,
        comm: count.comm.clone(),
    }
}

fn checked(number: u32, count: &CheckCount, clock: &Clock) -> CheckedCapability {
    let seen = |sight: &CheckSight| Checks {
        first: clock.rfc3339(sight.first_ns),
        last: clock.rfc3339(sight.last_ns),
        pid: sight.pid,
        comm: sight.comm.clone(),
        user_namespace: sight.user_ns,
    };
    CheckedCapability {
        capability: capability_label(number),
        granted: count.granted,
        denied: count.denied,
        grants: count.grants.as_ref().map(seen),
        denials: count.denials.as_ref().map(seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::AppArmorVerdict;

    fn calls(id: &str) -> ContainerCalls {
        let denial = Denial {
            count: 3,
            first_ns: 1_000_000_000,
            last_ns: 2_000_000_000,
            errno: 1,
            tgid: 7,
            comm: *b"sh\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ..Denial::default()
        };
        ContainerCalls {
            id: id.into(),
            name: String::new(),
            pod: String::new(),
            namespace: String::new(),
            since_ns: 1_000_000_000,
            used: syscall::set(["write", "read"]),
            denied: [((272, verdict::DENIED), denial)].into(),
        }
    }

    #[test]
    fn what_two_audits_say_of_one_container_is_put_together() {
        let sight = CheckSight {
            first_ns: 1_000_000_000,
            last_ns: 2_000_000_000,
            pid: 9,
            comm: "chown".into(),
            user_ns: 4026531837,
        };
        let count = CheckCount { granted: 2, denied: 1, grants: Some(sight), denials: None };
        let checks = ContainerChecks {
            id: "b".into(),
            name: String::new(),
            pod: String::new(),
            namespace: String::new(),
            since_ns: 1_000_000_000,
            checks: [(0, count)].into(),
        };
        let clock = Clock::now();
        let access = Access {
            verdict: AppArmorVerdict::Denied,
            operation: "open".into(),
            what: "/etc/shadow".into(),
            profile: "web".into(),
        };
        let count = AccessCount {
            count: 4,
            first_ns: 1_000_000_000,
            last_ns: 2_000_000_000,
            ..AccessCount::default()
        };
        let accesses = ContainerAccesses {
            id: "b".into(),
            name: String::new(),
            pod: String::new(),
            namespace: String::new(),
            since_ns: 31_000_000_000,
            accesses: [(access, count)].into(),
        };
        let observed = put_together(
            Some((true, vec![checks])),
            Some((true, vec![calls("b"), calls("a")])),
            Some(vec![accesses]),
            61_000_000_000,
            &clock,
        );
        let [a, b] = observed.containers.as_slice() else { panic!("{observed:?}") };
        assert_eq!((a.id.as_str(), a.seconds, a.capabilities.len()), ("a", 60, 0));
        assert_eq!(b.syscalls, ["read", "write"]);
        let refused = &b.refused[0];
        assert_eq!((refused.syscall.as_str(), refused.how, refused.count), ("unshare", How::Denied, 3));
        assert_eq!((refused.errno.as_deref(), refused.comm.as_str()), (Some("EPERM"), "sh"));
        let [checked] = b.capabilities.as_slice() else { panic!("{b:?}") };
        assert_eq!((checked.capability.as_str(), checked.granted, checked.denied), ("CAP_CHOWN", 2, 1));
        let grants = checked.grants.as_ref().expect("grants");
        assert_eq!((grants.pid, grants.comm.as_str(), grants.user_namespace), (9, "chown", 4026531837));
        assert!(grants.first < grants.last && checked.denials.is_none());
        assert_eq!(b.capabilities_seconds, 60);
        assert_eq!(
            (b.apparmor_seconds, b.apparmor[0].count, b.apparmor[0].what.as_str()),
            (30, 4, "/etc/shadow")
        );
        assert!(b.apparmor[0].first < b.apparmor[0].last && a.apparmor.is_empty());
        assert!(observed.syscalls && observed.seccomp && observed.capabilities && observed.apparmor);
    }

    #[test]
    fn what_is_not_audited_is_not_claimed() {
        let observed = put_together(None, Some((false, vec![])), None, 0, &Clock::now());
        let expected = Observed { syscalls: true, ..Observed::default() };
        assert_eq!(observed, expected);
    }
}
