//! How long the API server is left alone after something has gone wrong.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

use super::error::WatchError;

/// Pauses that double, up to a limit that depends on what is wrong, and are spread, so that all poolers of a cluster do
/// not come back together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure.
    pub(super) fn next(&mut self, error: &WatchError) -> Duration {
        let (first, most) = limits(error);
        let pause = first.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures = self.failures.saturating_add(1);
        let mut bytes = [0; 2];
        // Without random numbers the pause is merely not spread.
        let _ = SystemRandom::new().fill(&mut bytes);
        let random = u32::from(u16::from_ne_bytes(bytes));
        pause / 2 + pause / 2 * random / u32::from(u16::MAX)
    }

    /// It works again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The first pause and the longest one.
fn limits(error: &WatchError) -> (Duration, Duration) {
    let (first, most) = match error {
        // A server that has just started says so for a moment to those who are allowed. To the others it says it for ever.
        WatchError::Forbidden(_) | WatchError::Missing => (400, 60_000),
        WatchError::Unauthorized | WatchError::Token(_) => (400, 10_000),
        // Overloaded, or not itself: as it asks for.
        WatchError::Status(_) => (1_000, 10_000),
        WatchError::Malformed(_) | WatchError::NotAsked | WatchError::TooLong | WatchError::Request(_) => {
            (1_000, 30_000)
        }
        // Whoever is told so lists at once, unless that happens again and again.
        WatchError::Expired => (20, 5_000),
        WatchError::Unreachable(_) | WatchError::Silent | WatchError::Cut(_) => (200, 5_000),
    };
    (Duration::from_millis(first), Duration::from_millis(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit() {
        let mut backoff = Backoff::default();
        for longest in [200, 400, 800, 1600, 3200, 5000, 5000] {
            let longest = Duration::from_millis(longest);
            let pause = backoff.next(&WatchError::Silent);
            assert!(
                (longest / 2..=longest).contains(&pause),
                "{pause:?} of {longest:?}"
            );
        }
        for _ in 0..100 {
            assert!(backoff.next(&WatchError::Missing) <= Duration::from_secs(60));
        }
        backoff.reset();
        assert!(backoff.next(&WatchError::Missing) <= Duration::from_millis(400));
    }
}
