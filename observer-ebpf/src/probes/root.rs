//! chroot and pivot_root: where a task's root directory is afterwards.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_user_str,
    macros::{btf_tracepoint, fexit, tracepoint},
    programs::{BtfTracePointContext, FExitContext, TracePointContext},
};
use observer_common::{Kind, MAX_PATH, RootChange, SLOT_MASK, Syscall, ability, flags, mark, path_source};

use crate::{
    emit::Frame,
    offsets::able,
    probes::calls::{self, nr},
    root::{self, Directory},
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
    let tgid = task.tgid();
    let (root, mount_root) = if able(ability::ROOT | ability::ROOT_MOUNT) {
        let directory = Directory::root_of(task);
        directory.start(&frame);
        (directory.describe(), directory.mount_root())
    } else {
        (task::UNKNOWN_ROOT, task.root_dentry())
    };
    let now = frame.fill_with_root(task, mount_root);
    // Seen here: no later look shall take it for unexplained.
    task::set_last_tuple(task.tid(), now);
    let (_, mark) = task::mark_of_frame(&frame, tgid);
    let payload = frame.payload::<RootChange>();
    let done = call.ret >= 0;
    let given = call.args[0];
    let urgent = mark & SLOT_MASK != 0 && mark & mark::ENTERING == 0 && (done || calls::was_refused(&call));
    let bits = if done { flags::EXPLAINED } else { 0 };
    // SAFETY: in the scratch.
    unsafe {
        (*payload).call = call;
        (*payload).root = root;
    }
    let sealed = frame.seal(task, kind, size_of::<RootChange>(), mark, bits, urgent);
    let (len, source) = if done && root::has_paths() {
        let (len, whole) = root::path(&frame, sealed.end);
        if !whole {
            frame.set_flag(flags::TRUNCATED);
        }
        (len, path_source::KERNEL)
    } else {
        // A call that failed left nothing in the kernel.
        given_path(&frame, sealed.end, given)
    };
    // SAFETY: in the scratch.
    unsafe {
        (*payload).path_len = len as u32;
        (*payload).path_source = source;
    }
    frame.send(sealed, sealed.end + len);
}

/// Copies the path from the caller's memory; only to be shown, as the caller's word.
#[inline(always)]
fn given_path(frame: &Frame, at: usize, path: u64) -> (usize, u32) {
    if !able(ability::READ_USER) {
        return (0, path_source::NONE);
    }
    // SAFETY: the helper checks the address; the scratch has MAX_PATH bytes behind `at`.
    let got = unsafe { bpf_probe_read_user_str(frame.at(at) as *mut _, MAX_PATH as u32, path as *const _) };
    if got > 1 && got <= MAX_PATH as i64 {
        (got as usize - 1, path_source::CALLER)
    } else {
        (0, path_source::NONE)
    }
}
