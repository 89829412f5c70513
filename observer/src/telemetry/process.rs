//! The agent's own process, as /proc/self has it.

use procfs::{WithCurrentSystemInfo, process::Process};

/// What Prometheus client libraries report under `process_`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessStats {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub open_fds: u64,
    pub max_fds: u64,
    pub threads: u64,
    /// Unix time.
    pub start_seconds: f64,
}

/// Reads all of it at once; it takes about a tenth of a millisecond.
pub fn read(boot_time: Option<f64>) -> procfs::ProcResult<ProcessStats> {
    let myself = Process::myself()?;
    let stat = myself.stat()?;
    let ticks = procfs::ticks_per_second() as f64;
    // The kernel has a ceiling of its own for this one, so that "unlimited" does not occur.
    let max_fds = match myself.limits()?.max_open_files.soft_limit {
        procfs::process::LimitValue::Value(value) => value,
        procfs::process::LimitValue::Unlimited => u64::MAX,
    };
    Ok(ProcessStats {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
        resident_bytes: stat.rss_bytes().get(),
        virtual_bytes: stat.vsize,
        open_fds: myself.fd_count()? as u64,
        max_fds,
        threads: stat.num_threads.max(0) as u64,
        start_seconds: boot_time.unwrap_or_default() + stat.starttime as f64 / ticks,
    })
}

/// Unix time of the machine's start, s: read once, because it is worked out from the wall clock and would make a
/// process's start wander.
pub fn boot_time() -> Option<f64> {
    procfs::boot_time_secs().ok().map(|seconds| seconds as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let stats = read(boot_time()).expect("own /proc");
        assert!(stats.resident_bytes > 100_000 && stats.virtual_bytes >= stats.resident_bytes);
        assert!(stats.open_fds >= 3 && stats.threads >= 1);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let age = now.as_secs_f64() - stats.start_seconds;
        assert!((-2.0..86_400.0).contains(&age), "started {age} s ago");
    }
}
