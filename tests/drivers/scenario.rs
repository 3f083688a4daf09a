//! One run of a scenario: the environment that it gets, and what its output means.
//!
//! A scenario prints `ok NAME` or `not ok NAME - WHY` for each check, and `1..COUNT` when it has made them all.

use std::{
    fs::{self, File},
    panic::{AssertUnwindSafe, catch_unwind},
    process::Stdio,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use pgweir::cli::demo::child::{OwnedChild, describe};

use super::catalogue::Driver;

/// How long a scenario may take. Each of its checks has a limit of its own, far below.
const LIMIT: Duration = Duration::from_secs(240);
const LAST_LINES: usize = 12;

/// What a scenario has said.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) passed: Vec<String>,
    /// Name and reason.
    pub(super) failed: Vec<(String, String)>,
    pub(super) seconds: f64,
}

/// Runs the scenario against the server on that port; `way` tells it what it is talking to.
pub(super) fn run(driver: &Driver, way: &str, port: u16, database: &str) -> Outcome {
    let began = Instant::now();
    let directory = tempfile::tempdir().expect("a directory is made");
    let file = |name: &str| directory.path().join(name);
    let create = |name: &str| File::create(file(name)).expect("a file is made");
    let mut command = driver.command();
    command
        .env("DRIVERS_WAY", way)
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", port.to_string())
        .env("PGUSER", "app")
        .env("PGPASSWORD", "secret")
        .env("PGDATABASE", database)
        .env("PGSSLMODE", "disable")
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(create("out"))
        .stderr(create("err"));
    let program = command.get_program().display().to_string();
    let ended = match OwnedChild::spawn(command) {
        Ok(mut child) => child
            .end_within(LIMIT)
            .unwrap_or_else(|| "it had to be killed".to_owned()),
        Err(error) => format!("{program} cannot be started: {error}; `./dev drivers` installs it"),
    };
    let text = |name: &str| fs::read_to_string(file(name)).unwrap_or_default();
    let mut outcome = Outcome::read(&text("out"), &ended, &text("err"));
    outcome.seconds = began.elapsed().as_secs_f64();
    outcome
}

trait EndWithin {
    fn end_within(&mut self, limit: Duration) -> Option<String>;
}

impl EndWithin for OwnedChild {
    /// How it ended; nothing if it was still running after that time.
    fn end_within(&mut self, limit: Duration) -> Option<String> {
        if let Ok(status) = self.wait(limit) {
            return Some(describe(status));
        }
        let _ = self.end(Signal::SIGKILL, limit);
        None
    }
}

impl Outcome {
    fn read(output: &str, ended: &str, errors: &str) -> Self {
        let mut outcome = Self::default();
        let mut plan = None;
        for line in output.lines() {
            if let Some(name) = line.strip_prefix("ok ") {
                outcome.passed.push(name.to_owned());
            } else if let Some(failure) = line.strip_prefix("not ok ") {
                let (name, why) = failure.split_once(" - ").unwrap_or((failure, ""));
                outcome.failed.push((name.to_owned(), why.to_owned()));
            } else if let Some(count) = line.strip_prefix("1..") {
                plan = count.parse().ok();
            }
        }
        let made = outcome.passed.len() + outcome.failed.len();
        if made == 0 || plan != Some(made) {
            let lines: Vec<&str> = errors.lines().collect();
            let last = lines[lines.len().saturating_sub(LAST_LINES)..].join(" | ");
            let why = format!("not all checks were made: {ended}. {last}");
            outcome.failed.push(("the_scenario_itself".to_owned(), why));
        }
        outcome
    }

    /// Adds a check of the runner's own, which fails by a panic.
    pub(super) fn check(&mut self, name: &str, body: impl FnOnce()) {
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(()) => self.passed.push(name.to_owned()),
            Err(_) => self
                .failed
                .push((name.to_owned(), "see the panic above".to_owned())),
        }
    }

    pub(super) fn is_good(&self) -> bool {
        self.failed.is_empty()
    }
}
