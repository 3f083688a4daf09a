//! One moment by both clocks, so that what happened by one can be told by the other.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) unix: SystemTime,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self {
            instant: Instant::now(),
            unix: SystemTime::now(),
        }
    }

    /// When something happened, in seconds since 1970.
    pub(super) fn at(&self, instant: Instant) -> f64 {
        let ago = self.instant.saturating_duration_since(instant).as_secs_f64();
        seconds(self.unix) - ago
    }
}

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
