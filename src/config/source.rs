//! Where settings are read from: a file of ours, or one of PgBouncer's.

use std::{
    fs, io,
    path::{Path, PathBuf},
    str::{self, Utf8Error},
};

use super::{
    ConfigError, Overlay, Problem, ServerPassword, Settings, Values,
    files::ReferencedFile,
    overlay,
    pgbouncer::{self, Remark},
    read,
};

/// A configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Ours; relative paths start at its directory.
    Toml(PathBuf),
    /// A `pgbouncer.ini`; relative paths start at the working directory.
    PgBouncer(PathBuf),
}

/// What a configuration file says.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Everything that is said, as text.
    pub values: Values,
    /// What is otherwise than a `pgbouncer.ini` says it.
    pub remarks: Vec<Remark>,
}

impl Source {
    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Toml(path) | Self::PgBouncer(path) => path,
        }
    }

    /// The file and what it includes, as far as they can be read.
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Toml(path) => vec![path.clone()],
            Self::PgBouncer(path) => pgbouncer::files(path),
        }
    }

    /// Reads the file, puts what is said beside it in its place, and checks that the files it names can be read.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self, overlay: &Overlay) -> Result<Loaded, ConfigError> {
        match self {
            Self::Toml(path) => toml(path, overlay),
            Self::PgBouncer(path) => pgbouncer(path, overlay),
        }
    }
}

fn toml(path: &Path, overlay: &Overlay) -> Result<Loaded, ConfigError> {
    let bytes = fs::read(path).map_err(|error| unreadable(path, error))?;
    let text = str::from_utf8(&bytes).map_err(|error| invalid(path, vec![not_utf8(&bytes, error)]))?;
    let base = path.parent().unwrap_or(Path::new(""));
    let (settings, problems) = checked(text, base, overlay);
    if !problems.is_empty() {
        return Err(invalid(path, problems));
    }
    Ok(Loaded {
        settings,
        values: overlay::values(text, overlay),
        remarks: Vec::new(),
    })
}

fn pgbouncer(path: &Path, overlay: &Overlay) -> Result<Loaded, ConfigError> {
    let ini = pgbouncer::read(path).map_err(|error| unreadable(path, error))?;
    let translation = pgbouncer::translate(&ini);
    let toml = translation.to_toml();
    let (mut settings, found) = checked(&toml.text, Path::new(""), overlay);
    let mut problems = translation.all_problems();
    // What is missing because it could not be read is not missing.
    if problems.is_empty() {
        problems.extend(
            found
                .into_iter()
                .map(|problem| translation.located(problem, &toml)),
        );
    }
    if !problems.is_empty() {
        return Err(invalid(path, problems));
    }
    for (name, password) in &translation.passwords {
        if let Some(database) = settings.databases.get_mut(name) {
            database.password = Some(ServerPassword::Written(password.as_str().into()));
        }
    }
    Ok(Loaded {
        settings,
        values: overlay::values(&toml.text, overlay),
        remarks: translation.remarks,
    })
}

fn checked(text: &str, base: &Path, overlay: &Overlay) -> (Settings, Vec<Problem>) {
    let (settings, mut problems, files) = read(text, base, overlay);
    problems.extend(files.iter().filter_map(ReferencedFile::problem));
    (settings, problems)
}

fn unreadable(path: &Path, source: io::Error) -> ConfigError {
    ConfigError::Read {
        path: path.to_owned(),
        source,
    }
}

fn invalid(path: &Path, mut problems: Vec<Problem>) -> ConfigError {
    problems.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    ConfigError::Invalid {
        path: path.to_owned(),
        problems,
    }
}

fn not_utf8(bytes: &[u8], error: Utf8Error) -> Problem {
    let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
    Problem {
        file: None,
        line: 1 + valid.iter().filter(|byte| **byte == b'\n').count(),
        key: String::new(),
        message: "the file is not UTF-8 text".to_owned(),
        hint: None,
    }
}
