//! What is made of many measurements.

/// The smallest measurement that at least `share` of all do not exceed.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

pub fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

pub fn min(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::min)
}

pub fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}

/// From a Prometheus histogram: (upper bound, observations up to it), ascending. Within a bucket the observations are
/// taken to lie evenly, as `histogram_quantile` does.
pub fn quantile(buckets: &[(f64, f64)], share: f64) -> f64 {
    let total = buckets.last().map_or(0.0, |(_, count)| *count);
    let (mut lower, mut below) = (0.0, 0.0);
    for (upper, count) in buckets {
        if *count >= share * total && *count > below {
            let part = (share * total - below) / (count - below);
            return if upper.is_finite() { lower + (upper - lower) * part } else { lower };
        }
        (lower, below) = (*upper, *count);
    }
    f64::NAN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measurements() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!((percentile(&values, 0.99), median(&values)), (198.0, 100.0));
        assert_eq!((min(&values), max(&values)), (1.0, 200.0));
        assert!(percentile(&[], 0.5).is_nan());
    }

    #[test]
    fn quantiles_lie_within_their_buckets() {
        let buckets = [(1.0, 50.0), (2.0, 100.0), (f64::INFINITY, 100.0)];
        assert_eq!((quantile(&buckets, 0.5), quantile(&buckets, 0.75)), (1.0, 1.5));
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 4.0)], 0.5), 1.0);
        assert!(quantile(&[(1.0, 0.0)], 0.5).is_nan());
    }
}
