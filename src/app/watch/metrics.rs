//! What is counted of files that are read again.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::Watched;

/// The metrics, by what was read.
#[derive(Debug)]
pub(in crate::app) struct FileMetrics {
    failed: IntGaugeVec,
    reloads: IntCounterVec,
    succeeded: GaugeVec,
}

impl FileMetrics {
    /// Registers the metrics; the registry adds the prefix `pgweir_`. Everything was read well at `start`.
    ///
    /// # Errors
    /// A metric of that name is registered already.
    pub(in crate::app) fn new(registry: &Registry, start: SystemTime) -> prometheus::Result<Self> {
        let failed = IntGaugeVec::new(
            Opts::new(
                "file_reload_failed",
                "Whether changed files could not be used, so that what was there before is in force",
            ),
            &["part"],
        )?;
        let reloads = IntCounterVec::new(
            Opts::new("file_reloads_total", "Changed files that were read, by result"),
            &["part", "result"],
        )?;
        let succeeded = GaugeVec::new(
            Opts::new(
                "file_reload_success_timestamp_seconds",
                "When the files in force were read",
            ),
            &["part"],
        )?;
        registry.register(Box::new(failed.clone()))?;
        registry.register(Box::new(reloads.clone()))?;
        registry.register(Box::new(succeeded.clone()))?;
        let metrics = Self {
            failed,
            reloads,
            succeeded,
        };
        for watched in Watched::ALL {
            metrics.good(watched);
            metrics.succeeded_at(watched, start);
            for result in ["ok", "failed"] {
                metrics.reloads.with_label_values(&[watched.as_str(), result]);
            }
        }
        Ok(metrics)
    }

    pub(super) fn good(&self, watched: Watched) {
        self.failed.with_label_values(&[watched.as_str()]).set(0);
    }

    pub(super) fn done(&self, watched: Watched, now: SystemTime) {
        self.good(watched);
        self.succeeded_at(watched, now);
        self.reloads.with_label_values(&[watched.as_str(), "ok"]).inc();
    }

    pub(super) fn failed(&self, watched: Watched) {
        self.failed.with_label_values(&[watched.as_str()]).set(1);
        self.reloads
            .with_label_values(&[watched.as_str(), "failed"])
            .inc();
    }

    fn succeeded_at(&self, watched: Watched, time: SystemTime) {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.succeeded.with_label_values(&[watched.as_str()]).set(seconds);
    }
}
