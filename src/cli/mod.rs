//! The command line: arguments in, exit code out.

mod check;
pub mod demo;
mod healthcheck;
mod import;
mod run;
mod top;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{config::Source, fault::chain};

/// What `--version` says: `./dev release` names the commit too.
const VERSION: &str = match option_env!("PGWEIR_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// A PostgreSQL connection pooler for CloudNativePG clusters.
#[derive(Debug, Parser)]
#[command(version = VERSION, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: ConfigArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the pooler (also what happens without a command)
    Run(ConfigArgs),
    /// Validate a configuration and print every problem; exit 1 if there is any
    Check(check::CheckArgs),
    /// Print what means the same as a pgbouncer.ini (pgweir.toml) or a Pooler's manifest (the chart's values.yaml)
    Import(import::ImportArgs),
    /// A throw-away PostgreSQL, CA and pooler on loopback, ready to use until Ctrl-C
    Demo(demo::DemoArgs),
    /// What a running pooler does, live in a terminal
    Top(top::TopArgs),
    /// Ask a running pooler whether it is ready; exit 0 if so (for container probes without a shell)
    Healthcheck(ConfigArgs),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "pgweir.toml")]
    config: PathBuf,
    /// A pgbouncer.ini in its place, with the files that it names; relative paths start here, as in PgBouncer
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pgbouncer_ini: Option<PathBuf>,
}

impl ConfigArgs {
    fn source(&self) -> Source {
        match &self.pgbouncer_ini {
            Some(path) => Source::PgBouncer(path.clone()),
            None => Source::Toml(self.config.clone()),
        }
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command.unwrap_or(Command::Run(arguments.run)) {
        Command::Run(args) => run::run(&args.source()),
        Command::Check(args) => check::check(&args),
        Command::Import(args) => import::import(&args),
        Command::Demo(args) => demo::run(&args).unwrap_or_else(|error| {
            eprintln!("{}", chain(&error));
            ExitCode::FAILURE
        }),
        Command::Top(args) => top::top(&args),
        Command::Healthcheck(args) => healthcheck::healthcheck(&args.source()),
    }
}
