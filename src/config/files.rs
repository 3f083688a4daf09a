//! The files that a configuration file names: whether they are there and may be read.
//!
//! What is in them is for the component that uses them.

use std::{
    fs::{self, File},
    path::PathBuf,
};

use super::problem::Problem;

/// A file named by a setting.
#[derive(Debug)]
pub(super) struct ReferencedFile {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) path: PathBuf,
}

impl ReferencedFile {
    /// What is wrong with the file, if anything.
    pub(super) fn problem(&self) -> Option<Problem> {
        let reason = match fs::metadata(&self.path) {
            Err(error) => error.to_string(),
            Ok(metadata) if metadata.is_dir() => "it is a directory".to_owned(),
            // Opening a pipe would wait for its writer, or take its content from whoever reads it for real.
            Ok(metadata) if !metadata.is_file() => return None,
            Ok(_) => File::open(&self.path).err()?.to_string(),
        };
        Some(Problem {
            file: None,
            line: self.line,
            key: self.key.clone(),
            message: format!("cannot read {}: {reason}", self.path.display()),
            hint: None,
        })
    }
}
