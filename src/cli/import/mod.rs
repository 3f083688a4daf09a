//! `pgweir import`: what means the same as another pooler's configuration, for people to look at.

mod pooler;

use std::{
    fs,
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
    /// A pgbouncer.ini; or a CloudNativePG Pooler's manifest, which ends in .yaml, .yml or .json
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Which Pooler of the file
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
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
    let extension = args.file.extension().and_then(|extension| extension.to_str());
    let is_manifest = matches!(extension, Some("yaml" | "yml" | "json"));
    let imported = if is_manifest {
        manifest(&args.file, args.name.as_deref())
    } else {
        pgbouncer_ini(&args.file)
    };
    let imported = match imported {
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

fn manifest(path: &Path, name: Option<&str>) -> Result<Imported, String> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    pooler::import(&text, path, name)
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
