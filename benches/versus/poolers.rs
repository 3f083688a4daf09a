//! The poolers that are compared, and one of them as a running process.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use pgweir::cli::demo::{
    child::{Account, OwnedChild, find_in_path, tied},
    ports,
};
use tempfile::TempDir;

use super::{
    client::{Client, ClientError},
    configs::{Setup, users},
    error::{BenchError, MeasureError},
    site::{DATABASE, ROLE, Site},
    workloads::Workload,
};

const READY_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);
/// Where Debian puts it, which is not in everybody's PATH.
const PACKAGED: &str = "/usr/sbin/pgbouncer";
const LOG_LINES: usize = 5;

/// Whose configuration a program reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brand {
    Pgweir,
    PgBouncer,
}

/// A pooler that can be started.
#[derive(Debug)]
pub(crate) struct Subject {
    /// In the table's head.
    pub(crate) label: &'static str,
    /// The first line of `--version`.
    pub(crate) version: String,
    brand: Brand,
    program: PathBuf,
    /// Who it runs as, if PgBouncer would refuse to run as who we are.
    account: Option<Account>,
    workers: String,
}

impl Subject {
    /// The pgweir that it is all about.
    pub(crate) fn ours(program: &Path, workers: &str) -> Result<Self, BenchError> {
        Self::detect(program, workers)
    }

    /// What it is compared with: `program`, or the installed PgBouncer.
    pub(crate) fn rival(program: Option<&Path>, workers: &str) -> Result<Self, BenchError> {
        let installed = || {
            let packaged = Path::new(PACKAGED);
            find_in_path("pgbouncer").or_else(|| packaged.exists().then(|| packaged.to_path_buf()))
        };
        let program = program.map(Path::to_path_buf).or_else(installed);
        let mut rival = Self::detect(&program.ok_or(BenchError::NoPgBouncer)?, workers)?;
        if rival.brand == Brand::Pgweir {
            rival.label = "other pgweir";
        }
        Ok(rival)
    }

    pub(crate) fn is_pgbouncer(&self) -> bool {
        self.brand == Brand::PgBouncer
    }

    /// Asks the program what it is.
    fn detect(program: &Path, workers: &str) -> Result<Self, BenchError> {
        let failed = || BenchError::program(program);
        // It runs in a directory of its own, where a relative path would lead nowhere.
        let program = program.canonicalize().map_err(failed())?;
        let output = Command::new(&program)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .map_err(failed())?;
        let said = String::from_utf8_lossy(&output.stdout);
        let version = said.lines().next().unwrap_or_default().trim().to_owned();
        let (brand, label) = match version.split(' ').next() {
            Some("pgweir") => (Brand::Pgweir, "pgweir"),
            Some("PgBouncer") => (Brand::PgBouncer, "PgBouncer"),
            _ => {
                return Err(BenchError::UnknownPooler {
                    program,
                    said: version,
                });
            }
        };
        let account = match brand {
            Brand::Pgweir => None,
            Brand::PgBouncer => Account::unprivileged().map_err(failed())?,
        };
        Ok(Self {
            label,
            version,
            brand,
            program,
            account,
            workers: workers.to_owned(),
        })
    }

    /// Starts it for a workload and waits until a client can log in.
    pub(crate) fn start(&self, site: &Site, workload: &Workload) -> Result<Pooler, MeasureError> {
        let port = ports::free(None).map_err(MeasureError::io("cannot choose a port"))?;
        let setup = Setup {
            port,
            postgres_port: site.postgres.port(),
            pool: workload.pool,
            tls: workload.tls,
            workers: &self.workers,
        };
        let home = self
            .make_home(&setup, site)
            .map_err(MeasureError::io("cannot write the pooler's configuration"))?;
        let child = self
            .spawn(home.path())
            .map_err(MeasureError::io("cannot start the pooler"))?;
        let mut pooler = Pooler { child, port, home };
        pooler.wait_until_ready(workload.tls)?;
        Ok(pooler)
    }

    fn config_name(&self) -> &'static str {
        match self.brand {
            Brand::Pgweir => "pgweir.toml",
            Brand::PgBouncer => "pgbouncer.ini",
        }
    }

    fn make_home(&self, setup: &Setup<'_>, site: &Site) -> io::Result<TempDir> {
        let home = tempfile::Builder::new()
            .prefix("pgweir-bench-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()?;
        let path = home.path();
        let config = match self.brand {
            Brand::Pgweir => setup.pgweir(),
            Brand::PgBouncer => setup.pgbouncer(),
        };
        fs::write(path.join(self.config_name()), config)?;
        fs::write(path.join("users.txt"), users(ROLE))?;
        site.certificate.write_to(path, "server")?;
        if let Some(Account { uid, gid }) = self.account {
            chown(path, Some(uid), Some(gid))?;
            for entry in path.read_dir()? {
                chown(entry?.path(), Some(uid), Some(gid))?;
            }
        }
        Ok(home)
    }

    fn spawn(&self, home: &Path) -> io::Result<OwnedChild> {
        let log = File::create(home.join("log"))?;
        let mut command = tied(&self.program, Signal::SIGKILL);
        if self.brand == Brand::Pgweir {
            command.args(["run", "--config"]);
        }
        command
            .arg(self.config_name())
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(account) = self.account {
            account.apply(&mut command);
        }
        OwnedChild::spawn(command)
    }
}

/// A pooler that runs. Dropped, it is gone with everything that it wrote.
#[derive(Debug)]
pub(crate) struct Pooler {
    child: OwnedChild,
    port: u16,
    home: TempDir,
}

impl Pooler {
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// An error if it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<(), MeasureError> {
        let ended = self.child.ended();
        match ended.map_err(MeasureError::io("cannot look at the pooler"))? {
            None => Ok(()),
            Some(_) => Err(MeasureError::PoolerEnded { log: self.log() }),
        }
    }

    fn wait_until_ready(&mut self, tls: bool) -> Result<(), MeasureError> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            let error = match Client::log_in(self.port, DATABASE, READY_LIMIT) {
                Ok(_) => return Ok(()),
                // It answers, and what it wants is TLS.
                Err(ClientError::Refused(_)) if tls => return Ok(()),
                Err(error) => error,
            };
            self.check()?;
            if Instant::now() >= deadline {
                return Err(MeasureError::client("a first log-in failed")(error));
            }
            thread::sleep(POLL);
        }
    }

    /// The end of its log, on one line.
    fn log(&self) -> String {
        let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("; ")
    }
}
