//! `pgweir import`: what means the same as another pooler's configuration, for people to look at.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use crate::{
    config::pgbouncer::{self, Weight},
    fault::chain,
};

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// A pgbouncer.ini
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Exit 1 if anything is otherwise than it was
    #[arg(long)]
    strict: bool,
}

/// What was found, for standard output and standard error.
struct Imported {
    text: String,
    warnings: Vec<String>,
}

pub(super) fn import(args: &ImportArgs) -> ExitCode {
    let imported = match pgbouncer_ini(&args.file) {
        Ok(imported) => imported,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    print!("{}", imported.text);
    for warning in &imported.warnings {
        eprintln!("{warning}");
    }
    if args.strict && !imported.warnings.is_empty() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn pgbouncer_ini(path: &Path) -> Result<Imported, String> {
    let translation = pgbouncer::import(path).map_err(|error| chain(&error))?;
    let remarks = translation
        .remarks
        .iter()
        .filter(|remark| remark.weight > Weight::Note);
    let mut warnings: Vec<_> = remarks
        .map(|remark| match &remark.place {
            Some(place) => format!("{place}: warning: {remark}"),
            None => format!("{}: warning: {remark}", path.display()),
        })
        .collect();
    let chores = translation.chores();
    warnings.extend(
        chores
            .iter()
            .map(|chore| format!("{}: to do: {chore}", path.display())),
    );
    Ok(Imported {
        text: translation.to_text(path),
        warnings,
    })
}
