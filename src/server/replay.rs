//! Carrying out a batch again that failed before it began, because a statement in it was stale.
//!
//! When the result of a prepared statement changes its type (a column was added, say), PostgreSQL refuses to carry it
//! out until it is prepared again: 0A000, "cached plan must not change result type". A client that has prepared it
//! itself knows what to do; one that shares it does not. Outside a transaction nothing has happened yet when the first
//! Bind of a batch fails, so the batch can be sent once more, behind a Close and a new Parse.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{
    connection::Connection,
    state::Origin,
    statements::{self, Effect, Outcome, Statement},
};
use crate::{
    fault::SqlState,
    wire::{
        backend::{self, ServerError},
        frame::{Splitter, Step},
        frontend::tag,
    },
};

/// A batch of at most this size is remembered while the server has not answered it.
pub const REMEMBERED: usize = 16 * 1024;

/// The batch that the server works on, as long as it could be sent again.
#[derive(Debug, Default)]
pub(super) enum Replay {
    /// There is none, or it can not.
    #[default]
    Off,
    /// Nothing of it has been answered, as far as the client knows: a ParameterDescription, which comes before the
    /// server looks whether the statement is stale, is held back.
    Possible(Batch, BytesMut),
    /// It has failed, and will be sent again when the server is ready.
    Due(Batch),
}

/// A batch as the server was sent it, that ends with its only Sync.
#[derive(Debug)]
pub struct Batch {
    /// The messages.
    pub messages: Bytes,
    /// The statements that its messages use, one for each use.
    pub uses: Vec<Arc<Statement>>,
}

impl Replay {
    /// Whether nothing depends on what the server says.
    pub(super) fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    /// Holds a message for the client back, if that makes a difference.
    pub(super) fn hold(&mut self, tag: u8, message: &[u8]) -> bool {
        match self {
            Self::Possible(_, held) if tag == backend::tag::PARAMETER_DESCRIPTION => {
                held.extend_from_slice(message);
                true
            }
            _ => false,
        }
    }

    /// Notes that the client is told something, and returns what it has to be told before.
    pub(super) fn give_up(&mut self) -> Option<BytesMut> {
        match std::mem::take(self) {
            Self::Possible(_, held) => (!held.is_empty()).then_some(held),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl Connection {
    /// Remembers what the server is sent while it is between transactions, or forgets what it was sent before.
    pub fn remember(&mut self, batch: Option<Batch>) {
        self.replay = batch.map_or(Replay::Off, |batch| Replay::Possible(batch, BytesMut::new()));
    }

    /// Decides, at an error, whether the batch will be sent again.
    pub(super) fn begin_replay(&mut self, error: &ServerError, outcomes: &[(Effect, Outcome)]) -> bool {
        let stale = matches!(
            error.code,
            Some(SqlState::FEATURE_NOT_SUPPORTED | SqlState::INVALID_SQL_STATEMENT_NAME)
        );
        let used = matches!(
            outcomes.first(),
            Some((
                Effect::Used { .. } | Effect::Described { to_client: true, .. },
                Outcome::Failed
            ))
        );
        // What the pooler would have said itself stands in no message that could be sent again.
        let forges = outcomes
            .iter()
            .any(|(effect, _)| matches!(effect, Effect::Closed(_) | Effect::Named { .. }));
        // What is still owed is its Sync.
        if !(stale && used && !forges && self.ledger.backlog() == 1) {
            return false;
        }
        match std::mem::take(&mut self.replay) {
            Replay::Possible(batch, _) => {
                self.ledger.disown_sync();
                self.replay = Replay::Due(batch);
                true
            }
            _ => false,
        }
    }

    /// Appends the batch that is to be sent again now, if there is one.
    pub fn replay(&mut self, out: &mut BytesMut) -> bool {
        if !matches!(self.replay, Replay::Due(_)) || !self.ledger.is_settled() {
            return false;
        }
        let Replay::Due(batch) = std::mem::take(&mut self.replay) else {
            return false;
        };
        self.prepared.settle();
        for statement in &batch.uses {
            // Any of them may be the stale one.
            self.prepared.doubt(statement.id());
        }
        for statement in &batch.uses {
            self.supply(statement, usize::MAX, out);
        }
        self.note_again(&batch);
        out.extend_from_slice(&batch.messages);
        true
    }

    fn note_again(&mut self, batch: &Batch) {
        let (mut splitter, mut at) = (Splitter::default(), 0);
        let mut uses = batch.uses.iter();
        while let Ok(Step::Whole { tag, body }) = splitter.step(&batch.messages, &mut at, |_| 0) {
            match uses.as_slice().first() {
                Some(statement) if uses_statement(tag, body, statement) => {
                    let id = statement.id();
                    uses.next();
                    let effect = if tag == tag::DESCRIBE {
                        Effect::Described { id, to_client: true }
                    } else {
                        Effect::Used { id }
                    };
                    self.ledger.sent_with(tag, Origin::Client, effect);
                }
                _ => self.ledger.sent(tag, Origin::Client),
            }
        }
        self.prepared.next_batch();
    }
}

/// Whether a message is the one that uses this statement.
fn uses_statement(tag: u8, body: &[u8], statement: &Statement) -> bool {
    let name = match tag {
        tag::BIND => body.split(|&byte| byte == 0).nth(1),
        tag::DESCRIBE => body.strip_prefix(b"S").and_then(|name| name.strip_suffix(b"\0")),
        _ => None,
    };
    name == Some(statements::name(statement.id()).as_bytes())
}
