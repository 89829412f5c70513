//! A look at every thread there is, without /proc: the task iterator.
//!
//! Read once at the start, it notes the namespaces of all threads that are older than the agent. Read every few
//! seconds, it finds threads whose namespaces are not those last seen though no event said so: a call that no hook
//! shows (32-bit setns), or a kernel that was tampered with. A thread that is right now inside a watched call looks
//! the same for an instant, so a difference counts only if the next reading finds it, too.

use core::ffi::c_void;

use aya_ebpf::{macros::map, maps::LruHashMap};
use observer_common::flags;

use crate::{
    emit::Frame,
    offsets::{Place, load},
    probes::process::report_drift,
    task::{self, Task},
};

/// Threads that looked different at the last reading, with the hash that they were expected to have.
#[map]
static SUSPECTS: LruHashMap<u32, u64> = LruHashMap::with_max_entries(4096, 0);

/// `struct bpf_iter__task { struct bpf_iter_meta *meta; struct task_struct *task; }`, each in eight bytes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn sweep_tasks(context: *mut c_void) -> i32 {
    // SAFETY: the context of a task iterator, see above; the task is null at the end.
    let task = Task::seldom(unsafe { load(Place::often(context as *const u8), 8) });
    if !task.0.at.is_null() {
        look(task);
    }
    0
}

#[inline(always)]
fn look(task: Task) {
    if task.is_kernel_thread() || task.is_gone() {
        return;
    }
    let (tgid, tid) = (task.tgid(), task.tid());
    let Some(frame) = Frame::take() else { return };
    let now = frame.fill(task);
    let before = task::last_tuple(tid);
    if before == now {
        return;
    }
    if before == 0 {
        task::set_last_tuple(tid, now);
        // Older than the agent, with namespaces of its own and the host's root: the agent knows whether it should have.
        if frame.has_host_root() && !task::has_hosts_namespaces(&frame) {
            let (_, mark) = task::mark_of_frame(&frame, tgid);
            report_drift(&frame, task, mark, flags::FIRST_SIGHT);
        }
        return;
    }
    // SAFETY: values are single words.
    if unsafe { SUSPECTS.get(tid) }.copied() != Some(before) {
        let _ = SUSPECTS.insert(tid, before, 0);
        return;
    }
    let _ = SUSPECTS.remove(tid);
    task::set_last_tuple(tid, now);
    let (_, mark) = task::mark_of_frame(&frame, tgid);
    report_drift(&frame, task, mark, flags::CHANGED);
}
