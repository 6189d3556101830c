//! How long to wait before the next attempt to connect.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

/// Doubling delays with jitter, so that many clients do not come back in one moment.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// Called when a connection has proved to work.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next delay: between half and all of the step that it stands at.
    pub(crate) fn delay(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(LONGEST);
        step.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::new();
        let mut step = FIRST;
        for _ in 0..12 {
            let delay = backoff.delay();
            assert!(delay >= step / 2 && delay <= step, "{delay:?} at step {step:?}");
            step = (step * 2).min(LONGEST);
        }
        assert_eq!(step, LONGEST);
        backoff.reset();
        assert!(backoff.delay() <= FIRST);
    }
}
