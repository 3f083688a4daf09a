//! What a timeline must come to. What concerns correctness is exact; times are generous, because tests share machines.

use std::time::Duration;

use super::{
    poolers::{Kind, POOL_SIZE},
    scene::Played,
    support::ledger::Stage,
};

/// How much longer something may take on a machine with other things to do.
const SLACK: u32 = 6;

/// What clients may notice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goals {
    /// Whether the API server announces what is going to happen, before it does.
    is_announced: bool,
    /// Whether those count who are told that it is no time to connect (57P03).
    counts_refusals: bool,
    /// How often servers end everybody's connections without a word before. Each time, there is one client at most on each
    /// server connection, and it may get an error.
    ends: usize,
    /// From the new primary's first writable moment to the first commit.
    first_commit: Duration,
    /// How long the server may take for a smart shutdown.
    shutdown: Option<Duration>,
}

impl Goals {
    pub(super) const PLANNED: Self = Self {
        is_announced: true,
        counts_refusals: true,
        ends: 1,
        first_commit: Duration::from_millis(500),
        shutdown: None,
    };
    pub(super) const CRASH: Self = Self {
        is_announced: false,
        first_commit: Duration::from_secs(1),
        ..Self::PLANNED
    };
    /// The new primary ends everybody's connections when it has been promoted, and nobody says so.
    pub(super) const UNHEARD: Self = Self {
        ends: 2,
        ..Self::CRASH
    };
    /// It does so twice more later on.
    pub(super) const OLD_ONE_BACK: Self = Self {
        ends: 3,
        ..Self::CRASH
    };
    pub(super) const TOLD_WHY: Self = Self {
        counts_refusals: false,
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
        let outcome = &played.outcome;
        let hears = pooler.hears_announcements();
        let between = outcome.errors_between() + outcome.errors(Stage::Single);
        if self.is_announced && hears && between > 0 {
            misses.push(format!(
                "{between} errors of clients whose transaction was not open"
            ));
        }
        let refusals = if self.counts_refusals {
            0
        } else {
            outcome.errors_with("57P03")
        };
        let all = between + outcome.errors(Stage::Open) - refusals;
        // Who does not hear that the new primary is going to end connections uses it too soon.
        let ends = if hears { self.ends } else { self.ends + 1 };
        if all > ends * POOL_SIZE {
            misses.push(format!("{all} errors"));
        }
        if played.outcome.stuck > 0 {
            misses.push(format!("{} clients never got an answer", played.outcome.stuck));
        }
        if played.refused > 0 {
            misses.push(format!("{} requests are not allowed by the Role", played.refused));
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
