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

use self::{
    databases::Database,
    document::Toml,
    draft::{Draft, Given, Subject},
    ini::What,
    main_section::Main,
};
pub use self::{
    document::{Document, Section, Setting, Value},
    ini::{Ini, Place},
    remark::{Remark, Weight},
};
use super::{ConfigError, hints, parse, problem::Problem};

const SECTIONS: [&str; 4] = ["pgbouncer", "databases", "users", "peers"];
const NO_PEERS: &str = "one pgweir uses every core, and knows whose query a cancel request is for; replicas of it are listed in \
    [fleet]";
const CAPPED: &str = "PgBouncer, too, never keeps more than the size of the pool";

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
    said.main.translate(&mut draft);
    tls::translate(&said.main, &mut draft);
    cap(&said.main, &mut draft);
    finish(draft, &said)
}

/// What means the same.
pub(super) fn translate(ini: &Ini) -> Translation {
    let mut draft = Draft {
        problems: ini.problems.clone(),
        ..Draft::default()
    };
    let said = Sections::of(ini, &mut draft);
    if said.place.is_none() {
        let hint = "PgBouncer does not start without it";
        let problem = said
            .main_place(ini)
            .problem("", "there is no [pgbouncer] section", Some(hint));
        draft.problems.push(problem);
    }
    said.translate(&mut draft);
    finish(draft, &said)
}

fn finish(mut draft: Draft, said: &Sections) -> Translation {
    let first = |remark: &Remark| remark.place.clone();
    draft.remarks.sort_by_key(first);
    Translation {
        main: said.place.clone().unwrap_or_else(|| said.start.clone()),
        document: draft.document,
        remarks: draft.remarks,
        problems: draft.problems,
        passwords: draft.passwords,
    }
}

/// What the file says, by section.
#[derive(Debug)]
struct Sections {
    start: Place,
    /// Where `[pgbouncer]` begins.
    place: Option<Place>,
    main: Main,
    databases: Vec<(String, Given)>,
    users: Vec<(String, Given)>,
    peers: Vec<(String, Given)>,
}

impl Sections {
    fn of(ini: &Ini, draft: &mut Draft) -> Self {
        let mut sections = Self {
            start: Place {
                file: ini.file.clone(),
                line: 1,
            },
            place: None,
            main: Main::default(),
            databases: Vec::new(),
            users: Vec::new(),
            peers: Vec::new(),
        };
        let mut current = None;
        for said in &ini.said {
            match &said.what {
                What::Section(name) => {
                    sections.begin(name, &said.place, draft);
                    current = Some(name.as_str());
                }
                What::Value(key, value) => {
                    let given = Given {
                        place: said.place.clone(),
                        value: value.clone(),
                    };
                    sections.take(current, key, given, draft);
                }
            }
        }
        sections
    }

    fn main_place(&self, ini: &Ini) -> Place {
        let start = || Place {
            file: ini.file.clone(),
            line: 1,
        };
        self.place.clone().unwrap_or_else(start)
    }

    fn begin(&mut self, name: &str, place: &Place, draft: &mut Draft) {
        if name == "pgbouncer" {
            self.main.start_over(draft);
            self.place = Some(place.clone());
        } else if !SECTIONS.contains(&name) {
            let hint = match hints::nearest(name, SECTIONS.into_iter()) {
                Some(near) => format!("did you mean [{near}]?"),
                None => format!("the sections are {}", SECTIONS.join(", ")),
            };
            draft
                .problems
                .push(place.problem("", format!("unknown section [{name}]"), Some(&hint)));
        }
    }

    fn take(&mut self, section: Option<&str>, key: &str, given: Given, draft: &mut Draft) {
        let list = match section {
            Some("pgbouncer") => return self.main.note(key, given, draft),
            Some("databases") => &mut self.databases,
            Some("users") => &mut self.users,
            Some("peers") => &mut self.peers,
            // That there is no such section has been said.
            Some(_) => return,
            None => {
                let problem = given.place.problem(key, "stands before the first section", None);
                return draft.problems.push(problem);
            }
        };
        if let Some((_, earlier)) = list.iter_mut().find(|(name, _)| name == key) {
            let why = format!("what {} says counts", given.place);
            let subject = Subject {
                name: key,
                given: Some(earlier),
            };
            draft.discreet_remark(Weight::Warning, subject, why);
            *earlier = given;
        } else {
            list.push((key.to_owned(), given));
        }
    }

    fn translate(&self, draft: &mut Draft) {
        let mut databases = Vec::new();
        for (name, given) in &self.databases {
            databases.extend(Database::read(name, given, draft));
        }
        let elsewhere = auth::Elsewhere {
            has_auth_user: databases
                .iter()
                .any(|database| database.get("auth_user").is_some()),
            has_free_user: databases.iter().any(|database| database.get("user").is_none()),
        };
        listen::translate(&self.main, draft);
        self.main.translate(draft);
        tls::translate(&self.main, draft);
        auth::translate(&self.main, elsewhere, draft);
        for (index, database) in databases.iter().enumerate() {
            database.translate(self.main.in_force("unix_socket_dir"), index == 0, draft);
        }
        for (name, given) in &self.users {
            databases::translate_user(name, given, draft);
        }
        self.peers(draft);
        cap(&self.main, draft);
    }

    fn peers(&self, draft: &mut Draft) {
        for (name, given) in &self.peers {
            let label = format!("peers.{name}");
            databases::read_pairs(&label, given, draft);
            let subject = Subject {
                name: &label,
                given: Some(given),
            };
            draft.remark(Weight::Note, subject, NO_PEERS);
        }
    }
}

/// `min_pool_size`: more than the size of the pool is a mistake here.
fn cap(main: &Main, draft: &mut Draft) {
    let size = values::integer(main.in_force("default_pool_size")).unwrap_or(i64::MAX);
    let subject = main.subject("min_pool_size");
    if let Some((value, comment)) = kinds::Kind::Number.translate(draft, subject) {
        let is_capped = matches!(value, Value::Number(least) if least > size);
        let value = if is_capped { Value::Number(size) } else { value };
        let comment = if is_capped {
            Some(CAPPED.to_owned())
        } else {
            comment
        };
        draft.set("pool", "min_pool_size", value, subject).comment = comment;
    }
    for section in draft.document.named_mut("databases") {
        let number = |key: &str| section.number(key);
        let size = number("pool_size").unwrap_or(size);
        if number("min_pool_size").is_some_and(|least| least > size)
            && let Some(setting) = section
                .settings
                .iter_mut()
                .find(|setting| setting.key == "min_pool_size")
        {
            setting.value = Value::Number(size);
            setting.comment = Some(CAPPED.to_owned());
        }
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
