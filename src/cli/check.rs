//! `pgweir check`

use std::process::ExitCode;

use clap::Args;

use super::ConfigArgs;
use crate::{
    app::{self, Trial},
    config::{Loaded, Overlay, pgbouncer::Weight},
    fault::chain,
};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Also try each server: its certificate, the log-ins that pgweir makes by itself, and auth_query
    #[arg(long)]
    connect: bool,
    /// The database to try for [databases."*"]
    #[arg(long, value_name = "NAME", default_value = "postgres", requires = "connect")]
    database: String,
    /// The user to look up with auth_query; auth_user itself if none is named
    #[arg(long, value_name = "NAME", requires = "connect")]
    user: Option<String>,
}

pub(super) fn check(args: &CheckArgs) -> ExitCode {
    let source = args.config.source();
    let path = source.path();
    let Loaded {
        settings, remarks, ..
    } = match source.load(&Overlay::default()) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let prepared = match app::prepare(&settings) {
        Ok(prepared) => prepared,
        Err(errors) => {
            for error in errors {
                eprintln!("{}: {}", path.display(), chain(&error));
            }
            return ExitCode::FAILURE;
        }
    };
    for remark in remarks.iter().filter(|remark| remark.weight > Weight::Note) {
        match &remark.place {
            Some(place) => eprintln!("{place}: warning: {remark}"),
            None => eprintln!("{}: warning: {remark}", path.display()),
        }
    }
    for warning in app::warnings(&settings, &prepared) {
        eprintln!("{}: warning: {warning}", path.display());
    }
    println!("{}: ok", path.display());
    if !args.connect {
        return ExitCode::SUCCESS;
    }
    let trial = Trial {
        database: args.database.clone(),
        user: args.user.clone(),
    };
    match app::try_out(settings, prepared, &trial) {
        Ok(findings) => report(&findings),
        Err(error) => {
            eprintln!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn report(findings: &[app::Finding]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for app::Finding { place, outcome } in findings {
        match outcome {
            Ok(text) => println!("{place}: {text}"),
            Err(problem) => {
                code = ExitCode::FAILURE;
                eprintln!("{place}: {}", problem.error);
                for line in problem.advice.iter().flat_map(|advice| advice.lines()) {
                    eprintln!("  {line}");
                }
            }
        }
    }
    code
}
