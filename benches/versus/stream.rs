//! Results of 100 MB to one client, one after the other.

use std::time::{Duration, Instant};

use pgweir::cli::demo::interrupt::Interrupt;

use super::{
    client::Client,
    error::MeasureError,
    measure::{Spent, Usage},
    metrics::{Metric, Sample},
    poolers::Pooler,
    site::DATABASE,
    statistics::as_f64,
};

/// 100,000 rows of 1,000 bytes.
const QUERY: &str = "SELECT repeat('x', 1000) FROM generate_series(1, 100000)";
const LIMIT: Duration = Duration::from_secs(20);
const MEGA: f64 = 1e6;
const GIGA: f64 = 1e9;

/// Reads whole results for `seconds`, one at least.
pub(crate) fn measure(pooler: &Pooler, seconds: u32, interrupt: &Interrupt) -> Result<Sample, MeasureError> {
    let failed = || MeasureError::client("a large result broke off");
    let usage = || Usage::of(pooler.pid()).map_err(MeasureError::io("cannot read what the pooler used"));
    let mut client = Client::log_in(pooler.port(), DATABASE, LIMIT).map_err(failed())?;
    // One for nothing, so that everybody's memory is warm.
    read_result(&mut client, interrupt)?;
    let (begin, before) = (Instant::now(), usage()?);
    let mut bytes = 0;
    while bytes == 0 || begin.elapsed() < Duration::from_secs(seconds.into()) {
        bytes += read_result(&mut client, interrupt)?;
    }
    let took = begin.elapsed();
    Ok(sample(bytes, took, usage()?.since(&before)))
}

/// How many bytes it had.
fn read_result(client: &mut Client, interrupt: &Interrupt) -> Result<u64, MeasureError> {
    let failed = || MeasureError::client("a large result broke off");
    client.send(QUERY).map_err(failed())?;
    let mut bytes = 0;
    loop {
        let progress = client.read().map_err(failed())?;
        bytes += progress.count as u64;
        if interrupt.came_within(Duration::ZERO) {
            return Err(MeasureError::Interrupted);
        }
        if progress.is_ready {
            return Ok(bytes);
        }
    }
}

fn sample(bytes: u64, took: Duration, spent: Spent) -> Sample {
    let bytes = as_f64(bytes);
    let per_giga = |time: Duration| time.as_secs_f64() * GIGA / bytes;
    Sample::from([
        (Metric::Throughput, bytes / MEGA / took.as_secs_f64()),
        (Metric::Cpu, per_giga(spent.cpu())),
        (Metric::CpuUser, per_giga(spent.user)),
        (Metric::CpuSystem, per_giga(spent.system)),
        (Metric::Switches, as_f64(spent.switches) * MEGA / bytes),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_are_those_of_the_table() {
        let spent = Spent {
            user: Duration::from_millis(100),
            system: Duration::from_millis(300),
            switches: 1000,
        };
        let sample = sample(200_000_000, Duration::from_secs(2), spent);
        assert_eq!(sample[&Metric::Throughput], 100.0);
        assert_eq!(sample[&Metric::CpuUser], 0.5);
        assert_eq!(sample[&Metric::Cpu], 2.0);
        assert_eq!(sample[&Metric::Switches], 5.0);
    }
}
