//! PgBouncer's configuration: a `pgbouncer.ini` in, what means the same as TOML out, with a remark for everything that
//! is otherwise here.
//!
//! It reads what the file includes, and touches nothing else: what is wrong with the settings is found by the checker
//! that reads the TOML, and said of the line that each comes from.

mod auth;
mod connstr;
mod databases;
mod document;
mod draft;
mod ini;
mod kinds;
mod listen;
mod main_section;
mod print;
mod remark;
mod sections;
mod settings;
mod tls;
mod values;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use self::{document::Toml, draft::Draft, sections::Sections};
pub use self::{
    document::{Document, Section, Setting, Value},
    ini::{Ini, Place},
    remark::{Remark, Weight},
};
use super::{ConfigError, parse, problem::Problem};

/// What a `pgbouncer.ini` comes to.
#[derive(Debug)]
pub struct Translation {
    /// The settings.
    pub document: Document,
    /// What there is to say about them.
    pub remarks: Vec<Remark>,
    /// What is wrong with the file.
    pub problems: Vec<Problem>,
    /// What the databases' users log in to servers with, by the databases' names.
    pub(super) passwords: BTreeMap<String, String>,
    main: Place,
}

/// Reads a `pgbouncer.ini` and what it includes.
pub(super) fn read(path: &Path) -> io::Result<Ini> {
    Ini::read(path, &|path| fs::read(path))
}

/// The file and what it includes.
pub(super) fn files(path: &Path) -> Vec<PathBuf> {
    read(path).map_or_else(|_| vec![path.to_owned()], |ini| ini.files)
}

/// Reads a `pgbouncer.ini` and what it includes for people to look at: whatever has no counterpart is a remark.
///
/// # Errors
/// It cannot be read, or there are mistakes in it.
pub fn import(path: &Path) -> Result<Translation, ConfigError> {
    let ini = read(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let translation = translate(&ini);
    let mut problems = translation.problems.clone();
    if problems.is_empty() && !translation.is_refused() {
        let toml = translation.to_toml();
        let found = parse(&toml.text, Path::new("")).err().unwrap_or_default();
        problems.extend(
            found
                .into_iter()
                .map(|problem| translation.located(problem, &toml)),
        );
    }
    if problems.is_empty() {
        return Ok(translation);
    }
    Err(ConfigError::Invalid {
        path: path.to_owned(),
        problems,
    })
}

/// Settings of a `[pgbouncer]` section that are not in a file of its own, each with its line in `file`.
pub fn of_settings(file: &Path, settings: impl IntoIterator<Item = (usize, String, String)>) -> Translation {
    let mut draft = Draft::default();
    let said = Sections::of(&Ini::of_settings(file, settings), &mut draft);
    said.translate_main(&mut draft);
    finish(draft, said)
}

/// What means the same.
pub(super) fn translate(ini: &Ini) -> Translation {
    let mut draft = Draft {
        problems: ini.problems.clone(),
        ..Draft::default()
    };
    let said = Sections::of(ini, &mut draft);
    said.translate(&mut draft);
    finish(draft, said)
}

fn finish(mut draft: Draft, said: Sections) -> Translation {
    let first = |remark: &Remark| remark.place.clone();
    draft.remarks.sort_by_key(first);
    Translation {
        main: said.place.unwrap_or(said.start),
        document: draft.document,
        remarks: draft.remarks,
        problems: draft.problems,
        passwords: draft.passwords,
    }
}

impl Translation {
    /// Whether pgweir does not run with it.
    pub fn is_refused(&self) -> bool {
        self.remarks.iter().any(|remark| remark.weight == Weight::Refusal)
    }

    /// What keeps pgweir from running with it: mistakes, and what has no counterpart.
    pub(super) fn all_problems(&self) -> Vec<Problem> {
        let refusals = self
            .remarks
            .iter()
            .filter(|remark| remark.weight == Weight::Refusal);
        let problem = |remark: &Remark| {
            let place = remark.place.as_ref().unwrap_or(&self.main);
            place.problem(&remark.name, remark.text.as_str(), None)
        };
        self.problems
            .iter()
            .cloned()
            .chain(refusals.map(problem))
            .collect()
    }

    pub(super) fn to_toml(&self) -> Toml {
        self.document.to_toml()
    }

    /// The same problem, of the line that is to blame.
    pub(super) fn located(&self, problem: Problem, toml: &Toml) -> Problem {
        let origin = problem
            .line
            .checked_sub(1)
            .and_then(|index| toml.origins.get(index));
        match origin.and_then(Option::as_ref) {
            Some(origin) => Problem {
                file: Some(origin.place.file.to_path_buf()),
                line: origin.place.line,
                key: origin.name.clone(),
                ..problem
            },
            None => Problem {
                file: Some(self.main.file.to_path_buf()),
                line: self.main.line,
                key: main_section::name_of(&problem.key).unwrap_or(problem.key),
                ..problem
            },
        }
    }
}
