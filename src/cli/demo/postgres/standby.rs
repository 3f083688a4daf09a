//! The data directory of a standby: a copy of a running server, taken by pg_basebackup.

use std::{fs, path::Path};

use super::{
    Postgres, Programs, Stop,
    error::{PostgresError, file_error, run},
};
use crate::cli::demo::child::Account;

/// Whose copy, and who makes it.
#[derive(Debug)]
pub(super) struct BaseBackup<'a> {
    pub(super) programs: &'a Programs,
    pub(super) account: Option<Account>,
    /// A connection string of a role that may replicate; the standby follows the server by it too.
    pub(super) source: &'a str,
}

impl BaseBackup<'_> {
    /// Creates `data`, whose parent the account can write, so that a server that starts with it is a standby.
    pub(super) fn take(&self, data: &Path) -> Result<(), PostgresError> {
        let mut command = self.programs.command("pg_basebackup");
        command
            .args([
                "--write-recovery-conf",
                "--wal-method=stream",
                "--checkpoint=fast",
            ])
            .args(["--no-sync", "--dbname", self.source, "--pgdata"])
            .arg(data)
            .current_dir(data.parent().unwrap_or(Path::new("/")));
        if let Some(account) = self.account {
            account.apply(&mut command);
        }
        run(&mut command).map(drop)
    }
}

impl Postgres {
    /// Stops the server, replaces its data by a copy of another server's, and starts it again as a standby of that.
    /// `source` is a connection string of a role that may replicate.
    ///
    /// # Errors
    /// As [`Postgres::stop`] and [`Postgres::start`]; pg_basebackup is not there, or failed.
    pub fn rebuild(&mut self, source: &str) -> Result<(), PostgresError> {
        self.stop(Stop::Fast)?;
        let data = self.data();
        fs::remove_dir_all(&data).map_err(file_error(&data))?;
        let backup = BaseBackup {
            programs: &self.programs,
            account: self.account,
            source,
        };
        backup.take(&data)?;
        self.start()
    }
}
