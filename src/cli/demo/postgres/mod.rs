//! A throw-away PostgreSQL on loopback, for the demo and for the tests.
//!
//! It is PostgreSQL's own programs in a temporary directory; it knows nothing of pgweir.

mod builder;
mod error;
mod programs;
mod standby;
mod stop;
mod template;

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

pub(super) use self::error::last_lines;
use self::error::{file_error, run};
pub use self::{
    builder::PostgresBuilder,
    error::PostgresError,
    programs::{BIN_VARIABLE, Programs},
    stop::Stop,
};
use super::{
    child::{Account, OwnedChild},
    ports,
};

/// How long a server may take until it accepts connections.
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// A PostgreSQL server with its data. Dropped, both are gone.
#[derive(Debug)]
pub struct Postgres {
    child: Option<OwnedChild>,
    programs: Programs,
    account: Option<Account>,
    port: u16,
    /// Clients may know the port by now, so another must not be chosen.
    port_is_final: bool,
    settings: Vec<(String, String)>,
    password: String,
    directory: TempDir,
}

enum Attempt {
    Ready,
    PortTaken,
    /// The kernel has not yet seen the last process of a killed server go.
    NotGoneYet,
}

impl Postgres {
    /// Options, all with defaults.
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::default()
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The unix socket's file. Only the server's owner and root can reach it.
    pub fn socket_file(&self) -> PathBuf {
        self.directory.path().join(format!(".s.PGSQL.{}", self.port))
    }

    /// The password of `postgres`, the superuser, over TCP.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// A connection URL over TCP. Nothing in it is escaped.
    pub fn url(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgresql://{user}:{password}@{}/{database}", self.address())
    }

    /// The installation that it runs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The process id of the postmaster, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(OwnedChild::pid)
    }

    /// How the server ended, if it did so by itself.
    ///
    /// # Errors
    /// Those of `waitpid(2)`.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => child.ended(),
            None => Ok(None),
        }
    }

    /// Everything that the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Runs SQL as superuser in database `postgres`, over the unix socket; rows as psql prints them
    /// unaligned, without the last line end.
    ///
    /// # Errors
    /// psql is not there, or the SQL failed.
    pub fn psql(&self, sql: &str) -> Result<String, PostgresError> {
        self.psql_in("postgres", sql)
    }

    /// As [`Postgres::psql`], in another database.
    ///
    /// # Errors
    /// psql is not there, or the SQL failed.
    pub fn psql_in(&self, database: &str, sql: &str) -> Result<String, PostgresError> {
        let mut command = self.psql_command();
        command.args(["-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
        let output = run(&mut command)?;
        Ok(output.trim_end_matches('\n').to_owned())
    }

    /// psql for the superuser on the unix socket: quiet, unaligned, rows only.
    pub fn psql_command(&self) -> Command {
        let mut command = self.programs.command("psql");
        command
            .args(["-X", "-q", "-A", "-t", "-U", "postgres", "-p"])
            .arg(self.port.to_string())
            .arg("-h")
            .arg(self.directory.path())
            .env("PGCLIENTENCODING", "UTF8")
            .stdin(Stdio::null());
        command
    }

    /// Makes pgbench's tables, scale 1, over TCP as the role that shall own them.
    ///
    /// # Errors
    /// pgbench is not there, or failed.
    pub fn initialise_pgbench(
        &self,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<(), PostgresError> {
        let mut command = self.programs.command("pgbench");
        command
            .args(["-i", "-q", "-s", "1"])
            .arg(self.url(user, password, database));
        run(&mut command).map(drop)
    }

    /// Starts a stopped server on the same port and data, and waits until it takes connections.
    ///
    /// # Errors
    /// It ended, or was not ready in time.
    pub fn start(&mut self) -> Result<(), PostgresError> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match self.attempt(deadline)? {
                Attempt::Ready => {
                    self.port_is_final = true;
                    return Ok(());
                }
                Attempt::PortTaken => self.port = ports::free(None).map_err(PostgresError::Port)?,
                Attempt::NotGoneYet => thread::sleep(POLL),
            }
        }
    }

    fn attempt(&mut self, deadline: Instant) -> Result<Attempt, PostgresError> {
        let log_start = fs::metadata(self.log_path()).map_or(0, |metadata| metadata.len());
        let mut child = OwnedChild::spawn(self.server_command()?).map_err(self.run_error())?;
        loop {
            if let Some(status) = child.ended().map_err(self.run_error())? {
                return self.explain_end(status, log_start, deadline);
            }
            if self.is_ready(child.pid()) {
                self.child = Some(child);
                return Ok(Attempt::Ready);
            }
            if Instant::now() >= deadline {
                return Err(PostgresError::NotReady {
                    log: last_lines(&self.log_from(log_start)),
                });
            }
            thread::sleep(POLL);
        }
    }

    fn explain_end(
        &self,
        status: ExitStatus,
        log_start: u64,
        deadline: Instant,
    ) -> Result<Attempt, PostgresError> {
        let log = self.log_from(log_start);
        let may_retry = Instant::now() < deadline;
        if may_retry && !self.port_is_final && log.contains("Address already in use") {
            return Ok(Attempt::PortTaken);
        }
        if may_retry && log.contains("pre-existing shared memory block") {
            return Ok(Attempt::NotGoneYet);
        }
        Err(PostgresError::Ended {
            status,
            log: last_lines(&log),
        })
    }

    fn server_command(&self) -> Result<Command, PostgresError> {
        let log_path = self.log_path();
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(file_error(&log_path))?;
        // A fast shutdown, as Ctrl-C on a postgres in a terminal.
        let mut command = self.programs.tied_command("postgres", Signal::SIGINT);
        command
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(file_error(&log_path))?)
            .stderr(log);
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        if let Some(account) = self.account {
            account.apply(&mut command);
        }
        Ok(command)
    }

    /// The postmaster writes its state into the eighth line of its pid file; `pg_ctl -w` reads it there too.
    fn is_ready(&self, pid: u32) -> bool {
        let Ok(text) = fs::read_to_string(self.data().join("postmaster.pid")) else {
            return false;
        };
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.first() == Some(&pid.to_string().as_str()) && lines.get(7) == Some(&"ready")
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("postgresql.log")
    }

    fn log_from(&self, offset: u64) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(self.log_path())
            && file.seek(SeekFrom::Start(offset)).is_ok()
        {
            // What could be read is better than nothing in an error message.
            let _ = file.read_to_string(&mut text);
        }
        text
    }

    fn run_error(&self) -> impl FnOnce(io::Error) -> PostgresError {
        let program = self.programs.path("postgres");
        move |source| PostgresError::Run { program, source }
    }
}
