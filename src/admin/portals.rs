//! What a visitor has prepared and bound in the extended protocol.

use std::collections::HashMap;

use super::{
    command::{self, Command},
    error::{ConsoleError, ExtendedError},
    show::Shown,
};
use crate::wire::{
    reader::{Malformed, Reader},
    rows::Formats,
};

/// A visitor may have so many statements, and so many portals.
const MOST: usize = 256;

/// Statements and portals, by name. A statement without a command is an empty query.
#[derive(Debug, Default)]
pub(super) struct Portals {
    statements: HashMap<String, Option<Command>>,
    portals: HashMap<String, Portal>,
}

/// A statement that is to be carried out, or has been.
#[derive(Debug)]
pub(super) struct Portal {
    pub(super) command: Option<Command>,
    pub(super) formats: Formats,
    /// What it has shown, and how many rows of that were sent.
    pub(super) shown: Option<(Shown, usize)>,
}

/// What a Describe or a Close is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Statement(String),
    Portal(String),
}

impl From<Malformed> for ConsoleError {
    fn from(_: Malformed) -> Self {
        Self::Protocol
    }
}

impl Portals {
    /// Parse.
    pub(super) fn parse(&mut self, body: &[u8]) -> Result<(), ConsoleError> {
        let mut reader = Reader::new(body);
        let (name, text) = (text(reader.cstring()?), text(reader.cstring()?));
        let mut commands = command::parse(&text)?;
        if commands.len() > 1 {
            return Err(ExtendedError::Several.into());
        }
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(ExtendedError::StatementExists(name).into());
        }
        if self.statements.len() >= MOST {
            return Err(ExtendedError::TooMany.into());
        }
        self.statements.insert(name, commands.pop());
        Ok(())
    }

    /// Bind. `columns` says how many a command shows.
    pub(super) fn bind(
        &mut self,
        body: &[u8],
        columns: impl Fn(Option<&Command>) -> usize,
    ) -> Result<(), ConsoleError> {
        let mut reader = Reader::new(body);
        let (portal, statement) = (text(reader.cstring()?), text(reader.cstring()?));
        for _ in 0..reader.uint16()? {
            reader.uint16()?;
        }
        let parameters = reader.uint16()?;
        if parameters > 0 {
            return Err(ExtendedError::Parameters(parameters).into());
        }
        let codes: Result<Vec<_>, _> = (0..reader.uint16()?).map(|_| reader.uint16()).collect();
        let formats = Formats::new(codes?);
        let command = self
            .statements
            .get(&statement)
            .ok_or(ExtendedError::NoStatement(statement))?
            .clone();
        let columns = columns(command.as_ref());
        if formats.len() > 1 && formats.len() != columns {
            return Err(ExtendedError::Formats(formats.len(), columns).into());
        }
        if self.portals.len() >= MOST {
            return Err(ExtendedError::TooMany.into());
        }
        let bound = Portal {
            command,
            formats,
            shown: None,
        };
        self.portals.insert(portal, bound);
        Ok(())
    }

    /// The command of a statement.
    pub(super) fn statement(&self, name: &str) -> Result<Option<&Command>, ExtendedError> {
        let statement = self.statements.get(name);
        statement
            .map(Option::as_ref)
            .ok_or_else(|| ExtendedError::NoStatement(name.to_owned()))
    }

    /// A portal.
    pub(super) fn portal(&mut self, name: &str) -> Result<&mut Portal, ExtendedError> {
        self.portals
            .get_mut(name)
            .ok_or_else(|| ExtendedError::NoPortal(name.to_owned()))
    }

    /// Close. It is no error if there is none.
    pub(super) fn close(&mut self, subject: &Subject) {
        match subject {
            Subject::Statement(name) => drop(self.statements.remove(name)),
            Subject::Portal(name) => drop(self.portals.remove(name)),
        }
    }

    /// The end of a batch, and with it of its portals.
    pub(super) fn sync(&mut self) {
        self.portals.clear();
    }
}

impl Subject {
    /// From the body of a Describe or a Close.
    pub(super) fn read(body: &[u8]) -> Result<Self, ConsoleError> {
        let mut reader = Reader::new(body);
        match reader.byte()? {
            b'S' => Ok(Self::Statement(text(reader.cstring()?))),
            b'P' => Ok(Self::Portal(text(reader.cstring()?))),
            _ => Err(ConsoleError::Protocol),
        }
    }
}

/// The portal that an Execute names, and how many rows it wants; `None` is all.
pub(super) fn read_execute(body: &[u8]) -> Result<(String, Option<usize>), ConsoleError> {
    let mut reader = Reader::new(body);
    let portal = text(reader.cstring()?);
    let most = usize::try_from(reader.int32()?).ok();
    Ok((portal, most.filter(|most| *most > 0)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
