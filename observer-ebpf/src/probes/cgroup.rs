//! Cgroups made, removed, and tasks that move between them.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use observer_common::{
    Cgroup as CgroupPayload, CgroupMove, Fork, Kind, MAX_PATH, SLOT_MASK, ability, door, mark,
};

use crate::{
    emit::Frame,
    offsets::{Place, read_text},
    slots::{self, Cgroup},
    task::{self, Task},
    turn::Turn,
};

#[inline(always)]
fn describe(into: *mut CgroupPayload, cgroup: Cgroup) {
    // SAFETY: `into` lies in the scratch frame.
    unsafe {
        (*into).hierarchy = cgroup.hierarchy();
        (*into).level = cgroup.level();
        (*into).id = cgroup.id();
        (*into).parent_id = cgroup.parent().id();
        (*into).slot = 0;
        (*into).path_len = 0;
        (*into).reserved = 0;
    }
}

/// Copies the path that the tracepoint hands over behind the frame; returns its length, 0 where kernel memory may not be
/// read (the agent then looks for the cgroup by its id).
#[inline(always)]
fn copy_path(frame: &Frame, at: usize, path: *const u8) -> usize {
    // SAFETY: the helper checks what it reads; the scratch has MAX_PATH bytes behind `at`.
    let got = unsafe { read_text(frame.at(at), MAX_PATH, path) };
    if got > 1 && got <= MAX_PATH as i64 { got as usize - 1 } else { 0 }
}

#[inline(always)]
fn made_or_removed(kind: Kind, cgroup: Cgroup, path: *const u8) {
    let making = matches!(kind, Kind::CgroupMkdir);
    let (key, parent) = (cgroup.key(), cgroup.parent().key());
    let Some(frame) = Frame::take() else {
        // The table is kept even where nothing can be said.
        if making {
            slots::adopt(key, parent, None);
        } else {
            slots::forget(key);
        }
        return;
    };
    let task = Task::current();
    frame.fill(task);
    let payload = frame.payload::<CgroupPayload>();
    describe(payload, cgroup);
    let slot = if making { slots::adopt(key, parent, Some(&frame)) } else { slots::forget(key) };
    // SAFETY: in the scratch.
    unsafe { (*payload).slot = slot };
    let mark = task::mark(task.tgid());
    frame.set_slot(mark);
    // Urgent, because the agent must name the container before its first process runs.
    let sealed = frame.seal(task, kind, size_of::<CgroupPayload>(), mark, 0, making);
    let len = copy_path(&frame, sealed.end, path);
    // SAFETY: in the scratch.
    unsafe { (*payload).path_len = len as u32 };
    frame.send(sealed, sealed.end + len);
}

/// `cgroup_mkdir(cgroup, path)`
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    if Turn::First.is_over(Kind::CgroupMkdir, ability::TWICE_ON_TRACEPOINTS) {
        return 0;
    }
    made_or_removed(Kind::CgroupMkdir, Cgroup(Place::seldom(ctx.arg(0))), ctx.arg(1));
    0
}

#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir_again(ctx: BtfTracePointContext) -> i32 {
    if Turn::Second.is_over(Kind::CgroupMkdir, ability::TWICE_ON_TRACEPOINTS) {
        return 0;
    }
    made_or_removed(Kind::CgroupMkdir, Cgroup(Place::seldom(ctx.arg(0))), ctx.arg(1));
    0
}

/// `cgroup_rmdir(cgroup, path)`
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    if Turn::First.is_over(Kind::CgroupRmdir, ability::TWICE_ON_TRACEPOINTS) {
        return 0;
    }
    made_or_removed(Kind::CgroupRmdir, Cgroup(Place::seldom(ctx.arg(0))), ctx.arg(1));
    0
}

#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir_again(ctx: BtfTracePointContext) -> i32 {
    if Turn::Second.is_over(Kind::CgroupRmdir, ability::TWICE_ON_TRACEPOINTS) {
        return 0;
    }
    made_or_removed(Kind::CgroupRmdir, Cgroup(Place::seldom(ctx.arg(0))), ctx.arg(1));
    0
}

/// `cgroup_attach_task(to, path, task, threadgroup)`: once per process, or once for one thread.
#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
    if Turn::First.is_over(Kind::CgroupMove, ability::TWICE_ON_TRACEPOINTS) {
        return 0;
    }
    moved(
        Cgroup(Place::seldom(ctx.arg(0))),
        ctx.arg(1),
        Task::seldom(ctx.arg(2)),
        ctx.arg::<u32>(3) & 0xff,
        door::WRITE,
    );
    0
}

#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn cgroup_attach_task_again(ctx: BtfTracePointContext) -> i32 {
    if Turn::Second.is_over(Kind::CgroupMove, ability::TWICE_ON_TRACEPOINTS) {
        return 0;
    }
    moved(
        Cgroup(Place::seldom(ctx.arg(0))),
        ctx.arg(1),
        Task::seldom(ctx.arg(2)),
        ctx.arg::<u32>(3) & 0xff,
        door::WRITE,
    );
    0
}

/// `cgroup_transfer_tasks(to, path, task, threadgroup)`
#[btf_tracepoint(function = "cgroup_transfer_tasks")]
pub fn cgroup_transfer_tasks(ctx: BtfTracePointContext) -> i32 {
    if Turn::First.is_over(Kind::CgroupMove, ability::TWICE_ON_TRACEPOINTS) {
        return 0;
    }
    moved(
        Cgroup(Place::seldom(ctx.arg(0))),
        ctx.arg(1),
        Task::seldom(ctx.arg(2)),
        ctx.arg::<u32>(3) & 0xff,
        door::TRANSFER,
    );
    0
}

#[btf_tracepoint(function = "cgroup_transfer_tasks")]
pub fn cgroup_transfer_tasks_again(ctx: BtfTracePointContext) -> i32 {
    if Turn::Second.is_over(Kind::CgroupMove, ability::TWICE_ON_TRACEPOINTS) {
        return 0;
    }
    moved(
        Cgroup(Place::seldom(ctx.arg(0))),
        ctx.arg(1),
        Task::seldom(ctx.arg(2)),
        ctx.arg::<u32>(3) & 0xff,
        door::TRANSFER,
    );
    0
}

#[inline(always)]
fn moved(to: Cgroup, path: *const u8, task: Task, threadgroup: u32, door: u32) {
    let (tgid, key) = (task.tgid(), to.key());
    let frame = Frame::take();
    if let Some(frame) = &frame {
        frame.fill(task);
        describe_move(frame, Task::current(), to, threadgroup, door);
    }
    let stored = task::mark(tgid);
    let mut mark = stored;
    let slot = slots::of_cgroup(key);
    let own = mark & SLOT_MASK;
    let mut urgent = false;
    if own == 0 || mark & mark::ENTERING != 0 || slot != 0 && !slots::is_container(own) {
        // Brought in from outside: the last cgroup it is put into names the container. So is a task of plain namespaces
        // (a rootless runtime), or of a cgroup of which nobody has found out anything (a job that starts containers).
        if slot != 0 && slot != own {
            mark = mark & !SLOT_MASK | slot | mark::ENTERING;
        }
    } else if slot == 0 || slots::canonical(slot) != slots::canonical(own) {
        mark |= mark::MOVED;
        urgent = true;
    }
    if mark != stored {
        task::set_mark(tgid, mark);
    }
    let Some(frame) = frame else { return };
    frame.set_slot(mark);
    let payload = frame.payload::<CgroupMove>();
    // SAFETY: in the scratch.
    unsafe {
        (*payload).to.slot = slot;
        (*payload).mover_slot = task::mark((*payload).mover_tgid) & SLOT_MASK;
    }
    let sealed = frame.seal(task, Kind::CgroupMove, size_of::<CgroupMove>(), mark, 0, urgent);
    let len = copy_path(&frame, sealed.end, path);
    // SAFETY: in the scratch.
    unsafe { (*payload).to.path_len = len as u32 };
    frame.send(sealed, sealed.end + len);
}

#[inline(always)]
fn describe_move(frame: &Frame, mover: Task, to: Cgroup, threadgroup: u32, door: u32) {
    let payload = frame.payload::<CgroupMove>();
    // SAFETY: in the scratch.
    unsafe {
        describe(&raw mut (*payload).to, to);
        (*payload).mover_tgid = mover.tgid();
        (*payload).mover_tid = mover.tid();
        (*payload).mover_start_ns = mover.start();
        (*payload).mover_slot = 0;
        mover.comm(&raw mut (*payload).mover_comm);
        (*payload).threadgroup = threadgroup;
        (*payload).door = door;
    }
}

/// A task of a container cloned a child into a cgroup that is not its container's. The frame is the child's Fork:
/// its header stays, the mover is the parent, whose comm the child's still is.
#[inline(always)]
pub fn report_clone(frame: &Frame, child: Task, mark: u64) {
    let (header, payload) = (frame.header(), frame.payload::<CgroupMove>());
    let [key, ..] = frame.cgroups();
    // SAFETY: in the scratch; the Fork is copied out before the CgroupMove is written over it.
    unsafe {
        let fork = *frame.payload::<Fork>();
        (*payload).to = CgroupPayload {
            hierarchy: key.hierarchy,
            level: 0,
            id: key.id,
            parent_id: 0,
            slot: slots::of_cgroup(key),
            path_len: 0,
            reserved: 0,
        };
        (*payload).mover_tgid = fork.parent_tgid;
        (*payload).mover_tid = fork.parent_tid;
        (*payload).mover_start_ns = fork.parent_start_ns;
        (*payload).mover_slot = mark & SLOT_MASK;
        (*payload).mover_comm = (*header).comm;
        (*payload).threadgroup = 1;
        (*payload).door = door::CLONE;
    }
    let sealed = frame.seal(child, Kind::CgroupMove, size_of::<CgroupMove>(), mark, 0, true);
    frame.send(sealed, sealed.end);
}
