//! Two programs for one event, where one of them may be skipped.
//!
//! The kernel skips a tracing program that is already at work on the same CPU (`__bpf_prog_enter_recur`,
//! kernel/bpf/trampoline.c; `__bpf_trace_run`, kernel/trace/bpf_trace.c): a program that is preempted, as those on functions
//! can be, and since about 7.0 those on tracepoints, is skipped for every other task that comes by meanwhile. So on
//! kernels that preempt there are two programs on each hook, one after the other: the first leaves a note for its
//! thread, the second does what the first was skipped for. (Whoever is in one of the two is not in the other.)

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::map,
    maps::{Array, PerCpuArray},
};
use observer_common::{Kind, ability};

use crate::{emit::add, offsets::able};

/// For each thread, by thread id: what the first program has just seen it do. Sized to pid_max by the agent, where
/// there are second programs.
#[map]
static SEEN: Array<u64> = Array::with_max_entries(1, 0);

/// Events that a second program did because the first was skipped. What the first ones were skipped for beyond that is lost.
#[map]
static RESCUED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Which of the two a program is.
#[derive(Clone, Copy)]
pub enum Turn {
    First,
    Second,
}

impl Turn {
    /// True if this event has been dealt with. To be asked once per program, with what it is about.
    #[inline(always)]
    pub fn is_over(self, kind: Kind) -> bool {
        if !able(ability::TWICE) {
            return false;
        }
        let Some(place) = SEEN.get_ptr_mut(bpf_get_current_pid_tgid() as u32) else { return false };
        // SAFETY: a map entry, whose only users are the programs that run for this thread, one after the other.
        unsafe {
            match self {
                Turn::First => {
                    *place = kind as u64;
                    false
                }
                Turn::Second => {
                    let seen = *place;
                    *place = 0;
                    if seen == kind as u64 {
                        return true;
                    }
                    if let Some(rescued) = RESCUED.get_ptr_mut(0) {
                        add(rescued, 1);
                    }
                    false
                }
            }
        }
    }
}
