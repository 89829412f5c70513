//! chroot and pivot_root: where a task's root directory is afterwards.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_user_str,
    macros::{btf_tracepoint, fexit, tracepoint},
    programs::{BtfTracePointContext, FExitContext, TracePointContext},
};
use observer_common::{Kind, MAX_PATH, RootChange, SLOT_MASK, Syscall, ability, flags, mark, path_source};

use crate::{
    emit::{Frame, flag_of},
    offsets::able,
    probes::calls::{self, nr},
    root::{self, Directory},
    task::{self, Task},
    turn::Turn,
};

/// On the ends of chroot and pivot_root.
#[tracepoint]
pub fn exit_root(ctx: TracePointContext) -> u32 {
    let task = Task::current();
    if let Some(call) = calls::from_tracepoint(&ctx, task) {
        changed_root(task, call, Turn::Only);
    }
    0
}

#[btf_tracepoint(function = "sys_exit")]
pub fn over_root(ctx: BtfTracePointContext) -> i32 {
    let task = Task::current();
    if let Some(call) = calls::from_general(&ctx, task) {
        changed_root(task, call, Turn::Only);
    }
    0
}

#[fexit(function = "__x64_sys_chroot")]
pub fn fexit_chroot(ctx: FExitContext) -> i32 {
    changed_root(Task::current(), calls::from_function(&ctx, nr::CHROOT), Turn::First);
    0
}

#[fexit(function = "__x64_sys_chroot")]
pub fn fexit_chroot_again(ctx: FExitContext) -> i32 {
    changed_root(Task::current(), calls::from_function(&ctx, nr::CHROOT), Turn::Second);
    0
}

#[fexit(function = "__ia32_sys_chroot")]
pub fn fexit_compat_chroot(ctx: FExitContext) -> i32 {
    changed_root(Task::current(), calls::from_compat_function(&ctx, nr::CHROOT), Turn::First);
    0
}

#[fexit(function = "__ia32_sys_chroot")]
pub fn fexit_compat_chroot_again(ctx: FExitContext) -> i32 {
    changed_root(Task::current(), calls::from_compat_function(&ctx, nr::CHROOT), Turn::Second);
    0
}

#[fexit(function = "__x64_sys_pivot_root")]
pub fn fexit_pivot_root(ctx: FExitContext) -> i32 {
    changed_root(Task::current(), calls::from_function(&ctx, nr::PIVOT_ROOT), Turn::First);
    0
}

#[fexit(function = "__x64_sys_pivot_root")]
pub fn fexit_pivot_root_again(ctx: FExitContext) -> i32 {
    changed_root(Task::current(), calls::from_function(&ctx, nr::PIVOT_ROOT), Turn::Second);
    0
}

#[fexit(function = "__ia32_sys_pivot_root")]
pub fn fexit_compat_pivot_root(ctx: FExitContext) -> i32 {
    changed_root(Task::current(), calls::from_compat_function(&ctx, nr::PIVOT_ROOT), Turn::First);
    0
}

#[fexit(function = "__ia32_sys_pivot_root")]
pub fn fexit_compat_pivot_root_again(ctx: FExitContext) -> i32 {
    changed_root(Task::current(), calls::from_compat_function(&ctx, nr::PIVOT_ROOT), Turn::Second);
    0
}

#[inline(always)]
fn changed_root(task: Task, call: Syscall, turn: Turn) {
    if turn.is_over(call.nr, ability::TWICE_ON_FUNCTIONS) {
        return;
    }
    let Some(frame) = Frame::take() else { return };
    let tgid = task.tgid();
    let known = able(ability::ROOT | ability::ROOT_MOUNT);
    let directory = known.then(|| Directory::root_of(task));
    let root = directory.map_or(task::UNKNOWN_ROOT, Directory::describe);
    if let Some(directory) = directory {
        directory.start(&frame);
    }
    let now =
        frame.fill_with_root(task, || directory.map_or_else(|| task.root_dentry(), |it| it.mount_root().at));
    // Seen here: no later look shall take it for unexplained.
    task::set_last_tuple(task.tid(), now);
    let (_, mark) = task::mark_of_frame(&frame, tgid);
    let payload = frame.payload::<RootChange>();
    let done = call.ret >= 0;
    let urgent = mark & SLOT_MASK != 0 && mark & mark::ENTERING == 0 && (done || calls::was_refused(&call));
    let bits = if done { flags::EXPLAINED } else { 0 };
    // SAFETY: in the scratch.
    unsafe {
        (*payload).call = call;
        (*payload).root = root;
    }
    let sealed = frame.seal(task, Kind::Chroot, size_of::<RootChange>(), mark, bits, urgent);
    // Both kinds have one share of the small ring: to the verifier, a kind that it does not know is several programs.
    // Both from memory: what the verifier knows of them in front of `seal` would have it go through that once for each case,
    // which is dear where ancestors are loaded without the helper.
    // SAFETY: in the scratch, written above.
    let (done, given) = unsafe {
        let call = &raw const (*payload).call;
        let is_pivot = flag_of(((&raw const (*call).nr).read_volatile() ^ nr::CHROOT) as u64, 1);
        (*frame.header()).kind =
            (Kind::Chroot as u32 + is_pivot * (Kind::PivotRoot as u32 - Kind::Chroot as u32)) as u16;
        ((&raw const (*call).ret).read_volatile() >= 0, (&raw const (*call).args[0]).read_volatile())
    };
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
