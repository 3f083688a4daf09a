//! What became of the load, and whether the database agrees.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::{self, Display, Formatter},
    time::{Duration, Instant},
};

use super::{ACCOUNTS, BALANCE, Commit, Journal, Stage};
use crate::support::Rig;

/// What clients have seen.
pub struct Outcome {
    journal: Journal,
    started: Instant,
    /// Clients that were still waiting for an answer at the end.
    pub stuck: usize,
}

/// What the database says of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Acknowledged and not there.
    pub lost: usize,
    /// The same, acknowledged when nobody could know better.
    pub forgiven: usize,
    /// There more than once.
    pub doubled: usize,
    /// There, and nobody was told: the answer was lost.
    pub unconfirmed: usize,
    /// By how much the sum of the balances is wrong.
    pub money: i64,
}

impl Outcome {
    pub(super) fn new(journal: Journal, started: Instant, stuck: usize) -> Self {
        Self {
            journal,
            started,
            stuck,
        }
    }

    /// Transactions whose COMMIT was answered.
    pub fn committed(&self) -> usize {
        self.journal.commits.len()
    }

    /// Errors that clients have had in this stage.
    pub fn errors(&self, stage: Stage) -> usize {
        let errors = self.journal.errors.iter();
        errors.filter(|error| error.stage == stage).count()
    }

    /// Errors that a client can do nothing about: its transaction was not open.
    pub fn errors_between(&self) -> usize {
        self.errors(Stage::Between) + self.errors(Stage::LogIn)
    }

    /// Errors that have this SQLSTATE.
    pub fn errors_with(&self, sqlstate: &str) -> usize {
        let errors = self.journal.errors.iter();
        errors
            .filter(|error| error.trouble.sqlstate.as_deref() == Some(sqlstate))
            .count()
    }

    /// Connections of clients that were ended.
    pub fn lost_connections(&self) -> usize {
        self.journal.lost
    }

    /// The longest time between a client's wish and its fulfilment, attempts that failed included.
    pub fn longest_wait(&self) -> Duration {
        let commits = self.journal.commits.iter();
        commits
            .map(|commit| commit.answered - commit.wanted)
            .max()
            .unwrap_or_default()
    }

    /// The longest time in which nobody's COMMIT was answered.
    pub fn longest_silence(&self) -> Duration {
        let mut answers: Vec<Instant> = self
            .journal
            .commits
            .iter()
            .map(|commit| commit.answered)
            .collect();
        answers.sort_unstable();
        let gaps = answers.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    /// The first commit that was answered after `since`.
    pub fn first_commit(&self, since: Instant) -> Option<Instant> {
        let answers = self.journal.commits.iter().map(|commit| commit.answered);
        answers.filter(|&answered| answered >= since).min()
    }

    /// Compares the journal with the database of this server. What was acknowledged before `known`, by a server that was
    /// not the primary any more and that nobody could know it of, is forgiven.
    pub fn verify(&self, rig: &Rig, primary: usize, known: Option<Instant>) -> Verdict {
        let text = rig.sql_in_database(primary, "SELECT number, count(*) FROM journal GROUP BY number");
        let mut there = HashSet::new();
        let mut verdict = Verdict::default();
        for line in text.lines() {
            let (number, count) = line.split_once('|').expect("two columns");
            there.insert(number.parse::<u64>().expect("a number"));
            verdict.doubled += usize::from(count != "1");
        }
        let told: HashSet<u64> = self
            .journal
            .commits
            .iter()
            .map(|&Commit { number, .. }| number)
            .collect();
        let lost = self
            .journal
            .commits
            .iter()
            .filter(|commit| !there.contains(&commit.number));
        for commit in lost {
            match known {
                Some(known) if commit.answered < known => verdict.forgiven += 1,
                _ => verdict.lost += 1,
            }
        }
        verdict.unconfirmed = there.difference(&told).count();
        let sum = rig.sql_in_database(primary, "SELECT sum(balance) FROM accounts");
        let sum: i64 = sum.parse().expect("a sum");
        verdict.money = sum - i64::from(ACCOUNTS) * i64::from(BALANCE);
        verdict
    }

    /// Each kind of error with how often it came, and when at first and at last, for a person.
    pub fn errors_by_kind(&self) -> String {
        let mut kinds: BTreeMap<_, Vec<Duration>> = BTreeMap::new();
        for error in &self.journal.errors {
            let sqlstate = error.trouble.sqlstate.as_deref().unwrap_or("none");
            let kind = (error.stage, sqlstate, error.trouble.message.as_str());
            kinds.entry(kind).or_default().push(error.at - self.started);
        }
        let lines = kinds.iter().map(|((stage, sqlstate, message), times)| {
            let first = times.iter().min().map_or(0.0, Duration::as_secs_f64);
            let last = times.iter().max().map_or(0.0, Duration::as_secs_f64);
            let count = times.len();
            format!("{count} x {stage:?} {sqlstate} {message} ({first:.2} to {last:.2} s)\n")
        });
        lines.collect()
    }
}

impl Verdict {
    /// Whether nothing is lost and nothing was done twice.
    pub fn is_good(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.money == 0
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.is_good() {
            true => f.write_str("good")?,
            false => write!(f, "{} lost, {} twice", self.lost, self.doubled)?,
        }
        if self.money != 0 {
            write!(f, ", money {:+}", self.money)?;
        }
        if self.forgiven > 0 {
            write!(f, ", {} lost before it was said", self.forgiven)?;
        }
        Ok(())
    }
}
