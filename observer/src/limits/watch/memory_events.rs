//! v1's memory controller has no memory.events; it signals an eventfd that is registered in cgroup.event_control
//! (Documentation/admin-guide/cgroup-v1/memory.rst, sections 9 and 10).

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::event::{EventfdFlags, eventfd};

/// Signalled when usage passes a threshold in either direction, when memory runs out, and when the cgroup is removed.
/// To drop it takes it out of the kernel.
#[derive(Debug)]
pub(super) struct MemoryEvents {
    event: OwnedFd,
}

impl MemoryEvents {
    /// `threshold` in bytes; without one, only for running out of memory.
    pub(super) fn register(cgroup: &Path, threshold: Option<u64>) -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let mut control = OpenOptions::new().write(true).open(cgroup.join("cgroup.event_control"))?;
        // The files are needed only while it is registered.
        if let Some(bytes) = threshold {
            let usage = File::open(cgroup.join("memory.usage_in_bytes"))?;
            control.write_all(request(&event, &usage, Some(bytes)).as_bytes())?;
        }
        let oom = File::open(cgroup.join("memory.oom_control"))?;
        control.write_all(request(&event, &oom, None).as_bytes())?;
        Ok(MemoryEvents { event })
    }

    /// Takes the signals that there are.
    pub(super) fn clear(&self) {
        // Nothing there is as good.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }
}

impl AsFd for MemoryEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

fn request(event: &impl AsRawFd, file: &impl AsRawFd, threshold: Option<u64>) -> String {
    let (event, file) = (event.as_raw_fd(), file.as_raw_fd());
    match threshold {
        Some(bytes) => format!("{event} {file} {bytes}"),
        None => format!("{event} {file}"),
    }
}

/// A share of a limit in whole pages, as the kernel counts. `None` where it would be nothing.
pub(super) fn threshold(limit: Option<u64>, percent: u64) -> Option<u64> {
    const PAGE: u64 = 4096;
    let bytes = u128::from(limit?) * u128::from(percent.min(100)) / 100;
    let pages = u64::try_from(bytes).unwrap_or(u64::MAX) / PAGE;
    (pages > 0).then_some(pages * PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_whole_pages_below_the_limit() {
        for (limit, percent, expected) in [
            (None, 90, None),
            (Some(0), 90, None),
            (Some(4096), 90, None),
            (Some(4096), 100, Some(4096)),
            (Some(100 << 20), 90, Some(90 << 20)),
            (Some((100 << 20) + 4096), 90, Some(90 << 20)),
            (Some(100 << 20), 0, None),
            (Some(100 << 20), 250, Some(100 << 20)),
            (Some(u64::MAX), 100, Some(u64::MAX - 4095)),
        ] {
            assert_eq!(threshold(limit, percent), expected, "{percent} % of {limit:?}");
        }
    }
}
