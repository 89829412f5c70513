//! A container's seccomp filter refused a call.

use super::{Definition, Detector, Draft, called, errno_name, who};
use crate::{
    enrich::{Fact, Finding, World},
    model::{Evidence, Severity, syscall},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "seccomp.denied",
    title: "System call refused by seccomp",
    severity: Severity::Warning,
    mitre: &["T1611", "T1068"],
    needs: &["seccomp_denied"],
    what: "A container's process made a system call that its seccomp filter answered with an error, which no log shows. One \
           alert for each container and call, with the count of all, so also of later ones. A warning for calls by which one \
           leaves a container or attacks the kernel; info where the filter says that there is no such call (ENOSYS), which \
           programs are prepared for; else a notice. `evidence.errno` is what the program got. Only with `audit.seccomp`.",
    looks: "sh (pid 100) of container web called unshare, which its seccomp filter refuses (EPERM)",
    evidence: &["syscall", "errno"],
    false_positives: "Programs that try what they can do without: docker's default profile says ENOSYS to every clone3 of a \
                      current C library.",
    response: "Ask what the program wanted with it. If it is the container's work, record a profile that has it; if not, treat \
               the container as compromised.",
};

/// Namespaces, mounts, the kernel's own doors, and other processes' memory.
const GRAVE: &str = "add_key bpf chroot clone delete_module finit_module fsconfig fsmount fsopen fspick init_module ioperm \
                     iopl kexec_file_load kexec_load keyctl mount mount_setattr move_mount open_by_handle_at open_tree \
                     open_tree_attr perf_event_open pidfd_getfd pivot_root process_vm_readv process_vm_writev ptrace reboot \
                     request_key setns umount2 unshare userfaultfd";

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::SeccompDenied(fact) = &finding.fact else { return None };
    let call = syscall::label(fact.nr);
    let severity = if fact.errno == libc::ENOSYS {
        Severity::Info
    } else if GRAVE.split_whitespace().any(|grave| grave == call) {
        Severity::Warning
    } else {
        Severity::Notice
    };
    let errno = errno_name(fact.errno);
    Some(Draft {
        definition: &DEFINITION,
        severity,
        message: format!(
            "{} of {} called {call}, which its seccomp filter refuses ({errno})",
            who(finding),
            called(world, finding.container)
        ),
        container: finding.container,
        namespaces: None,
        subject: call.clone().into_owned(),
        evidence: Evidence { syscall: Some(call.into_owned()), errno: Some(errno), ..Evidence::default() },
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::enrich::SeccompFact;

    #[test]
    fn the_call_and_the_answer_make_the_severity() {
        let world = world();
        let mut finding = refused(observer_common::Kind::Setns);
        assert!(on_finding(&finding, &world).is_none());
        let cases = [
            ("unshare", libc::EPERM, Severity::Warning),
            ("clone", libc::ENOSYS, Severity::Info),
            ("clone3", libc::ENOSYS, Severity::Info),
            ("uname", libc::EPERM, Severity::Notice),
        ];
        for (call, errno, severity) in cases {
            let nr = syscall::number(call).unwrap();
            let fact = SeccompFact { nr, errno, is_thread: false, count: 3 };
            finding.fact = Fact::SeccompDenied(fact.clone());
            let draft = on_finding(&finding, &world).unwrap();
            assert_eq!((draft.severity, draft.subject.as_str()), (severity, call));
            assert_eq!(draft.evidence.syscall.as_deref(), Some(call));
            assert_eq!(draft.message == DEFINITION.looks, call == "unshare");
            finding.fact = Fact::SeccompKilled(fact);
            assert!(on_finding(&finding, &world).is_none());
        }
        finding.fact = Fact::SeccompDenied(SeccompFact { nr: 500, errno: 13, is_thread: false, count: 1 });
        let draft = on_finding(&finding, &world).unwrap();
        assert_eq!(
            draft.message,
            "sh (pid 100) of container web called 500, which its seccomp filter refuses (EACCES)"
        );
    }

    #[test]
    fn grave_calls_have_names() {
        assert!(GRAVE.split_whitespace().all(|name| syscall::number(name).is_some()));
    }
}
