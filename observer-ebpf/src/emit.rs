//! From a scratch frame to a ring, and the counting of whatever does not get there.
//!
//! Two rings: ordinary events go to a large one that wakes its reader seldom; the few that decide about
//! security go to a small one that wakes at once, within a budget per slot and kind, so that one container's
//! flood cannot fill it. What is over the budget, or finds the small ring full, goes by the large one; only
//! what finds room in neither is lost, and then counted, and kept as a state of its slot.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns, generated::bpf_ringbuf_output},
    macros::map,
    maps::{LruHashMap, PerCpuArray, RingBuf},
};
use observer_common::{
    ABI_VERSION, Ancestor, BUDGET, BUDGET_WINDOW_NS, Budget, BudgetKey, CgroupKey, Fork, Header, LOSSES,
    Loss, MAX_ANCESTORS, NAMESPACES, SLOT_CPU_SHIFT, SLOT_FRAME_SHIFT, SLOT_MASK, ability, flags, mark,
    tuple_hash,
};

use crate::{
    climb::{Climb, Tightest},
    offsets::{able, offset, peek},
    root::Walk,
    slots::CssSet,
    task::{self, Task},
};

/// Sized by the agent.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
/// Sized by the agent.
#[map]
static PRIORITY: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// Bytes in the ordinary ring at which its reader is woken; set by the agent, index 0.
#[map]
static WAKE_AT: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOSSES as u32, 0);
#[map]
static BUDGETS: LruHashMap<BudgetKey, Budget> = LruHashMap::with_max_entries(8192, 0);
/// Programs that can be at work on one CPU at the same time: one that was interrupted, or, on kernels whose
/// tracepoints can be preempted (7.x), several tasks' in turn.
pub const DEPTH: u32 = 4;
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(DEPTH, 0);

/// Room for the largest frame, and for the verifier's view of the bounds.
pub const FRAME: usize = 2048;

#[repr(C, align(8))]
pub struct Scratch {
    /// How many have put their hands on it; whoever finds only its own has it.
    hands: u64,
    /// Slots that were handed out by holders of this frame.
    slots: u64,
    /// Which of the CPU's frames this is.
    index: u64,
    /// v1 hierarchies of the pids and memory controllers, 0 if they are v2's: with the header's ids, the keys of
    /// the task's cgroups.
    pids_hierarchy: u32,
    memory_hierarchy: u32,
    /// The host's root dentry and the task's, as numbers.
    host_root: u64,
    task_root: u64,
    /// `flags::HOST_ROOT` if they are the same.
    root_flag: u32,
    reserved: u32,
    /// The way up from a root directory.
    walk: Walk,
    /// The ways up a cgroup's limits.
    tightest: [Tightest; 2],
    bytes: [u8; FRAME + 1024],
}

/// An atomic addition without a result, the only kind that 5.10 knows (`core`'s are not there for this target):
/// between a plain load and its store another program may run on this CPU.
///
/// # Safety
/// `place` is an aligned word of a map entry.
#[inline(always)]
pub unsafe fn add(place: *mut u64, number: i64) {
    // SAFETY: the caller's word; nothing else is touched.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({place} + 0) += {number}",
            place = in(reg) place,
            number = in(reg) number,
        );
    }
    #[cfg(not(target_arch = "bpf"))]
    let _ = (place, number);
}

#[inline(always)]
pub fn count_loss(loss: Loss) {
    if let Some(counter) = LOST.get_ptr_mut(loss as u32) {
        // SAFETY: a map entry.
        unsafe { add(counter, 1) };
    }
}

/// A frame being written; given back when dropped.
pub struct Frame {
    scratch: *mut Scratch,
}

impl Drop for Frame {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: a map entry of this CPU.
        unsafe { add(&raw mut (*self.scratch).hands, -1) };
    }
}

impl Frame {
    /// One of this CPU's scratch frames that no program which this one interrupted is writing.
    #[inline(always)]
    pub fn take() -> Option<Frame> {
        let host_root = task::host_root()?;
        for index in 0..DEPTH {
            let scratch = SCRATCH.get_ptr_mut(index)?;
            // SAFETY: a map entry of this CPU; programs do not migrate while they run. Atomics without results decide who
            // has it: each adds itself and then looks. Whoever sees 1 is alone, and stays so: all that come later see
            // more until it takes itself off again.
            unsafe {
                let hands = &raw mut (*scratch).hands;
                add(hands, 1);
                if hands.read_volatile() == 1 {
                    (*scratch).host_root = host_root;
                    // Into memory, where the verifier forgets it: else it would follow the program once for each frame.
                    (&raw mut (*scratch).index).write_volatile(index as u64);
                    return Some(Frame { scratch });
                }
                add(hands, -1);
            }
        }
        count_loss(Loss::Nested);
        None
    }

    /// A number for a slot that was never given before: the frame's holder counts alone.
    #[inline(always)]
    pub fn new_slot(&self) -> u64 {
        // SAFETY: this program's own frame; the helper has no preconditions.
        unsafe {
            (*self.scratch).slots += 1;
            let cpu = bpf_get_smp_processor_id() as u64;
            let number = (*self.scratch).slots & ((1 << SLOT_FRAME_SHIFT) - 1);
            ((cpu + 1) & 0x7ff) << SLOT_CPU_SHIFT | (*self.scratch).index << SLOT_FRAME_SHIFT | number
        }
    }

    #[inline(always)]
    pub fn header(&self) -> *mut Header {
        // SAFETY: inside the map entry.
        unsafe { &raw mut (*self.scratch).bytes as *mut Header }
    }

    /// The place for a fixed payload.
    #[inline(always)]
    pub fn payload<T>(&self) -> *mut T {
        self.at(size_of::<Header>()) as *mut T
    }

    /// The place `offset` bytes into the frame; the caller keeps it in bounds, the verifier checks.
    #[inline(always)]
    pub fn at(&self, offset: usize) -> *mut u8 {
        // SAFETY: the verifier checks the bounds of what is written.
        unsafe { (&raw mut (*self.scratch).bytes as *mut u8).add(offset) }
    }

    /// The place for a walk up from a root directory.
    #[inline(always)]
    pub fn walk(&self) -> *mut Walk {
        // SAFETY: inside the map entry.
        unsafe { &raw mut (*self.scratch).walk }
    }

    /// Two ways up a cgroup's limits.
    #[inline(always)]
    pub fn climbs(&self) -> [Climb; 2] {
        // SAFETY: inside the map entry.
        unsafe {
            let [first, second] =
                [&raw mut (*self.scratch).tightest[0], &raw mut (*self.scratch).tightest[1]];
            [Climb::of(first), Climb::of(second)]
        }
    }

    /// Fills the header for `task`, except `size`, `kind`, `flags` and `slot`. Returns the hash of its namespaces.
    ///
    /// A program does this before anything else: each load through a trusted pointer costs the verifier a search
    /// through all the kernel's types (10 us and more), so these must lie on one path, in front of all branches.
    #[inline(always)]
    pub fn fill(&self, task: Task) -> u64 {
        self.fill_with_root(task, || task.root_dentry())
    }

    /// The same for whoever has read the task's root already, and knows at which dentry its mount begins: what is told of
    /// one root must not be of two. (A function, because the load has its place: a pointer that is kept from before the
    /// others makes five times as much of a fork for the verifier, where there is no helper to load with.)
    #[inline(always)]
    pub fn fill_with_root(&self, task: Task, root_dentry: impl FnOnce() -> *const u8) -> u64 {
        let header = self.header();
        let (uid, gid) = task.ids();
        let (permitted, attainable, execs) = task.privileges();
        let css_set = CssSet::of(task);
        let v2 = css_set.v2();
        let (mut pids_hierarchy, mut memory_hierarchy, mut pids_id, mut memory_id) = (0, 0, 0, 0);
        if able(ability::CGROUP_V1) {
            let (pids, memory) = (css_set.pids(), css_set.memory());
            (pids_hierarchy, memory_hierarchy) = (pids.hierarchy(), memory.hierarchy());
            (pids_id, memory_id) = (pids.id(), memory.id());
        }
        // SAFETY: `header` is a whole header inside this CPU's scratch.
        unsafe {
            (*header).version = ABI_VERSION;
            (*header).time_ns = bpf_ktime_get_boot_ns();
            (*header).cpu = bpf_get_smp_processor_id();
            (*header).tgid = task.tgid();
            (*header).tid = task.tid();
            (*header).ppid = task.parent().tgid();
            (*header).uid = uid;
            (*header).gid = gid;
            (*header).permitted = permitted;
            (*header).attainable = attainable;
            (*header).execs = execs;
            (*header).reserved = 0;
            (*header).start_ns = task.start();
            (*header).slot = 0;
            (*header).cgroup_v2 = v2.id();
            // All ones for a v1 hierarchy, none for v2, where the id would only repeat the one above.
            (*header).cgroup_pids = pids_id & v1_mask(pids_hierarchy);
            (*header).cgroup_memory = memory_id & v1_mask(memory_hierarchy);
            (*self.scratch).pids_hierarchy = pids_hierarchy;
            (*self.scratch).memory_hierarchy = memory_hierarchy;
            task.comm(&raw mut (*header).comm);
            (*header).ns_pid = task.namespaces(&raw mut (*header).inodes);
            let same = self.is_host_root(root_dentry());
            (*self.scratch).root_flag = same as u32 * flags::HOST_ROOT;
            tuple_hash(&(*header).inodes, same)
        }
    }

    /// Writes what a fork tells of the parent. Returns the hash of its namespaces.
    #[inline(always)]
    pub fn fill_parent(&self, parent: Task, into: *mut Fork) -> u64 {
        // SAFETY: inside this CPU's scratch.
        unsafe {
            (*into).parent_tgid = parent.tgid();
            (*into).parent_tid = parent.tid();
            (*into).parent_start_ns = parent.start();
            (*into).parent_cgroup_v2 = CssSet::of(parent).v2().id();
            parent.namespaces(&raw mut (*into).parent_inodes);
            tuple_hash(&(*into).parent_inodes, self.is_host_root(parent.root_dentry()))
        }
    }

    /// 1 if this is the dentry that the host's root is, else 0; without a branch.
    #[inline(always)]
    fn is_host_root(&self, dentry: *const u8) -> u64 {
        // Through memory the pointer becomes a number, which alone the verifier lets be compared with one.
        // SAFETY: this CPU's scratch.
        let differs = unsafe {
            (&raw mut (*self.scratch).task_root).write_volatile(dentry as u64);
            (&raw const (*self.scratch).task_root).read_volatile() ^ (*self.scratch).host_root
        };
        if able(ability::ROOT) { (differs.wrapping_sub(1) & !differs) >> 63 } else { 0 }
    }

    /// The keys of the cgroups in the header: v2, then the v1 hierarchies that every runtime uses.
    #[inline(always)]
    pub fn cgroups(&self) -> [CgroupKey; 3] {
        let header = self.header();
        // SAFETY: as in `fill`.
        unsafe {
            [
                CgroupKey { hierarchy: 0, reserved: 0, id: (*header).cgroup_v2 },
                CgroupKey {
                    hierarchy: (*self.scratch).pids_hierarchy,
                    reserved: 0,
                    id: (*header).cgroup_pids,
                },
                CgroupKey {
                    hierarchy: (*self.scratch).memory_hierarchy,
                    reserved: 0,
                    id: (*header).cgroup_memory,
                },
            ]
        }
    }

    /// True if the frame's task has the host's root.
    #[inline(always)]
    pub fn has_host_root(&self) -> bool {
        // SAFETY: as in `fill`.
        unsafe { (*self.scratch).root_flag != 0 }
    }

    /// Notes in the header whose the task is.
    #[inline(always)]
    pub fn set_slot(&self, mark: u64) {
        // SAFETY: as in `fill`.
        unsafe { (*self.header()).slot = mark & SLOT_MASK }
    }

    /// Adds a flag to a sealed frame's.
    #[inline(always)]
    pub fn set_flag(&self, flag: u32) {
        // SAFETY: as in `fill`.
        unsafe { (*self.header()).flags |= flag }
    }

    /// Decides which ring the event goes by, and closes the fixed part of the frame: sets kind and flags and, for
    /// the priority ring, writes the ancestors. Returns which ring, and where further bytes go.
    #[inline(always)]
    pub fn seal(
        &self,
        task: Task,
        kind: impl Into<u32>,
        payload: usize,
        mark: u64,
        mut bits: u32,
        urgent: bool,
    ) -> Sealed {
        let (header, kind) = (self.header(), kind.into());
        let fixed = size_of::<Header>() + payload;
        // What is decided here goes by way of memory, and without branches: the verifier would follow the rest of the program
        // once for each case that it can tell apart.
        // SAFETY: as in `fill`.
        let priority = unsafe {
            bits |= (*self.scratch).root_flag;
            bits |= flag_of(mark & mark::ENTERING, flags::ENTERING);
            bits |= flag_of(mark & mark::MOVED, flags::MOVED);
            (*header).kind = kind as u16;
            let kept = &raw mut (*header).flags;
            kept.write_volatile(bits);
            if urgent {
                let ring = if self.within_budget(kind) {
                    flags::PRIORITY | flags::ANCESTORS
                } else {
                    flags::DEMOTED
                };
                kept.write_volatile(kept.read_volatile() | ring);
            }
            kept.read_volatile() & flags::PRIORITY != 0
        };
        let mut end = fixed;
        if priority {
            // By helper: these loads lie behind branches, see `fill`. No stop at pid 1: the agent cuts there.
            let mut up = task.0.at;
            for i in 0..MAX_ANCESTORS {
                // SAFETY: constant places inside the scratch; the helper checks what it reads.
                unsafe {
                    up = peek(up, offset!(task_real_parent));
                    let leader: *const u8 = peek(up, offset!(task_group_leader));
                    let entry = self.at(fixed + i * size_of::<Ancestor>()) as *mut Ancestor;
                    (*entry).tgid = peek(up, offset!(task_tgid));
                    (*entry).reserved = 0;
                    (*entry).start_ns = peek(leader, offset!(task_start));
                    (*entry).comm = peek(leader, offset!(task_comm));
                }
            }
            end += MAX_ANCESTORS * size_of::<Ancestor>();
        }
        Sealed { kind, priority, end }
    }

    /// Takes one event from the slot's share of the priority ring.
    #[inline(always)]
    fn within_budget(&self, kind: u32) -> bool {
        let Some(budget) = self.budget(kind) else { return false };
        // SAFETY: a map entry; two CPUs may both reset the window, which errs towards the reader.
        unsafe {
            let now = (*self.header()).time_ns;
            if now.wrapping_sub((*budget).window_ns) > BUDGET_WINDOW_NS {
                (*budget).window_ns = now;
                (*budget).used = 0;
            }
            (*budget).used += 1;
            (*budget).used <= BUDGET
        }
    }

    #[inline(always)]
    fn budget(&self, kind: u32) -> Option<*mut Budget> {
        // SAFETY: as in `fill`.
        let slot = unsafe { (*self.header()).slot };
        let key = BudgetKey { slot, kind, reserved: 0 };
        if let Some(budget) = BUDGETS.get_ptr_mut(key) {
            return Some(budget);
        }
        let fresh = Budget {
            window_ns: 0,
            used: 0,
            displaced: 0,
            last_ns: 0,
            last_tgid: 0,
            host_mask: 0,
            last_inodes: [0; NAMESPACES],
        };
        let _ = BUDGETS.insert(key, fresh, 0);
        BUDGETS.get_ptr_mut(key)
    }

    /// Sends the first `size` bytes.
    #[inline(always)]
    pub fn send(&self, sealed: Sealed, size: usize) {
        let header = self.header();
        if size > FRAME {
            count_loss(Loss::Nested);
            return;
        }
        // SAFETY: the frame is initialised map memory at least that long; the rings are maps of this object.
        unsafe {
            (*header).size = size as u32;
            if sealed.priority {
                if output(&PRIORITY, header as *const u8, size, BPF_RB_FORCE_WAKEUP as u64) {
                    return;
                }
                (*header).flags = (*header).flags & !flags::PRIORITY | flags::DEMOTED;
            }
            let wake = match WAKE_AT.get(0) {
                Some(at) if EVENTS.query(BPF_RB_AVAIL_DATA as u64) >= *at => BPF_RB_FORCE_WAKEUP,
                _ => BPF_RB_NO_WAKEUP,
            };
            if output(&EVENTS, header as *const u8, size, wake as u64) {
                return;
            }
            if (*header).flags & flags::DEMOTED != 0 {
                count_loss(Loss::PriorityFull);
                self.keep_state(sealed.kind);
            } else {
                count_loss(Loss::RingFull);
            }
        }
    }

    /// An event that would have decided something found no room anywhere: its slot keeps what it showed.
    #[inline(always)]
    fn keep_state(&self, kind: u32) {
        // SAFETY: this CPU's scratch. Who is on its way in still has the host's namespaces.
        if unsafe { (*self.header()).flags } & flags::ENTERING != 0 {
            return;
        }
        let Some(budget) = self.budget(kind) else { return };
        let header = self.header();
        // SAFETY: a map entry and this CPU's scratch.
        unsafe {
            let mut same = 0u32;
            if let Some(host) = task::host() {
                for i in 0..NAMESPACES {
                    // 1 if equal, without a branch: ten of them would be 1,024 paths to verify.
                    let differs = (host.inodes[i] ^ (*header).inodes[i]) as u64;
                    same |= (((differs.wrapping_sub(1) & !differs) >> 63) as u32) << i;
                }
            }
            (*budget).displaced += 1;
            (*budget).last_ns = (*header).time_ns;
            (*budget).last_tgid = (*header).tgid;
            (*budget).host_mask |= same;
            (*budget).last_inodes = (*header).inodes;
        }
    }
}

/// `flag` if `bits` is not zero; without a branch.
#[inline(always)]
pub fn flag_of(bits: u64, flag: u32) -> u32 {
    ((bits.wrapping_neg() | bits) >> 63) as u32 * flag
}

/// All ones if the hierarchy is a v1 one, else zero; without a branch.
#[inline(always)]
fn v1_mask(hierarchy: u32) -> u64 {
    (((hierarchy as i64).wrapping_neg()) >> 63) as u64
}

/// See [`Frame::seal`].
#[derive(Clone, Copy)]
pub struct Sealed {
    kind: u32,
    /// Whether it goes by the small ring. The flag in the header says the same, but not to the verifier, which would follow
    /// each event on both ways.
    priority: bool,
    /// Where the bytes behind the fixed part begin.
    pub end: usize,
}

/// # Safety
/// `from` is map memory of at least `size` initialised bytes.
#[inline(always)]
unsafe fn output(ring: &'static RingBuf, from: *const u8, size: usize, wake: u64) -> bool {
    // SAFETY: by the caller's word; `RingBuf` is a transparent map definition.
    unsafe { bpf_ringbuf_output(ring as *const RingBuf as *mut _, from as *mut _, size as u64, wake) == 0 }
}
