//! Traces: what a transaction had to wait for and how long its server worked, as spans of OpenTelemetry beside those of
//! the application that has asked.
//!
//! [`Context`] is what a query brings, [`Recorder`] follows a transaction, [`Tracer`] takes what is over and has it sent.
//! Without a collector in the configuration nothing is looked at and nothing is kept.

mod context;
mod export;
mod post;
mod recorder;
mod spans;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;
use prometheus::{IntCounter, IntCounterVec, Opts};
use tokio::sync::mpsc::{self, error::TrySendError};

use self::export::Exporter;
pub use self::{
    context::Context,
    post::check,
    recorder::{Ending, Query, Recorder, Transaction},
    spans::Happened,
};
use crate::{config, lifecycle::Tasks};

/// So many transactions may wait to be sent; one holds at most some 70 kB, and mostly less than one.
const QUEUE: usize = 2048;

/// Takes transactions that are over, if anybody wants them.
#[derive(Debug)]
pub struct Tracer {
    /// Whether there is a route, to be asked for every query.
    is_on: AtomicBool,
    keeps_texts: AtomicBool,
    route: ArcSwapOption<Route>,
    seen: AtomicU64,
    counts: Counts,
    /// Which replica this is.
    instance: Option<String>,
    tasks: Tasks,
}

/// To the collector that is configured.
#[derive(Debug)]
struct Route {
    settings: config::Traces,
    queue: mpsc::Sender<Happened>,
}

/// What has become of spans.
#[derive(Debug, Clone)]
struct Counts {
    sent: IntCounter,
    failed: IntCounter,
    dropped: IntCounter,
}

impl Counts {
    fn new() -> prometheus::Result<(Self, IntCounterVec)> {
        let help = "Spans of traces, by what became of them: the collector has taken them, it has not, or there was no room \
                    to keep them until they could be sent.";
        let spans = IntCounterVec::new(Opts::new("trace_spans_total", help), &["outcome"])?;
        let counts = Self {
            sent: spans.with_label_values(&["sent"]),
            failed: spans.with_label_values(&["failed"]),
            dropped: spans.with_label_values(&["dropped"]),
        };
        Ok((counts, spans))
    }
}

impl Tracer {
    /// One that nobody wants anything of. `instance` says which replica its spans are of.
    ///
    /// # Errors
    /// The metric has been registered before.
    pub fn new(
        registry: &prometheus::Registry,
        instance: Option<String>,
        tasks: Tasks,
    ) -> prometheus::Result<Self> {
        let (counts, spans) = Counts::new()?;
        registry.register(Box::new(spans))?;
        Ok(Self {
            is_on: AtomicBool::new(false),
            keeps_texts: AtomicBool::new(false),
            route: ArcSwapOption::empty(),
            seen: AtomicU64::new(0),
            counts,
            instance,
            tasks,
        })
    }

    /// Sends to where the settings say from now on. What waits to be sent by other settings still goes by them.
    pub fn follow(&self, settings: Option<&config::Traces>) {
        let now = self.route.load();
        if now.as_ref().map(|route| &route.settings) == settings {
            return;
        }
        let route = settings.map(|settings| {
            let (queue, waiting) = mpsc::channel(QUEUE);
            let exporter = Exporter::new(settings.clone(), self.instance.clone(), self.counts.clone());
            self.tasks
                .spawn("traces", exporter.run(waiting, self.tasks.stop_token()));
            Arc::new(Route {
                settings: settings.clone(),
                queue,
            })
        });
        let texts = settings.is_some_and(|settings| settings.query_text);
        self.keeps_texts.store(texts, Ordering::Relaxed);
        self.is_on.store(route.is_some(), Ordering::Relaxed);
        // The exporter before ends when it has sent what it has.
        self.route.store(route);
    }

    /// Whether anybody wants anything.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Whether they want to know what queries say.
    pub fn keeps_texts(&self) -> bool {
        self.keeps_texts.load(Ordering::Relaxed)
    }

    /// Whether a transaction is to be traced that nobody has asked for.
    pub fn samples(&self) -> bool {
        let route = self.route.load();
        let rate = route.as_ref().map_or(0.0, |route| route.settings.sample_rate);
        rate > 0.0 && is_in_sample(self.seen.fetch_add(1, Ordering::Relaxed), rate)
    }

    /// Has a transaction sent. Never waits: where there is no room it is counted as dropped.
    pub fn take(&self, happened: Happened) {
        if let Some(route) = &*self.route.load()
            && let Err(TrySendError::Full(happened)) = route.queue.try_send(happened)
        {
            self.counts.dropped.inc_by(happened.count());
        }
    }
}

/// Whether the one of this number is in a sample of this part of all: numbers that follow each other are spread evenly.
fn is_in_sample(number: u64, rate: f64) -> bool {
    // 2^64 times the golden ratio, of which the upper 32 bits make a fraction without rounding.
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    u32::try_from(spread).is_ok_and(|spread| f64::from(spread) < rate * 4_294_967_296.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_as_large_as_it_should_be() {
        for rate in [0.0, 0.001, 0.1, 0.5, 1.0] {
            let count = (0..100_000).filter(|number| is_in_sample(*number, rate)).count();
            let wanted = rate * 100_000.0;
            let count = f64::from(u32::try_from(count).unwrap());
            assert!((count - wanted).abs() < 10.0, "{rate}: {count}");
        }
    }
}
