//! What keeps the log readable when the same happens very often: of the lines that one place in the program writes, so
//! many a second, and the number of those left out.
//!
//! Only the log goes by it. What is counted, and what the status page remembers, is all there is.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tracing::{Event, Level, Metadata, Subscriber, callsite::Identifier};
use tracing_subscriber::layer::{Context, Filter};

/// Lines a second of one place.
const LINES: u32 = 20;
/// Whoever asks for slow queries wants every one.
const UNBOUNDED: &str = "pgweir::slow_query";

/// The places that have written lately. Clones share them.
#[derive(Debug, Clone)]
pub struct Throttle {
    begun: Instant,
    places: Arc<Mutex<HashMap<Identifier, Place>>>,
}

/// A place in the program that writes lines.
#[derive(Debug, Clone, Copy)]
struct Place {
    target: &'static str,
    line: Option<u32>,
    second: u64,
    written: u32,
    left_out: u64,
}

/// Lines that were not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOut {
    /// The module that would have written them.
    pub target: &'static str,
    /// Where in it.
    pub line: u32,
    /// How many.
    pub count: u64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            places: Arc::default(),
        }
    }
}

impl Throttle {
    /// What was left out since this was asked last.
    pub fn left_out(&self) -> Vec<LeftOut> {
        let mut places = self.places();
        let silent = places.values_mut().filter(|place| place.left_out > 0);
        let left_out = |place: &mut Place| LeftOut {
            target: place.target,
            line: place.line.unwrap_or_default(),
            count: std::mem::take(&mut place.left_out),
        };
        silent.map(left_out).collect()
    }

    /// Whether a line may be written in this second.
    fn admits(&self, metadata: &'static Metadata<'static>, second: u64) -> bool {
        if *metadata.level() > Level::INFO || metadata.target() == UNBOUNDED {
            return true;
        }
        let mut places = self.places();
        let place = places.entry(metadata.callsite()).or_insert(Place {
            target: metadata.target(),
            line: metadata.line(),
            second,
            written: 0,
            left_out: 0,
        });
        if place.second != second {
            (place.second, place.written) = (second, 0);
        }
        let is_admitted = place.written < LINES;
        place.written += u32::from(is_admitted);
        place.left_out += u64::from(!is_admitted);
        is_admitted
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Identifier, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Filter<S> for Throttle {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.admits(event.metadata(), self.begun.elapsed().as_secs())
    }
}

#[cfg(test)]
mod tests {
    use tracing::{Callsite, callsite};

    use super::*;

    /// The metadata of a place of its own.
    macro_rules! place {
        ($level:expr, $target:expr) => {{
            use tracing::callsite::DefaultCallsite;
            static META: Metadata<'static> = Metadata::new(
                "event",
                $target,
                $level,
                None,
                Some(line!()),
                None,
                tracing::field::FieldSet::new(&[], callsite::Identifier(&CALLSITE)),
                tracing::metadata::Kind::EVENT,
            );
            static CALLSITE: DefaultCallsite = DefaultCallsite::new(&META);
            CALLSITE.metadata()
        }};
    }

    #[test]
    fn a_place_writes_so_many_lines_a_second_and_the_rest_are_counted() {
        let throttle = Throttle::default();
        let (noisy, quiet) = (place!(Level::INFO, "a"), place!(Level::WARN, "b"));
        let admitted = (0..100).filter(|_| throttle.admits(noisy, 7)).count();
        assert_eq!(admitted, 20);
        assert!(throttle.admits(quiet, 7), "another place");
        assert!(throttle.admits(noisy, 8), "another second");
        let left_out = throttle.left_out();
        assert_eq!(
            left_out
                .iter()
                .map(|it| (it.target, it.count))
                .collect::<Vec<_>>(),
            [("a", 80)]
        );
        assert_eq!(throttle.left_out(), []);
    }

    #[test]
    fn what_was_asked_for_is_written() {
        let throttle = Throttle::default();
        for place in [place!(Level::DEBUG, "a"), place!(Level::INFO, UNBOUNDED)] {
            assert!((0..1000).all(|_| throttle.admits(place, 1)));
        }
    }
}
