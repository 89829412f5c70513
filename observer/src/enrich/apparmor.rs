//! Accesses that AppArmor denied. The kernel's log tells them by pid, some milliseconds late: by then the rings have been read,
//! and the tables know the process, or remember it.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{Enricher, finding::*};
use crate::model::{AppArmorRecord, AppArmorVerdict, ContainerKey};

/// Different accesses of one container that are told apart: paths are its choice. What is beyond is counted by operation.
const MOST_OF_ONE: usize = 256;
/// A record's time is the clock's last tick, and cut to a millisecond: a process may seem to begin after it.
const SLACK_NS: u64 = 20_000_000;

/// What a container's processes tried, and what AppArmor made of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    pub verdict: AppArmorVerdict,
    pub operation: String,
    /// See [`AppArmorRecord::what`]. Empty, as the profile, where there were too many to be told apart.
    pub what: String,
    pub profile: String,
}

/// How often, and whose the first was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessCount {
    pub count: u64,
    pub first_ns: u64,
    pub last_ns: u64,
    pub pid: u32,
    pub comm: String,
    pub class: Option<String>,
    /// What was denied the first time.
    pub denied: Option<String>,
}

/// What has been counted.
#[derive(Debug, Default)]
pub(super) struct Accesses {
    of: BTreeMap<ContainerKey, BTreeMap<Access, AccessCount>>,
    /// Of processes that nobody has heard of.
    unattributed: u64,
}

impl Accesses {
    fn add(&mut self, container: ContainerKey, record: &AppArmorRecord) {
        let of = self.of.entry(container).or_default();
        let mut access = Access {
            verdict: record.verdict,
            operation: record.operation.clone(),
            what: record.what(),
            profile: record.profile.clone(),
        };
        if of.len() >= MOST_OF_ONE && !of.contains_key(&access) {
            (access.what, access.profile) = (String::new(), String::new());
        }
        let count = match of.entry(access) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(AccessCount {
                count: 0,
                first_ns: record.time_ns,
                last_ns: 0,
                pid: record.pid,
                comm: record.comm.clone(),
                class: record.class.clone(),
                denied: record.denied.clone(),
            }),
        };
        count.count += record.count;
        count.last_ns = count.last_ns.max(record.time_ns);
    }
}

impl Enricher {
    /// What AppArmor said. What a profile in complain mode would have denied is counted, and no finding.
    pub fn denied_access(&mut self, records: &[AppArmorRecord]) -> Vec<Finding> {
        self.forget_accesses();
        for record in records {
            let time_ns = record.time_ns.saturating_add(SLACK_NS);
            let Some(process) = self.world.process_at(record.pid, time_ns) else {
                // Before the agent knew anybody, that is no wonder.
                if record.time_ns > self.started_ns {
                    self.accesses.unattributed += record.count;
                }
                continue;
            };
            // What a runtime does on the way in is the runtime's.
            let Some(container) = process.container.filter(|_| !process.entering) else { continue };
            self.accesses.add(container, record);
            if record.verdict == AppArmorVerdict::Allowed {
                continue;
            }
            let mut subject = self.world.subject_of(process, record.pid);
            // It may have executed another program since; a thread may have a name of its own.
            if subject.comm != record.comm {
                (subject.exe, subject.args) = (None, Vec::new());
                subject.comm.clone_from(&record.comm);
            }
            self.findings.push(Finding {
                time_ns: record.time_ns.max(process.start_ns),
                subject: Some(subject),
                container: Some(container),
                fact: Fact::AppArmorDenied(record.clone()),
                late: false,
            });
        }
        std::mem::take(&mut self.findings)
    }

    /// Of containers that are gone.
    pub fn forget_accesses(&mut self) {
        let containers = &self.world.containers;
        self.accesses.of.retain(|container, _| containers.contains_key(container));
    }

    /// What has been counted of living containers.
    pub fn accesses(&self) -> &BTreeMap<ContainerKey, BTreeMap<Access, AccessCount>> {
        &self.accesses.of
    }

    /// Denials whose process is neither there nor remembered.
    pub fn unattributed(&self) -> u64 {
        self.accesses.unattributed
    }
}

#[cfg(test)]
mod tests {
    use observer_common::{Host as HostFacts, NAMESPACES, Root};

    use super::*;
    use crate::{
        limits::testing,
        model::{ProcessKey, Runtime, TICK_NS},
    };

    const START_NS: u64 = 50 * TICK_NS;

    /// Process 100 of a container, 101 of the host.
    fn world() -> (Enricher, ContainerKey) {
        let root = Root { mnt_ns: 10, dev: 1, mount_root_ino: 2, ino: 2 };
        let mut enricher = Enricher::new(HostFacts { inodes: [10; NAMESPACES], found: 1, told: 0, root });
        enricher.started_ns = TICK_NS;
        let container = enricher.world.make_container("web", Runtime::Docker, 1, false);
        for (pid, container) in [(100, Some(container)), (101, None)] {
            begin(&mut enricher, pid, START_NS, container);
        }
        (enricher, container)
    }

    fn begin(enricher: &mut Enricher, pid: u32, start_ns: u64, container: Option<ContainerKey>) {
        let mut process = testing::process(ProcessKey::new(pid, start_ns), container);
        process.start_ns = start_ns;
        process.comm = "sh".into();
        enricher.world.insert_process(process);
    }

    fn record(pid: u32, verdict: AppArmorVerdict, name: &str) -> AppArmorRecord {
        AppArmorRecord {
            time_ns: START_NS + 1,
            count: 3,
            pid,
            comm: "sh".into(),
            verdict,
            operation: "open".into(),
            profile: "p".into(),
            name: Some(name.into()),
            ..AppArmorRecord::default()
        }
    }

    #[test]
    fn denials_of_containers_are_found_and_all_are_counted() {
        let (mut enricher, container) = world();
        let records = [
            record(100, AppArmorVerdict::Denied, "/a"),
            record(100, AppArmorVerdict::Allowed, "/a"),
            record(101, AppArmorVerdict::Denied, "/a"),
            record(100, AppArmorVerdict::Killed, "/b"),
            record(100, AppArmorVerdict::Denied, "/a"),
        ];
        let found = enricher.denied_access(&records);
        let facts: Vec<_> = found
            .iter()
            .map(|finding| {
                let Fact::AppArmorDenied(record) = &finding.fact else { panic!("{finding:?}") };
                (finding.container, finding.fact.count(), record.name.as_deref())
            })
            .collect();
        let of = Some(container);
        assert_eq!(facts, [(of, 3, Some("/a")), (of, 3, Some("/b")), (of, 3, Some("/a"))]);
        assert!(found.iter().all(|finding| !finding.late && !finding.fact.is_of_a_program()));
        let counts: Vec<_> = enricher.accesses()[&container]
            .iter()
            .map(|(access, count)| (access.verdict, access.what.as_str(), count.count))
            .collect();
        assert_eq!(
            counts,
            [
                (AppArmorVerdict::Denied, "/a", 6),
                (AppArmorVerdict::Killed, "/b", 3),
                (AppArmorVerdict::Allowed, "/a", 3)
            ]
        );
        assert_eq!(enricher.unattributed(), 0);
    }

    #[test]
    fn who_has_ended_is_remembered_and_not_taken_for_who_has_the_pid_now() {
        let (mut enricher, container) = world();
        enricher.world.bury(100, START_NS);
        begin(&mut enricher, 100, START_NS + 10 * TICK_NS, None);
        let denied = record(100, AppArmorVerdict::Denied, "/a");
        let found = enricher.denied_access(std::slice::from_ref(&denied));
        assert_eq!((found.len(), found[0].container), (1, Some(container)));
        assert_eq!(found[0].subject.as_ref().map(|subject| subject.start_ns), Some(START_NS));
        let later = AppArmorRecord { time_ns: START_NS + 11 * TICK_NS, ..denied.clone() };
        assert!(enricher.denied_access(&[later]).is_empty());
        // A record's time may be before its process's, by as much as the clock is coarse.
        let early = AppArmorRecord { time_ns: START_NS - SLACK_NS, ..denied };
        let found = enricher.denied_access(&[early]);
        assert_eq!((found.len(), found[0].time_ns), (1, START_NS));
        assert_eq!(enricher.unattributed(), 0);
    }

    #[test]
    fn who_is_not_known_is_counted_unless_it_was_before_the_agent() {
        let (mut enricher, container) = world();
        let mut denied = record(999, AppArmorVerdict::Denied, "/a");
        assert!(enricher.denied_access(std::slice::from_ref(&denied)).is_empty());
        assert_eq!(enricher.unattributed(), 3);
        denied.time_ns = 5;
        assert!(enricher.denied_access(&[denied]).is_empty());
        assert_eq!(enricher.unattributed(), 3);
        assert!(!enricher.accesses().contains_key(&container));
    }

    #[test]
    fn what_a_runtime_does_on_the_way_in_is_not_the_containers() {
        let (mut enricher, _) = world();
        enricher.world.processes.get_mut(&100).unwrap().entering = true;
        assert!(enricher.denied_access(&[record(100, AppArmorVerdict::Denied, "/a")]).is_empty());
        assert!(enricher.accesses().is_empty());
    }

    #[test]
    fn another_name_is_another_program() {
        let (mut enricher, _) = world();
        enricher.world.processes.get_mut(&100).unwrap().exe = Some("/bin/sh".into());
        let mut denied = record(100, AppArmorVerdict::Denied, "/a");
        let subject = |found: Vec<Finding>| found[0].subject.clone().unwrap();
        assert_eq!(subject(enricher.denied_access(&[denied.clone()])).exe.as_deref(), Some("/bin/sh"));
        denied.comm = "cat".into();
        let subject = subject(enricher.denied_access(&[denied]));
        assert_eq!((subject.comm.as_str(), subject.exe), ("cat", None));
    }

    #[test]
    fn one_container_cannot_fill_the_memory_and_goes_with_its_counts() {
        let (mut enricher, container) = world();
        let many: Vec<_> =
            (0..1000).map(|n| record(100, AppArmorVerdict::Denied, &format!("/{n}"))).collect();
        assert_eq!(enricher.denied_access(&many).len(), 1000);
        let of = &enricher.accesses()[&container];
        assert_eq!(of.len(), MOST_OF_ONE + 1);
        assert_eq!(of.values().map(|count| count.count).sum::<u64>(), 3000);
        enricher.world.bury(100, START_NS);
        enricher.forget_accesses();
        assert!(enricher.accesses().is_empty());
    }
}
