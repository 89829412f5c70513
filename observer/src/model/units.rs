//! Numbers as people say them.

/// `7.629MiB`: powers of 1024 and four digits that matter, as the docker CLI writes them.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut units) = (bytes as f64, UNITS.iter());
    let mut unit = units.next().copied().unwrap_or_default();
    // What would be rounded up to 1024 is 1 of the next.
    while value >= 1023.5
        && let Some(next) = units.next()
    {
        value /= 1024.0;
        unit = next;
    }
    let decimals = match value {
        value if value >= 1000.0 => 0,
        value if value >= 100.0 => 1,
        value if value >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_four_digits() {
        let cases = [
            (0, "0B"),
            (1023, "1023B"),
            (7_999_488, "7.629MiB"),
            (33_554_432, "32MiB"),
            (1 << 30, "1GiB"),
            (500 << 20, "500MiB"),
            (237_568, "232KiB"),
            (u64::MAX, "16EiB"),
        ];
        for (given, expected) in cases {
            assert_eq!(bytes(given), expected);
        }
    }
}
