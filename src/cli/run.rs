//! `pgweir run`

use std::{path::Path, process::ExitCode};

use super::chain;
use crate::{
    app::{self, RunError},
    config, telemetry,
};

pub(super) fn run(path: &Path) -> ExitCode {
    let settings = match config::load(path) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = telemetry::logging::init(&settings.log) {
        eprintln!("{}", chain(&error));
        return ExitCode::FAILURE;
    }
    match app::run(path, settings) {
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
