//! How often the kernel skipped a program because it was already running on that CPU: `recursion_misses` of
//! `struct bpf_prog_info` (5.12), as /proc/PID/fdinfo shows it.

use std::{fs, path::PathBuf};

/// The attached programs whose skipping means that something was not seen.
#[derive(Debug, Default)]
pub struct Skipped {
    infos: Vec<PathBuf>,
}

impl Skipped {
    /// Of these program descriptors, which must stay open.
    pub fn of(descriptors: impl Iterator<Item = i32>) -> Self {
        Skipped { infos: descriptors.map(|fd| format!("/proc/self/fdinfo/{fd}").into()).collect() }
    }

    /// Runs that did not take place, of all programs; never falls. Zero where the kernel does not count them.
    pub fn count(&self) -> u64 {
        self.infos.iter().filter_map(|path| misses(&fs::read_to_string(path).ok()?)).sum()
    }
}

fn misses(info: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_among_the_others() {
        let info = "pos:\t0\nprog_type:\t26\nrun_cnt:\t7\nrecursion_misses:\t3\nverified_insns:\t42\n";
        assert_eq!(misses(info), Some(3));
        assert_eq!(misses("pos:\t0\nprog_type:\t26\n"), None);
    }
}
