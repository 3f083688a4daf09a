//! The same load through both poolers by turns: all clients of both sides are there all the time, and one side's are
//! paused while the other's are measured.
//!
//! A machine changes within seconds, by what its neighbours do above all; two windows half a second apart have much
//! more in common than two whole runs.

use std::time::{Duration, SystemTime};

use pgweir::cli::demo::interrupt::Interrupt;

use super::{
    error::{MeasureError, SideError},
    latency::{Schedule, Span, Transactions, Window},
    measure::{Spent, Usage},
    metrics::{Metric, Sample},
    pgbench::Clients,
    poolers::{Pooler, Subject},
    results::{OURS, SIDES, THEIRS},
    site::{LOADED, Site},
    statistics::as_f64,
    workloads::{Load, Workload},
};

/// What is measured of a turn.
const TURN: Duration = Duration::from_millis(500);
const TURNS_PER_SECOND: u32 = 2;
/// From when the clients may go on until they are measured: the answers that waited for them have been read, and the
/// caches are their own again.
const SETTLE: Duration = Duration::from_millis(100);
/// From then until they are paused again: most of what began while it was measured has ended.
const TAIL: Duration = Duration::from_millis(100);

/// Measures `seconds` of each side; the side of `first` begins, and does so in every second pair of turns.
pub(crate) fn measure(
    site: &Site,
    subjects: &[Subject; 2],
    workload: &Workload,
    seconds: u32,
    first: usize,
    interrupt: &Interrupt,
) -> Result<[Sample; 2], SideError> {
    let start = |side| Side::start(site, &subjects[side], side, workload, interrupt);
    let mut sides = match first {
        OURS => [start(OURS)?, start(THEIRS)?],
        _ => {
            let theirs = start(THEIRS)?;
            [start(OURS)?, theirs]
        }
    };
    for turn in 0..seconds.saturating_mul(TURNS_PER_SECOND) {
        for side in order(first, turn) {
            sides[side].turn(interrupt).map_err(|error| (side, error))?;
        }
    }
    for side in SIDES {
        let clients = &mut sides[side].clients;
        clients.finish(interrupt).map_err(|error| (side, error))?;
    }
    let sample = |side: usize| sides[side].sample(workload).map_err(|error| (side, error));
    Ok([sample(OURS)?, sample(THEIRS)?])
}

/// AB, BA, AB: neither is always the one who comes after the other.
fn order(first: usize, turn: u32) -> [usize; 2] {
    match turn.is_multiple_of(2) {
        true => [first, 1 - first],
        false => [1 - first, first],
    }
}

/// A pooler, and the clients that go through it.
struct Side {
    pooler: Pooler,
    clients: Clients,
    schedule: Schedule,
    spent: Spent,
    paused_at: Duration,
}

impl Side {
    /// Starts it; its clients are at work, and paused.
    fn start(
        site: &Site,
        subject: &Subject,
        side: usize,
        workload: &Workload,
        interrupt: &Interrupt,
    ) -> Result<Self, SideError> {
        let start = || {
            let mut pooler = subject.start(site, workload)?;
            let mut clients = Clients::start(site, pooler.port(), LOADED[side], workload)?;
            clients.wait_for_load(&mut pooler, interrupt)?;
            clients.pause()?;
            Ok(Self {
                pooler,
                clients,
                schedule: Schedule::default(),
                spent: Spent::default(),
                paused_at: now(),
            })
        };
        start().map_err(|error| (side, error))
    }

    fn turn(&mut self, interrupt: &Interrupt) -> Result<(), MeasureError> {
        let run_for = |time| match interrupt.came_within(time) {
            true => Err(MeasureError::Interrupted),
            false => Ok(()),
        };
        self.clients.resume()?;
        self.schedule.pauses.push(Window {
            begin: self.paused_at,
            end: now(),
        });
        run_for(SETTLE)?;
        let (begin, before) = (now(), self.usage()?);
        run_for(TURN)?;
        let (end, after) = (now(), self.usage());
        // If the pooler is gone, that it is says more than that there is nothing to read.
        self.pooler.check()?;
        self.spent += after?.since(&before);
        self.schedule.windows.push(Window { begin, end });
        run_for(TAIL)?;
        self.clients.check(interrupt)?;
        self.clients.pause()?;
        self.paused_at = now();
        Ok(())
    }

    fn usage(&self) -> Result<Usage, MeasureError> {
        Usage::of(self.pooler.pid()).map_err(MeasureError::io("cannot read what the pooler used"))
    }

    fn sample(&self, workload: &Workload) -> Result<Sample, MeasureError> {
        let span = match workload.load {
            Load::Storm => Span::Cycle,
            _ => Span::Transaction,
        };
        let mut transactions = Transactions::new(self.schedule.clone(), span);
        self.clients.read_logs(&mut transactions)?;
        let count = transactions.count();
        if count == 0.0 {
            return Err(MeasureError::Nothing);
        }
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / count;
        Ok(Sample::from([
            (Metric::Throughput, transactions.per_second()),
            (Metric::P50, transactions.quantile(0.50)),
            (Metric::P99, transactions.quantile(0.99)),
            (Metric::Cpu, micros(self.spent.cpu())),
            (Metric::CpuUser, micros(self.spent.user)),
            (Metric::CpuSystem, micros(self.spent.system)),
            (Metric::Switches, as_f64(self.spent.switches) / count),
        ]))
    }
}

/// The clock of pgbench's log.
fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_always_comes_second() {
        let turns: Vec<_> = (0..3).map(|turn| order(THEIRS, turn)).collect();
        assert_eq!(turns, [[1, 0], [0, 1], [1, 0]]);
    }
}
