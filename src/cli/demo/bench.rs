//! `pgweir demo --bench`: the printed pgbench line for real, and how many server connections it took.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    Demo, DemoError,
    child::{OwnedChild, describe},
    interrupt::Interrupt,
    postgres::Postgres,
};

const POLL: Duration = Duration::from_millis(50);
/// psql runs it again and again and prints a number each time.
const SAMPLE: &str = "SELECT count(*) FROM pg_stat_activity \
     WHERE datname = 'app' AND backend_type = 'client backend' \\watch 0.1\n";

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    succeeded: bool,
    processed: u64,
    failed: u64,
    servers: u64,
    pool: u64,
}

impl Outcome {
    /// Why the run was not good, if it was not.
    fn complaint(&self) -> Option<&'static str> {
        if !self.succeeded {
            Some("pgbench did not succeed")
        } else if self.failed > 0 {
            Some("transactions failed")
        } else if self.processed == 0 {
            Some("no transaction was processed")
        } else if self.servers == 0 {
            Some("no server connection was seen")
        } else if self.servers > self.pool {
            Some("more server connections than the pool allows")
        } else {
            None
        }
    }
}

/// Runs pgbench for `seconds`; whether everything was as promised.
pub(super) fn run(demo: &mut Demo, seconds: u32, interrupt: &Interrupt) -> Result<bool, DemoError> {
    let sampler = Sampler::start(&demo.postgres)?;
    let mut command = demo.postgres.programs().command("pgbench");
    command
        .args(demo.facts().pgbench_options(Some(seconds)))
        .arg(demo.facts().url("app"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let (status, summary) = run_pgbench(command, demo, interrupt)?;
    let outcome = Outcome {
        succeeded: status.success(),
        processed: number_after(&summary, "number of transactions actually processed: ").unwrap_or(0),
        // PostgreSQL 14 has no such line; a failed transaction ends its client there, and so pgbench.
        failed: number_after(&summary, "number of failed transactions: ").unwrap_or(0),
        servers: sampler.finish(),
        pool: demo.pool_size.get().into(),
    };
    let mut out = std::io::stdout();
    let verdict = match outcome.complaint() {
        Some(complaint) => format!("FAILED: {complaint} (pgbench: {})\n", describe(status)),
        None => String::new(),
    };
    write!(
        out,
        "{summary}server connections used: {} (pool {})\n{verdict}",
        outcome.servers, outcome.pool
    )
    .and_then(|()| out.flush())
    .map_err(DemoError::Output)?;
    Ok(outcome.complaint().is_none())
}

fn run_pgbench(
    command: Command,
    demo: &mut Demo,
    interrupt: &Interrupt,
) -> Result<(ExitStatus, String), DemoError> {
    let program = PathBuf::from(command.get_program());
    let failed = |source| DemoError::Tool { program, source };
    let mut child = match OwnedChild::spawn(command) {
        Ok(child) => child,
        Err(error) => return Err(failed(error)),
    };
    let status = loop {
        match child.ended() {
            Ok(Some(status)) => break status,
            Ok(None) => demo.check_children()?,
            Err(error) => return Err(failed(error)),
        }
        if interrupt.came_within(POLL) {
            return Err(DemoError::Interrupted);
        }
    };
    let mut summary = String::new();
    if let Some(mut output) = child.pipes().stdout.take() {
        // The summary is smaller than a pipe's buffer, so pgbench did not wait for it to be read.
        output.read_to_string(&mut summary).map_err(failed)?;
    }
    Ok((status, summary))
}

/// Watches the number of server connections to the database `app`.
struct Sampler {
    psql: OwnedChild,
    maximum: JoinHandle<u64>,
}

impl Sampler {
    fn start(postgres: &Postgres) -> Result<Self, DemoError> {
        let mut command = postgres.psql_command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let program = PathBuf::from(command.get_program());
        let failed = |source| DemoError::Tool {
            program: program.clone(),
            source,
        };
        let mut psql = OwnedChild::spawn(command).map_err(failed)?;
        if let Some(mut input) = psql.pipes().stdin.take() {
            input.write_all(SAMPLE.as_bytes()).map_err(failed)?;
        }
        let output = psql.pipes().stdout.take();
        let maximum = thread::Builder::new()
            .name("sampler".into())
            .spawn(move || output.map_or(0, |output| largest_number(BufReader::new(output))))
            .map_err(failed)?;
        Ok(Self { psql, maximum })
    }

    fn finish(self) -> u64 {
        // Its end closes the pipe, which ends the thread.
        drop(self.psql);
        self.maximum.join().unwrap_or(0)
    }
}

fn largest_number(lines: impl BufRead) -> u64 {
    lines
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| line.trim().parse().ok())
        .max()
        .unwrap_or(0)
}

/// The number that follows `label` in pgbench's summary.
fn number_after(summary: &str, label: &str) -> Option<u64> {
    let line = summary.lines().find_map(|line| line.strip_prefix(label))?;
    let digits = line.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "scaling factor: 1\n\
        number of transactions actually processed: 181516\n\
        number of failed transactions: 3 (0.002%)\n\
        latency average = 3.5 ms\n";

    const GOOD: Outcome = Outcome {
        succeeded: true,
        processed: 9,
        failed: 0,
        servers: 20,
        pool: 20,
    };

    #[test]
    fn the_summary_is_read() {
        assert_eq!(
            number_after(SUMMARY, "number of transactions actually processed: "),
            Some(181_516)
        );
        assert_eq!(number_after(SUMMARY, "number of failed transactions: "), Some(3));
        assert_eq!(number_after("", "number of failed transactions: "), None);
    }

    #[test]
    fn a_run_is_good_only_if_everything_is() {
        assert_eq!(GOOD.complaint(), None);
        for bad in [
            Outcome {
                succeeded: false,
                ..GOOD
            },
            Outcome { processed: 0, ..GOOD },
            Outcome { failed: 1, ..GOOD },
            Outcome { servers: 21, ..GOOD },
            Outcome { servers: 0, ..GOOD },
        ] {
            assert!(bad.complaint().is_some(), "{bad:?}");
        }
    }

    #[test]
    fn titles_of_the_watch_are_no_samples() {
        let output = "Sat Jan  1 00:00:00 2022 (every 0.1s)\n\n3\n\n17\n2\n";
        assert_eq!(largest_number(output.as_bytes()), 17);
    }
}
