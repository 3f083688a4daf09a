//! `./dev drivers`: what people's drivers do, straight on PostgreSQL and through pgweir in transaction mode.
//!
//! Each driver has a scenario, a program in its own language that makes named checks of what PostgreSQL does. It is
//! run twice with the same assertions, and must pass both times. Through pgweir all its clients share two server
//! connections. The runner knows nothing of what is checked; it prints who passed what as a table.
//!
//! Arguments choose drivers by a part of their names, and checks: `psycopg`, `pgjdbc:autosave`.

#![allow(clippy::panic, reason = "what fails in a helper fails the driver")]

mod catalogue;
mod report;
mod scenario;
#[path = "../support/mod.rs"]
mod support;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
};

use self::{
    catalogue::{Driver, drivers},
    report::{Report, RunOf},
    scenario::{Outcome, run},
};
use support::{Pooler, postgres};

/// How many drivers run at a time.
const AT_ONCE: usize = 2;
/// Server connections for all clients of a scenario.
const POOL_SIZE: usize = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let drivers = drivers(&filters);
    if arguments.iter().any(|argument| argument == "--list") {
        drivers
            .iter()
            .for_each(|driver| println!("{}: test", driver.name));
        return ExitCode::SUCCESS;
    }
    let report = run_all(drivers);
    if report.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("{report}");
    ExitCode::from(u8::from(!report.is_good()))
}

fn run_all(mut drivers: Vec<Driver>) -> Report {
    drivers.reverse();
    let (waiting, report) = (Mutex::new(drivers), Mutex::new(Report::default()));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(driver) = next() {
                    let result = match &driver.left_out {
                        Some(reason) => RunOf::LeftOut(reason.clone()),
                        None => catch_unwind(AssertUnwindSafe(|| both_ways(&driver)))
                            .map_or(RunOf::Broken, RunOf::BothWays),
                    };
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    report.add(driver, result);
                }
            });
        }
    });
    report.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What the driver's scenario says of PostgreSQL, and of pgweir in front of it.
fn both_ways(driver: &Driver) -> [Outcome; 2] {
    let postgres = postgres();
    let psql = |sql: &str| postgres.psql(sql).expect("the stage is set");
    psql("CREATE DATABASE straight OWNER app");
    psql("CREATE ROLE visitor");
    psql("GRANT visitor TO app");
    let direct = run(driver, "direct", postgres.port(), "straight");

    let pooler = Pooler::builder(&postgres.address())
        .set("auth.auth_type", "'scram-sha-256'")
        .set("pool.default_pool_size", POOL_SIZE.to_string())
        .start();
    let mut pooled = run(driver, "pgweir", pooler.port(), "app");
    pooled.check("nothing_is_left_behind", || pooler.wait_until_quiet());
    if let Some(directory) = std::env::var_os("PGWEIR_DRIVERS_LOGS") {
        let log = Path::new(&directory).join(format!("{}.log", driver.name));
        std::fs::write(log, pooler.logs()).expect("the log is written");
    }
    [direct, pooled]
}
