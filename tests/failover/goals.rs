//! What a timeline must come to. What concerns correctness is exact; times are generous, because tests share machines.

use std::time::Duration;

use super::{
    poolers::{Kind, POOL_SIZE},
    scene::Played,
};

/// How much longer something may take on a machine with other things to do.
const SLACK: u32 = 6;

/// What clients may notice, besides that transactions fail that were open on a server which went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goals {
    between: Between,
    /// From the new primary's first writable moment to the first commit.
    first_commit: Duration,
    /// How long the server may take for a smart shutdown.
    shutdown: Option<Duration>,
}

/// How many clients may get an error whose transaction was not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    /// None: the change was announced, and nobody need be on the way to a server that goes.
    Nobody,
    /// Anybody, if the error says that it is no time to connect (57P03), and why. A client that had asked when the server
    /// went is another matter, as below.
    WhoIsToldWhy,
    /// Each server connection may have had a BEGIN on it when it ended without warning.
    OneForEachServerConnection,
}

impl Goals {
    pub(super) const PLANNED: Self = Self {
        between: Between::Nobody,
        first_commit: Duration::from_millis(500),
        shutdown: None,
    };
    pub(super) const CRASH: Self = Self {
        between: Between::OneForEachServerConnection,
        first_commit: Duration::from_secs(1),
        ..Self::PLANNED
    };
    pub(super) const TOLD_WHY: Self = Self {
        between: Between::WhoIsToldWhy,
        ..Self::CRASH
    };
    pub(super) const RESTART: Self = Self {
        shutdown: Some(Duration::from_secs(3)),
        ..Self::PLANNED
    };

    /// What is not as it should be.
    pub(super) fn misses(self, played: &Played, pooler: Kind) -> Vec<String> {
        let mut misses = Vec::new();
        if !played.verdict.is_good() {
            misses.push(format!("the ledger: {}", played.verdict));
        }
        let between = match self.between {
            Between::WhoIsToldWhy => played.outcome.errors_between_but("57P03"),
            Between::Nobody | Between::OneForEachServerConnection => played.outcome.errors_between(),
        };
        let is_warned = self.between == Between::Nobody && pooler.hears_announcements();
        // Connections that ended when the old primary went, and when the new one ended everybody's.
        let allowed = if is_warned { 0 } else { 2 * POOL_SIZE };
        if between > allowed {
            misses.push(format!("{between} errors of clients between transactions"));
        }
        if played.outcome.stuck > 0 {
            misses.push(format!("{} clients never got an answer", played.outcome.stuck));
        }
        match played.first_commit {
            None => misses.push("nothing was committed afterwards".into()),
            Some(time) if time > self.first_commit * SLACK => {
                misses.push(format!("first commit after {:.2} s", time.as_secs_f64()));
            }
            Some(_) => {}
        }
        if let (Some(limit), Some(time)) = (self.shutdown, played.shutdown)
            && time > limit
        {
            misses.push(format!("the shutdown took {:.2} s", time.as_secs_f64()));
        }
        misses
    }
}
