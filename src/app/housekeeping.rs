//! What has to be done from time to time, as long as the process lives.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::serve::Reception;
use crate::{
    lifecycle::Tasks,
    session::{self, Table},
    telemetry::throttle::Throttle,
};

/// How often pools that nobody uses are looked for.
const TIDY: Duration = Duration::from_secs(10);
/// How often it is said what the log lacks.
const LOG: Duration = Duration::from_secs(5);

/// Begins with all of it.
pub(super) fn begin(reception: &Arc<Reception>, throttle: Throttle, tasks: &Tasks) {
    let stop = || tasks.stop_token();
    tasks.spawn("clock", keep_time(reception.table.clone(), stop()));
    tasks.spawn("tidy", tidy(reception.clone(), stop()));
    tasks.spawn("stats", keep_statistics(reception.clone(), stop()));
    tasks.spawn("log", own_up(throttle, stop()));
}

async fn keep_time(table: Arc<Table>, stop: CancellationToken) {
    let _ = stop.run_until_cancelled(session::keep_time(table)).await;
}

/// Has the averages of SHOW STATS be those of the last period or two.
async fn keep_statistics(reception: Arc<Reception>, stop: CancellationToken) {
    let period = || reception.known.load().settings.process.stats_period;
    while stop.run_until_cancelled(sleep(period())).await.is_some() {
        reception.sampler.sample(&reception.pools, Instant::now());
    }
}

async fn tidy(reception: Arc<Reception>, stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(TIDY)).await.is_some() {
        reception.pools.drop_unused();
        reception.auth_queries.sweep();
        reception.guests.drop_unused();
        reception.clusters.drop_unused();
    }
}

/// Says which lines were left out of the log.
async fn own_up(throttle: Throttle, stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(LOG)).await.is_some() {
        for left_out in throttle.left_out() {
            let (module, line, lines) = (left_out.target, left_out.line, left_out.count);
            tracing::warn!(lines, module, line, "lines left out of the log: too many alike");
        }
    }
}
