//! A fresh data directory: made by initdb, or copied from one that initdb made before.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Programs,
    error::{PostgresError, file_error, run},
};
use crate::cli::demo::child::Account;

/// Who makes the data directory, and where finished ones are kept.
#[derive(Debug)]
pub(super) struct Template<'a> {
    pub(super) programs: &'a Programs,
    pub(super) account: Option<Account>,
    /// `None`: initdb each time.
    pub(super) cache: Option<&'a Path>,
}

impl Template<'_> {
    /// Creates `data`, whose parent the account can write.
    pub(super) fn create(&self, data: &Path) -> Result<(), PostgresError> {
        let Some(cache) = self.cache else {
            return self.initdb(data);
        };
        fs::create_dir_all(cache).map_err(file_error(cache))?;
        let kept = cache.join(self.key()?);
        // Whoever comes first makes it; the others, in other processes too, wait for that. Closing unlocks.
        let lock_path = kept.with_extension("lock");
        let lock = File::create(&lock_path).map_err(file_error(&lock_path))?;
        lock.lock().map_err(file_error(&lock_path))?;
        if kept.exists() {
            drop(lock);
            return copy(&kept, data);
        }
        self.initdb(data)?;
        let half_done = kept.with_extension("new");
        remove(&half_done).map_err(file_error(&half_done))?;
        copy(data, &half_done)?;
        fs::rename(&half_done, &kept).map_err(file_error(&kept))
    }

    fn initdb(&self, data: &Path) -> Result<(), PostgresError> {
        let mut command = self.programs.command("initdb");
        command
            .args([
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
                "--username=postgres",
            ])
            .args(["--auth-local=trust", "--auth-host=scram-sha-256", "--pgdata"])
            .arg(data)
            .current_dir(data.parent().unwrap_or(Path::new("/")));
        if let Some(account) = self.account {
            account.apply(&mut command);
        }
        run(&mut command).map(drop)
    }

    /// One template per version of PostgreSQL and owner. No extension: the dots of a version are none.
    fn key(&self) -> Result<PathBuf, PostgresError> {
        let version: String = self
            .programs
            .version()?
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let owner = self
            .account
            .map_or_else(|| nix::unistd::Uid::effective().as_raw(), |account| account.uid);
        Ok(format!("initdb-{version}-{owner}").into())
    }
}

/// Copies a directory with its owners and modes.
fn copy(from: &Path, to: &Path) -> Result<(), PostgresError> {
    run(Command::new("cp").arg("-a").arg(from).arg(to)).map(drop)
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
