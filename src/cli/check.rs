//! `pgweir check`

use std::{path::Path, process::ExitCode};

use crate::{app, config, fault::chain};

pub(super) fn check(path: &Path) -> ExitCode {
    let settings = match config::load(path) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    match app::prepare(&settings) {
        Ok(_) => {
            println!("{}: ok", path.display());
            ExitCode::SUCCESS
        }
        Err(errors) => {
            for error in errors {
                eprintln!("{}: {}", path.display(), chain(&error));
            }
            ExitCode::FAILURE
        }
    }
}
