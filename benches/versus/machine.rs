//! What one must know about the machine to read the numbers.

use std::{fs, thread};

use pgweir::cli::demo::postgres::PostgresError;

use super::{
    options::Options,
    poolers::Subject,
    site::{SCALE, Site},
};

/// The facts, a line each: a name and what is to be known.
pub(crate) fn facts(
    site: &Site,
    subjects: &[Subject; 2],
    options: &Options,
) -> Result<Vec<(&'static str, String)>, PostgresError> {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let [ours, theirs] = subjects;
    let settings = format!(
        "trust, no TLS to the server, transaction pooling; pgweir with workers = {}; pgbench scale {SCALE}; \
         rounds: {} x {} s",
        options.workers,
        options.rounds(),
        options.seconds()
    );
    Ok(vec![
        (
            "machine",
            format!(
                "{cores} cores, {}, Linux {}",
                processor(),
                first_line("/proc/sys/kernel/osrelease")
            ),
        ),
        ("load before", first_line("/proc/loadavg")),
        ("PostgreSQL", site.programs().version()?),
        ("compared", format!("{} with {}", ours.version, theirs.version)),
        ("settings", settings),
    ])
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map(|rest| rest.trim_start_matches(['\t', ' ', ':']));
    model.unwrap_or("unknown processor").to_owned()
}

fn first_line(file: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}
