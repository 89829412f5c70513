//! Waiting for a condition, with a limit.

use crate::pace;
use std::time::{Duration, Instant};

/// Polls every 5 ms until `probe` gives something; `None` when `limit` (that of real hardware) has passed.
pub fn until<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + pace::patience(limit);
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same for a plain condition.
pub fn until_true(limit: Duration, mut probe: impl FnMut() -> bool) -> bool {
    until(limit, || probe().then_some(())).is_some()
}
