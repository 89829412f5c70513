//! How long to wait before the next try.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// Doubles from a quarter of a second to half a minute. A random half of it is left out, so that the agents of many nodes do
/// not come back to a receiver at the same moment.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// After a failure. `asked` is what the other side wants to be left alone for.
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let wait = whole.mul_f64(0.5 + fastrand::f64() / 2.0);
        // A receiver that asks for a day is not obeyed.
        asked.map_or(wait, |asked| wait.max(asked.min(LONGEST * 4)))
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_bound_and_starts_anew() {
        let mut backoff = Backoff::default();
        let mut whole = FIRST;
        for n in 0..100 {
            let wait = backoff.next(None);
            assert!(wait >= whole / 2 && wait <= whole, "{n}: {wait:?}");
            whole = (whole * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.next(None) <= FIRST);
        assert_eq!(backoff.next(Some(Duration::from_secs(20))), Duration::from_secs(20));
        assert_eq!(backoff.next(Some(Duration::from_secs(86400))), LONGEST * 4);
    }
}
