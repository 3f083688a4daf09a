//! How long to leave a server alone after an attempt to connect has failed.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// The longest first pause; each further one may be twice as long.
const FIRST: Duration = Duration::from_millis(100);

/// The pauses of one attempt's repetitions. They grow up to `server_login_retry` and are spread, so that those who
/// were refused together do not come back together. Nothing is remembered for the next attempt.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    longest: Duration,
}

impl Backoff {
    /// The next pause, under this `server_login_retry`.
    pub(super) fn next(&mut self, most: Duration) -> Duration {
        self.longest = (self.longest * 2).max(FIRST).min(most);
        let mut bytes = [0; 2];
        // Without random numbers the pause is merely not spread.
        let _ = SystemRandom::new().fill(&mut bytes);
        spread(self.longest, u16::from_ne_bytes(bytes))
    }
}

/// Between half of `longest` and all of it.
fn spread(longest: Duration, random: u16) -> Duration {
    longest / 2 + longest / 2 * u32::from(random) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_stay_there() {
        for (most, longest) in [
            (200, [100, 200, 200, 200]),
            (10, [10, 10, 10, 10]),
            (5000, [100, 200, 400, 800]),
        ] {
            let mut backoff = Backoff::default();
            for longest in longest.map(Duration::from_millis) {
                let pause = backoff.next(Duration::from_millis(most));
                assert!(
                    (longest / 2..=longest).contains(&pause),
                    "{pause:?} of {longest:?}"
                );
            }
        }
    }

    #[test]
    fn a_limit_that_is_lowered_meanwhile_holds_at_once() {
        let mut backoff = Backoff::default();
        for _ in 0..8 {
            backoff.next(Duration::from_secs(60));
        }
        assert!(backoff.next(Duration::from_millis(200)) <= Duration::from_millis(200));
    }

    #[test]
    fn the_spread_has_both_ends() {
        let second = Duration::from_secs(1);
        assert_eq!(spread(second, 0), second / 2);
        assert_eq!(spread(second, u16::MAX), second);
    }
}
