//! Block I/O: the formats of v1's blkio.throttle.* and v2's io.stat and io.max.

use super::files::{Limit, ReadError, limit, number};
use crate::model::resources::{Io, IoLimit};

/// Counted over all devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Operations {
    pub(super) reads: u64,
    pub(super) writes: u64,
}

/// v1: lines `8:0 Read 4096`, and a `Total` at the end. What nothing was done on has no lines.
pub(super) fn operations(text: &str) -> Result<Operations, ReadError> {
    let mut sum = Operations::default();
    for line in text.lines() {
        let mut fields = line.split(' ');
        match (fields.next(), fields.next(), fields.next()) {
            (_, Some("Read"), Some(value)) => sum.reads = sum.reads.saturating_add(number(value)?),
            (_, Some("Write"), Some(value)) => sum.writes = sum.writes.saturating_add(number(value)?),
            _ => {}
        }
    }
    Ok(sum)
}

/// v2: lines `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`. Some kernels leave out line ends after devices
/// that nothing was done on, so only the fields count.
pub(super) fn stat(text: &str) -> Result<Io, ReadError> {
    let (mut bytes, mut requests) = (Operations::default(), Operations::default());
    for field in text.split_ascii_whitespace() {
        let Some((key, value)) = field.split_once('=') else { continue };
        let sum = match key {
            "rbytes" => &mut bytes.reads,
            "wbytes" => &mut bytes.writes,
            "rios" => &mut requests.reads,
            "wios" => &mut requests.writes,
            _ => continue,
        };
        *sum = sum.saturating_add(number(value)?);
    }
    Ok(Io {
        read_bytes: Some(bytes.reads),
        written_bytes: Some(bytes.writes),
        reads: Some(requests.reads),
        writes: Some(requests.writes),
        limits: Vec::new(),
    })
}

/// More devices with limits than any machine has.
const MAX_LIMITS: usize = 256;

/// v2: lines `8:16 rbps=2097152 wbps=max riops=max wiops=120`.
pub(super) fn max(text: &str) -> Result<Vec<IoLimit>, ReadError> {
    let mut limits = Vec::new();
    for line in text.lines().take(MAX_LIMITS) {
        let mut fields = line.split_ascii_whitespace();
        let Some(device) = fields.next() else { continue };
        let mut of = IoLimit { device: device_number(device)?, ..IoLimit::default() };
        for field in fields {
            let (key, value) = field.split_once('=').ok_or(ReadError::UnknownFormat)?;
            let place = match key {
                "rbps" => &mut of.read_bytes_per_second,
                "wbps" => &mut of.written_bytes_per_second,
                "riops" => &mut of.reads_per_second,
                "wiops" => &mut of.writes_per_second,
                _ => continue,
            };
            *place = limit(value)?.at();
        }
        limits.push(of);
    }
    Ok(limits)
}

/// A field of a limit.
type Field = fn(&mut IoLimit) -> &mut Option<u64>;

/// v1's file for each field of a limit.
pub(super) const V1_LIMITS: [(&str, Field); 4] = [
    ("blkio.throttle.read_bps_device", |of| &mut of.read_bytes_per_second),
    ("blkio.throttle.write_bps_device", |of| &mut of.written_bytes_per_second),
    ("blkio.throttle.read_iops_device", |of| &mut of.reads_per_second),
    ("blkio.throttle.write_iops_device", |of| &mut of.writes_per_second),
];

/// v1: lines `8:16 1048576`.
pub(super) fn device_limits(text: &str) -> Result<Vec<(String, Limit)>, ReadError> {
    let mut limits = Vec::new();
    for line in text.lines().take(MAX_LIMITS) {
        let (device, value) = line.split_once(' ').ok_or(ReadError::UnknownFormat)?;
        limits.push((device_number(device)?, limit(value)?));
    }
    Ok(limits)
}

/// Puts one file's limits to those of the others, by device.
pub(super) fn add_limits(all: &mut Vec<IoLimit>, more: &[(String, Limit)], field: Field) {
    for (device, value) in more {
        let mut at = all.iter().position(|of| of.device == *device);
        if at.is_none() {
            all.push(IoLimit { device: device.clone(), ..IoLimit::default() });
            at = Some(all.len() - 1);
        }
        if let Some(of) = at.and_then(|at| all.get_mut(at)) {
            *field(of) = value.at();
        }
    }
}

/// `major:minor`.
fn device_number(text: &str) -> Result<String, ReadError> {
    let (major, minor) = text.split_once(':').ok_or(ReadError::UnknownFormat)?;
    let digits =
        |part: &str| !part.is_empty() && part.len() <= 10 && part.bytes().all(|b| b.is_ascii_digit());
    if digits(major) && digits(minor) { Ok(text.to_owned()) } else { Err(ReadError::UnknownFormat) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_operations() {
        let text = "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 12288\n8:0 Async 0\n8:0 Discard 0\n8:0 Total 12288\n\
                    254:16 Read 1\n254:16 Write 2\nTotal 12291";
        assert_eq!(operations(text).ok(), Some(Operations { reads: 4097, writes: 8194 }));
        assert_eq!(operations("Total 0").ok(), Some(Operations::default()));
        assert_eq!(operations("").ok(), Some(Operations::default()));
        for bad in ["8:0 Read -1", "8:0 Write x", "8:0 Read 99999999999999999999999"] {
            assert!(operations(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn v2_stat() {
        let sums = |text: &str| {
            stat(text).ok().map(|io| {
                (io.read_bytes.unwrap(), io.written_bytes.unwrap(), io.reads.unwrap(), io.writes.unwrap())
            })
        };
        let text = "8:0 rbytes=90430464 wbytes=299008000 rios=8950 wios=1252 dbytes=50331648 dios=3021\n\
                    252:0 252:1 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0 cost.usage=7";
        assert_eq!(sums(text), Some((90_430_465, 299_008_002, 8953, 1256)));
        assert_eq!(sums(""), Some((0, 0, 0, 0)));
        assert_eq!(sums("8:0 rbytes=18446744073709551615 \n8:1 rbytes=1"), Some((u64::MAX, 0, 0, 0)));
        assert_eq!(sums("8:0 rbytes=-1"), None);
    }

    #[test]
    fn limits_of_both() {
        let v2 = max("8:16 rbps=2097152 wbps=max riops=max wiops=120").expect("a limit");
        let expected = IoLimit {
            device: "8:16".into(),
            read_bytes_per_second: Some(2_097_152),
            writes_per_second: Some(120),
            ..IoLimit::default()
        };
        assert_eq!(v2.first(), Some(&expected));
        assert_eq!(v2.len(), 1);
        let mut v1 = Vec::new();
        add_limits(&mut v1, &device_limits("8:16 2097152").expect("one"), V1_LIMITS[0].1);
        add_limits(&mut v1, &device_limits("8:16 120\n8:0 5").expect("two"), V1_LIMITS[3].1);
        assert_eq!(v1.first(), Some(&expected));
        assert_eq!(v1.get(1).map(|of| (of.device.as_str(), of.writes_per_second)), Some(("8:0", Some(5))));
        assert_eq!(max("").ok(), Some(Vec::new()));
        for bad in ["8:16 rbps", "8 rbps=1", "a:b rbps=1", "8:16 rbps=-1", "\x1b[2J:1 rbps=1"] {
            assert!(max(bad).is_err(), "{bad}");
        }
        for bad in ["8:16", "8:16 x", "x 1", ":1 1"] {
            assert!(device_limits(bad).is_err(), "{bad}");
        }
    }
}
