//! setns, unshare, and clone or clone3 when they were refused new namespaces. `calls` says how they come here; refused
//! clones, where functions can be hooked, from the two functions in `copy_process` that refuse.

use aya_ebpf::{
    helpers::bpf_probe_read_user,
    macros::{btf_tracepoint, fexit, tracepoint},
    programs::{BtfTracePointContext, FExitContext, TracePointContext},
};
use observer_common::{CLONE_SECOND, CLONE3_SECOND, Kind, NS_USER, SLOT_MASK, Syscall, ability, flags, mark};

use crate::{
    debug_log,
    emit::Frame,
    offsets::able,
    probes::{
        calls::{self, nr, was_refused},
        calls_over,
    },
    slots,
    task::{self, Task},
    turn::Turn,
};

/// CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET} of include/uapi/linux/sched.h.
const CLONE_NEW: u64 = 0x7e02_0000;
/// CLONE_NEWTIME: clone3 only, the bit is part of clone's signal number.
const CLONE_NEWTIME: u64 = 0x80;

#[tracepoint]
pub fn exit_setns(ctx: TracePointContext) -> u32 {
    let task = Task::current();
    if let Some(call) = calls::from_tracepoint(&ctx, task) {
        debug_log!(&ctx, "setns {} -> {}", task.tgid(), call.ret);
        changed_namespaces(task, Kind::Setns, call, Turn::Only);
    }
    0
}

#[btf_tracepoint(function = "sys_exit")]
pub fn over_setns(ctx: BtfTracePointContext) -> i32 {
    let task = Task::current();
    if let Some(call) = calls::from_general(&ctx, task) {
        changed_namespaces(task, Kind::Setns, call, Turn::Only);
    }
    0
}

#[fexit(function = "__x64_sys_setns")]
pub fn fexit_setns(ctx: FExitContext) -> i32 {
    changed_namespaces(Task::current(), Kind::Setns, calls::from_function(&ctx, nr::SETNS), Turn::First);
    0
}

#[fexit(function = "__x64_sys_setns")]
pub fn fexit_setns_again(ctx: FExitContext) -> i32 {
    changed_namespaces(Task::current(), Kind::Setns, calls::from_function(&ctx, nr::SETNS), Turn::Second);
    0
}

#[fexit(function = "__ia32_sys_setns")]
pub fn fexit_compat_setns(ctx: FExitContext) -> i32 {
    changed_namespaces(
        Task::current(),
        Kind::Setns,
        calls::from_compat_function(&ctx, nr::SETNS),
        Turn::First,
    );
    0
}

#[fexit(function = "__ia32_sys_setns")]
pub fn fexit_compat_setns_again(ctx: FExitContext) -> i32 {
    changed_namespaces(
        Task::current(),
        Kind::Setns,
        calls::from_compat_function(&ctx, nr::SETNS),
        Turn::Second,
    );
    0
}

#[tracepoint]
pub fn exit_unshare(ctx: TracePointContext) -> u32 {
    let task = Task::current();
    if let Some(call) = calls::from_tracepoint(&ctx, task) {
        unshared(task, call, Turn::Only);
    }
    0
}

#[btf_tracepoint(function = "sys_exit")]
pub fn over_unshare(ctx: BtfTracePointContext) -> i32 {
    let task = Task::current();
    if let Some(call) = calls::from_general(&ctx, task) {
        unshared(task, call, Turn::Only);
    }
    0
}

#[fexit(function = "__x64_sys_unshare")]
pub fn fexit_unshare(ctx: FExitContext) -> i32 {
    unshared(Task::current(), calls::from_function(&ctx, nr::UNSHARE), Turn::First);
    0
}

#[fexit(function = "__x64_sys_unshare")]
pub fn fexit_unshare_again(ctx: FExitContext) -> i32 {
    unshared(Task::current(), calls::from_function(&ctx, nr::UNSHARE), Turn::Second);
    0
}

#[fexit(function = "__ia32_sys_unshare")]
pub fn fexit_compat_unshare(ctx: FExitContext) -> i32 {
    unshared(Task::current(), calls::from_compat_function(&ctx, nr::UNSHARE), Turn::First);
    0
}

#[fexit(function = "__ia32_sys_unshare")]
pub fn fexit_compat_unshare_again(ctx: FExitContext) -> i32 {
    unshared(Task::current(), calls::from_compat_function(&ctx, nr::UNSHARE), Turn::Second);
    0
}

#[inline(always)]
fn unshared(task: Task, call: Syscall, turn: Turn) {
    if call.args[0] == 0 && task::host().is_none() {
        // The agent's own call at start; see `task::find_host`.
        task::find_host();
    }
    changed_namespaces(task, Kind::Unshare, call, turn);
}

#[inline(always)]
fn changed_namespaces(task: Task, kind: Kind, call: Syscall, turn: Turn) {
    if turn.is_over(kind, ability::TWICE_ON_FUNCTIONS) {
        return;
    }
    let Some(frame) = Frame::take() else { return };
    let (tgid, tid) = (task.tgid(), task.tid());
    let now = frame.fill(task);
    let before = task::last_tuple(tid);
    let (stored, mut mark) = task::mark_of_frame(&frame, tgid);
    let done = call.ret >= 0;
    let mut bits = 0;
    if before == 0 {
        bits |= flags::FIRST_SIGHT;
    } else if before != now {
        bits |= flags::CHANGED;
    }
    if before != now {
        task::set_last_tuple(tid, now);
    }
    if done {
        bits |= flags::EXPLAINED;
        if mark & SLOT_MASK == 0 {
            if before != now {
                mark |= mark::ENTERING;
            }
        } else if matches!(kind, Kind::Setns) && mark & mark::ENTERING == 0 {
            mark |= mark::JOINED;
        }
        if matches!(kind, Kind::Unshare) && before != now {
            // SAFETY: this CPU's scratch.
            let user = unsafe { (*frame.header()).inodes[NS_USER] };
            if task::host().is_some_and(|host| host.inodes[NS_USER] != user)
                && call.args[0] & 0x1000_0000 != 0
            {
                slots::forget_namespace(user);
            }
        }
    }
    if mark != stored {
        task::set_mark(tgid, mark);
    }
    let urgent = mark & SLOT_MASK != 0
        && (done && bits & (flags::CHANGED | flags::FIRST_SIGHT) != 0 || was_refused(&call));
    send(&frame, task, kind, call, mark, bits, urgent);
}

#[inline(always)]
fn send(frame: &Frame, task: Task, kind: Kind, call: Syscall, mark: u64, bits: u32, urgent: bool) {
    // SAFETY: in the scratch.
    unsafe { *frame.payload::<Syscall>() = call };
    let sealed = frame.seal(task, kind, size_of::<Syscall>(), mark, bits, urgent);
    frame.send(sealed, sealed.end);
}

/// `copy_creds(p, clone_flags)`, kernel/cred.c: `copy_process` calls it for the parent, and it makes the user namespace. Its
/// flags are the kernel's own copy: what clone3 was given in memory may say something else by now.
#[fexit(function = "copy_creds")]
pub fn fexit_copy_creds(ctx: FExitContext) -> i32 {
    copied(ctx.arg(1), ctx.arg(2));
    0
}

/// `copy_namespaces(flags, tsk)`, kernel/nsproxy.c: called next, by the same, for all other types. Of one clone at most one
/// of the two fails.
#[fexit(function = "copy_namespaces")]
pub fn fexit_copy_namespaces(ctx: FExitContext) -> i32 {
    copied(ctx.arg(0), ctx.arg(2));
    0
}

/// Every fork comes by here, twice, and is to leave at once: nothing is looked up before. (clone's signal number is
/// not part of these flags: `CLONE_NEWTIME` is what it says.)
#[inline(always)]
fn copied(asked: u64, ret: i32) {
    if ret < 0 && asked & (CLONE_NEW | CLONE_NEWTIME) != 0 {
        let call = Syscall { nr: nr::CLONE, reserved: 0, ret: ret as i64, args: [asked, 0] };
        refused_clone(Task::current(), call);
    }
}

#[tracepoint]
pub fn exit_clone(ctx: TracePointContext) -> u32 {
    let task = Task::current();
    if let Some(call) = calls::from_tracepoint(&ctx, task) {
        cloned(task, call);
    }
    0
}

#[btf_tracepoint(function = "sys_exit")]
pub fn over_clone(ctx: BtfTracePointContext) -> i32 {
    let task = Task::current();
    if let Some(call) = calls::from_general(&ctx, task) {
        cloned(task, call);
    }
    calls_over::go_on(&ctx, CLONE_SECOND);
    0
}

#[inline(always)]
fn cloned(task: Task, call: Syscall) {
    if call.ret < 0 && call.args[0] & CLONE_NEW != 0 {
        refused_clone(task, call);
    }
}

#[tracepoint]
pub fn exit_clone3(ctx: TracePointContext) -> u32 {
    let task = Task::current();
    if let Some(call) = calls::from_tracepoint(&ctx, task) {
        cloned3(task, call);
    }
    0
}

#[btf_tracepoint(function = "sys_exit")]
pub fn over_clone3(ctx: BtfTracePointContext) -> i32 {
    let task = Task::current();
    if let Some(call) = calls::from_general(&ctx, task) {
        cloned3(task, call);
    }
    calls_over::go_on(&ctx, CLONE3_SECOND);
    0
}

#[inline(always)]
fn cloned3(task: Task, mut call: Syscall) {
    if call.ret >= 0 || !able(ability::READ_USER) {
        return;
    }
    // SAFETY: the helper checks the address; flags are the first member of struct clone_args. Another thread may have
    // changed them since the kernel read them: only the functions above know.
    let asked = unsafe { bpf_probe_read_user(call.args[0] as *const u64) }.unwrap_or(0);
    if asked & (CLONE_NEW | CLONE_NEWTIME) != 0 {
        call.args[0] = asked;
        refused_clone(task, call);
    }
}

#[inline(always)]
fn refused_clone(task: Task, call: Syscall) {
    let Some(frame) = Frame::take() else { return };
    let tgid = task.tgid();
    frame.fill(task);
    let (_, mark) = task::mark_of_frame(&frame, tgid);
    let urgent = mark & SLOT_MASK != 0 && was_refused(&call);
    send(&frame, task, Kind::Clone, call, mark, 0, urgent);
}
