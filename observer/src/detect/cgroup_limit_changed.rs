//! Somebody changed the limits of a running container.

use super::{Definition, Detector, Draft, called};
use crate::{
    enrich::{Fact, Finding, World},
    limits::Change,
    model::{Ancestor, ChangeEvidence, Evidence, Severity},
};

pub const DETECTOR: Detector = Detector { definition: &DEFINITION, on_finding };

static DEFINITION: Definition = Definition {
    id: "cgroup.limit_changed",
    title: "Limits of a running container changed",
    severity: Severity::Critical,
    mitre: &["T1611", "T1562"],
    needs: &[],
    what: "A limit of a running container (memory, cpu, pids, io, cpuset), or the nearest limit of a cgroup above it, is not \
           what it was: `evidence.changes` has the file, the old and the new value as the kernel has them (rounded to \
           pages). `process` is who wrote, where that was seen (fanotify; by an agent with CAP_SYS_ADMIN). `critical` if it \
           is a container's process: it can write the host's cgroup files. Else `notice`.",
    looks: "memory.max of container web changed from 33554432 to unlimited, by sh (pid 100) inside it",
    evidence: &["changes", "mover", "writer_container"],
    false_positives: "`notice`: `docker update`, `systemctl set-property`, the kubelet's CPU manager and in-place resizes of pods.",
    response: "For `critical`: find out how the container got at cgroup files (a writable mount of them, CAP_SYS_ADMIN), and \
               take it away. For `notice`: hold it against who was to change limits then.",
};

fn on_finding(finding: &Finding, world: &World) -> Option<Draft> {
    let Fact::LimitsChanged(changed) = &finding.fact else { return None };
    let first = changed.changes.first()?;
    let more = match changed.changes.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let inside = changed.writer.as_ref().and_then(|writer| writer.container);
    let by = match &changed.writer {
        Some(writer) => {
            let comm = writer.comm.as_deref().unwrap_or("a process");
            let of = match inside {
                Some(key) if Some(key) == finding.container => " inside it".to_owned(),
                Some(key) => format!(" of {}", called(world, Some(key))),
                None => String::new(),
            };
            format!(", by {comm} (pid {}){of}", writer.pid)
        }
        None => String::new(),
    };
    Some(Draft {
        definition: &DEFINITION,
        severity: if inside.is_some() { Severity::Critical } else { Severity::Notice },
        message: format!(
            "{} of {} changed from {} to {}{more}{by}",
            first.at.file,
            called(world, finding.container),
            first.from,
            first.to,
        ),
        container: finding.container,
        namespaces: None,
        evidence: Evidence {
            changes: changed.changes.iter().map(change).collect(),
            mover: changed
                .writer
                .as_ref()
                .filter(|_| finding.subject.is_none())
                .map(|writer| Ancestor { pid: writer.pid, comm: writer.comm.clone().unwrap_or_default() }),
            writer_container: inside.and_then(|key| world.container_ref(key)),
            ..Evidence::default()
        },
        subject: changed
            .changes
            .iter()
            .map(|change| format!("{} {}", change.at.file, change.to))
            .collect::<Vec<_>>()
            .join(","),
    })
}

fn change(change: &Change) -> ChangeEvidence {
    ChangeEvidence {
        file: change.at.file.clone(),
        cgroup_path: change.at.cgroup.clone(),
        hierarchy: change.at.hierarchy,
        from: change.from.clone(),
        to: change.to.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::{
        limits::{LimitFile, LimitsChanged, Writer},
        model::ContainerKey,
    };

    fn draft(files: &[&str], writer: Option<(u32, Option<ContainerKey>)>) -> Draft {
        let mut finding = refused(observer_common::Kind::Setns);
        let changes = files.iter().map(|file| Change {
            at: LimitFile { hierarchy: 0, cgroup: "/docker/web".into(), file: (*file).into() },
            from: "33554432".into(),
            to: "unlimited".into(),
        });
        finding.fact = Fact::LimitsChanged(LimitsChanged {
            changes: changes.collect(),
            writer: writer.map(|(pid, container)| Writer { pid, comm: Some("sh".into()), container }),
        });
        on_finding(&finding, &world()).expect("an alert")
    }

    #[test]
    fn who_wrote_decides() {
        let unseen = draft(&["memory.max"], None);
        assert_eq!(unseen.severity, Severity::Notice);
        assert_eq!(unseen.message, "memory.max of container web changed from 33554432 to unlimited");
        let host = draft(&["memory.max", "pids.max", "cpu.max"], Some((7, None)));
        assert_eq!(host.severity, Severity::Notice);
        assert_eq!(
            host.message,
            "memory.max of container web changed from 33554432 to unlimited and 2 more, by sh (pid 7)"
        );
        assert_eq!(host.evidence.changes.len(), 3);
        let inside = draft(&["memory.max"], Some((100, Some(web()))));
        assert_eq!(inside.severity, Severity::Critical);
        assert_eq!(inside.message, DEFINITION.looks);
        let other = draft(&["memory.max"], Some((100, Some(other()))));
        assert_eq!(other.severity, Severity::Critical);
        assert!(other.message.ends_with(", by sh (pid 100) of container db"), "{}", other.message);
        assert_eq!(other.evidence.writer_container.map(|it| it.id), Some("db-id".into()));
    }

    #[test]
    fn other_facts_are_not_its_business() {
        assert!(on_finding(&refused(observer_common::Kind::Setns), &world()).is_none());
    }
}
