//! How many files may be open: to read a cgroup's files again is several times cheaper when they are.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::telemetry::log;

/// Left for all else that the agent opens.
const OTHERS: u64 = 1024;
/// Enough for 550 containers. An open file of a cgroup holds 6 KiB of the kernel's memory (most of it the page that it was last
/// read into), which counts as the agent's: so these are 60 MB. To open them at each poll costs three times the CPU time.
const MAX_KEPT: u64 = 10_000;

/// Raises the soft limit to the hard one, and says how many files may be kept open under it.
pub(super) fn allowance() -> usize {
    let now = getrlimit(Resource::Nofile);
    let mut limit = now.current;
    if now.current != now.maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum }) {
            Ok(()) => limit = now.maximum,
            Err(error) => log::debug!("the limit on open files stays as it is", error),
        }
    }
    share(limit)
}

/// `None` is no limit.
fn share(limit: Option<u64>) -> usize {
    let kept = limit.map_or(MAX_KEPT, |limit| limit.saturating_sub(OTHERS).max(limit / 2).min(MAX_KEPT));
    usize::try_from(kept).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_have_room_too() {
        for (limit, kept) in [
            (Some(0), 0),
            (Some(256), 128),
            (Some(1024), 512),
            (Some(4096), 3072),
            (Some(524_288), MAX_KEPT as usize),
            (None, MAX_KEPT as usize),
        ] {
            assert_eq!(share(limit), kept, "{limit:?}");
        }
    }
}
