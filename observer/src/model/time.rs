//! Boot time to wall time.

use jiff::Timestamp;

/// Adds up kernel time (CLOCK_BOOTTIME) and the offset at which wall time stood when it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Clock {
    /// CLOCK_REALTIME minus CLOCK_BOOTTIME, ns.
    pub offset_ns: i64,
}

impl Clock {
    pub fn now() -> Clock {
        let real = read(libc::CLOCK_REALTIME) as i64;
        Clock { offset_ns: real - read(libc::CLOCK_BOOTTIME) as i64 }
    }

    /// CLOCK_BOOTTIME, ns.
    pub fn boot_ns() -> u64 {
        read(libc::CLOCK_BOOTTIME)
    }

    /// Unix time of a kernel time, ns.
    pub fn unix_ns(&self, boot_ns: u64) -> i64 {
        (boot_ns as i64).saturating_add(self.offset_ns)
    }

    /// The kernel time of a Unix time, ns.
    pub fn kernel_ns(&self, unix_ns: i64) -> u64 {
        u64::try_from(unix_ns.saturating_sub(self.offset_ns)).unwrap_or(0)
    }

    pub fn rfc3339(&self, boot_ns: u64) -> String {
        rfc3339(self.unix_ns(boot_ns))
    }
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place; these clocks always exist.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// RFC 3339, UTC, always nine digits of fraction.
pub fn rfc3339(unix_ns: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.9}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nine_digits_and_end_in_z() {
        assert_eq!(rfc3339(1_764_000_000_000_000_001), "2025-11-24T16:00:00.000000001Z");
        let clock = Clock { offset_ns: 1000 };
        assert_eq!((clock.kernel_ns(clock.unix_ns(7)), clock.kernel_ns(999)), (7, 0));
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
    }
}
