//! sched_process_fork, sched_process_exec, sched_process_exit: marks are inherited, judged and taken back.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_user, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use observer_common::{
    Exec, Exit, Fork, Kind, MAX_ARGS, MAX_FILENAME, NS_PID, NS_USER, SLOT_MASK, ability, flags, mark,
};

use crate::{
    audit, debug_log,
    emit::Frame,
    offsets::{NOWHERE, Place, able, follow, load, offset, read_text},
    probes::cgroup,
    slots,
    task::{self, Task},
    turn::Turn,
};

/// A thread's namespaces are not those last seen, and no call that is watched said so: report it as of now.
#[inline(always)]
pub fn report_drift(frame: &Frame, task: Task, mark: u64, bits: u32) {
    let sealed = frame.seal(task, Kind::Drift, 0, mark, bits, mark & SLOT_MASK != 0);
    frame.send(sealed, sealed.end);
}

/// `sched_process_fork(parent, child)`: the child is complete, and has not yet run.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    if Turn::First.is_over(Kind::Fork, ability::TWICE_ON_TRACEPOINTS) {
        return 0;
    }
    // The child may have got the stack of a thread that has ended.
    audit::changed();
    let (parent, child) = (Task::often(ctx.arg(0)), Task::often(ctx.arg(1)));
    if !child.is_kernel_thread() {
        fork(parent, child);
        debug_log!(&ctx, "fork {} -> {}", parent.tgid(), child.tgid());
    }
    0
}

#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork_again(ctx: BtfTracePointContext) -> i32 {
    if Turn::Second.is_over(Kind::Fork, ability::TWICE_ON_TRACEPOINTS) {
        return 0;
    }
    // The child may have got the stack of a thread that has ended.
    audit::changed();
    let (parent, child) = (Task::often(ctx.arg(0)), Task::often(ctx.arg(1)));
    if !child.is_kernel_thread() {
        fork(parent, child);
        debug_log!(&ctx, "fork {} -> {}", parent.tgid(), child.tgid());
    }
    0
}

#[inline(always)]
fn fork(parent: Task, child: Task) {
    let Some(frame) = Frame::take() else {
        // Nothing can be told, but the mark is handed on.
        if child.tgid() == child.tid() {
            task::set_mark(child.tgid(), task::mark(parent.tgid()) & !(mark::JOINED | mark::GONE));
        }
        return;
    };
    let payload = frame.payload::<Fork>();
    let header = frame.header();
    let (parent_tgid, parent_tid) = (parent.tgid(), parent.tid());
    let (tgid, tid) = (child.tgid(), child.tid());
    // All the loads first, see `Frame::fill`.
    let now = frame.fill_parent(parent, payload);
    let hash = frame.fill(child);

    let before = task::last_tuple(parent_tid);
    if before != now {
        task::set_last_tuple(parent_tid, now);
    }
    task::set_last_tuple(tid, hash);
    let own = task::mark(parent_tgid);
    // Where the parent has no mark (it is older than the agent), its child's cgroups may say whose it is.
    let by_cgroup = if own & SLOT_MASK == 0 { slots::mark_by_cgroups(&frame) } else { 0 };
    // SAFETY: this CPU's scratch.
    let same_cgroup = unsafe { (*payload).parent_cgroup_v2 == (*header).cgroup_v2 };
    let mut mark = own & !(mark::JOINED | mark::GONE);
    let changed = hash != now;
    // The parent's namespaces changed behind our back.
    let drifted = before != 0 && before != now;
    if changed {
        forget_reused(&frame);
    }
    let joined = own & mark::JOINED != 0;
    if joined {
        task::set_mark(parent_tgid, own & !mark::JOINED);
    }
    // A thread shares its process's mark; it is worth an event only if its namespaces are its own.
    let is_process = tgid == tid;
    if is_process || changed || drifted {
        let mut escaped = false;
        if is_process {
            if by_cgroup != 0 {
                mark |= by_cgroup;
                if same_cgroup {
                    task::set_mark(parent_tgid, mark);
                } else {
                    // Born on the host into a container's cgroup (CLONE_INTO_CGROUP).
                    mark |= mark::ENTERING;
                }
            } else if mark & SLOT_MASK == 0 && changed {
                // Born on the host into namespaces of its own.
                mark |= mark::ENTERING;
            }
            if !same_cgroup && mark & SLOT_MASK != 0 && mark & mark::ENTERING == 0 {
                let slot = slots::of_cgroup(frame.cgroups()[0]);
                escaped = slot == 0 || slots::canonical(slot) != slots::canonical(mark & SLOT_MASK);
                if escaped {
                    mark |= mark::MOVED;
                }
            }
            task::set_mark(tgid, mark);
        }
        frame.set_slot(mark);
        let mut bits = if changed { flags::CHANGED | flags::EXPLAINED } else { 0 };
        if drifted {
            bits |= flags::PARENT_CHANGED;
        }
        let urgent = mark & SLOT_MASK != 0 && (changed || drifted) || joined || escaped;
        let sealed = frame.seal(child, Kind::Fork, size_of::<Fork>(), mark, bits, urgent);
        frame.send(sealed, sealed.end);
        if escaped {
            cgroup::report_clone(&frame, child, mark);
        }
    }
}

/// New pid or user namespaces: whatever container had their inode numbers before is gone. The frame is a Fork's.
#[inline(always)]
fn forget_reused(frame: &Frame) {
    let (header, payload) = (frame.header(), frame.payload::<Fork>());
    // SAFETY: this CPU's scratch.
    unsafe {
        if (*header).ns_pid == 1 {
            slots::forget_namespace((*header).inodes[NS_PID]);
        }
        if (*header).inodes[NS_USER] != (*payload).parent_inodes[NS_USER] {
            slots::forget_namespace((*header).inodes[NS_USER]);
        }
    }
}

/// `sched_process_exec(task, old_pid, bprm)`: the new image is in place.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    if Turn::First.is_over(Kind::Exec, ability::TWICE_ON_TRACEPOINTS) {
        return 0;
    }
    let task = Task::often(ctx.arg(0));
    let old_tid: u32 = ctx.arg(1);
    let bprm: *const u8 = ctx.arg(2);
    exec(task, old_tid, bprm);
    debug_log!(&ctx, "exec {}", task.tgid());
    0
}

#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec_again(ctx: BtfTracePointContext) -> i32 {
    if Turn::Second.is_over(Kind::Exec, ability::TWICE_ON_TRACEPOINTS) {
        return 0;
    }
    let task = Task::often(ctx.arg(0));
    let old_tid: u32 = ctx.arg(1);
    let bprm: *const u8 = ctx.arg(2);
    exec(task, old_tid, bprm);
    debug_log!(&ctx, "exec {}", task.tgid());
    0
}

#[inline(always)]
fn exec(task: Task, old_tid: u32, bprm: *const u8) {
    let Some(frame) = Frame::take() else { return };
    let header = frame.header();
    let (tgid, tid) = (task.tgid(), task.tid());
    let now = frame.fill(task);
    let (mut name, mut start, mut end) = (NOWHERE, 0, 0);
    if able(ability::PROGRAM) {
        // SAFETY: typed members of bprm and mm.
        unsafe {
            let mm = follow(task.0, offset!(task_mm));
            name = load(Place::often(bprm), offset!(bprm_filename));
            start = load::<u64>(mm, offset!(mm_arg_start));
            end = load::<u64>(mm, offset!(mm_arg_end));
        }
    }
    let before = task::last_tuple(old_tid);
    if old_tid != tid {
        // Another thread than the leader called execve: it now has the leader's id, its own is free.
        task::set_last_tuple(old_tid, 0);
    }
    task::set_last_tuple(tid, now);
    let (stored, mut mark) = task::mark_of_frame(&frame, tgid);
    let mut bits = 0;
    if before == 0 {
        bits |= flags::FIRST_SIGHT;
    } else if before != now {
        bits |= flags::CHANGED;
    }
    if mark & mark::ENTERING != 0 {
        // In place is whoever is in other namespaces than its parent, and than the host, in whichever types: a runtime's
        // helper that executes itself in the container's cgroup still has its maker's (which may be a service's own),
        // and a hook that the runtime runs inside has those of the helper.
        // SAFETY: this CPU's scratch.
        let parent = task::last_tuple(unsafe { (*header).ppid });
        let in_place = mark & SLOT_MASK == 0 || parent != now && !task::has_hosts_namespaces(&frame);
        if in_place {
            mark &= !mark::ENTERING;
            bits |= flags::JUDGE;
        }
    }
    if mark & SLOT_MASK == 0 {
        let slot = slots::of_namespaces(&frame);
        if slot != 0 {
            mark |= slot;
            bits |= flags::JUDGE;
        }
    }
    let joined = mark & mark::JOINED != 0;
    mark &= !mark::JOINED;
    if mark != stored {
        task::set_mark(tgid, mark);
    }
    let slot = mark & SLOT_MASK;
    frame.set_slot(mark);
    let urgent =
        joined || bits & flags::JUDGE != 0 || slot != 0 && bits & (flags::CHANGED | flags::FIRST_SIGHT) != 0;
    let sealed = frame.seal(task, Kind::Exec, size_of::<Exec>(), mark, bits, urgent);

    // SAFETY: the helpers check what they read and write at most the given size, which the scratch has behind
    // `sealed.end` (at most 168 + 16 + 256).
    unsafe {
        let payload = frame.payload::<Exec>();
        let got = read_text(frame.at(sealed.end), MAX_FILENAME, name);
        // The length counts the NUL. Through memory, so that the mask stays in the code: 6.1's verifier does not
        // follow how the compiler folds the comparisons, and takes the length for negative.
        let counted = if got > 1 && got <= MAX_FILENAME as i64 { got as u32 - 1 } else { 0 };
        (&raw mut (*payload).filename_len).write_volatile(counted);
        let name_len = (&raw const (*payload).filename_len).read_volatile() as usize & (MAX_FILENAME - 1);
        let total = end.wrapping_sub(start);
        let mut args_len = if total > MAX_ARGS as u64 { MAX_ARGS } else { total as usize };
        let at = sealed.end + name_len;
        if !able(ability::READ_USER)
            || bpf_probe_read_user(frame.at(at) as *mut _, args_len as u32, start as *const _) != 0
        {
            args_len = 0;
        }
        (*payload).old_tid = old_tid;
        (*payload).args_len = args_len as u32;
        (*payload).args_total = total as u32;
        if args_len < total as usize {
            (*header).flags |= flags::TRUNCATED;
        }
        frame.send(sealed, at + args_len);
    }
}

/// `sched_process_exit(task)`, for every thread; namespaces are still there.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    if Turn::First.is_over(Kind::Exit, ability::TWICE_ON_TRACEPOINTS) {
        return 0;
    }
    let task = Task::often(ctx.arg(0));
    if !task.is_kernel_thread() {
        exit(task);
    }
    0
}

#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit_again(ctx: BtfTracePointContext) -> i32 {
    if Turn::Second.is_over(Kind::Exit, ability::TWICE_ON_TRACEPOINTS) {
        return 0;
    }
    let task = Task::often(ctx.arg(0));
    if !task.is_kernel_thread() {
        exit(task);
    }
    0
}

#[inline(always)]
fn exit(task: Task) {
    let (tgid, tid) = (task.tgid(), task.tid());
    let (is_last, status) = (task.is_last(), task.exit_code());
    let frame = Frame::take();
    // All the loads first, see `Frame::fill`.
    let now = frame.as_ref().map_or(0, |frame| frame.fill(task));
    let stored = task::mark_at_exit(tgid);
    // Of threads that end together several may find themselves the last: the first of them tells.
    let last = is_last && stored & mark::GONE == 0;
    let Some(frame) = frame else {
        take_back(tgid, tid, stored, last);
        return;
    };
    let before = task::last_tuple(tid);
    if !last && before == 0 {
        // One thread of several, never seen before: nothing to take back, nothing to say.
        return;
    }
    let (_, mark) = task::complete(&frame, stored);
    take_back(tgid, tid, mark, last);
    let changed = before != 0 && before != now;
    if !last {
        // Another thread goes on: nothing to say unless this one takes a change with it.
        if changed {
            report_drift(&frame, task, mark, flags::CHANGED);
        }
        return;
    }
    let header = frame.header();
    // SAFETY: this CPU's scratch.
    unsafe {
        if (*header).ns_pid == 1 {
            // The namespace's init: without it the pid namespace is dead.
            slots::forget_namespace((*header).inodes[NS_PID]);
        }
        let payload = frame.payload::<Exit>();
        (*payload).status = status;
        (*payload).reserved = 0;
    }
    let bits = if changed { flags::CHANGED } else { 0 };
    let urgent = mark & SLOT_MASK != 0 && changed || mark & mark::JOINED != 0;
    let sealed = frame.seal(task, Kind::Exit, size_of::<Exit>(), mark, bits, urgent);
    frame.send(sealed, sealed.end);
}

/// The ids are free for others from here on.
#[inline(always)]
fn take_back(tgid: u32, tid: u32, mark: u64, last: bool) {
    task::set_last_tuple(tid, 0);
    if last {
        task::set_mark(tgid, mark | mark::GONE);
    }
}
