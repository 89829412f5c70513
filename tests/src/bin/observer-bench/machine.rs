//! The machine on which all this happens, and who else is at work there.

use crate::Result;
use observer_live::agent::Agent;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on Ctrl-C, a closed terminal and a polite kill only set a flag, which every loop looks at: guards end
/// what was started.
pub fn catch_interrupts() {
    extern "C" fn note(_signal: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let note: extern "C" fn(libc::c_int) = note;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler has the type that signal() asks for, lives for ever, and does nothing but store to an
        // atomic, which is allowed in a signal handler.
        unsafe { libc::signal(signal, note as libc::sighandler_t) };
    }
}

pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// An error once the user has had enough.
pub fn go_on() -> Result<()> {
    if interrupted() { Err("interrupted".into()) } else { Ok(()) }
}

pub fn sleep(time: Duration) -> Result<()> {
    std::thread::sleep(time);
    go_on()
}

/// Runs `work` on a thread of its own that stays on one CPU, and so do the processes that it starts. Never pin the
/// thread that starts an agent: the agent would stay there, too.
pub fn on_one_cpu<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let pinned = || {
        // The last one: interrupts and other people's pinned work tend to be on the first.
        let cpu = cpus() - 1;
        // SAFETY: all zeros is the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the CPU exists, so it lies within the set; the call takes the set by its size, for this thread.
        unsafe {
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
        }
        work()
    };
    std::thread::scope(|scope| scope.spawn(pinned).join())
        .unwrap_or_else(|why| std::panic::resume_unwind(why))
}

pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// CPU time of this thread, ns.
pub fn thread_cpu_ns() -> u64 {
    // SAFETY: all zeros is a time.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: a local that outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CPU time of the children that have been waited for, ns.
pub fn children_cpu_ns() -> u64 {
    // SAFETY: all zeros is a usage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: a local that outlives the call.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
    ns(usage.ru_utime) + ns(usage.ru_stime)
}

/// Starts an agent whose lines are stamped as soon as they come: the thread that reads them is part of the measuring
/// and must not wait for a CPU as others do. The agent itself runs as it always does.
pub fn start_agent() -> Agent {
    let before = threads();
    let agent = Agent::start();
    for tid in threads().difference(&before) {
        // SAFETY: all zeros is a parameter; only the priority is used.
        let mut parameter: libc::sched_param = unsafe { std::mem::zeroed() };
        parameter.sched_priority = 1;
        // SAFETY: a thread of this process, and a local. Where real-time priority is refused, the thread waits like
        // others, and the latencies come out longer, never shorter.
        unsafe { libc::sched_setscheduler(*tid, libc::SCHED_FIFO, &raw const parameter) };
    }
    agent
}

fn threads() -> BTreeSet<libc::pid_t> {
    let names = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Other agents on this machine: their probes would be part of the "untraced" side.
pub fn other_agents() -> usize {
    let us = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let agents = processes.filter(|process| {
        let read = |name: &str| fs::read_to_string(process.path().join(name)).unwrap_or_default();
        let parent =
            || read("stat").rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        read("comm") == "observer\n" && parent() != Some(us)
    });
    agents.count()
}

/// Waits for the agents of others to end, but in the whole run not longer than a minute.
pub fn wait_for_other_agents() -> Result<()> {
    static PATIENCE: AtomicU32 = AtomicU32::new(300);
    while other_agents() > 0 && PATIENCE.load(Ordering::Relaxed) > 0 {
        PATIENCE.fetch_sub(1, Ordering::Relaxed);
        sleep(Duration::from_millis(200))?;
    }
    Ok(())
}

/// Reaps what floods and containers have left to this process, the reaper of orphans below it: a dead process that
/// nobody has waited for is one more for the agent to know. Only while no child is alive that somebody waits for.
pub fn reap_orphans() {
    let mut status = 0;
    // SAFETY: a local; never blocks.
    while unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } > 0 {}
}

/// (processes, dead ones among them that nobody has waited for): those of others, before ours are started.
pub fn processes() -> (usize, usize) {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let states: Vec<String> = entries
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .collect();
    let dead = |stat: &&String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'));
    (states.len(), states.iter().filter(dead).count())
}

/// What the CPUs have done since they were started, in ticks.
#[derive(Clone, Copy, Default)]
pub struct Ticks {
    all: f64,
    idle: f64,
}

impl Ticks {
    /// Of all CPUs.
    pub fn of_all() -> Self {
        Self::sum(|cpu| cpu == "cpu")
    }

    /// Of all but the one that [`on_one_cpu`] uses.
    pub fn of_others() -> Self {
        let ours = format!("cpu{}", cpus() - 1);
        Self::sum(|cpu| cpu != "cpu" && cpu != ours)
    }

    fn sum(wanted: impl Fn(&str) -> bool) -> Self {
        let mut sum = Self::default();
        for line in text("/proc/stat").lines() {
            let Some((cpu, rest)) = line.split_once(' ').filter(|(cpu, _)| cpu.starts_with("cpu")) else {
                break;
            };
            if wanted(cpu) {
                // user nice system idle iowait irq softirq steal; what follows is part of the first two.
                let ticks: Vec<f64> = rest.split_whitespace().take(8).flat_map(str::parse).collect();
                sum.all += ticks.iter().sum::<f64>();
                sum.idle += ticks.iter().skip(3).take(2).sum::<f64>();
            }
        }
        sum
    }

    /// The share of the time since then in which they were not idle.
    pub fn busy_since(self, before: Self) -> f64 {
        if self.all > before.all { 1.0 - (self.idle - before.idle) / (self.all - before.all) } else { 0.0 }
    }
}

/// Which share of the CPUs others keep busy, looked at for half a second in which this program does nothing.
pub fn busy() -> f64 {
    let before = Ticks::of_all();
    std::thread::sleep(Duration::from_millis(500));
    Ticks::of_all().busy_since(before)
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn load() -> f64 {
    text("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

fn cpu_model() -> String {
    let info = text("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}

pub fn describe() -> Value {
    json!({"kernel": text("/proc/sys/kernel/osrelease"), "cpus": cpus(), "cpu": cpu_model(), "load": load()})
}

pub fn line() -> String {
    let kernel = text("/proc/sys/kernel/osrelease");
    format!("{} x {}, Linux {kernel}, load {:.1} at the end", cpus(), cpu_model(), load())
}
