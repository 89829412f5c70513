//! AppArmor denied something to a container's process.

use super::{Definition, Detector, Draft, called, who};
use crate::{
    enrich::{Fact, Finding, World},
    model::{AppArmorRecord, AppArmorVerdict, Evidence, Severity},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "apparmor.denied",
    title: "Access denied by AppArmor",
    severity: Severity::Warning,
    mitre: &["T1611", "T1068"],
    needs: &[],
    what: "A container's process was denied something by its AppArmor profile, as the kernel's audit log has it. One alert for each \
           container, profile, operation and what it was to (a path, a capability, a socket, another process), with the count \
           of all, so also of later ones; the process is the first. A warning for mounts, namespaces, other processes' memory, \
           changes of profile, writes below /proc and /sys, and where the profile ends the process (mode `kill`); else a notice. \
           What a profile in complain mode would have denied is no alert: `observer audit CONTAINER` counts it. The kernel itself leaves \
           out what a profile denies with `deny` (without `audit`), and may write a capability only once for each profile and CPU: \
           the count is that of its records. Only with `audit.apparmor`, and only for an agent in the host's network namespace \
           (`observer check` says why it cannot be had). A denial whose process is not known any more is counted as \
           `unattributed`, records that found no room as `audit_log` in `observer_events_lost_total`; a container that floods the \
           kernel's own queue of 64 can make it drop others', which is told to nobody but auditd.",
    looks: "sh (pid 100) of container web was denied open of /etc/shadow (r) by AppArmor profile web",
    evidence: &["profile", "mode", "operation", "class", "name", "requested", "denied", "capability", "peer"],
    false_positives: "Programs that try what they can do without; a profile that is narrower than the container's work, as one \
                      made of an incomplete run.",
    response: "Ask what the program wanted with it. If it is the container's work, let its profile allow it; if not, treat the \
               container as compromised.",
};

/// Mounts, roots, namespaces, other processes, other profiles: `security/apparmor/lsm.c` and what it calls.
const GRAVE: &str = "change_hat change_onexec change_profile mount pivotroot ptrace remount rslave stack stack_onexec umount \
                     userns_create";

fn is_grave(record: &AppArmorRecord) -> bool {
    let writes = record.denied.as_ref().is_some_and(|mask| mask.contains(['w', 'a']));
    let kernels = |path: &String| path.starts_with("/proc/") || path.starts_with("/sys/");
    record.verdict == AppArmorVerdict::Killed
        || GRAVE.split_whitespace().any(|grave| grave == record.operation)
        || record.class.as_deref() == Some("mount")
        || writes && record.name.as_ref().is_some_and(kernels)
}

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::AppArmorDenied(record) = &finding.fact else { return None };
    if record.verdict == AppArmorVerdict::Allowed {
        return None;
    }
    let what = record.what();
    let mut access = match &record.capability {
        Some(capability) => capability.clone(),
        None if what.is_empty() => record.operation.clone(),
        None => format!("{} of {what}", record.operation),
    };
    if let Some(denied) = record.denied.as_ref().filter(|denied| **denied != record.operation) {
        access = format!("{access} ({denied})");
    }
    let killed = if record.verdict == AppArmorVerdict::Killed { ", which ends it" } else { "" };
    let (who, container) = (who(finding), called(world, finding.container));
    let profile = &record.profile;
    Some(Draft {
        definition: &DEFINITION,
        severity: if is_grave(record) { Severity::Warning } else { Severity::Notice },
        message: format!("{who} of {container} was denied {access} by AppArmor profile {profile}{killed}"),
        container: finding.container,
        namespaces: None,
        subject: [profile, record.operation.as_str(), &what].join("\0"),
        evidence: Evidence {
            profile: Some(profile.clone()),
            mode: Some(record.verdict.mode().to_owned()),
            operation: Some(record.operation.clone()),
            class: record.class.clone(),
            name: record.name.clone(),
            requested: record.requested.clone(),
            denied: record.denied.clone(),
            capability: record.capability.clone(),
            peer: record.peer.clone(),
            ..Evidence::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn record(operation: &str, what: &str, denied: &str) -> AppArmorRecord {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let is_capability = what.starts_with("CAP_");
        AppArmorRecord {
            time_ns: 1,
            count: 2,
            pid: 100,
            comm: "sh".into(),
            operation: operation.into(),
            profile: "web".into(),
            name: some(what).filter(|_| !is_capability),
            capability: some(what).filter(|_| is_capability),
            requested: some(denied),
            denied: some(denied),
            ..AppArmorRecord::default()
        }
    }

    fn draft(record: AppArmorRecord) -> Option<Draft> {
        let mut finding = refused(observer_common::Kind::Setns);
        finding.fact = Fact::AppArmorDenied(record);
        let world = world();
        super::super::detect(&finding, &world).pop()
    }

    #[test]
    fn what_was_denied_makes_the_severity() {
        let cases = [
            ("open", "/proc/sysrq-trigger", "w", Severity::Warning, "open of /proc/sysrq-trigger (w)"),
            ("open", "/proc/kcore", "r", Severity::Notice, "open of /proc/kcore (r)"),
            ("mkdir", "/etc/x/", "c", Severity::Notice, "mkdir of /etc/x/ (c)"),
            ("open", "/etc/shadow", "r", Severity::Notice, "open of /etc/shadow (r)"),
            ("capable", "CAP_SYS_TIME", "", Severity::Notice, "CAP_SYS_TIME"),
            ("mount", "/mnt/", "", Severity::Warning, "mount of /mnt/"),
            ("userns_create", "", "userns_create", Severity::Warning, "userns_create"),
            ("ptrace", "", "read", Severity::Warning, "ptrace (read)"),
            ("create", "inet dgram", "create", Severity::Notice, "create of inet dgram"),
        ];
        for (operation, what, denied, severity, words) in cases {
            let draft = draft(record(operation, what, denied)).expect("an alert");
            assert_eq!(draft.severity, severity, "{operation} {what}");
            let by = "by AppArmor profile web";
            assert_eq!(draft.message, format!("sh (pid 100) of container web was denied {words} {by}"));
            assert_eq!(draft.message == DEFINITION.looks, what == "/etc/shadow");
        }
    }

    #[test]
    fn the_profiles_mode_is_told_and_complaints_are_not() {
        let with = |verdict| {
            draft(AppArmorRecord { verdict, class: Some("file".into()), ..record("open", "/a", "r") })
        };
        let killed = with(AppArmorVerdict::Killed).expect("an alert");
        assert_eq!((killed.severity, killed.evidence.mode.as_deref()), (Severity::Warning, Some("kill")));
        assert!(killed.message.ends_with(", which ends it"));
        let denied = with(AppArmorVerdict::Denied).expect("an alert");
        let evidence = &denied.evidence;
        assert_eq!((evidence.mode.as_deref(), evidence.class.as_deref()), (Some("enforce"), Some("file")));
        assert_eq!((evidence.name.as_deref(), evidence.denied.as_deref()), (Some("/a"), Some("r")));
        assert!(with(AppArmorVerdict::Allowed).is_none());
        assert!(on_finding(&refused(observer_common::Kind::Setns), &world()).is_none());
    }

    /// Whatever the mask: who is denied to read and then to write is denied one thing.
    #[test]
    fn the_same_thing_is_the_same_alert() {
        let subject = |record| draft(record).expect("an alert").subject;
        let first = subject(record("open", "/a", "r"));
        assert_eq!(first, subject(record("open", "/a", "w")));
        for other in [record("open", "/b", "r"), record("mknod", "/a", "r")] {
            assert_ne!(first, subject(other));
        }
        let profile = AppArmorRecord { profile: "q".into(), ..record("open", "/a", "r") };
        assert_ne!(first, subject(profile));
    }
}
