//! User name maps: pg_ident.conf, `MAPNAME SYSTEM-USERNAME PG-USERNAME` (PgBouncer's `auth_ident_file`).

use std::path::Path;

use thiserror::Error;

use super::authfile::{Disk, Field, Files, Line, Name, Problems, Reading, Token};

/// The maps of an ident file.
#[derive(Debug)]
pub struct IdentMaps {
    mappings: Vec<Mapping>,
}

/// A name that does not stand for the user.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unmapped {
    /// Without a map they have to be the same.
    #[error("provided user name ({user}) and authenticated user name ({name}) do not match")]
    Differs {
        /// Who the client says it is.
        user: Box<str>,
        /// Who it is.
        name: Box<str>,
    },
    /// No line of the map leads to the user.
    #[error("no match in usermap \"{map}\" for user \"{user}\" authenticated as \"{name}\"")]
    NoMatch {
        /// The map.
        map: Box<str>,
        /// Who the client says it is.
        user: Box<str>,
        /// Who it is.
        name: Box<str>,
    },
}

/// One line.
#[derive(Debug)]
struct Mapping {
    map: Box<str>,
    system: Name,
    user: User,
}

#[derive(Debug)]
enum User {
    All,
    Named(Name),
    /// What stands before and behind `\1`.
    Captured(Box<str>, Box<str>),
}

/// The user in whose name stands what the first group has matched.
const CAPTURE: &str = "\\1";

impl IdentMaps {
    /// No maps at all.
    pub const fn none() -> Self {
        Self { mappings: Vec::new() }
    }

    /// Reads an ident file and what it includes.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        Self::read(&Disk, path)
    }

    /// Reads an ident file out of `files`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(files: &dyn Files, path: &Path) -> Result<Self, Problems> {
        let mut reading = Reading::new(files);
        let mut mappings = Vec::new();
        for line in reading.lines(path) {
            match mapping(&line) {
                Ok(mapping) => mappings.push(mapping),
                Err((message, hint)) => reading.problem(&line.place, message, hint),
            }
        }
        reading.finish(Self { mappings })
    }

    /// Whether somebody who is `name` may be `user`.
    ///
    /// # Errors
    /// When the names differ, or no line of the map leads from the one to the other. A map without lines leads
    /// nowhere.
    pub fn check(&self, map: Option<&str>, name: &str, user: &str) -> Result<(), Unmapped> {
        let Some(map) = map.filter(|map| !map.is_empty()) else {
            return if name == user {
                Ok(())
            } else {
                Err(Unmapped::Differs {
                    user: user.into(),
                    name: name.into(),
                })
            };
        };
        let mut mappings = self.mappings.iter().filter(|mapping| *mapping.map == *map);
        if mappings.any(|mapping| mapping.leads(name, user)) {
            return Ok(());
        }
        Err(Unmapped::NoMatch {
            map: map.into(),
            user: user.into(),
            name: name.into(),
        })
    }
}

impl Mapping {
    fn leads(&self, name: &str, user: &str) -> bool {
        match &self.user {
            User::All => self.system.matches(name),
            User::Named(named) => self.system.matches(name) && named.matches(user),
            // What has been put together is a name and nothing else, whatever it says.
            User::Captured(before, behind) => self.captured(name).is_some_and(|captured| {
                let middle = user
                    .strip_prefix(&**before)
                    .and_then(|rest| rest.strip_suffix(&**behind));
                middle == Some(captured)
            }),
        }
    }

    fn captured<'a>(&self, name: &'a str) -> Option<&'a str> {
        match &self.system {
            Name::Exact(_) => None,
            Name::Pattern(pattern) => Some(pattern.captures(name)?.get(1)?.as_str()),
        }
    }
}

type Mistake = (String, Option<&'static str>);

fn mapping(line: &Line) -> Result<Mapping, Mistake> {
    let [map, system, user] = &line.fields[..] else {
        let hint = "a line is MAPNAME SYSTEM-USERNAME PG-USERNAME; names with blanks or commas need quotes";
        let message = match line.fields.len() {
            0..3 => "missing entry at end of line",
            _ => "more than three fields",
        };
        return Err((message.to_owned(), Some(hint)));
    };
    let (map, system, user) = (single(map)?, single(system)?, single(user)?);
    let system = name(system)?;
    Ok(Mapping {
        map: map.text.clone(),
        user: database_user(user, &system)?,
        system,
    })
}

fn single(field: &Field) -> Result<&Token, Mistake> {
    match &field[..] {
        [token] => Ok(token),
        [] => Err((
            "missing entry: a file that it is read from is empty".to_owned(),
            None,
        )),
        _ => Err((
            "multiple values in ident field".to_owned(),
            Some("write one line for each"),
        )),
    }
}

fn name(token: &Token) -> Result<Name, Mistake> {
    Name::of(token).map_err(|error| (error.to_string(), None))
}

fn database_user(token: &Token, system: &Name) -> Result<User, Mistake> {
    if token.is("all") {
        return Ok(User::All);
    }
    if token.after('+').is_some() {
        let message = format!(
            "\"{}\": who is a member of a role only the server knows",
            token.text
        );
        return Err((message, Some("name the users, or match them with a /regex")));
    }
    let named = name(token)?;
    let split = match (&named, system) {
        (Name::Exact(text), Name::Pattern(pattern)) => text.split_once(CAPTURE).map(|split| (split, pattern)),
        _ => None,
    };
    let Some(((before, behind), pattern)) = split else {
        return Ok(User::Named(named));
    };
    if pattern.captures_len() < 2 {
        let message = format!(
            "regular expression \"{}\" has no subexpressions as requested by backreference in \"{}\"",
            pattern.as_str(),
            token.text
        );
        return Err((message, None));
    }
    Ok(User::Captured(before.into(), behind.into()))
}

#[cfg(test)]
mod tests;
