//! What the pooler does, for people: `/status.json`, and the page at `/` that shows it.
//!
//! It reads what the others count and remember, and decides nothing. Who they are it is told through [`Sources`].

mod clusters;
pub mod document;
mod fleet;
mod messages;
mod moment;
mod notices;
mod page;
mod pools;
mod quantile;
mod recorder;
mod sessions;
pub mod units;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::sync::watch;

pub use self::page::page;
use self::{
    clusters::Connections,
    document::{Certificate, Clients, Process, Replica, Status},
    moment::{Moment, seconds},
    recorder::Recorder,
};
use crate::{
    lifecycle::Phase,
    pool::Pools,
    session::Table,
    telemetry::{Recent, Usage},
    topology::Cluster,
};

/// An answer is good for so long: many who look cost as much as one.
const FRESH: Duration = Duration::from_millis(500);

/// Where to look.
pub trait Sources: Send + Sync {
    /// The pools.
    fn pools(&self) -> &Pools;
    /// The sessions.
    fn table(&self) -> &Table;
    /// The clusters, by name.
    fn clusters(&self) -> Vec<Arc<Cluster>>;
    /// The places for clients.
    fn places(&self) -> Places;
    /// The certificates and CRLs in force.
    fn certificates(&self) -> Vec<Certificate>;
}

/// How many clients there are and may be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Places {
    /// Logged in.
    pub connected: usize,
    /// `max_client_conn`
    pub limit: usize,
    /// Not logged in yet.
    pub logging_in: usize,
    /// `max_unauthenticated_clients`
    pub logging_in_limit: usize,
}

/// What is known of the process from its start.
#[derive(Debug, Clone)]
pub struct Start {
    /// The version of pgweir.
    pub version: &'static str,
    /// When it was.
    pub at: SystemTime,
    /// Data workers.
    pub workers: usize,
    /// Where the process is.
    pub phase: watch::Receiver<Phase>,
    /// What was said of late.
    pub recent: Recent,
}

/// Whoever makes the status page.
pub struct Reporter<S> {
    sources: S,
    start: Start,
    host: String,
    recorder: Mutex<Recorder>,
    last: Mutex<Option<(Moment, Bytes)>>,
}

impl<S: Sources> Reporter<S> {
    /// One that looks there.
    pub fn new(sources: S, start: Start) -> Self {
        let host = nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok());
        Self {
            sources,
            start,
            host: host.unwrap_or_default(),
            recorder: Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// Takes a sample every few seconds, for ever.
    pub async fn keep_record(&self) {
        let mut ticks = tokio::time::interval(recorder::INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            let mut reading = pools::read(&self.sources.pools().all());
            reading.clients = self.sources.places().connected;
            reading.cpu_seconds = Usage::now().cpu_seconds;
            self.recorder().record(reading, now.into_std());
        }
    }

    /// Everything that there is to see, as JSON.
    pub fn json(&self) -> Bytes {
        let now = Moment::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, answer)) = &*last
            && now.instant.saturating_duration_since(then.instant) < FRESH
        {
            return answer.clone();
        }
        // Nothing of it can fail: no map has keys that are no strings.
        let answer = Bytes::from(serde_json::to_vec(&self.status(&now)).unwrap_or_default());
        *last = Some((now, answer.clone()));
        answer
    }

    /// The same with all replicas.
    pub fn json_with(&self, fleet: Vec<Replica>) -> Bytes {
        let mut status = self.status(&Moment::now());
        status.notices = notices::with_fleet(status.notices, &fleet);
        status.fleet = Some(fleet);
        serde_json::to_vec(&status).unwrap_or_default().into()
    }

    fn status(&self, now: &Moment) -> Status {
        let pools = self.sources.pools().all();
        let recorder = self.recorder();
        let (shown, pools_left_out) = pools::show(&pools, &recorder);
        let (minute, series, cpus) = (
            recorder.minute(),
            recorder.series(|instant| now.at(instant)),
            recorder.cpus(),
        );
        drop(recorder);
        let connections = Connections::of(self.sources.pools());
        let sessions = sessions::show(self.sources.table(), &pools);
        let mut status = Status {
            notices: Vec::new(),
            process: self.process(now, cpus),
            clients: clients(self.sources.places(), &pools),
            servers: pools::servers(&pools),
            budget: pools::budget(self.sources.pools()),
            minute,
            series,
            clusters: self
                .sources
                .clusters()
                .iter()
                .map(|cluster| clusters::show(cluster, &connections, now))
                .collect(),
            pools: shown,
            pools_left_out,
            transactions: sessions.transactions,
            queues: sessions.queues,
            pins: pools::pins(&pools, sessions.pins.into_iter()),
            certificates: self.sources.certificates(),
            errors: messages::show(&self.start.recent),
            fleet: None,
        };
        status.notices = notices::notices(&status);
        status
    }

    fn process(&self, now: &Moment, cpus: Option<f64>) -> Process {
        let usage = Usage::now();
        let phase = *self.start.phase.borrow();
        Process {
            version: self.start.version.to_owned(),
            host: self.host.clone(),
            pid: std::process::id(),
            phase: phase.as_str().to_owned(),
            now: seconds(now.unix),
            started: seconds(self.start.at),
            workers: self.start.workers,
            cpus,
            memory_bytes: usage.resident_bytes,
            open_files: usage.open_files,
            max_open_files: usage.max_open_files,
        }
    }

    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn clients(places: Places, pools: &[Arc<crate::pool::Pool>]) -> Clients {
    let sum = |count: fn(&crate::pool::Pool) -> usize| pools.iter().map(|pool| count(pool)).sum();
    Clients {
        connected: places.connected,
        limit: places.limit,
        waiting: sum(|pool| pool.counts().waiting),
        logging_in: places.logging_in,
        logging_in_limit: places.logging_in_limit,
        pinned: sum(|pool| usize::try_from(pool.metrics().pinned.get()).unwrap_or(0)),
    }
}
