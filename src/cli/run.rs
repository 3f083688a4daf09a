//! `pgweir run`

use std::{path::Path, process::ExitCode};

use crate::{
    app::{self, RunError},
    config,
    fault::chain,
    telemetry,
};

pub(super) fn run(path: &Path) -> ExitCode {
    // Read first: if the file changes now, the first look at it finds that it has.
    let configuration = app::Digest::of(&[path.to_owned()]);
    let settings = match config::load(path) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let logging = match telemetry::logging::init(&settings.log) {
        Ok(logging) => logging,
        Err(error) => {
            eprintln!("{}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    match app::run(path, configuration, settings, logging) {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Prepare(errors)) => {
            for error in errors {
                eprintln!("{}", chain(&error));
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{}", chain(&error));
            ExitCode::FAILURE
        }
    }
}
