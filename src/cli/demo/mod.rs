//! `pgweir demo`: a throw-away PostgreSQL, a CA and pgweir in front with TLS, on loopback, ready to use.
//!
//! It runs pgweir as a person would, as a process with a configuration file, and knows nothing of its inside.
//! The tests use its parts too: a PostgreSQL, a CA, children that do not outlive their owner.

pub mod authority;
mod bench;
pub mod child;
pub mod interrupt;
mod pooler;
pub mod ports;
pub mod postgres;
mod secret;
mod settings;

use std::{
    fs,
    io::{self, Write},
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use self::{
    authority::{AuthorityError, write_private},
    child::describe,
    interrupt::Interrupt,
    pooler::{Home, PoolerProcess},
    postgres::{Postgres, PostgresError},
    settings::Facts,
};

/// Used if they are free and no others are asked for.
const PREFERRED_PORT: u16 = 6432;
const PREFERRED_HTTP_PORT: u16 = 9127;
/// Connections that are not the pools': the superuser's, `POSTGRES_URL`.
const SPARE_CONNECTIONS: u32 = 30;
const MIN_CONNECTIONS: u32 = 200;
/// How often the children are looked at.
const WATCH: Duration = Duration::from_millis(200);

/// Options of `pgweir demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Run the pgbench line for SECONDS instead of waiting for Ctrl-C
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub bench: Option<u32>,
    /// Write the facts for scripts to FILE as KEY=VALUE once everything is ready
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// Port for clients [default: 6432, or any if that is taken]
    #[arg(long)]
    pub port: Option<u16>,
    /// Port for HTTP [default: 9127, or any if that is taken]
    #[arg(long)]
    pub http_port: Option<u16>,
    /// Server connections per pool
    #[arg(long, default_value = "20")]
    pub pool_size: NonZeroU32,
    /// Clients of the pgbench line
    #[arg(long, default_value = "64")]
    pub clients: NonZeroU32,
}

/// Why there is no demo, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Ctrl-C or SIGTERM before it was ready or while pgbench ran.
    #[error("interrupted")]
    Interrupted,
    /// Signals cannot be listened for.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// No PostgreSQL.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// No certificates.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A port that was asked for, or any, is not free.
    #[error("no free port on 127.0.0.1 (asked for {wanted:?})")]
    Port {
        /// The port that was asked for.
        wanted: Option<u16>,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// This program cannot be started a second time.
    #[error("cannot run pgweir")]
    Program(#[source] io::Error),
    /// One of PostgreSQL's client programs cannot be run.
    #[error("cannot run {}", program.display())]
    Tool {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part ended by itself.
    #[error("{what} ended with {} before the demo did:\n{log}", describe(*status))]
    Ended {
        /// Which.
        what: &'static str,
        /// How.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// pgweir did not become ready in time.
    #[error("pgweir did not become ready:\n{log}")]
    NotReady {
        /// The end of its log.
        log: String,
    },
    /// Nobody reads what is printed.
    #[error("cannot print")]
    Output(#[source] io::Error),
}

/// Runs the demo until Ctrl-C, SIGTERM or the end of the benchmark, and leaves nothing behind but the
/// `--env-file`. The exit code is a failure when the benchmark's promises did not hold.
///
/// # Errors
/// Something could not be started, or ended by itself.
pub fn run(args: &DemoArgs) -> Result<ExitCode, DemoError> {
    let interrupt = Interrupt::listen().map_err(DemoError::Signals)?;
    let mut demo = Demo::start(args, &interrupt)?;
    demo.announce(args.bench.is_none())?;
    if let Some(file) = &args.env_file {
        demo.write_env_file(file)?;
    }
    let good = match args.bench {
        Some(seconds) => bench::run(&mut demo, seconds, &interrupt)?,
        None => {
            demo.wait(&interrupt)?;
            true
        }
    };
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Everything that runs. The order of the fields is the order of their end.
struct Demo {
    pooler: PoolerProcess,
    postgres: Postgres,
    port: u16,
    http_port: u16,
    pool_size: NonZeroU32,
    clients: NonZeroU32,
    password: String,
}

impl Demo {
    fn start(args: &DemoArgs, interrupt: &Interrupt) -> Result<Self, DemoError> {
        let port = choose_port(args.port, PREFERRED_PORT)?;
        let http_port = choose_port(args.http_port, PREFERRED_HTTP_PORT)?;
        // A pool for each of the two roles.
        let connections = args
            .pool_size
            .get()
            .saturating_mul(2)
            .saturating_add(SPARE_CONNECTIONS);
        let postgres = Postgres::builder()
            .checkout(".")
            .setting("max_connections", connections.max(MIN_CONNECTIONS))
            .start()?;
        let password = secret::password().map_err(|source| DemoError::Port { wanted: None, source })?;
        fill(&postgres, &password)?;
        if interrupt.came_within(Duration::ZERO) {
            return Err(DemoError::Interrupted);
        }
        let home = Home::create()?;
        home.write("users.txt", &users_file(&postgres)?)?;
        let facts = Facts {
            directory: home.path(),
            postgres_port: postgres.port(),
            port,
            http_port,
            pool_size: args.pool_size,
            clients: args.clients,
            password: &password,
        };
        home.write("pgweir.toml", &facts.config())?;
        let pooler = PoolerProcess::start(home, http_port, interrupt)?;
        let (pool_size, clients) = (args.pool_size, args.clients);
        Ok(Self {
            pooler,
            postgres,
            port,
            http_port,
            pool_size,
            clients,
            password,
        })
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            directory: self.pooler.directory(),
            postgres_port: self.postgres.port(),
            port: self.port,
            http_port: self.http_port,
            pool_size: self.pool_size,
            clients: self.clients,
            password: &self.password,
        }
    }

    fn announce(&self, stays: bool) -> Result<(), DemoError> {
        let programs = self.postgres.programs();
        let mut text = self
            .facts()
            .announcement(&programs.shell("psql"), &programs.shell("pgbench"));
        text.push_str(if stays {
            "\nCtrl-C ends it and removes everything.\n"
        } else {
            "\n"
        });
        let mut out = io::stdout();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(DemoError::Output)
    }

    /// Complete or not there at all, so that a script may wait for the file to appear.
    fn write_env_file(&self, file: &Path) -> Result<(), DemoError> {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let unfinished = file.with_file_name(name);
        write_private(&unfinished, &self.facts().env_file(self.pooler.pid()))
            .map_err(file_error(&unfinished))?;
        fs::rename(&unfinished, file).map_err(file_error(file))
    }

    fn wait(&mut self, interrupt: &Interrupt) -> Result<(), DemoError> {
        while !interrupt.came_within(WATCH) {
            self.check_children()?;
        }
        Ok(())
    }

    fn check_children(&mut self) -> Result<(), DemoError> {
        if let Some(status) = self.pooler.ended()? {
            return Err(self.pooler.early_end(status));
        }
        let ended = self.postgres.ended().map_err(|source| DemoError::Tool {
            program: "postgres".into(),
            source,
        })?;
        match ended {
            Some(status) => {
                let log = postgres::last_lines(&self.postgres.log());
                Err(DemoError::Ended {
                    what: "PostgreSQL",
                    status,
                    log,
                })
            }
            None => Ok(()),
        }
    }
}

/// Two roles, a database and pgbench's tables.
fn fill(postgres: &Postgres, password: &str) -> Result<(), DemoError> {
    postgres.psql(&format!(
        "CREATE ROLE app LOGIN PASSWORD '{password}'; CREATE ROLE reader LOGIN PASSWORD '{password}'"
    ))?;
    postgres.psql("CREATE DATABASE app OWNER app")?;
    postgres.initialise_pgbench("app", password, "app")?;
    postgres.psql_in("app", "GRANT pg_read_all_data TO reader")?;
    Ok(())
}

/// The SCRAM verifiers as the server keeps them: pgweir never needs the passwords.
fn users_file(postgres: &Postgres) -> Result<String, PostgresError> {
    let rows = postgres.psql(
        "SELECT format('\"%s\" \"%s\"', rolname, rolpassword) FROM pg_authid \
         WHERE rolname IN ('app', 'reader') ORDER BY rolname",
    )?;
    Ok(format!("{rows}\n"))
}

fn choose_port(wanted: Option<u16>, preferred: u16) -> Result<u16, DemoError> {
    match wanted.filter(|&port| port != 0) {
        Some(port) if ports::is_free(port) => Ok(port),
        Some(port) => {
            let source = io::ErrorKind::AddrInUse.into();
            Err(DemoError::Port {
                wanted: Some(port),
                source,
            })
        }
        None => ports::free(Some(preferred)).map_err(|source| DemoError::Port { wanted: None, source }),
    }
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> DemoError {
    let path = path.to_path_buf();
    move |source| DemoError::File { path, source }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        demo: DemoArgs,
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let args = Cli::try_parse_from(["demo"]).unwrap().demo;
        assert_eq!((args.pool_size.get(), args.clients.get()), (20, 64));
        assert_eq!((args.port, args.http_port, args.bench), (None, None, None));
    }

    #[test]
    fn a_benchmark_of_no_seconds_is_refused() {
        assert!(Cli::try_parse_from(["demo", "--bench", "0"]).is_err());
        assert!(Cli::try_parse_from(["demo", "--pool-size", "0"]).is_err());
    }

    #[test]
    fn a_taken_port_is_refused_only_when_it_was_asked_for() {
        let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(choose_port(Some(port), 0).is_err());
        assert_ne!(choose_port(None, port).unwrap(), port);
        assert_ne!(choose_port(Some(0), port).unwrap(), port);
    }
}
