//! Figures out of rounds: medians and their spread.

use serde::Serialize;

/// What several rounds say: the median, and how far apart they lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
}

impl Spread {
    /// Of at least one figure; `None` of none, or where one is not a number.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        if sorted.iter().any(|figure| figure.is_nan()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Some(Self { median, low, high })
    }
}

/// The ratios of two things that were measured one after the other in the same rounds: what disturbs a round disturbs both.
pub fn ratios(above: &[f64], below: &[f64]) -> Option<Spread> {
    Spread::of(above.iter().zip(below).map(|(above, below)| above / below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let spread = Spread::of([5.0, 1.0, 9.0]).expect("figures");
        assert_eq!(spread, Spread { median: 5.0, low: 1.0, high: 9.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 100.0]).map(|spread| spread.median), Some(3.0));
        assert_eq!(Spread::of([7.0]).map(|spread| spread.median), Some(7.0));
        assert_eq!((Spread::of([]), Spread::of([1.0, f64::NAN])), (None, None));
    }

    #[test]
    fn ratios_pair_what_belongs_to_one_round() {
        // The second round was twice as slow for both.
        let spread = ratios(&[200.0, 100.0, 210.0], &[100.0, 50.0, 100.0]).expect("figures");
        assert_eq!(spread, Spread { median: 2.0, low: 2.0, high: 2.1 });
        assert_eq!(ratios(&[0.0], &[0.0]), None, "nothing was measured");
    }
}
