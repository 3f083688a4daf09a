//! `./dev bench`: pgweir beside PgBouncer (or an older pgweir), the same load on both by turns, as a table.
//!
//! It runs the poolers as a person would, as processes with configuration files, and looks at them from outside:
//! through pgbench, connections of its own and `/proc`. It uses the
//! library's demo for a PostgreSQL and a CA. Its unit tests are run by `tests/versus.rs`.

#![cfg_attr(
    test,
    allow(
        dead_code,
        unused_imports,
        reason = "cargo sets cfg(test) for a benchmark without harness, where #[test] functions are left out"
    )
)]

mod client;
mod configs;
mod error;
mod idle;
mod json;
mod latency;
mod machine;
mod measure;
mod metrics;
mod options;
mod pgbench;
mod poolers;
mod results;
mod run;
mod site;
mod statistics;
mod stream;
mod table;
mod turns;
mod workloads;

use std::process::ExitCode;

use clap::Parser;
use pgweir::fault::chain;

use self::{error::BenchError, options::Options};

/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.is_bench() {
        // `cargo test --benches` runs it too, and wants no load of many minutes.
        println!("a benchmark: ./dev bench --help");
        return ExitCode::SUCCESS;
    }
    match run::run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(BenchError::Interrupted) => {
            eprintln!("interrupted");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            eprintln!("bench: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}
