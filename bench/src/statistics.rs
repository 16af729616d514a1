//! Medians and quartiles.

/// The three quartiles of a set of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quartiles {
    /// A quarter of the samples is below.
    pub q1: f64,
    /// Half of the samples is below.
    pub median: f64,
    /// Three quarters of the samples are below.
    pub q3: f64,
}

impl Quartiles {
    /// The quartiles, interpolated between the two samples next to them.
    ///
    /// # Panics
    /// Without a sample.
    #[must_use]
    pub fn of(samples: &[f64]) -> Self {
        Self { q1: quantile(samples, 0.25), median: quantile(samples, 0.5), q3: quantile(samples, 0.75) }
    }
}

/// The value below which `fraction` (0..=1) of the samples lie, interpolated linearly between the two next to it.
///
/// # Panics
/// Without a sample.
#[must_use]
pub fn quantile(samples: &[f64], fraction: f64) -> f64 {
    assert!(!samples.is_empty(), "a quantile needs a sample");
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    let position = fraction.clamp(0.0, 1.0) * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the last index")]
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_five_samples_are_samples() {
        let quartiles = Quartiles::of(&[50.0, 10.0, 30.0, 20.0, 40.0]);
        assert_eq!(quartiles, Quartiles { q1: 20.0, median: 30.0, q3: 40.0 });
    }

    #[test]
    fn between_samples_is_interpolated() {
        assert_eq!(Quartiles::of(&[1.0, 2.0]), Quartiles { q1: 1.25, median: 1.5, q3: 1.75 });
        assert_eq!(quantile(&[0.0, 100.0], 0.99), 99.0);
    }

    #[test]
    fn one_sample_is_every_quantile() {
        assert_eq!(Quartiles::of(&[7.0]), Quartiles { q1: 7.0, median: 7.0, q3: 7.0 });
    }
}
