//! The general sys_exit, while calls are audited: which calls a container makes, and which of them seccomp refused.
//!
//! On the way in, seccomp stands before the tracepoint sys_enter; a refused call comes by sys_exit all the same
//! (`syscall_trace_enter`, `syscall_exit_work`, kernel/entry/common.c). So an end without a beginning is a refusal. To look
//! at every beginning would cost every call again as much: only errors can be refusals, and only of calls that a filter
//! could refuse. What the declared filter of a container refuses whatever the arguments are is known by its number. Of the
//! rest, calls are *armed*: a program on `syscalls:sys_enter_NAME` notes that the thread is inside. Which ones, the agent
//! decides; it adds one when it hears of an error that may be either. Where it may not add one once it has given up what it
//! needed to start, a program on the general sys_enter notes every beginning, and every call is armed.
//!
//! Not errors, and so no refusals: a new task's first end (clone returns 0), execve's own. rt_sigreturn shows number -1.
//! 32-bit calls come by here, too, and not by the beginnings: they are left out.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns, generated},
    macros::{btf_tracepoint, map, tracepoint},
    maps::{Array, HashMap, ProgramArray},
    programs::{BtfTracePointContext, TracePointContext},
};
use observer_common::{
    ARCH_X86_64, CLONE_SECOND, CLONE3_SECOND, Denial, DenialKey, Kind, Loss, NOBODY, OTHER_CALLS, SYSCALLS,
    Seccomp, TAKEN_OVER, ability, verdict,
};

use crate::{
    audit::{self, Known, Owner},
    emit::{Frame, add, count_loss},
    offsets::{Place, able, load, offset, peek, read},
    task::{self, Task},
    turn::Turn,
};

/// For each thread, by thread id: the armed call that it is in, see [`note`]; 0 for none. Sized to pid_max by the agent, while
/// denials are counted.
#[map]
static INSIDE: Array<u64> = Array::with_max_entries(1, 0);

/// Read by the agent on a timer, which also takes out what belongs to nobody any more. Sized by the agent.
#[map]
static DENIALS: HashMap<DenialKey, Denial> = HashMap::with_max_entries(1, 0);

/// Programs of watched calls, in the order of [`TAKEN_OVER`]; filled by the agent where they have no hooks of their own.
#[map]
static OVER: ProgramArray = ProgramArray::with_max_entries(TAKEN_OVER.len() as u32, 0);

/// Of a note: the thread was found inside when the call was armed, and may have been refused instead.
const FOUND: u64 = 2;
/// The agent has not yet looked who is inside.
const ARMING: u8 = 2;
/// `SECCOMP_MODE_FILTER`, include/uapi/linux/seccomp.h.
const MODE_FILTER: u32 = 2;
/// `SECCOMP_MODE_DEAD`, kernel/seccomp.c (5.16): of a task that its filter ends.
const MODE_DEAD: u32 = 3;
const SIGSYS: i32 = 31;
/// `SYS_SECCOMP`, include/uapi/asm-generic/siginfo.h.
const SYS_SECCOMP: i32 = 1;
/// `SIGNAL_GROUP_EXIT`, include/linux/sched/signal.h.
const SIGNAL_GROUP_EXIT: u32 = 4;

/// Codes from here on are between the kernel and itself (`ERESTARTSYS`), and no filter's.
const MOST_ERRNO: i64 = 511;

#[inline(always)]
fn is_error(ret: i64) -> bool {
    (-MOST_ERRNO..0).contains(&ret)
}

/// `sys_exit(regs, ret)`.
#[btf_tracepoint(function = "sys_exit")]
pub fn call_over(ctx: BtfTracePointContext) -> i32 {
    let (regs, ret): (*const u8, i64) = (ctx.arg(0), ctx.arg(1));
    // SAFETY: pt_regs.orig_ax is an unsigned long.
    let number: u64 = unsafe { load(Place::often(regs), offset!(regs_orig_ax)) };
    over(regs, number, ret);
    if let Some(first) = taken_over(number) {
        // Where there is none, the call's own tracepoint has one, or its function.
        go_on(&ctx, first);
        if first + 1 == CLONE_SECOND || first + 1 == CLONE3_SECOND {
            go_on(&ctx, first + 1);
        }
    }
    0
}

/// The first place of a call in [`TAKEN_OVER`]. Spelt out, as the compiler makes a search of it: a row of comparisons would be a
/// third of what a call costs that is nobody's.
const fn taken_over(number: u64) -> Option<u32> {
    match number {
        56 => Some(0),
        57 => Some(2),
        58 => Some(3),
        155 => Some(4),
        161 => Some(5),
        272 => Some(6),
        308 => Some(7),
        435 => Some(8),
        _ => None,
    }
}

const _: () = {
    let mut place = 0;
    while place < TAKEN_OVER.len() {
        let first = place as u32 - (place as u32 == CLONE_SECOND || place as u32 == CLONE3_SECOND) as u32;
        assert!(matches!(taken_over(TAKEN_OVER[place].0 as u64), Some(it) if it == first));
        place += 1;
    }
};

/// Ends here if there is a program in this place, and runs that.
#[inline(always)]
pub fn go_on(ctx: &BtfTracePointContext, place: u32) {
    // SAFETY: the same context; programs of the same hook. Nothing is left to be dropped.
    unsafe { OVER.tail_call(ctx, place) };
}

#[inline(always)]
fn over(regs: *const u8, number: u64, ret: i64) {
    let nobody = audit::nobody();
    // Before any helper is called, see `Stack`: nearly all calls end here.
    let known = Known::of(regs);
    if known.index == nobody || number >= SYSCALLS as u64 {
        return;
    }
    let nr = number as u32;
    let armed = if able(ability::AUDIT_SECCOMP) { audit::armed(nr) } else { 0 };
    let may_be_refused = able(ability::AUDIT_SECCOMP) && (armed != 0 || is_error(ret));
    if known.index != 0 && known.index & NOBODY == 0 && !may_be_refused && Owner::has_noted(known.index, nr) {
        return;
    }
    let ids = bpf_get_current_pid_tgid();
    let tgid = (ids >> 32) as u32;
    let Some(place) = audit::place(tgid) else { return };
    if audit::is_nobody(place, nobody) {
        known.keep(nobody);
        return;
    }
    let task = Task::current();
    let owner = Owner::of(task, tgid, place, nobody);
    if owner.is_none() {
        return;
    }
    if owner.index != 0 {
        known.keep(owner.index as u16);
    }
    if may_be_refused {
        let verdict = judge(task, ids as u32, owner, nr, ret, armed);
        if verdict != NOTHING {
            let errno = ret.wrapping_neg() as u32;
            let what = Seccomp { nr, errno, verdict, arch: ARCH_X86_64, slot: owner.slot() };
            count(task, what, Kind::SeccompDenied);
        }
        if verdict == verdict::DENIED {
            return;
        }
    }
    owner.note(task, nr);
}

const NOTHING: u32 = u32::MAX;

/// What the end of a call is, that returned an error or is armed.
#[inline(always)]
fn judge(task: Task, tid: u32, owner: Owner, nr: u32, ret: i64, armed: u8) -> u32 {
    if audit::is_compat(task) {
        return NOTHING;
    }
    let mut verdict = verdict::UNCLASSIFIED;
    if armed != 0 {
        let Some(place) = INSIDE.get_ptr_mut(tid) else { return NOTHING };
        // SAFETY: a map entry of this thread's.
        let noted = unsafe { *place };
        if noted != 0 {
            // SAFETY: as above.
            unsafe { *place = 0 };
            let inside = note(task, nr);
            if noted == inside {
                return NOTHING;
            }
            if noted != inside | FOUND && armed != ARMING {
                verdict = verdict::DENIED;
            }
        } else if armed != ARMING {
            verdict = verdict::DENIED;
        }
    } else if let Some(container) = owner.container() {
        if audit::contains(&container.refused, nr) {
            verdict = verdict::DENIED;
        } else if audit::contains(&container.allowed, nr) && filters(task) <= container.filters {
            // (A filter of the program's own may refuse what the runtime's lets pass.)
            return NOTHING;
        }
    }
    if !is_error(ret) || !has_filter(task) {
        return NOTHING;
    }
    verdict
}

/// A thread inside a call: its start, so that another with its id is not taken for it, and the number.
#[inline(always)]
fn note(task: Task, nr: u32) -> u64 {
    // SAFETY: task_struct.start_boottime is a u64.
    let start: u64 = unsafe { peek(task.0.at, offset!(task_start)) };
    start << 11 | (nr as u64 & 0x1ff) << 2 | 1
}

#[inline(always)]
fn has_filter(task: Task) -> bool {
    // SAFETY: seccomp.mode is an int.
    let mode: u32 = unsafe { peek(task.0.at, offset!(task_seccomp_mode)) };
    mode == MODE_FILTER || mode == MODE_DEAD
}

#[inline(always)]
fn filters(task: Task) -> u32 {
    // SAFETY: seccomp.filter_count is an atomic_t.
    unsafe { peek(task.0.at, offset!(task_seccomp_filters)) }
}

/// Counts it, and sends an event of the first of its kind.
#[inline(always)]
fn count(task: Task, what: Seccomp, kind: Kind) {
    // Numbers are the caller's choice: those of no call, and of another table, are counted as one.
    let is_ours = what.arch == ARCH_X86_64 && what.nr < SYSCALLS as u32;
    let nr = if is_ours { what.nr } else { OTHER_CALLS };
    let key = DenialKey { slot: what.slot, nr, verdict: what.verdict };
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let mut is_first = false;
    let mut entry = DENIALS.get_ptr_mut(key);
    if entry.is_none() {
        let mut fresh = Denial {
            count: 0,
            first_ns: now,
            last_ns: now,
            // SAFETY: typed members.
            start_ns: unsafe { peek(peek(task.0.at, offset!(task_group_leader)), offset!(task_start)) },
            tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
            errno: what.errno,
            comm: [0; 16],
        };
        // SAFETY: task_struct.comm is a char[16].
        fresh.comm = unsafe { peek(task.0.at, offset!(task_comm)) };
        is_first = DENIALS.insert(key, fresh, BPF_NOEXIST as u64).is_ok();
        entry = DENIALS.get_ptr_mut(key);
    }
    match entry {
        // SAFETY: a map entry.
        Some(entry) => unsafe {
            add(&raw mut (*entry).count, 1);
            (*entry).last_ns = now;
            (*entry).errno = what.errno;
        },
        None => {
            count_loss(Loss::TableFull);
            is_first = true;
        }
    }
    if !is_first {
        return;
    }
    let Some(frame) = Frame::take() else { return };
    frame.fill(task);
    // SAFETY: in the scratch.
    unsafe { *frame.payload::<Seccomp>() = what };
    let (_, mark) = task::mark_of_frame(&frame, task.tgid());
    let sealed = frame.seal(task, kind, size_of::<Seccomp>(), mark, 0, true);
    frame.send(sealed, sealed.end);
}

/// `syscalls:sys_enter_NAME` of the armed calls.
#[tracepoint]
pub fn call_begins(ctx: TracePointContext) -> u32 {
    // SAFETY: the layout of every sys_enter_NAME tracepoint: int __syscall_nr at 8 (its format file).
    let Ok(nr) = (unsafe { ctx.read_at::<u32>(8) }) else { return 0 };
    let ids = bpf_get_current_pid_tgid();
    let Some(place) = audit::place((ids >> 32) as u32) else { return 0 };
    if !audit::is_nobody(place, audit::nobody()) {
        is_inside(Task::current(), ids as u32, nr);
    }
    0
}

/// `sys_enter(regs, id)`.
#[btf_tracepoint(function = "sys_enter")]
pub fn any_call_begins(ctx: BtfTracePointContext) -> i32 {
    begins(&ctx, Turn::First);
    0
}

#[btf_tracepoint(function = "sys_enter")]
pub fn any_call_begins_again(ctx: BtfTracePointContext) -> i32 {
    begins(&ctx, Turn::Second);
    0
}

#[inline(always)]
fn begins(ctx: &BtfTracePointContext, turn: Turn) {
    let (regs, number): (*const u8, u64) = (ctx.arg(0), ctx.arg(1));
    let nobody = audit::nobody();
    // As in `over`: nearly all calls end here, and what is skipped of theirs is nothing.
    if Known::of(regs).index == nobody || number >= SYSCALLS as u64 {
        return;
    }
    let ids = bpf_get_current_pid_tgid();
    let Some(place) = audit::place((ids >> 32) as u32) else { return };
    if audit::is_nobody(place, nobody) || turn.is_over(Kind::SeccompDenied, ability::TWICE_ON_TRACEPOINTS) {
        return;
    }
    let task = Task::current();
    // (A 32-bit call's number is of another table.)
    if !audit::is_compat(task) {
        is_inside(task, ids as u32, number as u32);
    }
}

#[inline(always)]
fn is_inside(task: Task, tid: u32, nr: u32) {
    if let Some(place) = INSIDE.get_ptr_mut(tid) {
        // SAFETY: a map entry of this thread's.
        unsafe { *place = note(task, nr) };
    }
}

/// Run by the agent between attaching `call_begins` and relying on it: who is inside already, or was when it last was in the
/// kernel, may come to the end of a call whose beginning was not seen.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn look_inside(context: *mut c_void) -> i32 {
    // SAFETY: the context of a task iterator, see `sweep`; the task is null at the end.
    let task = Task::seldom(unsafe { load(Place::often(context as *const u8), 8) });
    if task.0.at.is_null() {
        return 0;
    }
    let tid = task.tid();
    if !task.is_kernel_thread()
        && let Some(nr) = nr_of(task)
        && audit::armed(nr) == ARMING
        && let Some(place) = INSIDE.get_ptr_mut(tid)
    {
        let inside = note(task, nr);
        // SAFETY: a map entry. Its thread may write it meanwhile: then an end is unclassified that need not be.
        unsafe {
            if *place != inside {
                *place = inside | FOUND;
            }
        }
    }
    0
}

/// The call that a task is in, or was when it last was in the kernel for one.
#[inline(always)]
fn nr_of(task: Task) -> Option<u32> {
    if !able(ability::TASK_REGS) {
        return None;
    }
    // SAFETY: the task's own registers.
    let number: u64 = unsafe {
        let regs = generated::bpf_task_pt_regs(task.0.at as *mut _) as *const u8;
        load(Place::often(regs), offset!(regs_orig_ax))
    };
    (number < SYSCALLS as u64).then_some(number as u32)
}

/// `signal_generate(sig, info, task, group, result)`, kernel/signal.c: SECCOMP_RET_TRAP, SECCOMP_RET_KILL_PROCESS, and
/// SECCOMP_RET_KILL_THREAD of an only thread, send SIGSYS to the task itself (`force_sig_seccomp`).
#[btf_tracepoint(function = "signal_generate")]
pub fn seccomp_signal(ctx: BtfTracePointContext) -> i32 {
    let signal: i32 = ctx.arg(0);
    if signal != SIGSYS {
        return 0;
    }
    // No member of a type to the verifier: it may be one of the kernel's special numbers.
    let info = ctx.arg::<u64>(1) as *const u8;
    // SAFETY: struct kernel_siginfo begins as siginfo does: si_code at 8, si_syscall at 24, si_arch at 28. The helper takes
    // any address.
    let (code, nr, arch): (i32, u32, u32) = unsafe { (read(info, 8), read(info, 24), read(info, 28)) };
    if code == SYS_SECCOMP {
        killed(Task::current(), nr, arch, verdict::SIGNALLED);
    }
    0
}

/// `sched_process_exit(task)`: SECCOMP_RET_KILL_THREAD of one thread of several ends it without a signal (`do_exit(SIGSYS)`).
#[btf_tracepoint(function = "sched_process_exit")]
pub fn seccomp_exit(ctx: BtfTracePointContext) -> i32 {
    let task = Task::seldom(ctx.arg(0));
    if task.exit_code() != SIGSYS {
        return 0;
    }
    let task = Task::current();
    // SAFETY: signal_struct.flags is an unsigned int.
    let flags: u32 = unsafe { peek(peek(task.0.at, offset!(task_signal)), offset!(signal_flags)) };
    if flags & SIGNAL_GROUP_EXIT == 0
        && let Some(nr) = nr_of(task)
    {
        let arch = if audit::is_compat(task) { 0 } else { ARCH_X86_64 };
        killed(task, nr, arch, verdict::THREAD_KILLED);
    }
    0
}

#[inline(always)]
fn killed(task: Task, nr: u32, arch: u32, verdict: u32) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let (Some(place), nobody) = (audit::place(tgid), audit::nobody()) else { return };
    if audit::is_nobody(place, nobody) || !has_filter(task) {
        return;
    }
    let owner = Owner::of(task, tgid, place, nobody);
    if !owner.is_none() {
        count(task, Seccomp { nr, errno: 0, verdict, arch, slot: owner.slot() }, Kind::SeccompKilled);
    }
}
