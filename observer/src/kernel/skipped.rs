//! How often the kernel skipped a program because it was already running on that CPU: `recursion_misses` of
//! `struct bpf_prog_info` (5.12), as /proc/PID/fdinfo shows it.

use std::{fs, path::PathBuf};

use aya::maps::{MapData, PerCpuArray};
use observer_common::ability;

use super::attach::Hook;

/// Where programs can be preempted, and so be skipped for others: see `turn` of the kernel programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preemption {
    functions: bool,
    tracepoints: bool,
}

impl Preemption {
    pub fn of_this_kernel() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        Self::of(&read("osrelease"), &read("version"))
    }

    /// By what `uname -r` and `uname -v` say. A kernel that only could preempt (PREEMPT_DYNAMIC) counts as one that does.
    fn of(release: &str, version: &str) -> Self {
        let functions = version.contains("PREEMPT");
        let mut numbers =
            release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
        let series = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        // Tracepoints disabled preemption until then (`__DECLARE_TRACE`, include/linux/tracepoint.h).
        Preemption { functions, tracepoints: functions && series >= (6, 19) }
    }

    /// The bits of the kernel programs' abilities.
    pub fn abilities(self) -> u64 {
        let functions = if self.functions { ability::TWICE_ON_FUNCTIONS } else { 0 };
        let tracepoints = if self.tracepoints { ability::TWICE_ON_TRACEPOINTS } else { 0 };
        functions | tracepoints
    }

    pub fn skips(self, hook: Hook) -> bool {
        match hook {
            Hook::TpBtf(_) => self.tracepoints,
            Hook::FunctionExit(_) => self.functions,
            // Not by themselves: the perf layer disables preemption around the former two, and the last is read by one thread.
            // But it runs no program while the CPU is in a map access of bpf(2) that was preempted (`trace_call_bpf`,
            // `bpf_disable_instrumentation`), whosever that is. A second program would be passed over with the first; it is
            // counted (`recursion_misses`, since 6.7).
            Hook::SyscallExit(_) | Hook::SyscallEntries | Hook::Iterator(_) => false,
        }
    }
}

/// The first programs of all hooks, and what their seconds did instead; and the one on beginnings of calls: a beginning that is
/// missing makes the call's own error look like a refusal by seccomp.
pub struct Skipped {
    infos: Vec<PathBuf>,
    rescued: PerCpuArray<MapData, u64>,
    /// What it was when everything was attached: until then a second may be without its first.
    before: i64,
    most: u64,
}

impl Skipped {
    /// Of these program descriptors, which must stay open.
    pub fn of(descriptors: impl Iterator<Item = i32>, rescued: PerCpuArray<MapData, u64>) -> Self {
        let infos = descriptors.map(|fd| format!("/proc/self/fdinfo/{fd}").into()).collect();
        let mut skipped = Skipped { infos, rescued, before: 0, most: 0 };
        skipped.before = skipped.balance();
        skipped
    }

    /// Runs that did not take place, and that no second program made up for; never falls. Zero where the kernel
    /// does not count them.
    pub fn count(&mut self) -> u64 {
        // The two numbers are not of one instant.
        self.most = self.most.max(u64::try_from(self.balance() - self.before).unwrap_or(0));
        self.most
    }

    fn balance(&self) -> i64 {
        let skipped: u64 = self.infos.iter().filter_map(|path| misses(&fs::read_to_string(path).ok()?)).sum();
        // Afterwards, so that none is missing from it that is in the other.
        let rescued: u64 = self.rescued.get(&0, 0).map_or(0, |counts| counts.iter().sum());
        skipped as i64 - rescued as i64
    }
}

fn misses(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_preempt_or_not() {
        let of = |release, version| {
            let found = Preemption::of(release, version);
            (found.functions, found.tracepoints)
        };
        assert_eq!(of("5.10.0-32-cloud-amd64\n", "#1 SMP Debian 5.10.223-1 (2024-08-10)\n"), (false, false));
        assert_eq!(
            of("6.12.117+deb13-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1"),
            (true, false)
        );
        assert_eq!(
            of("7.3.4+deb13-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 7.3.4-1~bpo13+1"),
            (true, true)
        );
        assert_eq!(of("7.3.4", "#1 SMP"), (false, false));
        assert_eq!(of("", ""), (false, false));
    }

    #[test]
    fn the_count_is_found_among_the_others() {
        let info = "pos:\t0\nprog_type:\t26\nrun_cnt:\t7\nrecursion_misses:\t3\nverified_insns:\t42\n";
        assert_eq!(misses(info), Some(3));
        assert_eq!(misses("pos:\t0\nprog_type:\t26\n"), None);
    }
}
