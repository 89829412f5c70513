//! The audit of system calls as the agent steers it: whose calls are kept, which beginnings are seen, what was counted.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{AsFd, OwnedFd},
};

use aya::{
    Ebpf, Pod,
    maps::{Array, MapData},
};
use observer_common::{AUDITED, AuditState, Audited, CallSet, Calls, Denial, DenialKey, NOBODY, SYSCALLS};

use super::{
    KernelError,
    load::chain,
    tracefs::{self, Tracefs},
};
use crate::{host::DeclaredCalls, model::syscall, telemetry::log};

/// The kernel programs' data that is written while they run, a map of one entry.
const STATE: &str = ".data.audit";

/// Values of `AuditState::armed`.
const ARMED: u8 = 1;
const ARMING: u8 = 2;

/// The kernel side's tables.
pub struct CallTable {
    state: Array<MapData, AuditState>,
    /// What is in the entry above.
    told: AuditState,
    calls: Array<MapData, Calls>,
    containers: Array<MapData, Audited>,
    early: aya::maps::HashMap<MapData, u64, Calls>,
    denials: aya::maps::HashMap<MapData, DenialKey, Denial>,
    /// By the containers' first slots.
    indices: HashMap<u64, u32>,
    /// The longest unused first: a process that outlives its container has its index for a while.
    free: VecDeque<u32>,
    /// None where denials are not counted.
    arming: Option<Arming>,
}

/// How beginnings are seen.
pub(super) enum Arming {
    /// By a program on those that are chosen.
    Single { program: OwnedFd, tracefs: Tracefs },
    /// All of them are, by a program on the general one.
    All,
}

impl Arming {
    /// `None` if there is nothing to arm: this kernel has no such call.
    fn arm(program: &OwnedFd, tracefs: &Tracefs, nr: u32) -> io::Result<Option<OwnedFd>> {
        let Some(call) = syscall::name(nr) else { return Ok(None) };
        let id = match tracefs.event_id("syscalls", &format!("sys_enter_{}", event_name(call))) {
            Ok(id) => id,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        tracefs::attach(program.as_fd(), id).map(Some)
    }
}

/// Events are called as the kernel's functions are, and those not always as their calls.
fn event_name(call: &str) -> &str {
    match call {
        "fstat" => "newfstat",
        "lstat" => "newlstat",
        "sendfile" => "sendfile64",
        "stat" => "newstat",
        "umount2" => "umount",
        "uname" => "newuname",
        other => other,
    }
}

/// Beginnings that are seen, until this is dropped: the kernel then waits, for each, until nobody can be in it any more.
#[derive(Default)]
pub struct Armed {
    events: Vec<OwnedFd>,
    /// Calls that have no event here: this kernel has no such call, or refuses it to the agent.
    impossible: CallSet,
}

fn array<V: Pod>(bpf: &mut Ebpf, name: &'static str) -> Result<Array<MapData, V>, KernelError> {
    let map = bpf.take_map(name).ok_or(KernelError::Map { name, what: "not in the object file".into() })?;
    Array::try_from(map).map_err(|error| KernelError::Map { name, what: chain(&error) })
}

fn hash<K: Pod, V: Pod>(
    bpf: &mut Ebpf,
    name: &'static str,
) -> Result<aya::maps::HashMap<MapData, K, V>, KernelError> {
    let map = bpf.take_map(name).ok_or(KernelError::Map { name, what: "not in the object file".into() })?;
    aya::maps::HashMap::try_from(map).map_err(|error| KernelError::Map { name, what: chain(&error) })
}

fn fail(name: &'static str, error: &aya::maps::MapError) -> KernelError {
    KernelError::Map { name, what: chain(error) }
}

impl CallTable {
    pub(super) fn new(bpf: &mut Ebpf, arming: Option<Arming>) -> Result<Self, KernelError> {
        let mut table = CallTable {
            state: array(bpf, STATE)?,
            told: AuditState { nobody: NOBODY, reserved: [0; 3], armed: Calls::NONE },
            calls: array(bpf, "CALLS")?,
            containers: array(bpf, "CONTAINERS")?,
            early: hash(bpf, "EARLY")?,
            denials: hash(bpf, "DENIALS")?,
            indices: HashMap::new(),
            free: (1..AUDITED).collect(),
            arming,
        };
        table.tell()?;
        Ok(table)
    }

    /// Denials are counted.
    pub fn counts_denials(&self) -> bool {
        self.arming.is_some()
    }

    fn tell(&mut self) -> Result<(), KernelError> {
        self.state.set(0, self.told, 0).map_err(|error| fail(STATE, &error))
    }

    /// The index of the container whose first slot this is; 0 if there is no room for another one.
    pub fn admit(&mut self, slot: u64) -> Result<u32, KernelError> {
        if let Some(index) = self.indices.get(&slot) {
            return Ok(*index);
        }
        let Some(index) = self.free.pop_front() else { return Ok(0) };
        self.calls.set(index, Calls::NONE, 0).map_err(|error| fail("CALLS", &error))?;
        let container = Audited { slot, ..Audited::default() };
        self.containers.set(index, container, 0).map_err(|error| fail("CONTAINERS", &error))?;
        self.indices.insert(slot, index);
        Ok(index)
    }

    /// There is another container: processes that were nobody's may be its.
    pub fn announce(&mut self) -> Result<(), KernelError> {
        self.told.nobody = self.told.nobody.wrapping_add(1) | NOBODY;
        self.tell()
    }

    /// The container is gone.
    pub fn dismiss(&mut self, slot: u64) {
        if let Some(index) = self.indices.remove(&slot) {
            self.free.push_back(index);
        }
        // Nothing there is as good.
        let _ = self.early.remove(&slot);
    }

    /// What the filter that the container's runtime installs lets pass, and what it refuses.
    pub fn declare(&mut self, slot: u64, declared: &DeclaredCalls) -> Result<(), KernelError> {
        let Some(index) = self.indices.get(&slot) else { return Ok(()) };
        let DeclaredCalls { allowed, refused, filters } = *declared;
        let container = Audited { slot, allowed, refused, filters, reserved: 0 };
        self.containers.set(*index, container, 0).map_err(|error| fail("CONTAINERS", &error))
    }

    /// What the container has called.
    pub fn calls(&self, slot: u64) -> CallSet {
        let calls = self.indices.get(&slot).and_then(|index| self.calls.get(index, 0).ok());
        calls.map(|calls| set(&calls)).unwrap_or_default()
    }

    /// Slots that called before it was known whose they are.
    pub fn early(&self) -> Vec<(u64, CallSet)> {
        self.early.iter().filter_map(Result::ok).map(|(slot, calls)| (slot, set(&calls))).collect()
    }

    /// What a slot called before it was known whose it is; told once.
    pub fn take_early(&mut self, slot: u64) -> CallSet {
        let Ok(calls) = self.early.get(&slot, 0) else { return CallSet::NONE };
        // Nothing there is as good.
        let _ = self.early.remove(&slot);
        set(&calls)
    }

    /// An entry that comes or goes during the walk is seen the next time.
    pub fn denials(&self) -> Vec<(DenialKey, Denial)> {
        self.denials.iter().filter_map(Result::ok).collect()
    }

    pub fn forget_denial(&mut self, key: &DenialKey) {
        // Already gone is as good.
        let _ = self.denials.remove(key);
    }

    /// Sees the beginnings of these calls from now on. `look` finds who is inside already: see the kernel side's `look_inside`;
    /// if it fails, an error of these calls stays unclassified.
    pub fn arm(
        &mut self,
        armed: &mut Armed,
        calls: &CallSet,
        look: impl FnOnce() -> bool,
    ) -> Result<(), KernelError> {
        let Some(arming) = &self.arming else { return Ok(()) };
        let calls = if matches!(arming, Arming::All) { &CallSet::ALL } else { calls };
        let is_new =
            |nr: &u32| self.told.armed.0[*nr as usize % SYSCALLS] == 0 && !armed.impossible.contains(*nr);
        let new: Vec<u32> = calls.iter().filter(is_new).collect();
        if new.is_empty() {
            return Ok(());
        }
        // Told first: whoever is noted as inside from now on is so no longer when the call is over.
        for nr in &new {
            self.told.armed.0[*nr as usize % SYSCALLS] = ARMING;
        }
        self.state.set(0, self.told, 0).map_err(|error| fail(STATE, &error))?;
        for nr in new {
            if let Arming::Single { program, tracefs } = arming {
                let event = Arming::arm(program, tracefs, nr).unwrap_or_else(|error| {
                    // Not again for this call: what is refused stays so.
                    let call = syscall::label(nr);
                    log::warn!(
                        "beginnings of a call cannot be seen: its refusals stay unclassified",
                        call,
                        error
                    );
                    None
                });
                let Some(event) = event else {
                    armed.impossible.insert(nr);
                    self.told.armed.0[nr as usize % SYSCALLS] = 0;
                    continue;
                };
                armed.events.push(event);
            }
        }
        if look() {
            for byte in self.told.armed.0.iter_mut().filter(|byte| **byte == ARMING) {
                *byte = ARMED;
            }
        }
        self.tell()
    }
}

fn set(calls: &Calls) -> CallSet {
    let mut set = CallSet::NONE;
    (0..).zip(&calls.0).filter(|(_, byte)| **byte != 0).for_each(|(nr, _)| set.insert(nr));
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_a_set() {
        let mut calls = Calls::NONE;
        for nr in [0, 63, 64, 511] {
            calls.0[nr] = 1;
        }
        assert_eq!(set(&calls).iter().collect::<Vec<_>>(), [0, 63, 64, 511]);
        assert!(set(&Calls::NONE).is_empty());
    }

    #[test]
    fn events_are_called_as_the_kernel_calls_them() {
        assert_eq!(["umount2", "uname", "mount"].map(event_name), ["umount", "newuname", "mount"]);
    }
}
