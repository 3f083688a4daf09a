//! The way of transactions to the collector: in batches, again if it has no time, and not at all when that takes too long.

use std::time::{Duration, Instant, SystemTime};

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    sync::mpsc::Receiver,
    time::{sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Counts,
    post::{PostError, post},
    spans::{Happened, Ids, Now, request, spans},
};
use crate::{config::Traces, fault::chain};

/// How long the first of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// A batch with so many spans is sent at once.
const MOST_SPANS: usize = 512;
/// What is left when the process ends has this time to be sent.
const LAST: Duration = Duration::from_millis(1500);
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Sends to one collector.
pub(super) struct Exporter {
    settings: Traces,
    instance: Option<String>,
    counts: Counts,
    random: SystemRandom,
    /// The last batch was not taken; that has been said.
    has_failed: bool,
}

impl Exporter {
    pub(super) fn new(settings: Traces, instance: Option<String>, counts: Counts) -> Self {
        Self {
            settings,
            instance,
            counts,
            random: SystemRandom::new(),
            has_failed: false,
        }
    }

    /// Sends what comes until nobody has anything more, or `stop` is cancelled; then what has come by then.
    pub(super) async fn run(mut self, mut waiting: Receiver<Happened>, stop: CancellationToken) {
        while let Some(Some(first)) = stop.run_until_cancelled(waiting.recv()).await {
            let batch = self.gather(first, &mut waiting, &stop).await;
            self.send(batch, self.settings.timeout, &stop).await;
        }
        waiting.close();
        let last = async {
            while let Some(first) = waiting.recv().await {
                let batch = self.gather(first, &mut waiting, &stop).await;
                self.send(batch, LAST, &CancellationToken::new()).await;
            }
        };
        // What remains is lost with the process, and nobody reads the counter any more.
        let _ = timeout(LAST, last).await;
    }

    /// The first of a batch and those that come soon after it.
    async fn gather(
        &self,
        first: Happened,
        waiting: &mut Receiver<Happened>,
        stop: &CancellationToken,
    ) -> Vec<Span> {
        let mut ids = Random(&self.random);
        let mut batch = Vec::new();
        let mut next = Some(first);
        let until = tokio::time::Instant::now() + GATHER;
        while let Some(happened) = next {
            let now = Now {
                instant: Instant::now(),
                system: SystemTime::now(),
            };
            batch.extend(spans(&happened, now, &mut ids));
            if batch.len() >= MOST_SPANS {
                break;
            }
            let more = stop.run_until_cancelled(timeout_at(until, waiting.recv())).await;
            next = match more {
                Some(received) => received.unwrap_or_default(),
                None => waiting.try_recv().ok(),
            };
        }
        batch
    }

    /// Sends a batch, again and again for `patience` if the collector may have time later.
    async fn send(&mut self, batch: Vec<Span>, patience: Duration, stop: &CancellationToken) {
        let count = batch.len() as u64;
        let body = request(&self.settings.service_name, self.instance.as_deref(), batch).encode_to_vec();
        let until = tokio::time::Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        let failure = loop {
            let error = match timeout_at(until, post(&self.settings, body.clone())).await {
                Ok(Ok(rejected)) => return self.note_taken(count, rejected),
                Ok(Err(error)) => error,
                Err(_) => break PostError::Timeout,
            };
            let next = error.pause().unwrap_or(pause);
            let is_in_time = tokio::time::Instant::now() + next < until;
            if !error.is_passing() || !is_in_time || stop.is_cancelled() {
                break error;
            }
            sleep(next).await;
            pause *= 2;
        };
        self.counts.failed.inc_by(count);
        if !std::mem::replace(&mut self.has_failed, true) {
            tracing::warn!(
                endpoint = %self.settings.endpoint, error = chain(&failure),
                "the collector takes no traces: what it does not take is lost, and counted in pgweir_trace_spans_total"
            );
        }
    }

    fn note_taken(&mut self, count: u64, rejected: u64) {
        let rejected = rejected.min(count);
        self.counts.sent.inc_by(count - rejected);
        self.counts.failed.inc_by(rejected);
        if std::mem::take(&mut self.has_failed) {
            tracing::info!(endpoint = %self.settings.endpoint, "the collector takes traces again");
        }
    }
}

/// Numbers that nobody else has.
struct Random<'a>(&'a SystemRandom);

impl Ids for Random<'_> {
    fn span(&mut self) -> u64 {
        let mut bytes = [0; 8];
        // Where there are no random numbers no connection has been let in.
        let _ = self.0.fill(&mut bytes);
        u64::from_be_bytes(bytes).max(1)
    }

    fn trace(&mut self) -> u128 {
        u128::from(self.span()) << 64 | u128::from(self.span())
    }
}
