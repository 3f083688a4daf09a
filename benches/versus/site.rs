//! Where it all happens: a PostgreSQL with pgbench's tables, a CA, certificates.

use std::{io, process::Stdio};

use pgweir::cli::demo::{
    authority::{Authority, Certificate},
    child::OwnedChild,
    postgres::{Postgres, Programs},
};
use tempfile::TempDir;

use super::error::BenchError;

pub(crate) const ROLE: &str = "app";
/// Without tables.
pub(crate) const DATABASE: &str = "app";
/// One for each side's pgbench: a transaction that is paused keeps its locks, and keeps VACUUM from what it can see.
pub(crate) const LOADED: [&str; 2] = ["ours", "theirs"];
/// So that 64 clients of TPC-B do not all wait for one row; about 150 MB for each side.
pub(crate) const SCALE: u32 = 10;
/// More than both sides' largest pools together.
const CONNECTIONS: u32 = 400;
/// No password: what it costs to check one says nothing about the rest, and libpq pays most of it.
const RULES: &[&str] = &["host all all 127.0.0.1/32 trust"];

/// Gone when dropped.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) postgres: Postgres,
    pub(crate) authority: Authority,
    pub(crate) certificate: Certificate,
    /// For what is written while it is measured.
    pub(crate) scratch: TempDir,
}

impl Site {
    /// Starts and fills PostgreSQL.
    pub(crate) fn prepare() -> Result<Self, BenchError> {
        let authority = Authority::new("pgweir bench CA")?;
        let certificate = authority.server(&["localhost", "127.0.0.1"])?;
        let postgres = Postgres::builder()
            .checkout(".")
            .hba(RULES)
            .setting("max_connections", CONNECTIONS)
            // The tables fit, and no checkpoint falls into somebody's turn.
            .setting("shared_buffers", "512MB")
            .setting("max_wal_size", "8GB")
            .setting("checkpoint_timeout", "1d")
            .setting("autovacuum", "off")
            .start()?;
        postgres.psql(&format!("CREATE ROLE {ROLE} LOGIN"))?;
        for database in [DATABASE, LOADED[0]] {
            postgres.psql(&format!("CREATE DATABASE {database} OWNER {ROLE}"))?;
        }
        let scratch = tempfile::Builder::new()
            .prefix("pgweir-bench-")
            .tempdir()
            .map_err(BenchError::file(&std::env::temp_dir()))?;
        let site = Self {
            postgres,
            authority,
            certificate,
            scratch,
        };
        site.fill(LOADED[0])?;
        let copy = format!(
            "CREATE DATABASE {} OWNER {ROLE} TEMPLATE {}",
            LOADED[1], LOADED[0]
        );
        site.postgres.psql(&copy)?;
        Ok(site)
    }

    pub(crate) fn programs(&self) -> &Programs {
        self.postgres.programs()
    }

    /// As pgbench itself does before it runs TPC-B, but not through the pooler.
    pub(crate) fn tidy(&self) -> Result<(), BenchError> {
        for database in LOADED {
            for sql in [
                "VACUUM pgbench_branches",
                "VACUUM pgbench_tellers",
                "VACUUM pgbench_accounts",
                "TRUNCATE pgbench_history",
            ] {
                self.postgres.psql_in(database, sql)?;
            }
        }
        Ok(())
    }

    fn fill(&self, database: &str) -> Result<(), BenchError> {
        let mut command = self.programs().command("pgbench");
        command
            .args(["-i", "-q", "-s", &SCALE.to_string()])
            .arg(self.postgres.url(ROLE, "", database))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let program = self.programs().path("pgbench");
        let failed = || BenchError::program(&program);
        let status = OwnedChild::spawn(command)
            .and_then(|mut child| child.pipes().wait())
            .map_err(failed())?;
        if !status.success() {
            return Err(failed()(io::Error::other("its initialisation failed")));
        }
        Ok(())
    }
}
