//! The table of timelines and of what clients have noticed of each.

use std::{
    fmt::{self, Display, Formatter},
    time::Duration,
};

use super::{
    catalogue::Run,
    options::Options,
    scene::{NotPlayed, Played},
    support::ledger::Stage,
};

/// What was found out.
pub(super) struct Report {
    is_table: bool,
    explains_all: bool,
    rows: Vec<Row>,
}

/// What became of one timeline through one pooler.
pub(super) struct Row {
    position: usize,
    timeline: &'static str,
    pooler: &'static str,
    result: Result,
    /// Goals that it has missed. Only pgweir has goals.
    misses: Vec<String>,
}

#[allow(clippy::large_enum_variant, reason = "there are a few dozen")]
enum Result {
    Played(Played),
    LeftOut(NotPlayed),
    /// The runner itself failed, and has said why.
    Broken,
}

impl Row {
    pub(super) fn new(
        run: &Run,
        outcome: std::result::Result<std::result::Result<Played, NotPlayed>, ()>,
    ) -> Self {
        let result = match outcome {
            Ok(Ok(played)) => Result::Played(played),
            Ok(Err(reason)) => Result::LeftOut(reason),
            Err(()) => Result::Broken,
        };
        let misses = match &result {
            Result::Played(played) if run.pooler.is_ours() => run.timeline.goals.misses(played, run.pooler),
            _ => Vec::new(),
        };
        Self {
            position: run.position,
            timeline: run.timeline.name,
            pooler: run.pooler.name(),
            result,
            misses,
        }
    }

    fn fails(&self) -> bool {
        !self.misses.is_empty() || matches!(self.result, Result::Broken)
    }
}

impl Report {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            is_table: options.is_table,
            explains_all: options.explains_all,
            rows: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
        self.rows.sort_by_key(|row| row.position);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether pgweir has reached its goals. A table is for looking at: it fails only if it could not be made.
    pub(super) fn is_good(&self) -> bool {
        let bad = |row: &Row| match self.is_table {
            true => matches!(row.result, Result::Broken),
            false => row.fails(),
        };
        !self.rows.iter().any(bad)
    }

    /// Of those that have missed a goal, or of all: what clients were told, and in a test the pooler's own log.
    fn explain(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let explained = |row: &&Row| self.explains_all || !row.misses.is_empty();
        for row in self.rows.iter().filter(explained) {
            writeln!(f, "\n{}, {}: {}", row.timeline, row.pooler, row.misses.join("; "))?;
            if let Result::Played(played) = &row.result {
                write!(f, "{}{}", played.chronicle, played.outcome.errors_by_kind())?;
                if !self.is_table || self.explains_all {
                    writeln!(f, "--- log ---\n{}\n--- end ---", played.log)?;
                }
            }
        }
        Ok(())
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<34}{:<17}{:>8}{:>9}{:>7}{:>8}{:>7}{:>11}{:>11}{:>10}  ledger",
            "timeline",
            "through",
            "commits",
            "between",
            "open",
            "single",
            "ended",
            "longest",
            "to first",
            "shutdown"
        )?;
        for row in &self.rows {
            write!(f, "{:<34}{:<17}", row.timeline, row.pooler)?;
            match &row.result {
                Result::Played(played) => played_row(f, played)?,
                Result::LeftOut(reason) => writeln!(f, "left out: {}", reason.why())?,
                Result::Broken => writeln!(f, "could not be played; see above")?,
            }
        }
        writeln!(
            f,
            "\nErrors of clients: between transactions, in an open one, at a single statement; and connections of clients that \
             were ended.\nThe longest wait of a client from its wish to its commit; the time from the first moment in which \
             the new primary takes\nwrites to the first commit; the time that the server takes for a smart shutdown."
        )?;
        self.explain(f)?;
        let failed = self.rows.iter().filter(|row| row.fails()).count();
        write!(f, "failover: {} played, {failed} missed a goal", self.rows.len())
    }
}

fn played_row(f: &mut Formatter<'_>, played: &Played) -> fmt::Result {
    let outcome = &played.outcome;
    let longest = match outcome.stuck {
        0 => seconds(Some(outcome.longest_wait())),
        stuck => format!("{stuck} stuck"),
    };
    writeln!(
        f,
        "{:>8}{:>9}{:>7}{:>8}{:>7}{:>11}{:>11}{:>10}  {}",
        outcome.committed(),
        outcome.errors_between(),
        outcome.errors(Stage::Open),
        outcome.errors(Stage::Single),
        outcome.lost_connections(),
        longest,
        seconds(played.first_commit),
        played.shutdown.map_or(String::new(), |time| seconds(Some(time))),
        played.verdict,
    )
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or_else(
        || "never".to_owned(),
        |time| format!("{:.2} s", time.as_secs_f64()),
    )
}
