//! The configuration file: TOML in, [`Settings`] or every mistake at once out.
//!
//! It opens no socket and starts nothing; `toml` is named only here.

mod address;
mod check;
mod diff;
mod files;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod hints;
mod keys;
mod kubernetes;
mod network;
mod observation;
mod overlay;
mod problem;
mod reader;
mod resolve;
mod settings;
mod units;

use std::{
    fs,
    path::Path,
    str::{self, Utf8Error},
};

pub use diff::restart_needed;
pub use hints::nearest;
pub use keys::{KEYS, Key};
pub use network::{Network, NetworkError};
pub use observation::{BasicAuth, Compatibility, Fleet, Http, HttpAuth, Metrics, ReplicaAddress, ServiceRef};
pub use overlay::{NoKey, Overlay, Values, defaults, find_key, literals};
pub use problem::{ConfigError, Problem};
pub use resolve::{LookUp, PoolSettings};
pub use settings::*;

use files::ReferencedFile;
use reader::Report;

/// The admin console is reached as a database of these names.
pub const RESERVED_NAMES: [&str; 2] = ["pgweir", "pgbouncer"];

/// Reads the file at `path` and checks that the files it names can be read.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    load_with(path, &Overlay::default()).map(|(settings, _)| settings)
}

/// The same with what is said beside the file, and with everything that is said as text.
pub fn load_with(path: &Path, overlay: &Overlay) -> Result<(Settings, Values), ConfigError> {
    let bytes = fs::read(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let base = path.parent().unwrap_or(Path::new(""));
    let text = str::from_utf8(&bytes);
    let (settings, mut problems) = match text {
        Ok(text) => {
            let (settings, mut problems, files) = read(text, base, overlay);
            problems.extend(files.iter().filter_map(ReferencedFile::problem));
            (Some(settings), problems)
        }
        Err(error) => (None, vec![not_utf8(&bytes, error)]),
    };
    problems.sort_by_key(|problem| problem.line);
    match settings {
        Some(settings) if problems.is_empty() => {
            Ok((settings, overlay::values(text.unwrap_or_default(), overlay)))
        }
        _ => Err(ConfigError::Invalid {
            path: path.to_owned(),
            problems,
        }),
    }
}

/// Reads the text of a configuration file whose relative paths start at `base`. It touches no file.
pub fn parse(text: &str, base: &Path) -> Result<Settings, Vec<Problem>> {
    parse_with(text, base, &Overlay::default())
}

/// The same with what is said beside it.
pub fn parse_with(text: &str, base: &Path, overlay: &Overlay) -> Result<Settings, Vec<Problem>> {
    let (settings, problems, _) = read(text, base, overlay);
    if problems.is_empty() {
        Ok(settings)
    } else {
        Err(problems)
    }
}

/// The settings (to be used only when there is no problem), the problems by line, the files named.
fn read(text: &str, base: &Path, overlay: &Overlay) -> (Settings, Vec<Problem>, Vec<ReferencedFile>) {
    let (mut document, syntax_errors) = toml::de::DeTable::parse_recoverable(text);
    let report = Report::new(text, base, &syntax_errors);
    overlay.apply(document.get_mut());
    let settings = check::settings(&report, document.get_ref());
    let (problems, files) = report.finish();
    (settings, problems, files)
}

fn not_utf8(bytes: &[u8], error: Utf8Error) -> Problem {
    let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
    Problem {
        line: 1 + valid.iter().filter(|byte| **byte == b'\n').count(),
        key: String::new(),
        message: "the file is not UTF-8 text".to_owned(),
        hint: None,
    }
}
