//! How busy the threads are: the data workers, each a runtime of its own, and the control runtime.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{
    Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::runtime::Handle;

use crate::metrics::{self, Kind, Shown};

const BUSY: Shown = Shown::new(
    "runtime_busy_seconds_total",
    "Time that the threads of a runtime were not asleep",
    Kind::Counter,
);
const PARKS: Shown = Shown::new(
    "runtime_parks_total",
    "Times that the threads of a runtime had nothing to do and went to sleep",
    Kind::Counter,
);
const TASKS: Shown = Shown::new(
    "runtime_tasks",
    "Tasks of a runtime that have not ended",
    Kind::Gauge,
);
const THREADS: Shown = Shown::new(
    "runtime_threads",
    "Threads of a runtime that carry out its tasks",
    Kind::Gauge,
);

/// The runtimes of the process, by name. Clones are one.
#[derive(Debug, Clone, Default)]
pub(in crate::app) struct Runtimes(Arc<Mutex<Vec<(String, Handle)>>>);

/// The families that show them.
pub(in crate::app) struct RuntimeMetrics {
    runtimes: Runtimes,
    descriptions: Vec<Desc>,
}

impl Runtimes {
    /// One more.
    pub(in crate::app) fn add(&self, name: String, runtime: Handle) {
        self.lock().push((name, runtime));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, Handle)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RuntimeMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// One of that name is registered already.
    pub(in crate::app) fn register(runtimes: Runtimes, registry: &Registry) -> prometheus::Result<()> {
        let descriptions = metrics::descriptions([&BUSY, &PARKS, &TASKS, &THREADS])?;
        registry.register(Box::new(Self {
            runtimes,
            descriptions,
        }))
    }
}

impl Collector for RuntimeMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = self.runtimes.lock().clone();
        let [mut busy, mut parks, mut tasks, mut threads] = [const { Vec::new() }; 4];
        for (name, runtime) in &all {
            let metrics = runtime.metrics();
            let labels = || metrics::labels(["runtime"], [name]);
            let workers = metrics.num_workers();
            let seconds = (0..workers).map(|worker| metrics.worker_total_busy_duration(worker).as_secs_f64());
            busy.push(BUSY.value(labels(), seconds.sum()));
            let count: u64 = (0..workers).map(|worker| metrics.worker_park_count(worker)).sum();
            parks.push(PARKS.value(labels(), count as f64));
            tasks.push(TASKS.value(labels(), metrics.num_alive_tasks() as f64));
            threads.push(THREADS.value(labels(), workers as f64));
        }
        let families = [
            BUSY.family(busy),
            PARKS.family(parks),
            TASKS.family(tasks),
            THREADS.family(threads),
        ];
        families.into_iter().flatten().collect()
    }
}
