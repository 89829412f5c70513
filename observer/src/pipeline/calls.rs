//! The audit of system calls by container, made of what the kernel side keeps by slot; and what the kernel side is told for it.
//! Denials become alerts by way of the core's ticks, the rest is for metrics and questions.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use observer_common::{CallSet, Denial, DenialKey, SlotInfo, class, verdict};

use crate::{
    enrich::{DenialCount, FirstUse, World},
    host::{self, Roots},
    kernel::{Armed, CallTable, Kernel, KernelError},
    model::{ContainerKey, SeriesLabels, syscall},
};

/// How long a container's declaration is looked for. Meanwhile an error of one of its calls may be one of those that its filter
/// lets pass.
const DECLARED_WITHIN_NS: u64 = 3_000_000_000;

/// What is known of one living container's calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerCalls {
    pub id: String,
    /// As [`SeriesLabels`] has it.
    pub name: String,
    /// Empty without a pod.
    pub pod: String,
    pub namespace: String,
    /// Since when its calls are kept, kernel time.
    pub since_ns: u64,
    pub used: CallSet,
    /// By number and verdict.
    pub denied: BTreeMap<(u32, u32), Denial>,
}

/// A container, by its first slot.
#[derive(Clone, Copy, Debug)]
struct Observed {
    since_ns: u64,
    /// Called before it was known to be a container.
    early: CallSet,
    filter: Filter,
    /// What it is not told of any more. `None` while it settles.
    settled: Option<CallSet>,
}

impl Observed {
    fn new(since_ns: u64) -> Self {
        Observed { since_ns, early: CallSet::NONE, filter: Filter::Awaited, settled: None }
    }

    /// What of the calls that it has made, `used`, is new. Its first reading after `after_ns` is the measure for the next ones:
    /// what was made up to then is old.
    fn first_uses(&mut self, slot: u64, used: &CallSet, now_ns: u64, after_ns: u64) -> Vec<FirstUse> {
        let observed_ns = now_ns.saturating_sub(self.since_ns);
        if observed_ns < after_ns {
            return Vec::new();
        }
        let settled = self.settled.get_or_insert(*used);
        let known = settled.len() as u32;
        let new = used.iter().filter(|nr| !settled.contains(*nr));
        let new = new.map(|nr| FirstUse { slot, nr, observed_ns, known }).collect();
        add(settled, used);
        new
    }
}

/// What the container's runtime has declared of its filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    Awaited,
    /// What it lets pass whatever the arguments, and since when that is known here.
    Declared(CallSet, u64),
    /// There is no declaration that the agent can read.
    Undeclared,
}

/// Steers the kernel side, reads its tables, and keeps them clean.
pub struct CallAudit {
    table: CallTable,
    armed: Armed,
    roots: Roots,
    first_use_after_ns: Option<u64>,
    containers: BTreeMap<u64, Observed>,
    /// The last reading of what seccomp refused.
    denials: Vec<(DenialKey, Denial)>,
    /// Told to the core.
    told: HashMap<DenialKey, u64>,
    /// A container has come whose declaration has not been looked for.
    fresh: bool,
    /// Slots that nobody knew at the last reading. The event that makes them known may be under way.
    strangers: HashSet<u64>,
}

impl CallAudit {
    pub fn new(table: CallTable, roots: Roots, first_use_after: Option<Duration>) -> Self {
        CallAudit {
            table,
            armed: Armed::default(),
            roots,
            first_use_after_ns: first_use_after
                .map(|after| u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)),
            containers: BTreeMap::new(),
            denials: Vec::new(),
            told: HashMap::new(),
            fresh: false,
            strangers: HashSet::new(),
        }
    }

    /// Refusals are counted, and not only calls kept.
    pub fn counts_denials(&self) -> bool {
        self.table.counts_denials()
    }

    /// What the kernel side is to know of a slot besides: where its calls are kept.
    pub fn index(&mut self, info: &SlotInfo, now_ns: u64) -> Result<u32, KernelError> {
        if info.class == class::HOST || info.canonical == 0 {
            return Ok(0);
        }
        self.containers.entry(info.canonical).or_insert_with(|| {
            self.fresh = true;
            Observed::new(now_ns)
        });
        self.table.admit(info.canonical)
    }

    /// The kernel side has been told of a slot.
    pub fn described(&mut self, slot: u64, info: &SlotInfo) -> Result<(), KernelError> {
        let early = self.table.take_early(slot);
        if let Some(observed) = self.containers.get_mut(&info.canonical).filter(|_| info.audit != 0) {
            add(&mut observed.early, &early);
            self.table.announce()?;
        }
        Ok(())
    }

    pub fn forget(&mut self, slot: u64) {
        self.table.dismiss(slot);
        self.containers.remove(&slot);
    }

    /// Sees the beginnings of what the profiles of today refuse with some arguments, and of what attacks begin with, so that a
    /// container that comes finds them armed.
    pub fn start(&mut self, kernel: &mut Kernel) -> Result<(), KernelError> {
        self.table.arm(&mut self.armed, &syscall::armed_from_the_start(), || kernel.look_inside())
    }

    /// Whether there is something new to [learn](CallAudit::learn) of.
    pub fn has_fresh(&self) -> bool {
        self.fresh
    }

    /// Looks for the declarations of new containers, and arms what they refuse with some arguments only.
    pub fn learn(&mut self, world: &World, kernel: &mut Kernel, now_ns: u64) -> Result<(), KernelError> {
        self.fresh = false;
        if !self.table.counts_denials() {
            return Ok(());
        }
        let mut deniable = CallSet::NONE;
        for (slot, observed) in &mut self.containers {
            if observed.filter != Filter::Awaited {
                continue;
            }
            let Some(id) = world.container_of_slot(*slot).and_then(|key| world.container(Some(key))) else {
                continue;
            };
            if let Some(declared) = host::declared_calls(&self.roots, &id.id) {
                observed.filter = Filter::Declared(declared.allowed, now_ns);
                self.table.declare(*slot, &declared)?;
                // What is refused anyhow is known by its number.
                let decided = declared.allowed.0.into_iter().zip(declared.refused.0);
                let mut words = decided.map(|(allowed, refused)| !(allowed | refused));
                add(&mut deniable, &CallSet(std::array::from_fn(|_| words.next().unwrap_or(0))));
            } else if now_ns.saturating_sub(observed.since_ns) > DECLARED_WITHIN_NS {
                observed.filter = Filter::Undeclared;
            }
        }
        self.table.arm(&mut self.armed, &deniable, || kernel.look_inside())
    }

    /// An error of a call that is not armed was seen: it is from now on, unless that was before it was known that the
    /// container's filter lets it pass.
    pub fn seen(&mut self, slot: u64, nr: u32, time_ns: u64, kernel: &mut Kernel) -> Result<(), KernelError> {
        if self.is_wanted(slot, nr, time_ns) == Some(true) {
            let mut calls = CallSet::NONE;
            calls.insert(nr);
            self.table.arm(&mut self.armed, &calls, || kernel.look_inside())?;
        }
        Ok(())
    }

    /// None: not yet known.
    fn is_wanted(&self, slot: u64, nr: u32, time_ns: u64) -> Option<bool> {
        match self.containers.get(&slot)?.filter {
            Filter::Awaited => None,
            Filter::Declared(allowed, since_ns) => Some(!allowed.contains(nr) || time_ns >= since_ns),
            Filter::Undeclared => Some(true),
        }
    }

    /// Reads what was counted of denials. What of it the core has not been told.
    pub fn denials(&mut self, world: &World, kernel: &mut Kernel) -> Result<Vec<DenialCount>, KernelError> {
        let mut new = Vec::new();
        let mut wanted = CallSet::NONE;
        let mut strangers = HashSet::new();
        self.denials = self.table.denials();
        for &(key, denial) in &self.denials {
            let Some(slot) = world.slots.get(&key.slot) else {
                if self.strangers.contains(&key.slot) {
                    self.table.forget_denial(&key);
                    self.told.remove(&key);
                }
                strangers.insert(key.slot);
                continue;
            };
            if slot.is_host {
                self.table.forget_denial(&key);
            } else if slot.container.is_none() {
                continue;
            } else if key.verdict == verdict::UNCLASSIFIED {
                match self.is_wanted(key.slot, key.nr, denial.first_ns) {
                    Some(true) => wanted.insert(key.nr),
                    // The filter lets it pass, as is known by now.
                    Some(false) => self.table.forget_denial(&key),
                    None => {}
                }
            } else if self.told.insert(key, denial.count) != Some(denial.count) {
                new.push(DenialCount {
                    slot: key.slot,
                    nr: key.nr,
                    verdict: key.verdict,
                    count: denial.count,
                    errno: denial.errno,
                    last_ns: denial.last_ns,
                    tgid: denial.tgid,
                    start_ns: denial.start_ns,
                });
            }
        }
        self.strangers = strangers;
        new.sort_by_key(|count| (count.slot, count.nr, count.verdict));
        self.table.arm(&mut self.armed, &wanted, || kernel.look_inside())?;
        Ok(new)
    }

    /// Calls that containers have made for the first time since the last reading, if that is asked for.
    pub fn first_uses(&mut self, world: &World, now_ns: u64) -> Vec<FirstUse> {
        let Some(after_ns) = self.first_use_after_ns else { return Vec::new() };
        self.settle_early(world);
        let mut new = Vec::new();
        for (slot, observed) in &mut self.containers {
            let mut used = self.table.calls(*slot);
            add(&mut used, &observed.early);
            new.extend(observed.first_uses(*slot, &used, now_ns, after_ns));
        }
        new
    }

    /// All containers whose calls are kept.
    pub fn read(&mut self, world: &World) -> Vec<ContainerCalls> {
        self.settle_early(world);
        let mut denied: HashMap<ContainerKey, BTreeMap<(u32, u32), Denial>> = HashMap::new();
        for &(key, denial) in &self.denials {
            // What is not known to have been possible is not shown.
            if key.verdict == verdict::UNCLASSIFIED
                && self.is_wanted(key.slot, key.nr, denial.first_ns) != Some(true)
            {
                continue;
            }
            if let Some(container) = world.container_of_slot(key.slot) {
                let sum = denied.entry(container).or_default().entry((key.nr, key.verdict));
                sum.and_modify(|sum| join(sum, &denial)).or_insert(denial);
            }
        }
        let mut found = Vec::new();
        for (slot, observed) in &self.containers {
            let key = world.container_of_slot(*slot);
            let (Some(key), Some(container)) = (key, world.container(key)) else { continue };
            let mut used = self.table.calls(*slot);
            add(&mut used, &observed.early);
            let SeriesLabels { name, pod, namespace } = container.series_labels();
            found.push(ContainerCalls {
                id: container.id.clone(),
                name,
                pod,
                namespace,
                since_ns: observed.since_ns,
                used,
                denied: denied.remove(&key).unwrap_or_default(),
            });
        }
        found
    }

    /// What came just when its slot was described, and slots that are gone again.
    fn settle_early(&mut self, world: &World) {
        for (slot, calls) in self.table.early() {
            match world.slots.get(&slot) {
                Some(known) if known.is_host => drop(self.table.take_early(slot)),
                Some(known) => {
                    let canonical = known.container.and_then(|key| world.slot_of_container(key));
                    if let Some(observed) = canonical.and_then(|slot| self.containers.get_mut(&slot)) {
                        add(&mut observed.early, &calls);
                        self.table.take_early(slot);
                    }
                }
                None if self.strangers.contains(&slot) => drop(self.table.take_early(slot)),
                None => {
                    self.strangers.insert(slot);
                }
            }
        }
    }
}

fn add(to: &mut CallSet, other: &CallSet) {
    for (word, more) in to.0.iter_mut().zip(other.0) {
        *word |= more;
    }
}

/// Counts of one container that was counted under two slots.
fn join(sum: &mut Denial, other: &Denial) {
    let count = sum.count + other.count;
    let (first_ns, last_ns) = (sum.first_ns.min(other.first_ns), sum.last_ns.max(other.last_ns));
    let errno = if other.last_ns > sum.last_ns { other.errno } else { sum.errno };
    if other.first_ns < sum.first_ns {
        *sum = *other;
    }
    *sum = Denial { count, first_ns, last_ns, errno, ..*sum };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_two_slots_are_one() {
        let one = Denial { count: 2, first_ns: 10, last_ns: 20, tgid: 1, errno: 1, ..Denial::default() };
        let other = Denial { count: 3, first_ns: 5, last_ns: 15, tgid: 2, errno: 38, ..Denial::default() };
        for (mut sum, other) in [(one, other), (other, one)] {
            join(&mut sum, &other);
            let expected = Denial { count: 5, first_ns: 5, last_ns: 20, tgid: 2, errno: 1, ..other };
            assert_eq!(sum, Denial { start_ns: 0, ..expected });
        }
    }

    #[test]
    fn first_uses_are_told_once_and_not_before_a_container_has_settled() {
        const AFTER_NS: u64 = 600;
        let mut observed = Observed::new(1000);
        // (when it is read, what it has called by then, what is told, how many were known).
        let table: [(u64, &[&str], &[&str], u32); 7] = [
            (1000, &["execve"], &[], 0),
            (1599, &["execve", "read"], &[], 0),
            // Called while it settled, and read only now.
            (1600, &["execve", "read", "brk"], &[], 0),
            (1700, &["execve", "read", "brk"], &[], 0),
            (1800, &["execve", "read", "brk", "ptrace", "mount"], &["ptrace", "mount"], 3),
            (1900, &["execve", "read", "brk", "ptrace", "mount"], &[], 0),
            (2000, &["execve", "read", "brk", "ptrace", "mount", "bpf"], &["bpf"], 5),
        ];
        for (now_ns, used, expected, known) in table {
            let used = syscall::set(used.iter().copied());
            let told = observed.first_uses(7, &used, now_ns, AFTER_NS);
            let names: Vec<_> = told.iter().map(|it| syscall::label(it.nr)).collect();
            assert_eq!(names, expected, "{now_ns}");
            assert!(told.iter().all(|it| (it.slot, it.known, it.observed_ns) == (7, known, now_ns - 1000)));
        }
        // An agent that comes late measures from then on.
        let mut late = Observed::new(5000);
        assert!(late.first_uses(7, &syscall::set(["bpf"]), 9000, AFTER_NS).is_empty());
    }

    #[test]
    fn sets_are_joined() {
        let mut set = syscall::set(["read"]);
        add(&mut set, &syscall::set(["write", "read"]));
        assert_eq!(syscall::names(&set), ["read", "write"]);
    }
}
