//! Checks of capabilities by containers' tasks: counted, never sent. Attached only while they are asked for, because the
//! kernel checks CAP_SYS_ADMIN at every mmap, and many others often.
//!
//! Whoever is preempted in here keeps the program from running for others on its CPU meanwhile: on such kernels the
//! counts are least numbers.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, fexit, map},
    maps::HashMap,
    programs::{BtfTracePointContext, FExitContext},
};
use observer_common::{CapabilityCount, CapabilityKey, Loss, SLOT_MASK, mark};

use crate::{
    emit::{add, count_loss},
    slots,
    task::{self, Task},
};

/// Read by the agent on a timer, which also takes out what belongs to nobody any more. Sized by the agent, while checks are
/// counted.
#[map]
static CAPABILITIES: HashMap<CapabilityKey, CapabilityCount> = HashMap::with_max_entries(1, 0);

/// Of include/linux/security.h: the caller does as well without, so nobody shall be told of a refusal. (Since 5.1.)
const CAP_OPT_NOAUDIT: u32 = 1 << 1;

/// `cap_capable(cred, targ_ns, cap, opts)`, security/commoncap.c.
#[fexit(function = "cap_capable")]
pub fn fexit_cap_capable(ctx: FExitContext) -> i32 {
    let Some(slot) = slot_of_current() else { return 0 };
    let (capability, options, ret): (u32, u32, i32) = (ctx.arg(2), ctx.arg(3), ctx.arg(4));
    checked(slot, ctx.arg(0), capability, options & CAP_OPT_NOAUDIT != 0, ret);
    0
}

/// `cap_capable(cred, target_ns, capable_ns, cap, ret)`, include/trace/events/capability.h (6.14): no options.
#[btf_tracepoint(function = "cap_capable")]
pub fn tp_cap_capable(ctx: BtfTracePointContext) -> i32 {
    let Some(slot) = slot_of_current() else { return 0 };
    let (capability, ret): (u32, i32) = (ctx.arg(3), ctx.arg(4));
    checked(slot, ctx.arg(0), capability, false, ret);
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
fn checked(slot: u64, cred: *const u8, capability: u32, speculative: bool, ret: i32) {
    // Of the task's own credentials only: overlayfs works with those of whoever has mounted it, `access` with a copy, and a
    // look at another task's is not the asking one's use.
    if cred != Task::current().real_cred() {
        return;
    }
    let key = CapabilityKey { slot, capability, reserved: 0 };
    let count = match CAPABILITIES.get_ptr_mut(key) {
        Some(count) => count,
        None => {
            // Another CPU may be first, which is as good.
            let _ = CAPABILITIES.insert(key, CapabilityCount::default(), BPF_NOEXIST as u64);
            match CAPABILITIES.get_ptr_mut(key) {
                Some(count) => count,
                None => return count_loss(Loss::TableFull),
            }
        }
    };
    // SAFETY: a map entry. Should it be taken out meanwhile and become another's, that one has an addition too many.
    unsafe {
        if speculative {
            add(&raw mut (*count).speculative, 1);
        } else if ret == 0 {
            add(&raw mut (*count).granted, 1);
        } else {
            add(&raw mut (*count).denied, 1);
        }
    }
}
