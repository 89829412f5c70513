//! Pressure stall information of a cgroup (Documentation/accounting/psi.rst; the files' format is psi_show in
//! kernel/sched/psi.c).

use super::files::{Files, ReadError, number};
use crate::model::resources::{Pressure, Stall, StallTimes};

/// `None` where the kernel keeps none for this cgroup.
pub(super) fn read(files: &mut Files) -> Option<Pressure> {
    let pressure = Pressure {
        cpu: files.parse("cpu.pressure", stall),
        memory: files.parse("memory.pressure", stall),
        io: files.parse("io.pressure", stall),
    };
    (pressure != Pressure::default()).then_some(pressure)
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, then the same with `full` (cpu: since Linux 5.13).
fn stall(text: &str) -> Result<Stall, ReadError> {
    let mut stall = Stall::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("some", rest)) => stall.some = Some(times(rest)?),
            Some(("full", rest)) => stall.full = Some(times(rest)?),
            _ => {}
        }
    }
    if stall == Stall::default() { Err(ReadError::UnknownFormat) } else { Ok(stall) }
}

fn times(text: &str) -> Result<StallTimes, ReadError> {
    let mut times = StallTimes::default();
    for field in text.split(' ') {
        let (key, value) = field.split_once('=').ok_or(ReadError::UnknownFormat)?;
        match key {
            "avg10" => times.avg10_percent = percent(value)?,
            "avg60" => times.avg60_percent = percent(value)?,
            "avg300" => times.avg300_percent = percent(value)?,
            "total" => times.total_us = number(value)?,
            _ => {}
        }
    }
    Ok(times)
}

/// Two digits after the point; nothing else that a float can be (`inf`, `NaN`, `1e9`, a sign).
fn percent(text: &str) -> Result<f64, ReadError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(ReadError::NotANumber);
    }
    text.parse().map_err(|_| ReadError::NotANumber)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_one_line_and_what_is_none() {
        let both = "some avg10=2.68 avg60=4.50 avg300=8.78 total=5583647432\nfull avg10=0.00 avg60=0.01 avg300=0.02 total=7";
        let got = stall(both).expect("as the kernel writes it");
        let some = got.some.expect("some");
        assert_eq!(
            (some.avg10_percent, some.avg60_percent, some.avg300_percent, some.total_us),
            (2.68, 4.5, 8.78, 5_583_647_432)
        );
        assert_eq!(got.full.map(|full| full.total_us), Some(7));
        let old = stall("some avg10=100.00 avg60=0.00 avg300=0.00 total=0").expect("without full");
        assert!(old.full.is_none() && old.some.is_some_and(|some| some.avg10_percent == 100.0));
        for bad in [
            "",
            "none",
            "some",
            "some avg10",
            "some avg10=inf avg60=0.00 avg300=0.00 total=0",
            "some avg10=NaN avg60=0.00 avg300=0.00 total=0",
            "some avg10=-1.00 avg60=0.00 avg300=0.00 total=0",
            "some avg10=1.00 avg60=0.00 avg300=0.00 total=-5",
            "some avg10=1.00 avg60=0.00 avg300=0.00 total=99999999999999999999999",
        ] {
            assert!(stall(bad).is_err(), "{bad:?}");
        }
    }
}
