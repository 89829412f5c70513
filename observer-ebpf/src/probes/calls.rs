//! How a watched system call reaches its program, once it is over: by one of two ways.
//!
//! Where the kernel allows it, a program runs at the exit of the functions behind the call, `__x64_sys_NAME` and, for
//! 32-bit calls (int 0x80), `__ia32_sys_NAME`: no other call pays for it. Else it runs on `syscalls:sys_exit_NAME`, which
//! sends every task through the slow way out of the kernel and shows 64-bit calls only, but also those that
//! seccomp refused before they began.

use aya_ebpf::{
    helpers::generated,
    macros::fexit,
    programs::{BtfTracePointContext, FExitContext, TracePointContext},
};
use observer_common::{Syscall, ability};

use crate::{
    audit,
    offsets::{Place, able, load, offset, read},
    task::Task,
};

const EPERM: i64 = -1;
const EACCES: i64 = -13;

/// True if the kernel said no, as opposed to being asked nonsense.
#[inline(always)]
pub fn was_refused(call: &Syscall) -> bool {
    call.ret == EPERM || call.ret == EACCES
}

/// What a sys_exit tracepoint gives: the call's number, its result, its first two arguments (zeros where the kernel
/// does not show the saved registers).
#[inline(always)]
pub fn from_tracepoint(ctx: &TracePointContext, task: Task) -> Option<Syscall> {
    // SAFETY: the layout of every sys_exit_NAME tracepoint: int __syscall_nr at 8, long ret at 16 (its format
    // file); the registers are the task's own.
    unsafe {
        let nr = ctx.read_at::<u32>(8).ok()?;
        let ret = ctx.read_at::<i64>(16).ok()?;
        let mut args = [0; 2];
        if able(ability::CALL_ARGUMENTS | ability::TASK_REGS) {
            let regs = generated::bpf_task_pt_regs(task.0.at as *mut _) as *const u8;
            args = [load(Place::often(regs), offset!(regs_di)), load(Place::often(regs), offset!(regs_si))];
        } else if able(ability::CALL_ARGUMENTS | ability::STACK_REGS) {
            // task_pt_regs, arch/x86/include/asm/processor.h, before that helper (and FRED) came: at the very top.
            const THREAD_SIZE: usize = 16384;
            let stack: *const u8 = load(task.0, offset!(task_stack));
            let regs = stack.wrapping_add(THREAD_SIZE).wrapping_sub(offset!(regs_size));
            args = [read(regs, offset!(regs_di)), read(regs, offset!(regs_si))];
        }
        Some(Syscall { nr, reserved: 0, ret, args })
    }
}

/// What the general sys_exit gives, of 64-bit calls: the same.
#[inline(always)]
pub fn from_general(ctx: &BtfTracePointContext, task: Task) -> Option<Syscall> {
    let (regs, ret): (*const u8, i64) = (ctx.arg(0), ctx.arg(1));
    // SAFETY: typed members.
    let (number, args): (u64, [u64; 2]) = unsafe {
        let args = if able(ability::CALL_ARGUMENTS) {
            [load(Place::often(regs), offset!(regs_di)), load(Place::often(regs), offset!(regs_si))]
        } else {
            [0; 2]
        };
        (load(Place::often(regs), offset!(regs_orig_ax)), args)
    };
    if audit::is_compat(task) { None } else { Some(Syscall { nr: number as u32, reserved: 0, ret, args }) }
}

/// What the exit of `__x64_sys_NAME(const struct pt_regs *regs)` gives; `nr` is the call's number.
#[inline(always)]
pub fn from_function(ctx: &FExitContext, nr: u32) -> Syscall {
    finished(ctx, nr, offset!(regs_di), offset!(regs_si))
}

/// The same for `__ia32_sys_NAME`, whose arguments are in bx and cx (arch/x86/include/asm/syscall_wrapper.h). `nr` is
/// the call's number in the 64-bit table.
#[inline(always)]
pub fn from_compat_function(ctx: &FExitContext, nr: u32) -> Syscall {
    let mut call = finished(ctx, nr, offset!(regs_bx), offset!(regs_cx));
    // The upper halves are not the call's.
    call.args = [call.args[0] & 0xffff_ffff, call.args[1] & 0xffff_ffff];
    call
}

#[inline(always)]
fn finished(ctx: &FExitContext, nr: u32, first: usize, second: usize) -> Syscall {
    let (regs, ret): (*const u8, i64) = (ctx.arg(0), ctx.arg(1));
    // SAFETY: typed members.
    let args = unsafe { [load(Place::often(regs), first), load(Place::often(regs), second)] };
    Syscall { nr, reserved: 0, ret, args }
}

/// Numbers of arch/x86/entry/syscalls/syscall_64.tbl.
pub mod nr {
    pub const CLONE: u32 = 56;
    pub const PIVOT_ROOT: u32 = 155;
    pub const CHROOT: u32 = 161;
    pub const UNSHARE: u32 = 272;
    pub const SETNS: u32 = 308;
}

/// Does nothing: whether it can be attached tells whether functions can be hooked at all.
#[fexit(function = "__x64_sys_unshare")]
pub fn fexit_trial(_: FExitContext) -> i32 {
    0
}
