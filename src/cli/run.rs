//! `pgweir run`

use std::process::ExitCode;

use crate::{
    app::{self, RunError},
    config::{Overlay, Source},
    fault::chain,
    telemetry,
};

pub(super) fn run(source: &Source) -> ExitCode {
    // Read first: if a file changes now, the first look at it finds that it has.
    let configuration = app::Digest::of(&source.files());
    let loaded = match source.load(&Overlay::default()) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let logging = match telemetry::logging::init(&loaded.settings.log) {
        Ok(logging) => logging,
        Err(error) => {
            eprintln!("{}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    match app::run(source, configuration, loaded, logging) {
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
