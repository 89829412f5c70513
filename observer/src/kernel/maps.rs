//! The maps that the agent reads and writes while it runs.

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray},
};
use observer_common::{ALL_LOSSES, Budget, BudgetKey, CgroupKey, LOSSES, SLOT_AGENT, SlotInfo};

use super::{KernelError, load::chain};

fn take(bpf: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    bpf.take_map(name).ok_or(KernelError::Map { name, what: "not in the object file".into() })
}

fn hash<K: Pod, V: Pod>(bpf: &mut Ebpf, name: &'static str) -> Result<HashMap<MapData, K, V>, KernelError> {
    HashMap::try_from(take(bpf, name)?).map_err(|error| KernelError::Map { name, what: chain(&error) })
}

/// Cgroups, their slots, and what the slots are.
pub struct SlotTable {
    cgroups: HashMap<MapData, CgroupKey, u64>,
    slots: HashMap<MapData, u64, SlotInfo>,
    namespaces: HashMap<MapData, u32, u64>,
    tasks: Array<MapData, u64>,
    next: u64,
}

impl SlotTable {
    pub(super) fn new(bpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(SlotTable {
            cgroups: hash(bpf, "CGROUPS")?,
            slots: hash(bpf, "SLOTS")?,
            namespaces: hash(bpf, "NAMESPACES")?,
            tasks: Array::try_from(take(bpf, "TASKS")?)
                .map_err(|error| KernelError::Map { name: "TASKS", what: chain(&error) })?,
            next: 0,
        })
    }

    /// A slot of the agent's own, never used before.
    pub fn new_slot(&mut self) -> u64 {
        self.next += 1;
        SLOT_AGENT | self.next
    }

    /// Gives a cgroup a slot unless the kernel side was first; returns the one it has.
    pub fn adopt(&mut self, key: CgroupKey, slot: u64) -> Result<u64, KernelError> {
        const BPF_NOEXIST: u64 = 1;
        match self.cgroups.insert(key, slot, BPF_NOEXIST) {
            Ok(()) => Ok(slot),
            Err(error) => self.cgroups.get(&key, 0).map_err(|_| fail("CGROUPS", &error)),
        }
    }

    /// Tells the kernel side what a slot is.
    pub fn describe(&mut self, slot: u64, info: SlotInfo) -> Result<(), KernelError> {
        self.slots.insert(slot, info, 0).map_err(|error| fail("SLOTS", &error))
    }

    /// Names namespaces (by the inode of the pid, else the user namespace) that are a container without cgroup.
    pub fn adopt_namespace(&mut self, inode: u32, slot: u64) -> Result<(), KernelError> {
        self.namespaces.insert(inode, slot, 0).map_err(|error| fail("NAMESPACES", &error))
    }

    /// Marks a process that was found out of its container when the agent started.
    pub fn mark(&mut self, pid: u32, slot: u64, moved: bool) -> Result<(), KernelError> {
        // The kernel side may know better already.
        if !moved
            && self.tasks.get(&pid, 0).is_ok_and(|mark| mark != 0 && mark & observer_common::mark::GONE == 0)
        {
            return Ok(());
        }
        let moved = if moved { observer_common::mark::MOVED } else { 0 };
        self.tasks.set(pid, slot | moved, 0).map_err(|error| fail("TASKS", &error))
    }

    /// Forgets a slot whose container is gone. A mark that still carries it stays unique: numbers are not reused.
    pub fn forget(&mut self, slot: u64) {
        // Already gone is as good.
        let _ = self.slots.remove(&slot);
    }

    pub fn forget_namespace(&mut self, inode: u32) {
        // The kernel side removes it when the namespace's init ends; whoever is second finds nothing.
        let _ = self.namespaces.remove(&inode);
    }
}

fn fail(name: &'static str, error: &MapError) -> KernelError {
    KernelError::Map { name, what: chain(error) }
}

/// The kernel side's counters; summed over CPUs, they never fall.
pub struct LossCounters {
    lost: PerCpuArray<MapData, u64>,
    budgets: HashMap<MapData, BudgetKey, Budget>,
}

impl LossCounters {
    pub(super) fn new(bpf: &mut Ebpf) -> Result<Self, KernelError> {
        let name = "LOST";
        let lost = PerCpuArray::try_from(take(bpf, name)?)
            .map_err(|error| KernelError::Map { name, what: chain(&error) })?;
        Ok(LossCounters { lost, budgets: hash(bpf, "BUDGETS")? })
    }

    /// Events lost, by the index of [`ALL_LOSSES`].
    pub fn lost(&self) -> Result<[u64; LOSSES], KernelError> {
        let mut sums = [0; LOSSES];
        for (loss, _) in ALL_LOSSES {
            sums[loss as usize] = sum(&self.lost, loss as u32)?;
        }
        Ok(sums)
    }

    /// What the kernel side kept of events that would have decided something and found no room anywhere. Walks a
    /// table: to be asked only when [`Loss::PriorityFull`](observer_common::Loss::PriorityFull) has grown.
    pub fn displaced(&self) -> Vec<(BudgetKey, Budget)> {
        // An entry that vanishes during the walk is one that the next walk need not see.
        self.budgets.iter().filter_map(Result::ok).filter(|(_, budget)| budget.displaced > 0).collect()
    }
}

fn sum(array: &PerCpuArray<MapData, u64>, index: u32) -> Result<u64, KernelError> {
    Ok(array.get(&index, 0).map_err(|error| fail("counters", &error))?.iter().sum())
}
