//! The command line.

use std::{num::NonZeroU32, path::PathBuf};

use clap::Parser;

const ROUNDS: u32 = 5;
const SECONDS: u32 = 5;
const QUICK_ROUNDS: u32 = 1;
const QUICK_SECONDS: u32 = 2;

/// Compares pgweir with PgBouncer under the same load and prints a table.
///
/// Each round starts both poolers anew for every workload. Where pgbench is the load, both have their clients all the
/// time, and one side's are paused while the other's are measured, by turns of half a second; other loads run one
/// after the other. A value is the median over the rounds; a ratio is the median of the rounds' own ratios.
#[derive(Debug, Parser)]
#[command(name = "./dev bench", bin_name = "./dev bench")]
pub(crate) struct Options {
    /// Rounds [default: 5]
    #[arg(long, value_name = "N")]
    rounds: Option<NonZeroU32>,
    /// Seconds that are measured of each pooler in a round [default: 5]
    #[arg(long, value_name = "N")]
    seconds: Option<NonZeroU32>,
    /// Only workloads with this name, or else with this in their name; may be repeated
    #[arg(long, value_name = "SUBSTRING")]
    pub(crate) only: Vec<String>,
    /// Print the names of the workloads
    #[arg(long)]
    pub(crate) list: bool,
    /// Compare with this PgBouncer or pgweir instead of the installed PgBouncer
    #[arg(long, value_name = "BINARY")]
    pub(crate) vs: Option<PathBuf>,
    /// The pgweir to look at [default: the one just built]
    #[arg(long, value_name = "BINARY", default_value = env!("CARGO_BIN_EXE_pgweir"), hide_default_value = true)]
    pub(crate) pgweir: PathBuf,
    /// pgweir's process.workers; PgBouncer has one thread. "auto" is what pgweir does by itself
    #[arg(long, value_name = "N", default_value = "1", value_parser = workers)]
    pub(crate) workers: String,
    /// Write every single measurement to FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// One round of two seconds, without the workloads of 10,000 clients
    #[arg(long)]
    pub(crate) quick: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Whether it is `cargo bench` that runs it.
    pub(crate) fn is_bench(&self) -> bool {
        self.bench
    }

    pub(crate) fn rounds(&self) -> u32 {
        let default = if self.quick { QUICK_ROUNDS } else { ROUNDS };
        self.rounds.map_or(default, NonZeroU32::get)
    }

    pub(crate) fn seconds(&self) -> u32 {
        let default = if self.quick { QUICK_SECONDS } else { SECONDS };
        self.seconds.map_or(default, NonZeroU32::get)
    }
}

/// A value of `process.workers` as TOML.
fn workers(text: &str) -> Result<String, String> {
    match text.parse::<NonZeroU32>() {
        Ok(number) => Ok(number.to_string()),
        Err(_) if text == "auto" => Ok("\"auto\"".to_owned()),
        Err(_) => Err("a number from 1, or auto".to_owned()),
    }
}
