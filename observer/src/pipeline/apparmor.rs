//! What AppArmor denies, from the kernel's audit log to the core, and what was counted of it.

use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd, RawFd},
};

use crate::{
    enrich::{Access, AccessCount, World},
    kernel::AuditLog,
    model::{AppArmorRecord, Clock, ContainerKey, SeriesLabels},
};

/// Records in [`WINDOW_NS`]: a container may ask for what it is denied as fast as it can, and what is beyond waits in the socket, or
/// is lost and counted there.
const IN_A_WINDOW: usize = 512;
const WINDOW_NS: u64 = 20_000_000;

/// What was counted for one living container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerAccesses {
    pub id: String,
    /// As [`SeriesLabels`] has it.
    pub name: String,
    /// Empty without a pod.
    pub pod: String,
    pub namespace: String,
    /// Since when it is counted, kernel time.
    pub since_ns: u64,
    pub accesses: BTreeMap<Access, AccessCount>,
}

/// Reads the log.
pub struct AppArmorAudit {
    log: AuditLog,
    since_ns: u64,
    window: u64,
    spent: usize,
}

impl AppArmorAudit {
    pub fn new(log: AuditLog, now_ns: u64) -> Self {
        AppArmorAudit { log, since_ns: now_ns, window: 0, spent: 0 }
    }

    /// Takes what there is, or a good part of it; repeats in a row are one record.
    pub fn take(&mut self, now_ns: u64) -> Vec<AppArmorRecord> {
        let window = now_ns / WINDOW_NS;
        if window != self.window {
            (self.window, self.spent) = (window, 0);
        }
        let mut records: Vec<AppArmorRecord> = Vec::new();
        let left = IN_A_WINDOW - self.spent;
        self.spent += self.log.read(left, &Clock::now(), |record| fold(&mut records, record));
        records
    }

    pub fn undecodable(&self) -> u64 {
        self.log.undecodable()
    }

    /// Records that found no room in the socket.
    pub fn lost(&mut self) -> u64 {
        self.log.lost()
    }

    /// All living containers, in the order of their first sight: of most there is nothing.
    pub fn all(
        &self,
        world: &World,
        counted: &BTreeMap<ContainerKey, BTreeMap<Access, AccessCount>>,
    ) -> Vec<ContainerAccesses> {
        let living = world.containers.values().filter(|container| container.processes > 0);
        let named = living.map(|container| {
            let SeriesLabels { name, pod, namespace } = container.series_labels();
            ContainerAccesses {
                id: container.id.clone(),
                name,
                pod,
                namespace,
                since_ns: self.since_ns.max(container.created_ns),
                accesses: counted.get(&container.key).cloned().unwrap_or_default(),
            }
        });
        named.collect()
    }
}

impl AsRawFd for AppArmorAudit {
    fn as_raw_fd(&self) -> RawFd {
        self.log.as_raw_fd()
    }
}

fn fold(records: &mut Vec<AppArmorRecord>, record: AppArmorRecord) {
    match records.last_mut() {
        Some(last) if record.repeats(last) => last.count += record.count,
        _ => records.push(record),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_in_a_row_are_one_record() {
        let record = |name: &str, time_ns| AppArmorRecord {
            time_ns,
            count: 1,
            pid: 7,
            name: Some(name.into()),
            ..AppArmorRecord::default()
        };
        let mut records = Vec::new();
        for (name, time_ns) in [("a", 1), ("a", 2), ("b", 3), ("a", 4), ("a", 5), ("a", 6)] {
            fold(&mut records, record(name, time_ns));
        }
        let counts: Vec<(&str, u64, u64)> = records
            .iter()
            .map(|record| (record.name.as_deref().unwrap_or_default(), record.time_ns, record.count))
            .collect();
        assert_eq!(counts, [("a", 1, 2), ("b", 3, 1), ("a", 4, 3)]);
    }
}
