//! What keeps a session's server connection with it beyond its transactions, for others to see.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::activity::Tick;
use crate::{pool::Metrics, server::pins::Pins};

/// The reasons, and since when there has been one.
#[derive(Debug, Default)]
pub(super) struct Pinned {
    pins: AtomicU8,
    since: AtomicU32,
}

impl Pinned {
    /// Notes the reasons that there are now, and counts the new ones.
    pub(super) fn set(&self, pins: Pins, now: Tick, metrics: &Metrics) {
        let before = self.pins();
        if pins == before {
            return;
        }
        self.pins.store(pins.bits(), Ordering::Relaxed);
        for pin in pins.iter().filter(|pin| !before.contains(*pin)) {
            metrics.count_pin(pin);
        }
        match (before.is_empty(), pins.is_empty()) {
            (true, false) => {
                self.since.store(now.number(), Ordering::Relaxed);
                metrics.pinned.inc();
            }
            (false, true) => metrics.pinned.dec(),
            _ => {}
        }
    }

    /// The reasons.
    pub(super) fn pins(&self) -> Pins {
        Pins::from_bits(self.pins.load(Ordering::Relaxed))
    }

    /// Since when there has been a reason, if there is one.
    pub(super) fn since(&self) -> Option<Tick> {
        let since = Tick::from_number(self.since.load(Ordering::Relaxed));
        (!self.pins().is_empty()).then_some(since)
    }
}
