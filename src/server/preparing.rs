//! Prepared statements on one server connection: what is put into a client's batch for them, and what has become of
//! it.

use bytes::BytesMut;

use super::{
    connection::Connection,
    hints::{Hints, Reading},
    state::{Forged, Origin},
    statements::{self, Effect, Has, Names, Naming, Outcome, Shape, SharedNames, Statement, UNKNOWN},
};
use crate::{
    fault::SqlState,
    wire::{
        backend::{ServerError, TransactionStatus},
        frontend::{self, tag},
    },
};

/// So many make room at once.
const MOST_EVICTED: usize = 2;

/// What it took to have a statement prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// It was prepared.
    Hit,
    /// It is prepared now.
    Miss,
    /// The same, and another one had to go.
    Evicting,
}

impl Connection {
    /// Appends what it takes for the server to have a statement, if it has it not; of others it keeps at most `most`.
    pub fn supply(&mut self, statement: &Statement, most: usize, out: &mut BytesMut) -> Supply {
        let id = statement.id();
        let supply = self.make_room(id, most, out);
        if supply != Supply::Hit {
            statement.parse(out);
            let effect = Effect::Supplied { id };
            self.ledger.sent_with(tag::PARSE, Origin::Supplied, effect);
            self.prepared.ask(id);
            self.note_tainted(id);
        }
        supply
    }

    /// A statement that was read under settings of this transaction only is not the one that others mean.
    fn note_tainted(&mut self, id: u64) {
        if self.suspicion.has_settings() {
            self.tainted.push(id);
        }
    }

    /// Appends what it takes to know what the rows of a statement look like: it is prepared anew, because the server
    /// refuses to describe a stale one.
    pub fn verify(&mut self, statement: &Statement, most: usize, out: &mut BytesMut) -> Supply {
        let id = statement.id();
        if self.prepared.touch(id) == Has::Fresh {
            self.prepared.doubt(id);
        }
        let supply = self.supply(statement, most, out);
        frontend::message(tag::DESCRIBE, &[b"S", statement.name().as_bytes(), &[0]], out);
        let effect = Effect::Described { id, to_client: false };
        self.ledger.sent_with(tag::DESCRIBE, Origin::Supplied, effect);
        self.prepared.verify(id);
        supply
    }

    /// Appends a client's Parse, or nothing if the server has the statement. Either way the client is told that it is
    /// complete, in its turn.
    pub fn define(
        &mut self,
        statement: &Statement,
        naming: Naming,
        most: usize,
        out: &mut BytesMut,
    ) -> Supply {
        let id = statement.id();
        let failed = self.ledger.status() == TransactionStatus::Failed || !self.prepared.is_first_batch();
        if failed || !self.prepared.is_asked(id) {
            // What a text means may have changed since it was prepared: tables, types, functions. A client's Parse is
            // taken as it is now, and so are the types that the client is told. In a failed transaction, which may be what
            // the server is in when it comes to this, it refuses to prepare most texts, and says so only if it is asked.
            self.prepared.doubt(id);
        }
        let supply = self.make_room(id, most, out);
        let effect = |prepares| Effect::Named { id, prepares, naming };
        if supply == Supply::Hit {
            self.ledger.forge(Forged::ParseComplete, effect(false));
        } else {
            statement.parse(out);
            self.ledger.sent_with(tag::PARSE, Origin::Client, effect(true));
            self.prepared.ask(id);
            self.note_tainted(id);
        }
        supply
    }

    fn make_room(&mut self, id: u64, most: usize, out: &mut BytesMut) -> Supply {
        match self.prepared.touch(id) {
            Has::Fresh => return Supply::Hit,
            Has::Uncertain => {
                statements::close(id, out);
                self.ledger.sent(tag::CLOSE, Origin::Supplied);
            }
            Has::Nothing => {
                let mut evicts = false;
                // After a burst there may be more than there should be.
                for id in (0..MOST_EVICTED)
                    .map_while(|_| self.prepared.evict(most))
                    .collect::<Vec<_>>()
                {
                    statements::close(id, out);
                    let effect = Effect::Evicted { id };
                    self.ledger.sent_with(tag::CLOSE, Origin::Supplied, effect);
                    evicts = true;
                }
                if evicts {
                    return Supply::Evicting;
                }
            }
        }
        Supply::Miss
    }

    /// Has the client told that it has given up a name, in its turn.
    pub fn undefine(&mut self, naming: Naming) {
        self.ledger.forge(Forged::CloseComplete, Effect::Closed(naming));
    }

    /// Notes that a message of this type is sent for the client, and what it does.
    pub fn note_sent_with(&mut self, tag: u8, effect: Effect) {
        self.ledger.sent_with(tag, Origin::Client, effect);
    }

    /// Notes that a client's batch ends here.
    pub fn note_batch(&mut self) {
        self.prepared.next_batch();
    }

    /// Notes that the server has been sent nothing that it has not answered.
    pub fn note_settled(&mut self) {
        self.prepared.settle();
        if self.ledger.status() == TransactionStatus::Idle {
            for id in std::mem::take(&mut self.tainted) {
                self.prepared.doubt(id);
            }
            self.suspicion.begin();
        }
    }

    /// The number of the unnamed statement that the server has; zero if it has none.
    pub fn unnamed(&self) -> u64 {
        self.unnamed
    }

    /// Notes that the server is sent an unnamed statement.
    pub fn set_unnamed(&mut self, number: u64) {
        self.unnamed = number;
    }

    /// Appends what gives the server a client's unnamed statement, sent in an earlier transaction.
    pub fn supply_unnamed(&mut self, number: u64, body: &[u8], out: &mut BytesMut) {
        frontend::message(tag::PARSE, &[&[0], body], out);
        // Skipped or refused, it is still the client's.
        self.ledger.sent(tag::PARSE, Origin::Supplied);
        self.unnamed = number;
    }

    /// Appends what takes the server's unnamed statement away, which is not the client's.
    pub fn take_unnamed(&mut self, out: &mut BytesMut) {
        frontend::message(tag::CLOSE, &[b"S\0"], out);
        self.ledger.sent(tag::CLOSE, Origin::Supplied);
        self.unnamed = 0;
    }

    /// Appends what makes sure that the server has something under a statement's name that can be deallocated, a
    /// statement of no text if need be, which is never refused. `alone` says that no batch follows. Not possible, and
    /// nothing is done, in the middle of a client's batch.
    pub fn stand_in(&mut self, id: u64, alone: bool, out: &mut BytesMut) -> bool {
        if alone && self.ledger.waits_for_client() {
            return false;
        }
        if self.make_room(id, usize::MAX, out) == Supply::Hit {
            return true;
        }
        frontend::message(tag::PARSE, &[statements::name(id).as_bytes(), &[0, 0, 0, 0]], out);
        self.ledger.sent(tag::PARSE, Origin::Supplied);
        // It is not the statement.
        self.prepared.doubt(id);
        if alone {
            frontend::message(tag::SYNC, &[], out);
            self.ledger.sent(tag::SYNC, Origin::Pooler);
        }
        true
    }

    /// Has the statement closed and prepared anew before it is used, whatever is known of it.
    pub fn distrust(&mut self, id: u64) {
        self.prepared.doubt(id);
    }

    /// Notes that the client's request may do anything to the state of the session.
    pub fn suspect_everything(&mut self) {
        self.suspicion.note_hints(Hints::ASKABLE);
    }

    /// The same, where something keeps the connection with its client.
    pub fn suspect_if_pinned(&mut self) {
        if !self.pins.is_empty() {
            self.suspect_everything();
        }
    }

    /// Notes what the client's statement may do to the state of the session.
    pub fn suspect(&mut self, reading: &Reading) {
        self.suspicion.note_text(reading);
    }

    /// What is prepared.
    pub fn prepared(&self) -> &statements::Prepared {
        &self.prepared
    }

    /// Notes that the server has forgotten all statements.
    pub(super) fn forget_statements(&mut self) {
        self.prepared.clear();
        self.unnamed = UNKNOWN;
    }

    /// Carries out what is known by now of what was sent.
    pub fn settle_effects(&mut self, error: Option<&ServerError>, names: Option<&SharedNames>) {
        let outcomes = self.ledger.take_outcomes();
        self.settle_outcomes(outcomes, error, None, names);
    }

    /// Carries out what messages have brought about, and undoes what was taken for granted and did not happen.
    pub(super) fn settle_outcomes(
        &mut self,
        outcomes: Vec<(Effect, Outcome)>,
        error: Option<&ServerError>,
        shape: Option<Shape>,
        names: Option<&SharedNames>,
    ) {
        if error.is_some() {
            // Which of several unnamed statements there is now is not worth knowing.
            self.unnamed = UNKNOWN;
        }
        // What was done last is undone first.
        for (effect, outcome) in outcomes.into_iter().rev() {
            let done = outcome == Outcome::Done;
            match effect {
                Effect::Supplied { id }
                | Effect::Named {
                    id, prepares: true, ..
                } if done => {
                    self.prepared.add(id);
                }
                Effect::Supplied { id } => self.prepared.doubt(id),
                Effect::Named { id, prepares, naming } if !done => {
                    if prepares {
                        self.prepared.doubt(id);
                    }
                    in_names(names, |names| names.restore(naming));
                }
                Effect::Closed(naming) if !done => in_names(names, |names| names.restore(naming)),
                Effect::Evicted { id } if !done => self.prepared.doubt(id),
                Effect::Described { id, to_client } if done => {
                    self.prepared.set_shape(id, shape);
                    if to_client {
                        in_names(names, |names| names.tell(id, shape));
                    }
                }
                Effect::Used { id } | Effect::Described { id, .. }
                    if outcome == Outcome::Failed && is_stale(error) =>
                {
                    self.prepared.doubt(id);
                }
                Effect::Taken { id, .. } if done => self.prepared.doubt(id),
                Effect::Deallocated { id, name } if done => {
                    self.prepared.remove(id);
                    in_names(names, |names| drop(names.give_up(&name)));
                }
                Effect::Unnamed { number } if !done => in_names(names, |names| {
                    if names.unnamed() == number {
                        names.drop_unnamed(true);
                    }
                }),
                _ => {}
            }
        }
    }
}

fn in_names(names: Option<&SharedNames>, with: impl FnOnce(&mut Names)) {
    if let Some(names) = names {
        names.with_any(with);
    }
}

/// Whether an error says that a statement has to be prepared again.
fn is_stale(error: Option<&ServerError>) -> bool {
    matches!(
        error.and_then(|error| error.code),
        Some(SqlState::FEATURE_NOT_SUPPORTED | SqlState::INVALID_SQL_STATEMENT_NAME)
    )
}
