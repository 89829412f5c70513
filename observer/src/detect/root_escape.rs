//! A container's task has a root directory that is not its container's.

use observer_common::Kind;

use super::{Definition, Detector, Draft, called, errno_name, who};
use crate::{
    enrich::{Door, Fact, Finding, RootVerdict, World},
    model::{Evidence, Severity},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "root.escape",
    title: "Root directory outside the container",
    severity: Severity::Critical,
    mitre: &["T1611"],
    needs: &["chroot", "pivot_root", "exec", "drift"],
    what: "A container's process changed its root directory to the whole of the host's root file system (`chroot /host` \
           on a mounted host root), or to a directory whose mount belongs to another mount namespace (such as \
           /proc/PID/root of a process outside). From there it uses the host's files as its own. Changing the root to a \
           volume, a tmpfs or a tree inside the container is nothing. `evidence.to` is the kernel's own path of the new root \
           (`evidence.path_source` \"kernel\"), in the mount namespace that its mount belongs to; after a pivot_root that \
           is where the old root was, usually `/`. Of a refused attempt, and where the kernel's cannot be read, it is what \
           the caller's memory holds (\"caller\"), which another thread may have rewritten.",
    looks: "sh (pid 100) of container web has the host's root file system as its root (chroot)",
    evidence: &["syscall", "door", "root", "to", "path_source", "errno"],
    false_positives: "Node maintenance pods that mount the host's root and chroot into it on purpose (debug pods, some \
                      upgrade agents).",
    response: "As for namespace.escape. Ask why the container mounts the host's root at all.",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    match &finding.fact {
        Fact::Root { door, verdict, path } => {
            let (root, what) = match verdict {
                RootVerdict::HostRoot => ("host_root", "the host's root file system"),
                RootVerdict::ForeignMountNamespace => {
                    ("foreign_mount_namespace", "a directory of another mount namespace")
                }
            };
            let how = match door {
                _ if finding.late => "it was so when the agent started",
                Door::Call(call) => call.name(),
                Door::Unseen => "no watched system call explains how",
            };
            Some(Draft {
                definition: &DEFINITION,
                severity: Severity::Critical,
                message: format!(
                    "{} of {} has {what} as its root ({how})",
                    who(finding),
                    called(world, finding.container)
                ),
                container: finding.container,
                namespaces: None,
                evidence: Evidence {
                    syscall: match door {
                        Door::Call(call) => Some(call.name().into()),
                        Door::Unseen => None,
                    },
                    door: (!finding.late).then(|| door.name().into()),
                    root: Some(root.into()),
                    to: path.as_ref().map(|path| path.text.clone()),
                    path_source: path.as_ref().map(|path| path.source),
                    ..Evidence::default()
                },
                subject: format!("{root} {:?}", path.as_ref().map(|path| &path.text)),
            })
        }
        Fact::Refused { call: call @ (Kind::Chroot | Kind::PivotRoot), errno, path, .. } => {
            let errno = errno_name(*errno);
            Some(Draft {
                definition: &DEFINITION,
                severity: Severity::Notice,
                message: format!(
                    "{} of {} tried to change its root directory and was refused ({errno})",
                    who(finding),
                    called(world, finding.container)
                ),
                container: finding.container,
                namespaces: None,
                subject: format!("{} {errno}", call.name()),
                evidence: Evidence {
                    syscall: Some(call.name().into()),
                    errno: Some(errno),
                    to: path.as_ref().map(|path| path.text.clone()),
                    path_source: path.as_ref().map(|path| path.source),
                    ..Evidence::default()
                },
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::model::{PathSource, RootPath};

    #[test]
    fn both_verdicts_are_critical_and_say_whose_word_the_path_is() {
        let world = world();
        for verdict in [RootVerdict::HostRoot, RootVerdict::ForeignMountNamespace] {
            for path in [Some(RootPath::from_names(b"host\0", true)), RootPath::given(b"host"), None] {
                let mut finding = refused(Kind::Chroot);
                finding.fact = Fact::Root { door: Door::Call(Kind::Chroot), verdict, path: path.clone() };
                let draft = on_finding(&finding, &world).unwrap();
                assert_eq!(draft.severity, Severity::Critical);
                assert_eq!(draft.message == DEFINITION.looks, verdict == RootVerdict::HostRoot);
                assert_eq!(draft.evidence.to, path.as_ref().map(|path| path.text.clone()));
                assert_eq!(draft.evidence.path_source, path.map(|path| path.source));
            }
        }
    }

    #[test]
    fn refusals_are_notices_with_what_the_caller_gave() {
        let world = world();
        let mut finding = refused(Kind::PivotRoot);
        let draft = on_finding(&finding, &world).unwrap();
        assert_eq!((draft.severity, draft.evidence.to), (Severity::Notice, None));
        let Fact::Refused { path, .. } = &mut finding.fact else { panic!("a refusal") };
        *path = RootPath::given(b"/host");
        let draft = on_finding(&finding, &world).unwrap();
        assert_eq!(draft.evidence.to.as_deref(), Some("/host"));
        assert_eq!(draft.evidence.path_source, Some(PathSource::Caller));
        assert!(on_finding(&refused(Kind::Setns), &world).is_none());
    }
}
