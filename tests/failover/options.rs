//! The command line.

use super::pace::{self, Pace};

/// What is to be run, and how.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "one for each option")]
pub(super) struct Options {
    /// Timelines with one of these in their names; all if there are none.
    pub(super) filters: Vec<String>,
    pub(super) list: bool,
    /// All poolers, as a table; otherwise pgweir, as a test.
    pub(super) is_table: bool,
    /// What clients were told, and the poolers' logs, however it went.
    pub(super) explains_all: bool,
    is_quick: bool,
}

/// How many tests run at a time; they mostly wait. Those whose times are compared run alone.
const AT_ONCE: usize = 3;

impl Options {
    pub(super) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--list" => options.list = true,
                "--table" => options.is_table = true,
                "--explain" => options.explains_all = true,
                "--quick" => options.is_quick = true,
                // What cargo passes on to every test program.
                "--nocapture" | "--quiet" | "-q" | "--exact" | "--include-ignored" => {}
                other if other.starts_with("--test-threads") => {}
                other if other.starts_with('-') => return Err(format!("there is no option {other}")),
                _ => options.filters.push(argument),
            }
        }
        Ok(options)
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }

    pub(super) fn at_once(&self) -> usize {
        if self.is_table { 1 } else { AT_ONCE }
    }

    pub(super) fn pace(&self) -> &'static Pace {
        if self.is_table && !self.is_quick {
            &pace::REAL
        } else {
            &pace::QUICK
        }
    }
}
