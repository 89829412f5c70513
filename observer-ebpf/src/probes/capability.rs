//! Checks of capabilities by containers' tasks: counted, never sent. Attached only while they are asked for, because the
//! kernel checks CAP_SYS_ADMIN at every mmap, and many others often.
//!
//! Whoever is preempted in here keeps the program from running for others on its CPU meanwhile: on such kernels the
//! counts are least numbers.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid, bpf_ktime_get_boot_ns},
    macros::{btf_tracepoint, fexit, map},
    maps::HashMap,
    programs::{BtfTracePointContext, FExitContext},
};
use observer_common::{CapabilityChecks, CapabilityKey, Loss, NEVER_SPECULATIVE, SLOT_MASK, mark, outcome};

use crate::{
    emit::{add, count_loss},
    offsets::{Place, load_set, offset, peek},
    slots,
    task::{self, Task},
};

/// Read by the agent on a timer, which also takes out what belongs to nobody any more. Sized by the agent, while checks are
/// counted.
#[map]
static CAPABILITIES: HashMap<CapabilityKey, CapabilityChecks> = HashMap::with_max_entries(1, 0);

/// Of include/linux/security.h: the caller does as well without, so nobody shall be told of a refusal. (Since 5.1.)
const CAP_OPT_NOAUDIT: u32 = 1 << 1;

const DAC_OVERRIDE: u32 = 1;
const DAC_READ_SEARCH: u32 = 2;
const SETPCAP: u32 = 8;
const NET_ADMIN: u32 = 12;
const NET_RAW: u32 = 13;
const SYS_ADMIN: u32 = 21;
const SYS_RESOURCE: u32 = 24;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
const CHECKPOINT_RESTORE: u32 = 40;

/// One check, as the kernel has made it.
#[derive(Clone, Copy)]
struct Check {
    cred: *const u8,
    /// The user namespace in which the capability was asked for.
    target: *const u8,
    capability: u32,
    ret: i32,
    /// The caller meant it.
    is_meant: bool,
}

/// `cap_capable(cred, targ_ns, cap, opts)`, security/commoncap.c.
#[fexit(function = "cap_capable")]
pub fn fexit_cap_capable(ctx: FExitContext) -> i32 {
    let options: u32 = ctx.arg(3);
    // Before all else: it is every mmap's.
    if options & CAP_OPT_NOAUDIT != 0 {
        return 0;
    }
    let Some(slot) = slot_of_current() else { return 0 };
    let check = Check {
        cred: ctx.arg(0),
        target: ctx.arg(1),
        capability: ctx.arg(2),
        ret: ctx.arg(4),
        is_meant: true,
    };
    checked(slot, check);
    0
}

/// `cap_capable(cred, target_ns, capable_ns, cap, ret)`, include/trace/events/capability.h (6.14): no options.
#[btf_tracepoint(function = "cap_capable")]
pub fn tp_cap_capable(ctx: BtfTracePointContext) -> i32 {
    let Some(slot) = slot_of_current() else { return 0 };
    let capability: u32 = ctx.arg(3);
    let check = Check {
        cred: ctx.arg(0),
        target: ctx.arg(1),
        capability,
        ret: ctx.arg(4),
        is_meant: NEVER_SPECULATIVE >> (capability & 63) & 1 != 0,
    };
    checked(slot, check);
    0
}

/// Whose the check is; `None` for the host's tasks, and for those on their way into a container: what a runtime does before
/// its container's program runs is not the container's. The cheapest look first: nearly all tasks end there.
#[inline(always)]
fn slot_of_current() -> Option<u64> {
    let mark = task::stored_mark((bpf_get_current_pid_tgid() >> 32) as u32);
    if mark & SLOT_MASK == 0 || mark & (mark::ENTERING | mark::GONE) != 0 {
        return None;
    }
    slots::of_container(mark & SLOT_MASK)
}

#[inline(always)]
fn checked(slot: u64, check: Check) {
    let task = Task::current();
    // Of the task's own credentials only: overlayfs works with those of whoever has mounted it, `access` with a copy, and a
    // look at another task's is not the asking one's use.
    if check.cred != task.real_cred() {
        return;
    }
    let outcome = if check.ret == 0 {
        outcome::GRANTED
    } else if check.is_meant && is_withheld(check) {
        outcome::WITHHELD
    } else {
        outcome::DENIED
    };
    let key = CapabilityKey { slot, capability: check.capability, outcome };
    let checks = match CAPABILITIES.get_ptr_mut(key) {
        Some(checks) => checks,
        None => {
            // Another CPU may be first, which is as good.
            let _ = CAPABILITIES.insert(key, first(task, check), BPF_NOEXIST as u64);
            match CAPABILITIES.get_ptr_mut(key) {
                Some(checks) => checks,
                None => return count_loss(Loss::TableFull),
            }
        }
    };
    // SAFETY: a map entry. Should it be taken out meanwhile and become another's, that one has an addition too many.
    unsafe { add(&raw mut (*checks).count, 1) }
}

/// Whether a refused capability is one that the container has not been given, rather than one that this process of it has
/// not got.
#[inline(always)]
fn is_withheld(check: Check) -> bool {
    // SAFETY: members of cred as named in `Offsets`.
    let (own, bounding, effective, euid) = unsafe {
        let own: *const u8 = peek(check.cred, offset!(cred_user_ns));
        let euid: u32 = peek(check.cred, offset!(cred_euid));
        let cred = Place::seldom(check.cred);
        (own, load_set(cred, offset!(cred_bounding)), load_set(cred, offset!(cred_effective)), euid)
    };
    // Files and processes of others: what any user is refused.
    if check.capability <= SETPCAP && euid != 0 {
        return false;
    }
    // The kernel asks for these first, and for the other one next.
    let instead = match check.capability {
        DAC_READ_SEARCH => DAC_OVERRIDE,
        NET_RAW => NET_ADMIN,
        SYS_RESOURCE | PERFMON | BPF | CHECKPOINT_RESTORE => SYS_ADMIN,
        itself => itself,
    };
    if effective >> (instead & 63) & 1 != 0 && own == check.target {
        return false;
    }
    own != check.target || bounding >> (check.capability & 63) & 1 == 0
}

/// What is kept of the first check of its kind.
#[inline(always)]
fn first(task: Task, check: Check) -> CapabilityChecks {
    let ids = bpf_get_current_uid_gid();
    let mut first = CapabilityChecks {
        count: 0,
        // SAFETY: no preconditions.
        first_ns: unsafe { bpf_ktime_get_boot_ns() },
        start_ns: task.start(),
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        uid: ids as u32,
        gid: (ids >> 32) as u32,
        // SAFETY: a user_namespace's number, as named in `Offsets`.
        user_ns: unsafe { peek(check.target, offset!(user_inum)) },
        comm: [0; 16],
    };
    task.comm(&raw mut first.comm);
    first
}
