//! How fast this machine is taken to be. What depends on that asks here, and nothing else knows about emulation.
//!
//! `$OBSERVER_LIVE_EMULATED` is set in the virtual machines of `cargo xtask vm`, whose processors are emulated: some ten
//! times slower, and never on time. There the same tests do less of what they do many times, wait longer for what must
//! come, and do not judge by the clock.

use std::sync::LazyLock;
use std::time::Duration;

pub fn emulated() -> bool {
    static EMULATED: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("OBSERVER_LIVE_EMULATED").is_some_and(|value| value == "1"));
    *EMULATED
}

/// The longest that something may take here which takes at most `limit` on real hardware.
pub fn patience(limit: Duration) -> Duration {
    if emulated() { limit * 6 } else { limit }
}

/// How often to do what is done `times` times on real hardware.
pub fn count(times: u32) -> u32 {
    if emulated() { times.div_ceil(10).max(2) } else { times }
}

/// How long to keep up a load. Under emulation it is as heavy for the agent from its first second on.
pub fn load(seconds: u64) -> u64 {
    if emulated() { seconds.div_ceil(3) } else { seconds }
}

/// The agent's `sweep_seconds`: more often than by default, because many tests wait for a sweep that finds nothing; under
/// emulation as often as it can.
pub fn sweep_seconds() -> u64 {
    if emulated() { 1 } else { 2 }
}

/// In which time a sweep must have been: its period, or the two readings a second apart of which it consists.
pub fn sweep() -> Duration {
    let slack = Duration::from_millis(if emulated() { 100 } else { 500 });
    slack + Duration::from_secs(sweep_seconds().max(2))
}

/// How long things are given to begin, and how long nothing must then have come, until all is taken to be through: more
/// than the 500 ms for which an alert may wait for its container's name.
pub fn settle() -> (Duration, Duration) {
    if emulated() {
        (Duration::from_millis(500), Duration::from_millis(100))
    } else {
        (Duration::from_millis(400), Duration::from_millis(200))
    }
}

/// Whether joins that follow each other at once may come so far apart that the agent does not put them together (it waits
/// 10 ms for the next): then an alert tells the first of them, and a later one all.
pub fn joins_may_part() -> bool {
    emulated()
}

/// A bound on a time. Emulated, it tells about the emulation, and is only printed.
pub fn assert_within(what: &str, took: Duration, bound: Duration) {
    println!("{what}: {took:?}");
    assert!(emulated() || took < bound, "{what}: {took:?}, not within {bound:?}");
}
