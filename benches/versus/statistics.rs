//! Medians and quartiles.

/// The value below which the share `q` (0 to 1) of the values lies, with interpolation; NaN of nothing.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = q.clamp(0.0, 1.0) * as_f64(last as u64);
    let below = (0..last).rev().find(|&i| as_f64(i as u64) <= place).unwrap_or(0);
    let above = (below + 1).min(last);
    let share = place - as_f64(below as u64);
    sorted[below] + (sorted[above] - sorted[below]) * share
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// A count or a number of nanoseconds; the last bits of a huge one do not matter here.
#[allow(clippy::cast_precision_loss, reason = "said above")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(median(&values), 2.5);
        assert_eq!(quantile(&values, 0.0), 1.0);
        assert_eq!(quantile(&values, 1.0), 4.0);
        assert_eq!(quantile(&values, 0.25), 1.75);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
    }
}
