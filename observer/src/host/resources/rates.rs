//! From two readings to what happens a second.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::resources::Resources;

/// A container's resources, and when they were read.
#[derive(Clone, Debug)]
pub struct Reading {
    pub at: Instant,
    pub resources: Resources,
}

/// What happened between two readings. Absent: not both had it, or the counter went down, because the container was
/// started anew in between; then there is no rate rather than a wrong one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rates {
    /// Of one CPU, as `docker stats` has it: two busy CPUs are 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<f64>,
    /// Share of the quota's periods in which it ran out. Absent without a quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_percent: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_bytes_per_second: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes_per_second: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads_per_second: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes_per_second: Option<f64>,
}

impl Rates {
    /// No rates where no time has passed.
    pub fn between(before: &Reading, after: &Reading) -> Rates {
        let Some(elapsed) =
            after.at.checked_duration_since(before.at).filter(|elapsed| *elapsed > Duration::ZERO)
        else {
            return Rates::default();
        };
        let seconds = elapsed.as_secs_f64();
        let rises = |of: fn(&Resources) -> Option<u64>| {
            let (before, after) = (of(&before.resources)?, of(&after.resources)?);
            after.checked_sub(before).map(|rise| rise as f64)
        };
        let per_second = |of| rises(of).map(|rise| rise / seconds);
        let quota = after.resources.cpu.as_ref().is_some_and(|cpu| cpu.quota_us.is_some());
        let periods = rises(|it| it.cpu.as_ref()?.nr_periods).filter(|_| quota);
        let throttled = rises(|it| it.cpu.as_ref()?.nr_throttled);
        Rates {
            cpu_percent: rises(|it| it.cpu.as_ref()?.usage_us).map(|us| us / (seconds * 1e6) * 100.0),
            throttled_percent: periods.zip(throttled).map(|(periods, throttled)| {
                // Nothing ran, so nothing was held back.
                if periods > 0.0 { (throttled / periods * 100.0).min(100.0) } else { 0.0 }
            }),
            read_bytes_per_second: per_second(|it| it.io.as_ref()?.read_bytes),
            written_bytes_per_second: per_second(|it| it.io.as_ref()?.written_bytes),
            reads_per_second: per_second(|it| it.io.as_ref()?.reads),
            writes_per_second: per_second(|it| it.io.as_ref()?.writes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resources::{Cpu, Io};

    fn reading(at: Instant, usage_us: u64, periods: u64, throttled: u64, read_bytes: Option<u64>) -> Reading {
        let cpu = Cpu {
            usage_us: Some(usage_us),
            quota_us: Some(50_000),
            nr_periods: Some(periods),
            nr_throttled: Some(throttled),
            ..Cpu::default()
        };
        let io = read_bytes.map(|read_bytes| Io { read_bytes: Some(read_bytes), ..Io::default() });
        Reading { at, resources: Resources { cpu: Some(cpu), io, ..Resources::default() } }
    }

    #[test]
    fn rates_of_two_seconds() {
        let start = Instant::now();
        let end = start + Duration::from_secs(2);
        let before = reading(start, 1_000_000, 10, 5, Some(1000));
        let rates = Rates::between(&before, &reading(end, 4_000_000, 30, 10, Some(5000)));
        assert_eq!(rates.cpu_percent, Some(150.0));
        assert_eq!(rates.throttled_percent, Some(25.0));
        assert_eq!(rates.read_bytes_per_second, Some(2000.0));
        assert_eq!(rates.written_bytes_per_second, None);

        let idle = Rates::between(&before, &reading(end, 1_000_000, 10, 5, None));
        assert_eq!((idle.cpu_percent, idle.throttled_percent), (Some(0.0), Some(0.0)));
        assert_eq!(idle.read_bytes_per_second, None);
    }

    #[test]
    fn a_counter_that_goes_down_or_no_time_gives_no_rate() {
        let start = Instant::now();
        let end = start + Duration::from_secs(2);
        let before = reading(start, 1_000_000, 10, 5, Some(1000));
        let anew = Rates::between(&before, &reading(end, 999, 2, 1, Some(999)));
        assert_eq!(anew, Rates::default());
        assert_eq!(Rates::between(&before, &before), Rates::default());
        let (after, earlier) = (reading(end, 2_000_000, 11, 6, Some(2000)), before);
        assert_eq!(Rates::between(&after, &earlier), Rates::default());
    }

    #[test]
    fn nothing_is_throttled_without_a_quota() {
        let start = Instant::now();
        let before = reading(start, 0, 10, 5, None);
        let mut after = reading(start + Duration::from_secs(1), 0, 20, 10, None);
        if let Some(cpu) = &mut after.resources.cpu {
            cpu.quota_us = None;
        }
        assert_eq!(Rates::between(&before, &after).throttled_percent, None);
    }
}
