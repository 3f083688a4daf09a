//! What can go wrong with PostgreSQL's programs, and running them so that it is told.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use super::{START_LIMIT, programs::BIN_VARIABLE};
use crate::cli::demo::child::describe;

/// How much of a log goes into an error message.
const LOG_LINES: usize = 20;

/// Why there is no PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No server programs.
    #[error(
        "PostgreSQL's server programs are not in PATH and not in {}; `./dev` installs them, or set {BIN_VARIABLE}",
        looked.display()
    )]
    NotFound {
        /// The last place that was looked at.
        looked: PathBuf,
    },
    /// A program cannot be run at all.
    #[error("cannot run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{} ended with {}: {}", program.display(), describe(*status), output.trim_end())]
    Failed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said on its standard error.
        output: String,
    },
    /// A file cannot be made.
    #[error("cannot prepare {}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Root has no account to run the server as.
    #[error("no account to run PostgreSQL as, which refuses to be root")]
    Account(#[source] io::Error),
    /// No free port, or no random numbers for the password.
    #[error("cannot choose a port and a password")]
    Port(#[source] io::Error),
    /// The server ended while it started.
    #[error("PostgreSQL ended with {} instead of starting:\n{log}", describe(*status))]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The server neither ended nor became ready in time.
    #[error("PostgreSQL was not ready after {} s:\n{log}", START_LIMIT.as_secs())]
    NotReady {
        /// The end of its log.
        log: String,
    },
}

/// Runs a command to its end and returns what it printed.
pub(super) fn run(command: &mut Command) -> Result<String, PostgresError> {
    let result = command.stdin(Stdio::null()).output();
    let program = PathBuf::from(command.get_program());
    let output = match result {
        Ok(output) => output,
        Err(source) => return Err(PostgresError::Run { program, source }),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(PostgresError::Failed {
            program,
            status: output.status,
            output: said,
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(super) fn file_error(path: &Path) -> impl FnOnce(io::Error) -> PostgresError {
    let path = path.to_path_buf();
    move |source| PostgresError::File { path, source }
}

/// The end of a log, for an error message.
pub(in crate::cli::demo) fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_message_has_the_end_of_the_log() {
        let log: String = (1..=100).map(|n| format!("line {n}\n")).collect();
        let shown = last_lines(&log);
        assert!(shown.starts_with("line 81\n"));
        assert!(shown.ends_with("line 100"));
        assert_eq!(last_lines(""), "");
    }

    #[test]
    fn a_failed_program_shows_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo oops >&2; exit 3"])).unwrap_err();
        assert_eq!(error.to_string(), "sh ended with exit status 3: oops");
    }
}
