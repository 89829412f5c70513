//! Where limits bite: processes that the kernel kills for want of memory, and forks that it refuses.
//!
//! Both are rare or made rare, and both walk up a controller's cgroups: by helper, for the number of steps is not known. Who
//! is preempted in here keeps the program from running for others on its CPU meanwhile. Of OOM kills there is only one at a
//! time (the kernel holds `oom_lock`), and a refused fork that is skipped is one less in a count.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns},
    macros::{btf_tracepoint, fexit, map, tracepoint},
    maps::LruHashMap,
    programs::{BtfTracePointContext, FExitContext, TracePointContext},
};
use observer_common::{
    ForkRefused, Kind, OomKill, REFUSALS_WINDOW_NS, Refusals, SLOT_MASK, ability, mark, oom,
};

use crate::{
    audit,
    climb::Climb,
    emit::{Frame, add},
    offsets::{able, follow, load, offset, read},
    slots,
    task::{self, Task},
};

/// How far up a cgroup's limits are looked for.
const LEVELS: usize = 16;

/// Pages that a memory cgroup may have left and still be the one that is out of memory. What cannot be charged is at most 8
/// pages (`PAGE_ALLOC_COSTLY_ORDER`; more only fails), and `mem_cgroup_out_of_memory` looks that there is less room than that
/// just before a victim is chosen. Since then CPUs' stocks may have been given back (`MEMCG_CHARGE_BATCH`, 64 pages each), and
/// on a busy machine, where the one that chooses is preempted, others have ended or let go of memory: seen with more than 72
/// pages left of 8,192. Hence also a share of the limit.
const SLACK_PAGES: i64 = 8 + 64;
const SLACK_SHARE: i64 = 16;

/// Tasks that a cgroup may lack to its limit of them and still be the one that refused another: others end while the
/// refused one is cleared away.
const SLACK_TASKS: i64 = 4;

const EAGAIN: i64 = 11;

/// By slot, the container's first.
#[map]
static REFUSALS: LruHashMap<u64, Refusals> = LruHashMap::with_max_entries(4096, 0);

/// `mark_victim(task, uid)`, include/trace/events/oom.h (6.9).
#[btf_tracepoint(function = "mark_victim")]
pub fn oom_kill_task(ctx: BtfTracePointContext) -> i32 {
    let victim = Task::seldom(ctx.arg(0));
    oom_kill(victim, victim.tid(), true);
    0
}

/// `mark_victim(pid)`, before 6.9: a thread's id. Most victims have asked for the memory themselves; of another one there is no
/// more to be had than that.
#[btf_tracepoint(function = "mark_victim")]
pub fn oom_kill_id(ctx: BtfTracePointContext) -> i32 {
    let tid: u32 = ctx.arg(0);
    let current = Task::current();
    oom_kill(current, tid, current.tid() == tid);
    0
}

/// `task` is the victim, if it `is_victim`; else the one that asked for memory. If its cgroup is out of it, that is above both.
#[inline(always)]
fn oom_kill(task: Task, tid: u32, is_victim: bool) {
    let Some(frame) = Frame::take() else { return };
    let current = Task::current();
    frame.fill(current);
    let payload = frame.payload::<OomKill>();
    let (own_tgid, start) = (task.tgid(), task.start());
    let (uid, _) = task.ids();
    let score = if able(ability::VICTIM_SCORE) {
        // SAFETY: signal_struct.oom_score_adj is a short.
        unsafe { load::<i16>(follow(task.0, offset!(task_signal)), offset!(signal_oom_score_adj)) }
    } else {
        0
    };
    let css_set = css_set(task);
    let mm = if able(ability::RESIDENT) {
        // SAFETY: task_struct.mm is a pointer.
        unsafe { follow(task.0, offset!(resident_mm)) }.at
    } else if able(ability::RESIDENT_PLAIN) {
        // SAFETY: as above.
        unsafe { follow(task.0, offset!(resident_plain_mm)) }.at
    } else {
        crate::offsets::NOWHERE
    };
    // SAFETY: this CPU's scratch.
    unsafe { task.comm(&raw mut (*payload).victim_comm) };

    // An id is nearly always that of a process's first thread.
    let tgid = if is_victim { own_tgid } else { tid };
    // SAFETY: this CPU's scratch.
    unsafe {
        (*payload).victim_tgid = tgid;
        (*payload).victim_tid = tid;
        (*payload).victim_start_ns = if is_victim { start } else { 0 };
        (*payload).victim_uid = if is_victim { uid } else { u32::MAX };
        (*payload).oom_score_adj = if is_victim { score as i32 } else { 0 };
        (*payload).file_pages = if is_victim { resident(mm, 0) } else { 0 };
        (*payload).anon_pages = if is_victim { resident(mm, 1) } else { 0 };
        (*payload).swap_pages = if is_victim { resident(mm, 2) } else { 0 };
        (*payload).shmem_pages = if is_victim { resident(mm, 3) } else { 0 };
        if !is_victim {
            (*payload).victim_comm = [0; 16];
        }
        (*payload).victim_slot = task::mark(tgid) & SLOT_MASK;
    }
    find_memory_limit(&frame, css_set);
    let (_, mark) = task::mark_of_frame(&frame, current.tgid());
    let sealed = frame.seal(current, Kind::OomKill, size_of::<OomKill>(), mark, 0, true);
    frame.send(sealed, sealed.end);
}

/// Pages of one kind: `MM_FILEPAGES` and so on, include/linux/mm_types_task.h. The kernel's parts per CPU are left out, so that the
/// sum may be below zero.
#[inline(always)]
fn resident(mm: *const u8, kind: usize) -> u64 {
    // SAFETY: the counts are integers of eight bytes.
    let count: i64 = unsafe {
        if able(ability::RESIDENT) {
            read(mm, offset!(resident) + kind * offset!(resident_size))
        } else if able(ability::RESIDENT_PLAIN) {
            read(mm, offset!(resident_plain) + kind * 8)
        } else {
            0
        }
    };
    if count > 0 { count as u64 } else { 0 }
}

#[inline(always)]
fn css_set(task: Task) -> *const u8 {
    // SAFETY: task_struct.cgroups is a pointer.
    unsafe { load(task.0, offset!(task_cgroups)) }
}

/// The controller's state for those in a css_set, as a number: the verifier is not to take it for what it is not.
#[inline(always)]
fn css(css_set: *const u8, subsys: usize) -> u64 {
    // SAFETY: css_set.subsys is an array of pointers.
    unsafe { read(css_set, offset!(css_set_subsys) + subsys * 8) }
}

/// Id and hierarchy of a css's cgroup.
#[inline(always)]
fn cgroup_of(css: u64) -> (u64, u32) {
    // SAFETY: pointers as integers, and members as in `Cgroup`.
    unsafe {
        let cgroup: u64 = read(css as *const u8, offset!(css_cgroup));
        let kn: u64 = read(cgroup as *const u8, offset!(cgroup_kn));
        let root: u64 = read(cgroup as *const u8, offset!(cgroup_root));
        (read(kn as *const u8, offset!(kn_id)), read(root as *const u8, offset!(root_hierarchy)))
    }
}

/// See [`SLACK_PAGES`].
#[inline(always)]
fn is_full_of_memory(found: Climb) -> bool {
    found.left() <= SLACK_PAGES || found.left() <= found.limit() / SLACK_SHARE
}

/// Along `page_counter.parent`: where v1 does not count a cgroup's memory above it (`memory.use_hierarchy`, until 5.11),
/// there is none.
#[inline(always)]
fn climb_counters(climb: Climb, from: u64) {
    climb.start(from);
    for _ in 0..LEVELS {
        let at = climb.at();
        if at == 0 {
            break;
        }
        let counter = at as *const u8;
        // SAFETY: atomic_long_t, unsigned long and a pointer.
        let (used, limit, parent): (i64, i64, u64) = unsafe {
            (
                read(counter, offset!(counter_usage)),
                read(counter, offset!(counter_max)),
                read(counter, offset!(counter_parent)),
            )
        };
        // Both are zeros where the helper could not read; who has nothing charged is not killed for it.
        if used != 0 || limit != 0 {
            climb.look(at, used, limit);
        }
        climb.set_at(parent);
    }
}

/// Which memory cgroup is full.
#[inline(always)]
fn find_memory_limit(frame: &Frame, css_set: *const u8) {
    let payload = frame.payload::<OomKill>();
    let [memory, memsw] = frame.climbs();
    // SAFETY: this CPU's scratch.
    unsafe {
        (*payload).limit_cgroup_id = 0;
        (*payload).limit_hierarchy = 0;
        (*payload).limit_pages = 0;
        (*payload).usage_pages = 0;
        (&raw mut (*payload).scope).write_volatile(oom::UNKNOWN);
    }
    if !able(ability::MEMORY_LIMITS | ability::CGROUP_V1) {
        return;
    }
    let css = css(css_set, offset!(memory_subsys));
    if css == 0 {
        return;
    }
    let memcg = css.wrapping_sub(offset!(memory_css) as u64);
    let (_, hierarchy) = cgroup_of(css);
    climb_counters(memory, memcg.wrapping_add(offset!(memory_memory) as u64));
    // v1 limits memory and swap together, too.
    memsw.start(0);
    if !is_full_of_memory(memory) && hierarchy != 0 {
        climb_counters(memsw, memcg.wrapping_add(offset!(memory_memsw) as u64));
    }
    if is_full_of_memory(memory) {
        tell_full(payload, memory, offset!(memory_memory));
    } else if is_full_of_memory(memsw) {
        tell_full(payload, memsw, offset!(memory_memsw));
    } else if memory.at() == 0 && memory.place() != u64::MAX {
        // SAFETY: this CPU's scratch.
        unsafe { (*payload).scope = oom::HOST }
    }
}

/// `at`: where in a memory cgroup the counter is.
#[inline(always)]
fn tell_full(payload: *mut OomKill, counter: Climb, at: usize) {
    let full = counter.place().wrapping_sub(at as u64).wrapping_add(offset!(memory_css) as u64);
    let (id, hierarchy) = cgroup_of(full);
    // SAFETY: this CPU's scratch.
    unsafe {
        (*payload).scope = oom::CGROUP;
        (*payload).limit_cgroup_id = id;
        (*payload).limit_hierarchy = hierarchy;
        (*payload).limit_pages = counter.limit() as u64;
        (*payload).usage_pages = counter.used() as u64;
    }
}

/// `kernel_clone(args)`, kernel/fork.c: what all of fork, vfork, clone and clone3 come to, 32-bit ones too. Every fork passes here,
/// and leaves after a comparison.
#[fexit(function = "kernel_clone")]
pub fn fexit_kernel_clone(ctx: FExitContext) -> i32 {
    let ret: i32 = ctx.arg(1);
    if ret as i64 == -EAGAIN {
        fork_refused();
    }
    0
}

/// On the ends of clone, clone3, fork and vfork.
#[tracepoint]
pub fn exit_fork_refused(ctx: TracePointContext) -> u32 {
    // SAFETY: the layout of every sys_exit_NAME tracepoint has `long ret` at 16 (its format file).
    if let Ok(ret) = unsafe { ctx.read_at::<i64>(16) }
        && ret == -EAGAIN
    {
        fork_refused();
    }
    0
}

/// In the table of 32-bit calls these numbers are other calls'.
#[btf_tracepoint(function = "sys_exit")]
pub fn over_fork_refused(ctx: BtfTracePointContext) -> i32 {
    let ret: i64 = ctx.arg(1);
    if ret == -EAGAIN && !audit::is_compat(Task::current()) {
        fork_refused();
    }
    0
}

#[inline(always)]
fn fork_refused() {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let stored = task::stored_mark(tgid);
    let known = if stored & mark::GONE == 0 { stored & SLOT_MASK } else { 0 };
    if known != 0 {
        // A bomb comes by here as fast as it can: the host's is nobody's business, and a container's is told now and then.
        let Some(slot) = slots::of_container(known) else { return };
        if !is_due(slot) {
            return;
        }
    }
    let Some(frame) = Frame::take() else { return };
    let current = Task::current();
    frame.fill(current);
    let css_set = css_set(current);
    let (_, mark) = task::mark_of_frame(&frame, tgid);
    let Some(slot) = slots::of_container(mark & SLOT_MASK) else { return };
    // Whoever is older than the agent is known by its cgroup.
    if slot == 0 || known == 0 && !is_due(slot) {
        return;
    }
    let payload = frame.payload::<ForkRefused>();
    find_tasks_limit(&frame, css_set);
    // SAFETY: this CPU's scratch.
    unsafe {
        (*payload).count = take_refusals(slot);
        (*payload).errno = EAGAIN as i32;
    }
    let sealed = frame.seal(current, Kind::ForkRefused, size_of::<ForkRefused>(), mark, 0, true);
    frame.send(sealed, sealed.end);
}

/// Counts a refusal; true if it is time to tell of it. Two CPUs may both be told so, which errs towards the reader.
#[inline(always)]
fn is_due(slot: u64) -> bool {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let refusals = match REFUSALS.get_ptr_mut(slot) {
        Some(refusals) => refusals,
        None => {
            // Another CPU may be first, which is as good.
            let _ = REFUSALS.insert(slot, Refusals { last_ns: 0, total: 0, told: 0 }, BPF_NOEXIST as u64);
            // Told one by one if there is no room.
            let Some(refusals) = REFUSALS.get_ptr_mut(slot) else { return true };
            refusals
        }
    };
    // SAFETY: a map entry.
    unsafe {
        add(&raw mut (*refusals).total, 1);
        if now.wrapping_sub((*refusals).last_ns) < REFUSALS_WINDOW_NS {
            return false;
        }
        (*refusals).last_ns = now;
    }
    true
}

/// How many have not been told of yet.
#[inline(always)]
fn take_refusals(slot: u64) -> u64 {
    let Some(refusals) = REFUSALS.get_ptr_mut(slot) else { return 1 };
    // SAFETY: a map entry.
    unsafe {
        let total = (&raw const (*refusals).total).read_volatile();
        let count = total.wrapping_sub((*refusals).told);
        (*refusals).told = total;
        // None, if another CPU has just told of this one.
        if count == 0 { 1 } else { count }
    }
}

/// Which cgroup has its full number of tasks; see [`SLACK_TASKS`].
#[inline(always)]
fn find_tasks_limit(frame: &Frame, css_set: *const u8) {
    let payload = frame.payload::<ForkRefused>();
    let [climb, _] = frame.climbs();
    // SAFETY: this CPU's scratch.
    unsafe {
        (*payload).cgroup_id = 0;
        (*payload).hierarchy = 0;
        (*payload).current = 0;
        (*payload).max = 0;
    }
    if !able(ability::PIDS_LIMITS | ability::CGROUP_V1) {
        return;
    }
    climb.start(css(css_set, offset!(pids_subsys)));
    for _ in 0..LEVELS {
        let css = climb.at();
        let pids = css.wrapping_sub(offset!(pids_css) as u64) as *const u8;
        // SAFETY: two atomic64_t and a pointer.
        let (used, limit, parent): (i64, i64, u64) = unsafe {
            (
                read(pids, offset!(pids_counter)),
                read(pids, offset!(pids_limit)),
                read(css as *const u8, offset!(css_parent)),
            )
        };
        // The topmost counts nothing and has no limit.
        if parent == 0 {
            break;
        }
        climb.look(css, used, limit);
        climb.set_at(parent);
    }
    if climb.left() <= SLACK_TASKS {
        let (id, hierarchy) = cgroup_of(climb.place());
        // SAFETY: this CPU's scratch.
        unsafe {
            (*payload).cgroup_id = id;
            (*payload).hierarchy = hierarchy;
            (*payload).current = climb.used() as u64;
            (*payload).max = climb.limit() as u64;
        }
    }
}
