//! What ends the benchmark, and what only spoils one measurement.

use std::{
    io,
    path::{Path, PathBuf},
};

use pgweir::cli::demo::{authority::AuthorityError, postgres::PostgresError};

use super::client::ClientError;

/// Why there is no benchmark.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    #[error("no workload has {wanted:?} in its name; --list prints the names")]
    NoWorkload { wanted: Vec<String> },
    #[error("PgBouncer is not installed (Debian: apt-get install pgbouncer); or name a binary with --vs")]
    NoPgBouncer,
    #[error("{} is neither a pgweir nor a PgBouncer: --version says {said:?}", program.display())]
    UnknownPooler { program: PathBuf, said: String },
    #[error("cannot run {}", program.display())]
    Program {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("cannot write {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl BenchError {
    pub(crate) fn program(program: &Path) -> impl FnOnce(io::Error) -> Self {
        let program = program.to_path_buf();
        move |source| Self::Program { program, source }
    }

    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::File { path, source }
    }
}

/// Why there is no number. All but the first are an entry of the table.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
    #[error("{what} did not happen within {seconds} s")]
    TooLate { what: &'static str, seconds: u64 },
    #[error("the pooler ended: {log}")]
    PoolerEnded { log: String },
    #[error("pgbench failed ({how}): {said}")]
    Pgbench { how: String, said: String },
    #[error("{count} transactions failed")]
    FailedTransactions { count: u64 },
    #[error("nothing was done while it was measured")]
    Nothing,
    #[error("{clients} clients need more open files than the limit of {limit}")]
    OpenFiles { clients: u32, limit: u64 },
    #[error("{what}")]
    Client {
        what: &'static str,
        #[source]
        source: ClientError,
    },
    #[error("{what}")]
    Io {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Which side has no number, and why.
pub(crate) type SideError = (usize, MeasureError);

impl MeasureError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    pub(crate) fn client(what: &'static str) -> impl FnOnce(ClientError) -> Self {
        move |source| Self::Client { what, source }
    }
}
