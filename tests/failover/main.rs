//! `./dev failover`: what clients notice of switchovers and failovers, through pgweir and through PgBouncer.
//!
//! Real servers with streaming replication, and scripts that do to them what CloudNativePG's operator and its instance
//! managers do, in the order of its versions; while many clients move money (`support::ledger`). `./dev test` runs the
//! scripts in quick motion and asks whether nothing was lost and whether the goals are met; `./dev failover` keeps the
//! operator's own pace, and prints a table.
//!
//! Arguments choose timelines by a part of their names. `--table` prints the table of all poolers instead of testing
//! pgweir alone; `--quick` does that in quick motion. `--explain` adds what clients were told, and the poolers' logs.

#![allow(clippy::panic, reason = "what fails in a helper fails the timeline")]

mod announced;
mod catalogue;
mod cnpg;
mod goals;
mod mishaps;
mod options;
mod pace;
mod poolers;
mod report;
mod scene;
#[path = "../support/mod.rs"]
mod support;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
};

use self::{
    catalogue::{Run, runs},
    options::Options,
    report::{Report, Row},
    scene::Scene,
};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("failover: {error}");
            return ExitCode::FAILURE;
        }
    };
    let runs = runs(&options);
    if options.list {
        runs.iter().for_each(|run| println!("{}: test", run.name()));
        return ExitCode::SUCCESS;
    }
    let report = run_all(runs, &options);
    if report.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("{report}");
    ExitCode::from(u8::from(!report.is_good()))
}

fn run_all(mut runs: Vec<Run>, options: &Options) -> Report {
    runs.reverse();
    let (waiting, report) = (Mutex::new(runs), Mutex::new(Report::new(options)));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    thread::scope(|scope| {
        for _ in 0..options.at_once() {
            scope.spawn(|| {
                while let Some(run) = next() {
                    let row = one_run(&run, options);
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    report.add(row);
                }
            });
        }
    });
    report.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// In a thread of its own, which may go to other networks.
fn one_run(run: &Run, options: &Options) -> Row {
    eprintln!("{}", run.name());
    let outcome = support::in_thread(|| {
        catch_unwind(AssertUnwindSafe(|| Scene::play(run, options.pace()))).map_err(drop)
    });
    Row::new(run, outcome)
}
