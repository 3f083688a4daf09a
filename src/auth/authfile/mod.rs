//! The format that pg_hba.conf and pg_ident.conf share: lines of fields, quotes, comments, files in files.
//!
//! It knows no field's meaning; what is wrong is collected, all of it, with file and line. Files come through
//! [`Files`], and their number, their bytes and their nesting are bounded.

mod files;
mod names;
mod problem;
mod reading;
mod tokens;

pub use self::reading::taken_in;
pub use self::{
    files::{Disk, Files},
    problem::{Place, Problem, Problems},
};
pub(super) use self::{
    names::{Name, PatternError},
    reading::{Line, Reading},
    tokens::{Field, Token},
};

#[cfg(any(fuzzing, test))]
pub(super) mod fake;
#[cfg(test)]
mod tests;
