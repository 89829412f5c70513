//! chroot and pivot_root: where a task's root directory is afterwards.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_user_str,
    macros::{btf_tracepoint, fexit, tracepoint},
    programs::{BtfTracePointContext, FExitContext, TracePointContext},
};
use observer_common::{Kind, MAX_PATH, RootChange, SLOT_MASK, Syscall, ability, flags, mark};

use crate::{
    emit::Frame,
    offsets::able,
    probes::calls::{self, nr},
    task::{self, Task},
    turn::Turn,
};

#[tracepoint]
pub fn exit_chroot(ctx: TracePointContext) -> u32 {
    let task = Task::current();
    if let Some(call) = calls::from_tracepoint(&ctx, task) {
        changed_root(task, call, Kind::Chroot, Turn::Only);
    }
    0
}

#[btf_tracepoint(function = "sys_exit")]
pub fn over_chroot(ctx: BtfTracePointContext) -> i32 {
    let task = Task::current();
    if let Some(call) = calls::from_general(&ctx, task) {
        changed_root(task, call, Kind::Chroot, Turn::Only);
    }
    0
}

#[fexit(function = "__x64_sys_chroot")]
pub fn fexit_chroot(ctx: FExitContext) -> i32 {
    changed_root(Task::current(), calls::from_function(&ctx, nr::CHROOT), Kind::Chroot, Turn::First);
    0
}

#[fexit(function = "__x64_sys_chroot")]
pub fn fexit_chroot_again(ctx: FExitContext) -> i32 {
    changed_root(Task::current(), calls::from_function(&ctx, nr::CHROOT), Kind::Chroot, Turn::Second);
    0
}

#[fexit(function = "__ia32_sys_chroot")]
pub fn fexit_compat_chroot(ctx: FExitContext) -> i32 {
    changed_root(Task::current(), calls::from_compat_function(&ctx, nr::CHROOT), Kind::Chroot, Turn::First);
    0
}

#[fexit(function = "__ia32_sys_chroot")]
pub fn fexit_compat_chroot_again(ctx: FExitContext) -> i32 {
    changed_root(Task::current(), calls::from_compat_function(&ctx, nr::CHROOT), Kind::Chroot, Turn::Second);
    0
}

#[tracepoint]
pub fn exit_pivot_root(ctx: TracePointContext) -> u32 {
    let task = Task::current();
    if let Some(call) = calls::from_tracepoint(&ctx, task) {
        changed_root(task, call, Kind::PivotRoot, Turn::Only);
    }
    0
}

#[btf_tracepoint(function = "sys_exit")]
pub fn over_pivot_root(ctx: BtfTracePointContext) -> i32 {
    let task = Task::current();
    if let Some(call) = calls::from_general(&ctx, task) {
        changed_root(task, call, Kind::PivotRoot, Turn::Only);
    }
    0
}

#[fexit(function = "__x64_sys_pivot_root")]
pub fn fexit_pivot_root(ctx: FExitContext) -> i32 {
    changed_root(Task::current(), calls::from_function(&ctx, nr::PIVOT_ROOT), Kind::PivotRoot, Turn::First);
    0
}

#[fexit(function = "__x64_sys_pivot_root")]
pub fn fexit_pivot_root_again(ctx: FExitContext) -> i32 {
    changed_root(Task::current(), calls::from_function(&ctx, nr::PIVOT_ROOT), Kind::PivotRoot, Turn::Second);
    0
}

#[fexit(function = "__ia32_sys_pivot_root")]
pub fn fexit_compat_pivot_root(ctx: FExitContext) -> i32 {
    changed_root(
        Task::current(),
        calls::from_compat_function(&ctx, nr::PIVOT_ROOT),
        Kind::PivotRoot,
        Turn::First,
    );
    0
}

#[fexit(function = "__ia32_sys_pivot_root")]
pub fn fexit_compat_pivot_root_again(ctx: FExitContext) -> i32 {
    changed_root(
        Task::current(),
        calls::from_compat_function(&ctx, nr::PIVOT_ROOT),
        Kind::PivotRoot,
        Turn::Second,
    );
    0
}

#[inline(always)]
fn changed_root(task: Task, call: Syscall, kind: Kind, turn: Turn) {
    if turn.is_over(kind, ability::TWICE_ON_FUNCTIONS) {
        return;
    }
    let Some(frame) = Frame::take() else { return };
    let (tgid, root) = (task.tgid(), task.root());
    let now = frame.fill(task);
    // Seen here: no later look shall take it for unexplained.
    task::set_last_tuple(task.tid(), now);
    let (_, mark) = task::mark_of_frame(&frame, tgid);
    let payload = frame.payload::<RootChange>();
    let done = call.ret >= 0;
    let path = call.args[0];
    let urgent = mark & SLOT_MASK != 0 && mark & mark::ENTERING == 0 && (done || calls::was_refused(&call));
    // SAFETY: in the scratch; the path is read at exit, for display only: another thread may have changed it.
    unsafe {
        (*payload).call = call;
        (*payload).root = root;
        (*payload).reserved = 0;
        let bits = if done { flags::EXPLAINED } else { 0 };
        let sealed = frame.seal(task, kind, size_of::<RootChange>(), mark, bits, urgent);
        let got = if able(ability::READ_USER) {
            bpf_probe_read_user_str(frame.at(sealed.end) as *mut _, MAX_PATH as u32, path as *const _)
        } else {
            0
        };
        let len = if got > 1 && got <= MAX_PATH as i64 { got as usize - 1 } else { 0 };
        (*payload).path_len = len as u32;
        frame.send(sealed, sealed.end + len);
    }
}
