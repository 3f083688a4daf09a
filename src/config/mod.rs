//! The configuration file: TOML in, [`Settings`] or every mistake at once out.
//!
//! It opens no socket and starts nothing; `toml` is named only here.

mod settings;

pub use settings::*;
