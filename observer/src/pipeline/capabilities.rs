//! Checks of capabilities by container, made of what the kernel side counts by slot. For the metrics alone: no rule rests on
//! them, and no recording holds them.

use std::collections::{BTreeMap, HashSet};

use observer_common::{CapabilityCount, CapabilityKey};

use crate::{enrich::World, kernel::CapabilityTable, model::ContainerKey};

/// What was counted for one living container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerChecks {
    pub id: String,
    /// Empty if it has none, or none is known.
    pub name: String,
    /// Empty without a pod.
    pub pod: String,
    pub namespace: String,
    /// By the capability's number.
    pub checks: BTreeMap<u32, CapabilityCount>,
}

/// Reads the kernel side's table, and keeps it clean.
pub struct CapabilityAudit {
    table: CapabilityTable,
    /// Slots that nobody knew at the last reading. The event that makes them known may be under way.
    strangers: HashSet<u64>,
}

impl CapabilityAudit {
    pub fn new(table: CapabilityTable) -> Self {
        CapabilityAudit { table, strangers: HashSet::new() }
    }

    /// Checks that meant no use are told apart from those that did.
    pub fn classified(&self) -> bool {
        self.table.classified
    }

    /// All containers of which something was counted, in the order of their first sight.
    pub fn read(&mut self, world: &World) -> Vec<ContainerChecks> {
        let mut sorted = sort(&self.table.read(), world, &self.strangers);
        for key in &sorted.forgotten {
            self.table.forget(key);
        }
        self.strangers = std::mem::take(&mut sorted.strangers);
        let named = sorted.by_container.into_iter().filter_map(|(key, checks)| {
            let container = world.container(Some(key))?;
            let name = container.name.clone().unwrap_or_default();
            let pod = container.pod.clone().unwrap_or_default();
            let (pod, namespace) = (pod.name, pod.namespace);
            Some(ContainerChecks { id: container.id.clone(), name, pod, namespace, checks })
        });
        named.collect()
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sorted {
    by_container: BTreeMap<ContainerKey, BTreeMap<u32, CapabilityCount>>,
    forgotten: Vec<CapabilityKey>,
    strangers: HashSet<u64>,
}

/// Says whose each count is. To be forgotten is what turned out to be the host's, and what nobody has known twice: the
/// container is gone.
fn sort(
    counts: &[(CapabilityKey, CapabilityCount)],
    world: &World,
    strangers_before: &HashSet<u64>,
) -> Sorted {
    let mut sorted = Sorted::default();
    for (key, count) in counts {
        match world.slots.get(&key.slot) {
            Some(slot) if slot.is_host => sorted.forgotten.push(*key),
            // One that is known, and not yet what it is, waits.
            Some(slot) => {
                if let Some(container) = slot.container {
                    let sum =
                        sorted.by_container.entry(container).or_default().entry(key.capability).or_default();
                    sum.granted += count.granted;
                    sum.denied += count.denied;
                    sum.speculative += count.speculative;
                }
            }
            None if strangers_before.contains(&key.slot) => sorted.forgotten.push(*key),
            None => {
                sorted.strangers.insert(key.slot);
            }
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use observer_common::{Host, Root};

    use crate::model::Runtime;

    fn entry(slot: u64, capability: u32, granted: u64, denied: u64) -> (CapabilityKey, CapabilityCount) {
        let key = CapabilityKey { slot, capability, reserved: 0 };
        (key, CapabilityCount { granted, denied, speculative: 1 })
    }

    /// Slots 1 and 2 are a container's, 3 is the host's, 4 is not yet known for what it is, 5 to nobody.
    fn world() -> (World, ContainerKey) {
        let root = Root { mnt_ns: 1, dev: 1, mount_root_ino: 1, ino: 1 };
        let mut world = World::new(Host { inodes: [1; 10], found: 1, told: 0, root });
        let key = world.make_container("web", Runtime::Runc, 0, false);
        world.assign_slot(1, key);
        world.assign_slot(2, key);
        world.assign_host(3);
        world.slots.entry(4).or_default();
        (world, key)
    }

    #[test]
    fn counts_of_a_containers_slots_are_added_up() {
        let (world, key) = world();
        let counts = [entry(1, 0, 2, 0), entry(2, 0, 3, 1), entry(2, 21, 0, 7), entry(4, 5, 9, 9)];
        let sorted = sort(&counts, &world, &HashSet::new());
        let checks = sorted.by_container.get(&key).expect("the container");
        assert_eq!(checks[&0], CapabilityCount { granted: 5, denied: 1, speculative: 2 });
        assert_eq!(checks[&21], CapabilityCount { granted: 0, denied: 7, speculative: 1 });
        assert_eq!((checks.len(), sorted.by_container.len()), (2, 1));
        assert_eq!((sorted.forgotten, sorted.strangers), (vec![], HashSet::new()));
    }

    #[test]
    fn what_is_nobodys_is_forgotten_the_second_time_and_the_hosts_at_once() {
        let (world, _) = world();
        let counts = [entry(3, 0, 1, 0), entry(5, 1, 1, 0), entry(5, 2, 1, 0)];
        let first = sort(&counts, &world, &HashSet::new());
        assert_eq!((first.forgotten, &first.strangers), (vec![counts[0].0], &HashSet::from([5])));
        let second = sort(&counts, &world, &first.strangers);
        assert_eq!(second.forgotten, counts.map(|(key, _)| key));
        assert_eq!((second.strangers, second.by_container), (HashSet::new(), BTreeMap::new()));
    }
}
