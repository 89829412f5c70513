//! Whose a process's calls are, and which were made: the state of the audit of system calls, which every call of every task
//! comes by. A process that was looked at once has its container's index beside its id: from then on two look-ups in
//! arrays tell all.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{Array, HashMap},
};
use observer_common::{
    AuditState, Audited, CHUNK, CallSet, Calls, CgroupKey, EARLY_SLOTS, Indices, Loss, NOBODY, NS_MNT,
    SLOT_MASK, SYSCALLS, Stack, ability, mark,
};

use crate::{
    emit::{add, count_loss},
    offsets::{able, offset, peek},
    slots::{self, HOSTS, Standing, UNAUDITED, UNKNOWN},
    task::{self, Task},
};

/// By thread group id, in chunks. Sized by the agent, while calls are audited.
#[map]
static PROCESSES: Array<Indices> = Array::with_max_entries(1, 0);

/// By index. Sized by the agent.
#[map]
static CALLS: Array<Calls> = Array::with_max_entries(1, 0);

/// By index; written by the agent. Sized by the agent.
#[map]
static CONTAINERS: Array<Audited> = Array::with_max_entries(1, 0);

/// Written by the agent. Not a map to look up in but the program's own data, which is a map of one entry to the agent: its
/// place is a constant here, and every call of every task comes by.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.audit")]
static AUDIT: AuditState = AuditState { nobody: 0, reserved: [0; 3], armed: Calls::NONE };

/// By a part of the address of the registers, see [`Stack`]. Sized by the agent, while calls are audited.
#[map]
static STACKS: Array<Stack> = Array::with_max_entries(1, 0);

/// How often it has changed whose calls a thread's are: a process's index was taken back, or a new thread has got a stack that
/// may have been another's. What [`STACKS`] has of before is not believed.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.changes")]
static mut CHANGES: u64 = 0;

/// Calls by slots that userspace has not said anything of yet, which takes these out when it has.
#[map]
static EARLY: HashMap<u64, Calls> = HashMap::with_max_entries(EARLY_SLOTS, 0);

static NO_CALLS: Calls = Calls::NONE;

/// Of `thread_info.status`, arch/x86/include/asm/thread_info.h: the task is in a 32-bit call.
const TS_COMPAT: u32 = 2;

/// What the mark of a process that is no container's must be to be believed. Read once for all that is decided by it: it changes
/// when there is another container.
#[inline(always)]
pub fn nobody() -> u16 {
    // SAFETY: the static. Volatile, or the compiler would put the zero above there.
    unsafe { read_volatile(&raw const AUDIT.nobody) }
}

/// Whether beginnings of this call are seen.
#[inline(always)]
pub fn armed(nr: u32) -> u8 {
    // SAFETY: inside the static. Volatile, as above.
    unsafe { read_volatile((&raw const AUDIT.armed as *const u8).add(within(nr))) }
}

/// Where the index of a process's container is.
#[inline(always)]
pub fn place(tgid: u32) -> Option<*mut u16> {
    let chunk = PROCESSES.get_ptr_mut(tgid / CHUNK as u32)?;
    // SAFETY: inside the map entry.
    Some(unsafe { (chunk as *mut u16).add(tgid as usize % CHUNK) })
}

/// True if the process is no container's, as far as has been told.
#[inline(always)]
pub fn is_nobody(place: *mut u16, nobody: u16) -> bool {
    // SAFETY: a map entry; aligned words are read whole.
    unsafe { *place == nobody }
}

/// The process's mark changes: it is to be looked at again.
#[inline(always)]
pub fn forget(tgid: u32) {
    if able(ability::AUDIT_CALLS)
        && let Some(place) = place(tgid)
    {
        // SAFETY: as above.
        unsafe {
            if *place != 0 {
                write_volatile(place, 0);
                // Afterwards: who has read the place before has read the number before, too.
                changed();
            }
        }
    }
}

/// What is known by threads' stacks is known no more.
#[inline(always)]
pub fn changed() {
    if able(ability::AUDIT_CALLS) {
        // SAFETY: the static, which is only added to.
        unsafe { add(&raw mut CHANGES, 1) };
    }
}

/// Of the thread that has these registers.
#[derive(Clone, Copy)]
pub struct Known {
    /// See [`distance`].
    regs: u64,
    changes: u64,
    /// As in [`Indices`]; 0 if it is not known.
    pub index: u16,
}

impl Known {
    const INDEX_BITS: u32 = 16;

    #[inline(always)]
    pub fn of(regs: *const u8) -> Known {
        // As a distance: the verifier lets programs reckon with that, and not with a pointer.
        let regs = distance(regs);
        // SAFETY: the static; volatile, as above.
        let changes = unsafe { read_volatile(&raw const CHANGES) };
        let mut index = 0;
        if let Some(stack) = STACKS.get_ptr(Self::place(regs)) {
            // SAFETY: a map entry. The registers last: whoever takes the entry over for another stack writes them before the
            // word, so that a word is of the stack that is found beside it.
            let (word, owner) =
                unsafe { (read_volatile(&raw const (*stack).word), read_volatile(&raw const (*stack).regs)) };
            if word >> Self::INDEX_BITS == changes && owner == regs {
                index = word as u16;
            }
        }
        Known { regs, changes, index }
    }

    /// For the thread's next calls, until something changes.
    #[inline(always)]
    pub fn keep(self, index: u16) {
        if let Some(stack) = STACKS.get_ptr_mut(Self::place(self.regs)) {
            // SAFETY: a map entry; in this order, see `of`.
            unsafe {
                write_volatile(&raw mut (*stack).word, u64::MAX);
                write_volatile(&raw mut (*stack).regs, self.regs);
                write_volatile(&raw mut (*stack).word, self.changes << Self::INDEX_BITS | index as u64);
            }
        }
    }

    /// Stacks lie at multiples of their size, and so do the distances differ: the upper bits of a product mix them.
    #[inline(always)]
    fn place(regs: u64) -> u32 {
        (regs.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - observer_common::STACKS.ilog2())) as u32
    }
}

/// From a place of our own, which stays where it is.
#[inline(always)]
fn distance(regs: *const u8) -> u64 {
    let (mut distance, from) = (regs as u64, &raw const CHANGES as u64);
    // In this one instruction, which is what the verifier knows (`adjust_reg_min_max_vals`).
    // SAFETY: two registers, and nothing else is touched.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!("{distance} -= {from}", distance = inout(reg) distance, from = in(reg) from, options(pure, nomem));
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        distance -= from;
    }
    distance
}

/// Whose calls they are: an index, or the slot of one that has no index yet. Neither: nobody's, or on the way in.
#[derive(Clone, Copy)]
pub struct Owner {
    pub index: u32,
    slot: u64,
}

impl Owner {
    const NONE: Owner = Owner { index: 0, slot: 0 };

    #[inline(always)]
    pub fn of(task: Task, tgid: u32, place: *mut u16, nobody: u16) -> Owner {
        // SAFETY: as in `is_nobody`.
        let index = unsafe { *place };
        if index != 0 && index & NOBODY == 0 {
            return Owner { index: index as u32, slot: 0 };
        }
        Self::found(task, tgid, place, nobody)
    }

    #[inline(always)]
    fn found(task: Task, tgid: u32, place: *mut u16, nobody: u16) -> Owner {
        let mark = task::stored_mark(tgid);
        let slot = mark & SLOT_MASK;
        let standing = if slot != 0 {
            slots::standing(slot)
        } else if mark == 0 {
            by_cgroups(task)
        } else {
            // A task of the host on its way somewhere.
            return Owner::NONE;
        };
        if standing == HOSTS {
            // SAFETY: as in `is_nobody`.
            unsafe { *place = nobody };
            return Owner::NONE;
        }
        if standing == UNAUDITED || mark & (mark::ENTERING | mark::GONE) != 0 {
            return Owner::NONE;
        }
        if standing == UNKNOWN {
            return Owner { index: 0, slot };
        }
        // SAFETY: as in `is_nobody`.
        unsafe { *place = standing as u16 };
        Owner { index: standing, slot: 0 }
    }

    #[inline(always)]
    pub fn is_none(self) -> bool {
        self.index == 0 && self.slot == 0
    }

    /// The container's first slot, where it is known, else the task's own.
    #[inline(always)]
    pub fn slot(self) -> u64 {
        match self.container() {
            Some(container) => container.slot,
            None => self.slot,
        }
    }

    /// What userspace has told of it.
    #[inline(always)]
    pub fn container(self) -> Option<&'static Audited> {
        if self.index == 0 { None } else { CONTAINERS.get(self.index) }
    }

    /// A container that has made this call before.
    #[inline(always)]
    pub fn has_noted(index: u16, nr: u32) -> bool {
        // SAFETY: inside the map entry.
        CALLS.get_ptr(index as u32).is_some_and(|calls| unsafe { *(calls as *const u8).add(within(nr)) } != 0)
    }

    /// Notes a call.
    #[inline(always)]
    pub fn note(self, task: Task, nr: u32) {
        let calls = if self.index != 0 { CALLS.get_ptr_mut(self.index) } else { early(self.slot) };
        let Some(calls) = calls else { return };
        // SAFETY: inside the map entry; a byte is written whole, whoever writes it at the same time writes the same.
        unsafe {
            let byte = (calls as *mut u8).add(within(nr));
            if *byte == 0 && !is_compat(task) {
                *byte = 1;
            }
        }
    }
}

#[inline(always)]
pub fn contains(set: &CallSet, nr: u32) -> bool {
    let nr = within(nr);
    (set.0[nr >> 6 & 7] >> (nr & 63)) & 1 != 0
}

/// A call's number as an index. In an instruction of its own, right where it is needed: the compiler knows that the number was
/// compared with [`SYSCALLS`] and leaves out a mask, but before 6.8 the verifier does not know it of a copy on the stack.
#[inline(always)]
fn within(nr: u32) -> usize {
    let mut nr = nr as usize;
    // SAFETY: one register, and nothing else is touched.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!("{nr} &= {most}", nr = inout(reg) nr, most = const SYSCALLS - 1, options(pure, nomem));
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        nr &= SYSCALLS - 1;
    }
    nr
}

#[inline(always)]
fn early(slot: u64) -> Option<*mut Calls> {
    if let Some(calls) = EARLY.get_ptr_mut(slot) {
        return Some(calls);
    }
    // Another CPU may be first, which is as good.
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "by value it would lie on the stack, and fill it"
    )]
    let _ = EARLY.insert(slot, &NO_CALLS, BPF_NOEXIST as u64);
    let calls = EARLY.get_ptr_mut(slot);
    if calls.is_none() {
        count_loss(Loss::TableFull);
    }
    calls
}

/// True if the task is in a 32-bit call, whose number is another table's.
#[inline(always)]
pub fn is_compat(task: Task) -> bool {
    // SAFETY: thread_info.status is a u32.
    let status: u32 = unsafe { peek(task.0.at, offset!(task_status)) };
    status & TS_COMPAT != 0
}

/// Of a process without a mark, which may be older than the agent, its cgroups tell; as in `slots::mark_by_cgroups`, with the
/// host's mount namespace it is on its way in. By helper: these loads lie behind branches.
#[inline(always)]
fn by_cgroups(task: Task) -> Standing {
    let Some(host) = task::host() else { return UNAUDITED };
    // SAFETY: members as named in `Offsets`.
    unsafe {
        let set: *const u8 = peek(task.0.at, offset!(task_cgroups));
        let mut found = slots::standing_of(key(peek(set, offset!(css_set_dfl))));
        if able(ability::CGROUP_V1) {
            for subsys in [offset!(pids_subsys), offset!(memory_subsys)] {
                if !slots::is_audited(found) {
                    let css: *const u8 = peek(set, offset!(css_set_subsys) + subsys * 8);
                    found = slots::standing_of(key(peek(css, offset!(css_cgroup))));
                }
            }
        }
        let proxy: *const u8 = peek(task.0.at, offset!(task_nsproxy));
        let mnt: *const u8 = peek(proxy, offset!(nsproxy_mnt));
        let inode: u32 = peek(mnt, offset!(mnt_inum));
        if !slots::is_audited(found) {
            // Nobody's until another container is told of.
            return HOSTS;
        }
        if inode == host.inodes[NS_MNT] { UNAUDITED } else { found }
    }
}

/// # Safety
/// A pointer to a cgroup.
#[inline(always)]
unsafe fn key(cgroup: *const u8) -> CgroupKey {
    // SAFETY: members as named in `Offsets`.
    unsafe {
        let root: *const u8 = peek(cgroup, offset!(cgroup_root));
        let node: *const u8 = peek(cgroup, offset!(cgroup_kn));
        CgroupKey {
            hierarchy: peek(root, offset!(root_hierarchy)),
            reserved: 0,
            id: peek(node, offset!(kn_id)),
        }
    }
}
