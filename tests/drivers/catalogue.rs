//! Which drivers there are, and how their scenarios are started.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

/// `NAME=REASON;NAME=REASON`: what is not to be run. `./dev` sets it where something cannot be installed.
const LEFT_OUT: &str = "PGWEIR_DRIVERS_LEFT_OUT";

/// A driver and the program that uses it.
pub(super) struct Driver {
    pub(super) name: &'static str,
    /// In the table.
    pub(super) position: usize,
    language: Language,
    script: &'static str,
    /// Why it is not run.
    pub(super) left_out: Option<String>,
    /// Which checks are wanted; all if there are none.
    checks: Vec<String>,
}

#[derive(Clone, Copy)]
enum Language {
    Python,
    Node,
    Rust,
    Java,
    Ruby,
    Php,
    Go,
}

const DRIVERS: [(&str, Language, &str); 12] = [
    ("psycopg", Language::Python, "psycopg_sync.py"),
    ("psycopg-async", Language::Python, "psycopg_async.py"),
    ("asyncpg", Language::Python, "asyncpg_client.py"),
    ("sqlalchemy", Language::Python, "sqlalchemy_engines.py"),
    ("django", Language::Python, "django_orm.py"),
    ("node-postgres", Language::Node, "pg.js"),
    ("tokio-postgres", Language::Rust, "tokio_postgres"),
    ("sqlx", Language::Rust, "sqlx"),
    ("pgjdbc", Language::Java, "Jdbc.java"),
    ("ruby-pg", Language::Ruby, "pg.rb"),
    ("php-pdo", Language::Php, "pdo.php"),
    ("pgx", Language::Go, "pgx"),
];

/// The drivers that are wanted, in the order of the table. A filter is a part of a name, or that and a check:
/// `psycopg:cancel`.
pub(super) fn drivers(filters: &[&str]) -> Vec<Driver> {
    let left_out = std::env::var(LEFT_OUT).unwrap_or_default();
    let reason = |name: &str| {
        let mut reasons = left_out.split(';').filter_map(|entry| entry.split_once('='));
        reasons.find_map(|(other, reason)| (other == name).then(|| reason.to_owned()))
    };
    let driver = |(position, (name, language, script))| Driver {
        name,
        position,
        language,
        script,
        left_out: reason(name),
        checks: Vec::new(),
    };
    let mut drivers: Vec<Driver> = DRIVERS.into_iter().enumerate().map(driver).collect();
    for driver in &mut drivers {
        let wanted = filters.iter().filter_map(|filter| filter.split_once(':'));
        let checks = wanted.filter(|(part, _)| driver.name.contains(part));
        driver.checks = checks.map(|(_, check)| check.to_owned()).collect();
    }
    let part = |filter: &&str| filter.split(':').next().unwrap_or_default().to_owned();
    let parts: Vec<String> = filters.iter().map(part).collect();
    drivers.retain(|driver| parts.is_empty() || parts.iter().any(|part| driver.name.contains(part)));
    drivers
}

impl Driver {
    /// What starts the scenario. `./dev drivers` has put everything where this looks for it.
    pub(super) fn command(&self) -> Command {
        let mut command = self.program();
        command.args(&self.checks);
        command
    }

    fn program(&self) -> Command {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
        let sources = checkout.join("tests/drivers");
        let installed = checkout.join(".dev/drivers");
        match self.language {
            Language::Python => {
                let python = installed.join("python/bin/python");
                let mut command = script(python, sources.join("python").join(self.script));
                command.env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
            Language::Node => {
                let mut command = script("node", sources.join("node").join(self.script));
                command.env("NODE_PATH", installed.join("node/node_modules"));
                command
            }
            Language::Rust => Command::new(installed.join("rust/debug").join(self.script)),
            Language::Java => {
                let mut command = Command::new("java");
                // It lives for seconds: compiling its bytecode well would cost more than it brings.
                command.args(["-XX:TieredStopAtLevel=1", "-cp", "/usr/share/java/postgresql.jar"]);
                command.arg(sources.join("java").join(self.script));
                command
            }
            Language::Ruby => script("ruby", sources.join("ruby").join(self.script)),
            Language::Php => script("php", sources.join("php").join(self.script)),
            Language::Go => Command::new(installed.join("go").join(self.script)),
        }
    }
}

fn script(program: impl Into<OsString>, file: PathBuf) -> Command {
    let mut command = Command::new(program.into());
    command.arg(file);
    command
}
