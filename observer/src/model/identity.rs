//! Names for alerts that come out the same for the same happening.

/// FNV-1a, 64 bits: not against adversaries, only to spread.
pub fn fnv1a(parts: &[&[u8]]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        // The length keeps ("ab","c") apart from ("a","bc").
        for byte in (part.len() as u64).to_le_bytes().iter().chain(*part) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    // FNV's high bits move late; mix once more.
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}

/// A UUID v7 (RFC 9562) of the event's own time, with a hash of what happened where others have random bits: a
/// replay or a retry gives the same id.
pub fn uuid_v7(unix_ns: i64, parts: &[&[u8]]) -> String {
    let unix_ns = unix_ns.max(0) as u64;
    let (ms, rest) = (unix_ns / 1_000_000, unix_ns % 1_000_000);
    let hash = fnv1a(parts);
    let mut bytes = [0u8; 10];
    // Method 3 of section 6.2: the first 12 bits continue the timestamp.
    let fraction = (rest * 4096 / 1_000_000) as u16;
    bytes[..2].copy_from_slice(&fraction.to_be_bytes());
    bytes[2..].copy_from_slice(&hash.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_time_and_content_only() {
        let a = uuid_v7(1_700_000_000_123_456_789, &[b"rule", b"container"]);
        assert_eq!(a, uuid_v7(1_700_000_000_123_456_789, &[b"rule", b"container"]));
        assert_ne!(a, uuid_v7(1_700_000_000_123_456_789, &[b"rulec", b"ontainer"]));
        assert_eq!(a.as_bytes()[14], b'7');
        assert!(a < uuid_v7(1_700_000_000_124_000_000, &[b"a"]));
    }
}
