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
pub mod pgbouncer;
mod problem;
mod reader;
mod resolve;
mod settings;
mod source;
mod units;

use std::path::Path;

pub use diff::restart_needed;
pub use hints::nearest;
pub use keys::{KEYS, Key};
pub use network::{Network, NetworkError};
pub use observation::{
    BasicAuth, Collector, Compatibility, Fleet, Http, HttpAuth, Metrics, ReplicaAddress, ServiceRef, Traces,
};
pub use overlay::{NoKey, Overlay, Values, defaults, find_key, literals};
pub use problem::{ConfigError, Problem};
pub use resolve::{LookUp, PoolSettings};
pub use settings::*;
pub use source::{Loaded, Source};

use files::ReferencedFile;
use reader::Report;

/// The admin console is reached as a database of these names.
pub const RESERVED_NAMES: [&str; 2] = ["pgweir", "pgbouncer"];

/// Reads the file at `path` and checks that the files it names can be read.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    Source::Toml(path.to_owned())
        .load(&Overlay::default())
        .map(|loaded| loaded.settings)
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
