//! The table of drivers and what each has passed.

use std::fmt::{self, Display, Formatter};

use super::{catalogue::Driver, scenario::Outcome};

const WAYS: [&str; 2] = ["direct", "through pgweir"];

/// What was found out.
#[derive(Default)]
pub(super) struct Report {
    rows: Vec<Row>,
}

struct Row {
    driver: Driver,
    result: RunOf,
}

/// What became of a driver.
pub(super) enum RunOf {
    /// Directly, and through pgweir.
    BothWays([Outcome; 2]),
    /// It was not to be run, for this reason.
    LeftOut(String),
    /// The runner itself failed, and has said why.
    Broken,
}

impl Report {
    /// Adds a driver.
    pub(super) fn add(&mut self, driver: Driver, result: RunOf) {
        self.rows.push(Row { driver, result });
        self.rows.sort_by_key(|row| row.driver.position);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether every check of every driver that was run has passed, both ways.
    pub(super) fn is_good(&self) -> bool {
        let broken = |row: &Row| matches!(row.result, RunOf::Broken);
        !self.rows.iter().any(broken) && self.outcomes().all(Outcome::is_good)
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.rows.iter().flat_map(|row| row.result.outcomes())
    }
}

impl RunOf {
    fn outcomes(&self) -> &[Outcome] {
        match self {
            Self::BothWays(outcomes) => outcomes,
            Self::LeftOut(_) | Self::Broken => &[],
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:16}{:>12}{:>12}   (passed/failed)",
            "driver", "direct", "pgweir"
        )?;
        for Row { driver, result } in &self.rows {
            match result {
                RunOf::BothWays([direct, pooled]) => {
                    let marks = |run: &Outcome| format!("{}/{}", run.passed.len(), run.failed.len());
                    let seconds = direct.seconds + pooled.seconds;
                    let (direct, pooled) = (marks(direct), marks(pooled));
                    writeln!(f, "{:16}{direct:>12}{pooled:>12}   {seconds:.1} s", driver.name)?;
                }
                RunOf::LeftOut(why) => writeln!(f, "{:16}left out: {why}", driver.name)?,
                RunOf::Broken => writeln!(f, "{:16}the runner failed; see above", driver.name)?,
            }
        }
        for Row { driver, result } in &self.rows {
            let ways = result.outcomes().iter().zip(WAYS);
            for (outcome, way) in ways {
                for (check, why) in &outcome.failed {
                    writeln!(f, "{} {way}: {check}: {why}", driver.name)?;
                }
            }
        }
        let sum = |count: fn(&Outcome) -> usize| self.outcomes().map(count).sum::<usize>();
        let (passed, failed) = (sum(|run| run.passed.len()), sum(|run| run.failed.len()));
        write!(f, "drivers: {passed} passed, {failed} failed")
    }
}
