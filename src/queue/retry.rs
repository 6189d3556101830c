//! What becomes of a job that comes back: at once, after a while, or never again.
//!
//! Pure functions of the settings, the counts and a seed. Their answer is written into the fact,
//! so a log replays the same when these rules change.

use super::{Outcome, QueueSettings, RetryTerms};

/// What becomes of a job after its `failures`th failure (this one included).
pub(super) fn after_failure(
    settings: &QueueSettings,
    retry: RetryTerms,
    failures: u32,
    now_log_ms: u64,
    noise: u64,
) -> Outcome {
    if failures > retry.failures_max.unwrap_or(settings.failures_max) {
        return Outcome::Dead;
    }
    let delay_ms = retry.delay_ms.unwrap_or_else(|| {
        let before = failures.saturating_sub(1);
        listed_ms(&settings.backoff_delays_ms, before).unwrap_or_else(|| {
            backoff_ms(settings.backoff_first_ms, settings.backoff_longest_ms, before, noise)
        })
    });
    after_delay(delay_ms, now_log_ms)
}

/// The delay of a list after so many others; the last one goes on. None if there is no list.
fn listed_ms(delays_ms: &[u64], before: u32) -> Option<u64> {
    delays_ms.get(before as usize).or_else(|| delays_ms.last()).copied()
}

/// What becomes of a job after its `crashes`th crash (this one included).
///
/// The first comes back at once, since a worker that dies is mostly not the job's fault.
pub(super) fn after_crash(
    settings: &QueueSettings,
    crashes: u32,
    now_log_ms: u64,
    noise: u64,
) -> Outcome {
    if crashes > settings.crashes_max {
        return Outcome::Dead;
    }
    let Some(doublings) = crashes.checked_sub(2) else {
        return Outcome::Ready;
    };
    let (first_ms, longest_ms) =
        (settings.crash_backoff_first_ms, settings.crash_backoff_longest_ms);
    after_delay(backoff_ms(first_ms, longest_ms, doublings, noise), now_log_ms)
}

/// Ready now if there is no delay.
pub(super) fn after_delay(delay_ms: u64, now_log_ms: u64) -> Outcome {
    if delay_ms == 0 {
        return Outcome::Ready;
    }
    Outcome::Delayed { due_log_ms: now_log_ms.saturating_add(delay_ms) }
}

/// Well-spread bits from a seed and what they are for (the finalizer of splitmix64).
pub(super) fn mix(seed: u64, first: u64, second: u64) -> u64 {
    let mut bits = seed;
    for word in [first, second] {
        bits = bits.wrapping_add(word).wrapping_add(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
    }
    bits
}

/// `first_ms` doubled so many times, at most `longest_ms`, then moved by up to a fifth either way
/// so that jobs which failed together do not come back together.
fn backoff_ms(first_ms: u64, longest_ms: u64, doublings: u32, noise: u64) -> u64 {
    let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
    let delay_ms = first_ms.saturating_mul(factor).min(longest_ms);
    let jitter_ms = delay_ms / 5;
    delay_ms - jitter_ms + noise % (2 * jitter_ms + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay_ms(outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Delayed { due_log_ms } => due_log_ms - 1_000_000,
            other => panic!("not delayed: {other:?}"),
        }
    }

    #[test]
    fn failures_double_up_to_the_longest_and_then_kill() {
        let settings = QueueSettings::default();
        for (failures, middle_ms) in [(1, 1_000), (2, 2_000), (5, 16_000), (13, 3_600_000)] {
            for noise in (0..200).map(|n| mix(7, n, 0)) {
                let outcome =
                    after_failure(&settings, RetryTerms::POLICY, failures, 1_000_000, noise);
                let delay_ms = delay_ms(outcome);
                let range_ms = middle_ms * 4 / 5..=middle_ms * 6 / 5;
                assert!(range_ms.contains(&delay_ms), "{failures}: {delay_ms}");
            }
        }
        let end = |retry, failures| after_failure(&settings, retry, failures, 1_000_000, 0);
        assert_ne!(end(RetryTerms::POLICY, 25), Outcome::Dead);
        assert_eq!(end(RetryTerms::POLICY, 26), Outcome::Dead);
        assert_ne!(end(RetryTerms { failures_max: Some(30), delay_ms: None }, 26), Outcome::Dead);
        assert_eq!(end(RetryTerms { failures_max: Some(0), delay_ms: None }, 1), Outcome::Dead);
        assert_eq!(end(RetryTerms::NEVER, 1), Outcome::Dead);
        assert_eq!(
            end(RetryTerms { failures_max: None, delay_ms: Some(77) }, 3),
            Outcome::Delayed { due_log_ms: 1_000_077 }
        );
        assert_eq!(end(RetryTerms { failures_max: None, delay_ms: Some(0) }, 3), Outcome::Ready);
        assert_eq!(end(RetryTerms { failures_max: None, delay_ms: Some(77) }, 26), Outcome::Dead);
    }

    #[test]
    fn a_list_of_delays_is_kept_to_and_its_last_one_repeats() {
        let backoff_delays_ms = vec![10, 500, 30];
        let settings = QueueSettings { backoff_delays_ms, ..QueueSettings::default() };
        for (failures, expected_ms) in [(1, 10), (2, 500), (3, 30), (4, 30), (25, 30)] {
            let outcome = after_failure(&settings, RetryTerms::POLICY, failures, 1_000_000, 77);
            assert_eq!(delay_ms(outcome), expected_ms, "{failures}");
        }
        assert_eq!(after_failure(&settings, RetryTerms::POLICY, 26, 1_000_000, 77), Outcome::Dead);
        let own = RetryTerms { failures_max: None, delay_ms: Some(7) };
        assert_eq!(delay_ms(after_failure(&settings, own, 2, 1_000_000, 77)), 7);
    }

    #[test]
    fn jitter_uses_the_whole_fifth_on_both_sides() {
        let delays: Vec<_> = (0..500).map(|n| backoff_ms(1_000, 1_000, 0, mix(n, 0, 0))).collect();
        assert!(delays.iter().any(|ms| *ms < 820) && delays.iter().any(|ms| *ms > 1_180));
        assert_eq!((backoff_ms(3, 9, 200, 0), backoff_ms(3, 9, 200, 2)), (8, 10));
    }

    #[test]
    fn the_first_crash_comes_back_at_once_and_the_sixth_kills() {
        let settings = QueueSettings::default();
        assert_eq!(after_crash(&settings, 1, 1_000_000, 9), Outcome::Ready);
        for (crashes, middle_ms) in [(2, 5_000), (3, 10_000), (5, 40_000)] {
            let delay_ms = delay_ms(after_crash(&settings, crashes, 1_000_000, 9));
            assert!((middle_ms * 4 / 5..=middle_ms * 6 / 5).contains(&delay_ms), "{delay_ms}");
        }
        assert_eq!(after_crash(&settings, 6, 1_000_000, 9), Outcome::Dead);
    }
}
