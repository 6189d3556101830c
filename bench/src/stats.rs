//! Medians, and how sure a ratio is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Resamples drawn for an interval.
const RESAMPLES: usize = 10_000;
/// The seed of the resampling: the same rounds always give the same interval.
const SEED: u64 = 7411;

/// Where a ratio lies: its median over the rounds and a 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Rounds below which nothing is decided: with five the range of all rounds holds the median with
/// 94 %.
const ROUNDS_MIN: usize = 5;

/// What an interval says about a goal of at least so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// The whole interval is at or above the goal.
    Reached,
    /// The whole interval is below it.
    Missed,
    /// The interval spans the goal.
    NotDecided,
}

impl Ratio {
    /// What it says about a goal after so many rounds.
    pub(crate) fn verdict(&self, goal: f64, rounds: usize) -> Verdict {
        if rounds < ROUNDS_MIN {
            Verdict::NotDecided
        } else if self.low >= goal {
            Verdict::Reached
        } else if self.high < goal {
            Verdict::Missed
        } else {
            Verdict::NotDecided
        }
    }
}

/// A time in milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The middle value; the mean of the middle two; 0 of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(0.0);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { at(half) } else { (at(half.saturating_sub(1)) + at(half)) / 2.0 }
}

/// The median of the ratios of round to round, with a bootstrap interval: rounds are drawn with
/// replacement, in pairs, since what disturbs one half of a round is likely to disturb the other.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> Ratio {
    let pairs = ours.iter().zip(theirs).filter(|(_, theirs)| **theirs > 0.0);
    let ratios: Vec<f64> = pairs.map(|(ours, theirs)| ours / theirs).collect();
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let draw = |_| random.choice(&ratios).copied().unwrap_or(0.0);
            median(&(0..ratios.len()).map(draw).collect::<Vec<_>>())
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| medians.get((share * RESAMPLES as f64) as usize).copied().unwrap_or(0.0);
    Ratio { median: median(&ratios), low: at(0.025), high: at(0.975) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_nothing() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn an_interval_decides_only_what_it_does_not_span() {
        let sure = ratio(&[200.0, 210.0, 190.0, 205.0, 195.0], &[100.0; 5]);
        assert!(sure.low >= 1.9 && sure.high <= 2.1, "{sure:?}");
        assert_eq!(sure.verdict(1.0, 5), Verdict::Reached);
        assert_eq!(sure.verdict(3.0, 5), Verdict::Missed);
        assert_eq!(sure.verdict(2.0, 5), Verdict::NotDecided);

        assert_eq!(sure.verdict(1.0, 4), Verdict::NotDecided);

        let noisy = ratio(&[80.0, 130.0, 95.0, 120.0, 99.0], &[100.0; 5]);
        assert_eq!(noisy.verdict(1.0, 5), Verdict::NotDecided);
        assert_eq!(noisy, ratio(&[80.0, 130.0, 95.0, 120.0, 99.0], &[100.0; 5]));
    }
}
