//! pgbench's transaction log: when each transaction ended and how long it took. Text in, numbers out.

use std::{collections::HashMap, time::Duration};

use super::statistics::{as_f64, quantile};

/// From one moment to another, as time since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) begin: Duration,
    pub(crate) end: Duration,
}

/// What is a transaction's latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// What pgbench measured.
    Transaction,
    /// From the end of the client's previous one, because pgbench leaves the time to connect out.
    Cycle,
}

/// What counts of a pgbench that is paused now and then.
#[derive(Debug, Clone, Default)]
pub(crate) struct Schedule {
    /// When it is measured, all of them while it ran.
    pub(crate) windows: Vec<Window>,
    /// When it could not run.
    pub(crate) pauses: Vec<Window>,
}

/// The transactions of a schedule's windows.
#[derive(Debug)]
pub(crate) struct Transactions {
    schedule: Schedule,
    span: Span,
    /// Of those that ended in a window.
    count: u64,
    /// Latencies of those that began in one: of those that ended in one, the slow ones would have begun before.
    milliseconds: Vec<f64>,
}

impl Window {
    fn length(self) -> Duration {
        self.end.saturating_sub(self.begin)
    }

    fn contains(self, moment: Duration) -> bool {
        moment > self.begin && moment <= self.end
    }

    fn overlap(self, other: Self) -> Duration {
        self.end
            .min(other.end)
            .saturating_sub(self.begin.max(other.begin))
    }
}

impl Schedule {
    fn measures(&self, moment: Duration) -> bool {
        self.windows.iter().any(|window| window.contains(moment))
    }

    /// How long it could run within `window`.
    fn running(&self, window: Window) -> Duration {
        let paused: Duration = self.pauses.iter().map(|pause| pause.overlap(window)).sum();
        window.length().saturating_sub(paused)
    }
}

impl Transactions {
    pub(crate) fn new(schedule: Schedule, span: Span) -> Self {
        Self {
            schedule,
            span,
            count: 0,
            milliseconds: Vec::new(),
        }
    }

    /// Adds what one thread of pgbench has logged. A client belongs to one thread.
    pub(crate) fn add(&mut self, log: &str) {
        let mut previous: HashMap<&str, Duration> = HashMap::new();
        for line in log.lines().filter_map(Line::parse) {
            let end = line.ended;
            let before = previous.insert(line.client, end);
            self.count += u64::from(self.schedule.measures(end));
            let begin = match self.span {
                Span::Transaction => Some(end.saturating_sub(line.took)),
                Span::Cycle => before,
            };
            if let Some(begin) = begin.filter(|&begin| self.schedule.measures(begin)) {
                let latency = self.schedule.running(Window { begin, end });
                self.milliseconds.push(latency.as_secs_f64() * 1e3);
            }
        }
    }

    pub(crate) fn count(&self) -> f64 {
        as_f64(self.count)
    }

    pub(crate) fn per_second(&self) -> f64 {
        let measured: Duration = self.schedule.windows.iter().map(|window| window.length()).sum();
        self.count() / measured.as_secs_f64()
    }

    /// Milliseconds.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        quantile(&self.milliseconds, q)
    }
}

/// `client_id transaction_no time script_no time_epoch time_us` ("Per-Transaction Logging" of pgbench).
struct Line<'a> {
    client: &'a str,
    took: Duration,
    ended: Duration,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(' ');
        let client = fields.next()?;
        let took = Duration::from_micros(fields.nth(1)?.parse().ok()?);
        let seconds = Duration::from_secs(fields.nth(1)?.parse().ok()?);
        let micros = Duration::from_micros(fields.next()?.parse().ok()?);
        Some(Self {
            client,
            took,
            ended: seconds + micros,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "0 1 2000 0 100 0\n\
        1 1 9000 0 100 500000\n\
        0 2 4000 0 101 0\n\
        0 3 failed 0 101 5000\n\
        0 3 6000 0 102 0\n\
        0 4 3000000 0 105 250000\n\
        0 5 8000 0 110 0\n";

    fn seconds(begin: u64, end: u64) -> Window {
        Window {
            begin: Duration::from_secs(begin),
            end: Duration::from_secs(end),
        }
    }

    /// Measured from 100 s to 103 s, paused from then on to 105 s.
    fn transactions(span: Span) -> Transactions {
        let schedule = Schedule {
            windows: vec![seconds(100, 103), seconds(106, 107)],
            pauses: vec![seconds(90, 99), seconds(103, 105)],
        };
        let mut transactions = Transactions::new(schedule, span);
        transactions.add(LOG);
        transactions
    }

    #[test]
    fn those_that_ended_in_a_window_count() {
        let transactions = transactions(Span::Transaction);
        assert_eq!(transactions.count(), 3.0);
        assert_eq!(transactions.per_second(), 0.75);
    }

    #[test]
    fn latencies_are_of_those_that_began_in_a_window_without_the_pauses() {
        let transactions = transactions(Span::Transaction);
        assert_eq!(transactions.milliseconds, [9.0, 4.0, 6.0, 1000.0]);
        assert_eq!(transactions.quantile(0.5), 7.5);
    }

    #[test]
    fn a_cycle_begins_at_the_end_of_the_one_before() {
        // The first began at the very beginning of the window, so before it.
        assert_eq!(transactions(Span::Cycle).milliseconds, [1000.0, 1250.0]);
    }
}
