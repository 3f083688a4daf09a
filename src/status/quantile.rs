//! Quantiles of what histograms have counted in a stretch of time.

use crate::metrics::{BOUNDS, Buckets};

/// The value that this share of the values (between 0 and 1) does not exceed, in seconds, as Prometheus'
/// `histogram_quantile` estimates it: evenly spread within a bucket, and at most the highest bound. `None` without values.
pub(super) fn quantile(share: f64, buckets: &Buckets) -> Option<f64> {
    let count = buckets.count();
    if count == 0 {
        return None;
    }
    let rank = share * count as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    for (&bound, &inside) in BOUNDS.iter().zip(&buckets.counts) {
        let inside = inside as f64;
        if inside > 0.0 && below + inside >= rank {
            let part = ((rank - below) / inside).max(0.0);
            return Some(lower + (bound - lower) * part);
        }
        below += inside;
        lower = bound;
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: &[(usize, u64)]) -> Buckets {
        let mut buckets = Buckets::default();
        for &(at, count) in counts {
            buckets.counts[at] = count;
        }
        buckets
    }

    fn near(value: Option<f64>, expected: f64) -> bool {
        value.is_some_and(|value| (value - expected).abs() < 1e-9)
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        // 90 up to 0.1 ms, 10 between 5 and 10 ms.
        let buckets = of(&[(0, 90), (6, 10)]);
        assert!(near(quantile(0.5, &buckets), 0.000_1 * 50.0 / 90.0));
        assert!(near(quantile(0.95, &buckets), 0.007_5));
        assert!(near(quantile(1.0, &buckets), 0.01));
    }

    #[test]
    fn nothing_has_no_quantile_and_what_is_off_the_scale_is_at_its_end() {
        assert_eq!(quantile(0.5, &Buckets::default()), None);
        let last = BOUNDS.len();
        assert!(near(quantile(0.5, &of(&[(last, 3)])), BOUNDS[last - 1]));
    }
}
