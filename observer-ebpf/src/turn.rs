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
use observer_common::NOTES;

use crate::{emit::add, offsets::able};

/// By thread id, in turns of [`NOTES`]: the thread, and what the first program has just seen it do. Sized by the agent,
/// where there are second programs.
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
    /// There is no second on its hook.
    Only,
}

impl Turn {
    /// True if this event has been dealt with. To be asked once per program, with what it is about, and the ability that
    /// tells whether there are second programs on hooks of its type.
    #[inline(always)]
    pub fn is_over(self, kind: impl Into<u32>, twice: u64) -> bool {
        if matches!(self, Turn::Only) || !able(twice) {
            return false;
        }
        let tid = bpf_get_current_pid_tgid() as u32;
        let Some(place) = SEEN.get_ptr_mut(tid & (NOTES - 1)) else { return false };
        let note = (tid as u64) << 32 | kind.into() as u64;
        // SAFETY: a map entry; aligned words are read and written whole. Its users are the programs that run for this
        // thread, one after the other, and seldom another thread's, whose note is not taken for this one's.
        unsafe {
            if matches!(self, Turn::First) {
                *place = note;
                return false;
            }
            let seen = *place;
            *place = 0;
            if seen == note {
                return true;
            }
            if let Some(rescued) = RESCUED.get_ptr_mut(0) {
                add(rescued, 1);
            }
        }
        false
    }
}
