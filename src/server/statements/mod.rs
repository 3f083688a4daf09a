//! Named prepared statements that many clients share on many server connections.
//!
//! A client's Parse is *interned*: text, parameter types and the settings that it was read under make a
//! [`Statement`] with a number, and its name on every server is that number's. What a client calls it is in its
//! [`Names`]; on which server connection it is prepared is in that connection's [`Prepared`]. All of it is pure: what
//! an error in a pipeline undoes is said by the ledger, as an [`Effect`] with its [`Outcome`].

mod interner;
mod names;
mod prepared;
mod shape;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

pub use self::{
    interner::{Counts, Interner},
    names::{Names, Neighbours, SharedNames},
    prepared::{Has, Prepared},
    shape::Shape,
};
use super::{hints::Reading, parameters::Planning};
use crate::wire::frontend::{self, tag};

/// What every name begins with that a statement has on a server.
pub const PREFIX: &str = "pgweir_";

/// A statement of this name is on no server.
pub const NOBODYS: &str = "pgweir_none";
/// The number of an unnamed statement of which nothing is known.
pub const UNKNOWN: u64 = u64::MAX;

/// An interned statement.
#[derive(Debug)]
pub struct Statement {
    id: u64,
    /// Everything in its Parse message after the name: the text, a zero byte, parameter types.
    body: Bytes,
    settings: Planning,
    reading: Reading,
}

impl Statement {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name on servers.
    pub fn name(&self) -> String {
        name(self.id)
    }

    /// What its text may do to the state of a session.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Everything in its Parse message after the name.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The settings that it was read under.
    pub fn settings(&self) -> &Planning {
        &self.settings
    }

    /// Appends its Parse message.
    pub fn parse(&self, out: &mut BytesMut) {
        frontend::message(tag::PARSE, &[self.name().as_bytes(), &[0], &self.body], out);
    }
}

/// The name on servers of the statement with this number.
pub fn name(id: u64) -> String {
    format!("{PREFIX}{id}")
}

/// Appends a Close of the statement with this number.
pub fn close(id: u64, out: &mut BytesMut) {
    frontend::message(tag::CLOSE, &[b"S", name(id).as_bytes(), &[0]], out);
}

/// What a message that a server was sent does to what is prepared and how it is called, besides its reply.
#[derive(Debug)]
pub enum Effect {
    /// The server prepares a statement that the pooler put into the client's batch.
    Supplied {
        /// Its number.
        id: u64,
    },
    /// A client gives a name to a statement; the server prepares it, if it has not done so before.
    Named {
        /// Its number.
        id: u64,
        /// Whether the server is asked to prepare it.
        prepares: bool,
        /// The client's name, and what it stood for before.
        naming: Naming,
    },
    /// A client gives up a name.
    Closed(Naming),
    /// A client prepares under a name that it has given already, which the server refuses.
    Taken {
        /// The number of the statement that has the name.
        id: u64,
        /// The client's name.
        name: Box<[u8]>,
    },
    /// A client uses a statement.
    Used {
        /// Its number.
        id: u64,
    },
    /// A statement, or a portal of it, is described.
    Described {
        /// Its number.
        id: u64,
        /// To the client, and not to the pooler.
        to_client: bool,
    },
    /// A client uses a name that it has given to nothing, and that a statement may have on a server: the server is sent
    /// [`NOBODYS`] instead.
    Unknown {
        /// The client's name.
        name: Box<[u8]>,
    },
    /// A client uses a statement whose rows look different from what it was told.
    Changed {
        /// Its number.
        id: u64,
    },
    /// The server forgets a statement to make room.
    Evicted {
        /// Its number.
        id: u64,
    },
    /// A client has the server forget a statement with SQL.
    Deallocated {
        /// Its number.
        id: u64,
        /// The client's name.
        name: Box<[u8]>,
    },
    /// The client's unnamed statement is prepared.
    Unnamed {
        /// Its number.
        number: u64,
    },
}

impl Effect {
    /// Whether there is something to do when it has happened: most of it is taken for granted.
    pub fn matters_when_done(&self) -> bool {
        matches!(
            self,
            Self::Supplied { .. }
                | Self::Named { prepares: true, .. }
                | Self::Described { .. }
                | Self::Taken { .. }
                | Self::Deallocated { .. }
        )
    }
}

/// A name that a client gives or gives up, and what it stood for before.
#[derive(Debug)]
pub struct Naming {
    /// The name.
    pub name: Box<[u8]>,
    /// What it stood for.
    pub before: Option<Arc<Statement>>,
}

/// What has become of an [`Effect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has happened.
    Done,
    /// Its message has failed.
    Failed,
    /// Its message was skipped, because another one has failed.
    Skipped,
}
