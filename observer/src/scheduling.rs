//! The agent's place among those who want the CPU: whoever floods the machine must not keep it from running.
//!
//! All of it is asked for and none of it needed: without CAP_SYS_NICE, or where a cpu cgroup has no real-time budget,
//! the agent runs as others do.

use crate::telemetry::log;

/// `struct sched_attr` of include/uapi/linux/sched/types.h in its first published size.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// For this thread and those that it makes from now on: a high priority, and a short slice, by which the scheduler
/// (EEVDF, since 6.12) lets a thread that wakes run soon.
pub fn prefer() {
    set(&SchedAttr { nice: -20, runtime: 100_000, ..SchedAttr::default() }, "high priority");
}

/// For this thread alone: the lowest real-time priority. It runs as soon as it wakes, before anything ordinary. Between an
/// event and its alert stand two such threads, the pipeline's and the writer of standard output; with only one of them
/// real-time, the other one waits (measured: p99 of 20 ms and more in a flood on both cores, against 1 ms with both).
/// The kernel's own throttle (sched_rt_runtime_us, 95 % of a CPU) bounds what a flood of events can make them take.
pub fn at_once() {
    const SCHED_RR: u32 = 2;
    const SCHED_FLAG_RESET_ON_FORK: u64 = 1;
    let attr =
        SchedAttr { policy: SCHED_RR, flags: SCHED_FLAG_RESET_ON_FORK, priority: 1, ..SchedAttr::default() };
    set(&attr, "real-time priority");
}

fn set(attr: &SchedAttr, what: &str) {
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..*attr };
    // SAFETY: `attr` is as long as it says; 0 is this thread, and there are no flags.
    if unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) } != 0 {
        log::debug!("refused, and done without", what, error = std::io::Error::last_os_error());
    }
}
