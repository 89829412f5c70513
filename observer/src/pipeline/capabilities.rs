//! Checks of capabilities by container, made of what the kernel side counts by slot. What a container was refused becomes an alert
//! by way of the core's ticks, the rest is for metrics and questions.

use std::collections::{BTreeMap, HashMap, HashSet};

use observer_common::{CapabilityChecks, CapabilityKey, outcome};

use crate::{
    decode::text,
    enrich::{CapabilityRefusal, World},
    kernel::CapabilityTable,
    model::{ContainerKey, SeriesLabels},
};

/// What was counted for one living container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerChecks {
    pub id: String,
    /// As [`SeriesLabels`] has it.
    pub name: String,
    /// Empty without a pod.
    pub pod: String,
    pub namespace: String,
    /// Since when its checks are counted, kernel time.
    pub since_ns: u64,
    /// By the capability's number.
    pub checks: BTreeMap<u32, CheckCount>,
}

/// How checks of one capability ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckCount {
    pub granted: u64,
    pub denied: u64,
    /// Of each, what is known of them; absent where there were none.
    pub grants: Option<CheckSight>,
    pub denials: Option<CheckSight>,
}

/// When checks were seen, and whose the first was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckSight {
    pub first_ns: u64,
    /// As exact as the readings, a second.
    pub last_ns: u64,
    pub pid: u32,
    pub comm: String,
    /// The inode number of the user namespace in which it was asked for.
    pub user_ns: u32,
}

/// By container, then by the capability's number.
type ByContainer = BTreeMap<ContainerKey, BTreeMap<u32, CheckCount>>;

/// An entry of the kernel side's table, and when it was last seen to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    key: CapabilityKey,
    checks: CapabilityChecks,
    last_ns: u64,
}

/// Reads the kernel side's table, and keeps it clean.
pub struct CapabilityAudit {
    table: CapabilityTable,
    seen: Seen,
    /// The last reading.
    entries: Vec<Entry>,
    /// Slots that nobody knew at the last reading. The event that makes them known may be under way.
    strangers: HashSet<u64>,
    /// Refusals that the core knows of.
    told: HashMap<CapabilityKey, u64>,
    /// Since when checks are counted.
    since_ns: u64,
}

/// The counts at the last reading, and when each was last seen to have grown.
#[derive(Debug, Default)]
struct Seen(HashMap<CapabilityKey, (u64, u64)>);

impl Seen {
    /// The kernel side keeps the first time and not the last: reading the clock would cost every check as much again.
    fn look(&mut self, table: Vec<(CapabilityKey, CapabilityChecks)>, now_ns: u64) -> Vec<Entry> {
        let before = std::mem::take(&mut self.0);
        let entries: Vec<Entry> = table
            .into_iter()
            // Made, and not yet counted.
            .filter(|(_, checks)| checks.count > 0)
            .map(|(key, checks)| {
                let last_ns = match before.get(&key) {
                    Some((count, last_ns)) if *count == checks.count => *last_ns,
                    None if checks.count == 1 => checks.first_ns,
                    _ => now_ns,
                };
                Entry { key, checks, last_ns }
            })
            .collect();
        self.0 = entries.iter().map(|entry| (entry.key, (entry.checks.count, entry.last_ns))).collect();
        entries
    }
}

impl CapabilityAudit {
    pub fn new(table: CapabilityTable, now_ns: u64) -> Self {
        CapabilityAudit {
            table,
            seen: Seen::default(),
            entries: Vec::new(),
            strangers: HashSet::new(),
            told: HashMap::new(),
            since_ns: now_ns,
        }
    }

    /// Checks that meant no use are told apart from those that did.
    pub fn classified(&self) -> bool {
        self.table.classified
    }

    /// Reads the table. What containers were refused that the core has not been told.
    pub fn refusals(&mut self, world: &World, now_ns: u64) -> Vec<CapabilityRefusal> {
        self.entries = self.seen.look(self.table.read(), now_ns);
        refusals(&self.entries, world, &mut self.told)
    }

    /// All living containers as of the last reading, in the order of their first sight: of some there may be nothing.
    pub fn all(&self, world: &World) -> Vec<ContainerChecks> {
        let counted = sort(&self.entries, world, &HashSet::new()).by_container;
        let living = world.containers.values().filter(|container| container.processes > 0);
        let mut all: BTreeMap<ContainerKey, _> = living.map(|it| (it.key, BTreeMap::new())).collect();
        all.extend(counted);
        self.named(all, world)
    }

    /// All containers of which something was counted by the last reading, in the order of their first sight. To be asked once a
    /// reading: what belongs to nobody is then taken out of the table.
    pub fn settle(&mut self, world: &World) -> Vec<ContainerChecks> {
        let sorted = sort(&self.entries, world, &self.strangers);
        for key in &sorted.forgotten {
            self.table.forget(key);
        }
        self.strangers = sorted.strangers;
        self.named(sorted.by_container, world)
    }

    fn named(&self, containers: ByContainer, world: &World) -> Vec<ContainerChecks> {
        let named = containers.into_iter().filter_map(|(key, checks)| {
            let container = world.container(Some(key))?;
            let SeriesLabels { name, pod, namespace } = container.series_labels();
            let since_ns = self.since_ns.max(container.created_ns);
            Some(ContainerChecks { id: container.id.clone(), name, pod, namespace, since_ns, checks })
        });
        named.collect()
    }
}

/// What is new in these, and a container's.
fn refusals(
    entries: &[Entry],
    world: &World,
    told: &mut HashMap<CapabilityKey, u64>,
) -> Vec<CapabilityRefusal> {
    let withheld = || entries.iter().filter(|entry| entry.key.outcome == outcome::WITHHELD);
    let there: HashSet<CapabilityKey> = withheld().map(|entry| entry.key).collect();
    told.retain(|key, _| there.contains(key));
    let mut new = Vec::new();
    for Entry { key, checks, last_ns } in withheld() {
        if world.container_of_slot(key.slot).is_none()
            || told.insert(*key, checks.count) == Some(checks.count)
        {
            continue;
        }
        new.push(CapabilityRefusal {
            slot: key.slot,
            capability: key.capability,
            count: checks.count,
            last_ns: *last_ns,
            user_ns: checks.user_ns,
            tgid: checks.tgid,
            start_ns: checks.start_ns,
            uid: checks.uid,
            gid: checks.gid,
            comm: text(&checks.comm),
        });
    }
    new.sort_by_key(|refusal| (refusal.slot, refusal.capability));
    new
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sorted {
    by_container: ByContainer,
    forgotten: Vec<CapabilityKey>,
    strangers: HashSet<u64>,
}

/// Says whose each count is. To be forgotten is what turned out to be the host's, and what nobody has known twice: the
/// container is gone.
fn sort(entries: &[Entry], world: &World, strangers_before: &HashSet<u64>) -> Sorted {
    let mut sorted = Sorted::default();
    for entry in entries {
        let slot = entry.key.slot;
        match world.slots.get(&slot) {
            Some(known) if known.is_host => sorted.forgotten.push(entry.key),
            // One that is known, and not yet what it is, waits.
            Some(known) => {
                if let Some(container) = known.container {
                    let of = sorted.by_container.entry(container).or_default();
                    of.entry(entry.key.capability).or_default().add(entry);
                }
            }
            None if strangers_before.contains(&slot) => sorted.forgotten.push(entry.key),
            None => {
                sorted.strangers.insert(slot);
            }
        }
    }
    sorted
}

impl CheckCount {
    fn add(&mut self, entry: &Entry) {
        let (count, sight) = match entry.key.outcome {
            outcome::GRANTED => (&mut self.granted, &mut self.grants),
            _ => (&mut self.denied, &mut self.denials),
        };
        *count += entry.checks.count;
        let last_ns = sight.as_ref().map_or(entry.last_ns, |sight| sight.last_ns.max(entry.last_ns));
        match sight {
            Some(sight) if sight.first_ns <= entry.checks.first_ns => sight.last_ns = last_ns,
            _ => {
                *sight = Some(CheckSight {
                    first_ns: entry.checks.first_ns,
                    last_ns,
                    pid: entry.checks.tgid,
                    comm: text(&entry.checks.comm),
                    user_ns: entry.checks.user_ns,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use observer_common::{Host, Root};

    use crate::model::Runtime;

    fn entry(slot: u64, capability: u32, outcome: u32, count: u64) -> Entry {
        let checks = CapabilityChecks { count, first_ns: 10 * slot, tgid: slot as u32, ..Default::default() };
        Entry { key: CapabilityKey { slot, capability, outcome }, checks, last_ns: 100 - slot }
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
    fn counts_of_a_containers_slots_are_added_up_and_the_first_is_kept() {
        let (world, key) = world();
        let mut entries = vec![
            entry(1, 0, outcome::GRANTED, 2),
            entry(2, 0, outcome::GRANTED, 3),
            entry(2, 0, outcome::DENIED, 1),
            entry(2, 21, outcome::WITHHELD, 7),
            entry(4, 5, outcome::GRANTED, 9),
        ];
        for _ in 0..2 {
            let sorted = sort(&entries, &world, &HashSet::new());
            let checks = sorted.by_container.get(&key).expect("the container");
            let chown = &checks[&0];
            assert_eq!((chown.granted, chown.denied), (5, 1));
            let grants = chown.grants.as_ref().expect("grants");
            assert_eq!((grants.first_ns, grants.last_ns, grants.pid), (10, 99, 1));
            assert_eq!(chown.denials.as_ref().map(|denials| denials.pid), Some(2));
            assert_eq!((checks[&21].granted, checks[&21].denied, &checks[&21].grants), (0, 7, &None));
            assert_eq!((checks.len(), sorted.by_container.len()), (2, 1));
            assert_eq!((sorted.forgotten, sorted.strangers), (vec![], HashSet::new()));
            // Whatever the order in which the table is read.
            entries.reverse();
        }
    }

    #[test]
    fn what_is_nobodys_is_forgotten_the_second_time_and_the_hosts_at_once() {
        let (world, _) = world();
        let entries = [(3, 0), (5, 1), (5, 2)].map(|(slot, number)| entry(slot, number, outcome::GRANTED, 1));
        let first = sort(&entries, &world, &HashSet::new());
        assert_eq!((first.forgotten, &first.strangers), (vec![entries[0].key], &HashSet::from([5])));
        let second = sort(&entries, &world, &first.strangers);
        assert_eq!(second.forgotten, entries.map(|entry| entry.key));
        assert_eq!((second.strangers, second.by_container), (HashSet::new(), BTreeMap::new()));
    }

    #[test]
    fn the_last_time_is_that_of_the_reading_that_found_more() {
        let mut seen = Seen::default();
        let of = |count| vec![(entry(1, 0, 0, count).key, entry(1, 0, 0, count).checks)];
        let last = |entries: Vec<Entry>| entries.first().map(|entry| entry.last_ns);
        assert_eq!(last(seen.look(of(0), 50)), None);
        assert_eq!(last(seen.look(of(1), 100)), Some(10));
        assert_eq!(last(seen.look(of(1), 200)), Some(10));
        assert_eq!(last(seen.look(of(3), 300)), Some(300));
        assert_eq!(last(seen.look(of(3), 400)), Some(300));
        assert_eq!(last(seen.look(vec![], 500)), None);
        assert_eq!(last(seen.look(of(3), 600)), Some(600));
    }

    #[test]
    fn what_a_container_was_refused_is_told_once_and_again_when_it_grows() {
        let (world, _) = world();
        let mut told = HashMap::new();
        let mut new = |entries: &[Entry]| {
            let new = refusals(entries, &world, &mut told);
            new.iter().map(|it| (it.slot, it.capability, it.count)).collect::<Vec<_>>()
        };
        let entries = [
            entry(2, 25, outcome::WITHHELD, 4),
            entry(1, 25, outcome::WITHHELD, 2),
            entry(1, 0, outcome::DENIED, 2),
            entry(1, 0, outcome::GRANTED, 2),
            entry(3, 25, outcome::WITHHELD, 2),
            entry(5, 25, outcome::WITHHELD, 2),
        ];
        assert_eq!(new(&entries), [(1, 25, 2), (2, 25, 4)]);
        assert_eq!(new(&entries), []);
        assert_eq!(new(&[entry(1, 25, outcome::WITHHELD, 3)]), [(1, 25, 3)]);
    }
}
