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

/// The transactions of a window.
#[derive(Debug)]
pub(crate) struct Transactions {
    window: Window,
    span: Span,
    milliseconds: Vec<f64>,
}

impl Transactions {
    pub(crate) fn new(window: Window, span: Span) -> Self {
        Self {
            window,
            span,
            milliseconds: Vec::new(),
        }
    }

    /// Adds what one thread of pgbench has logged. A client belongs to one thread.
    pub(crate) fn add(&mut self, log: &str) {
        let mut previous: HashMap<&str, Duration> = HashMap::new();
        for line in log.lines().filter_map(Line::parse) {
            let before = previous.insert(line.client, line.ended);
            let latency = match self.span {
                Span::Transaction => Some(line.took),
                Span::Cycle => before.map(|before| line.ended.saturating_sub(before)),
            };
            let is_within = line.ended > self.window.begin && line.ended <= self.window.end;
            if let Some(latency) = latency.filter(|_| is_within) {
                self.milliseconds.push(latency.as_secs_f64() * 1e3);
            }
        }
    }

    pub(crate) fn count(&self) -> f64 {
        as_f64(self.milliseconds.len() as u64)
    }

    pub(crate) fn per_second(&self) -> f64 {
        let window = self.window.end.saturating_sub(self.window.begin);
        self.count() / window.as_secs_f64()
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
        0 4 8000 0 103 0\n";

    fn transactions(span: Span) -> Transactions {
        let window = Window {
            begin: Duration::from_secs(100),
            end: Duration::from_secs(102),
        };
        let mut transactions = Transactions::new(window, span);
        transactions.add(LOG);
        transactions
    }

    #[test]
    fn those_that_ended_in_the_window_count() {
        let transactions = transactions(Span::Transaction);
        assert_eq!(transactions.milliseconds, [9.0, 4.0, 6.0]);
        assert_eq!(transactions.per_second(), 1.5);
        assert_eq!(transactions.quantile(0.5), 6.0);
    }

    #[test]
    fn a_cycle_begins_at_the_end_of_the_one_before() {
        assert_eq!(transactions(Span::Cycle).milliseconds, [1000.0, 1000.0]);
    }
}
