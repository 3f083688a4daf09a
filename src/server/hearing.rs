//! Following what a server says: whose each message is, and what it means for the connection.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{
    connect::IN_HOT_STANDBY,
    connection::{Connection, READ_WHOLE},
    hints::{Hints, defines_functions},
    parameters::Source,
    state::{CloseReason, Forged, Route},
    statements::{Effect, NOBODYS, Names, Outcome, Shape, SharedNames},
};
use crate::{
    fault::SqlState,
    wire::{
        backend::{self, ServerError, TransactionStatus, tag},
        frame::{FrameError, Step},
        frontend, reply,
    },
};

/// A row of the answer to an inquiry is read up to this size: a setting may be long, and comes as digits.
const READ_ANSWER: usize = 48 * 1024;

/// What a piece of the server's stream meant.
#[derive(Debug, Default)]
pub struct Heard {
    /// Bytes that were understood; the rest belongs in front of the next piece.
    pub consumed: usize,
    /// Where, in what was consumed, that begins which the client is to get as it is.
    pub forward_from: usize,
    /// What the client is to get before.
    pub early: BytesMut,
    /// Replies to the pooler were among it.
    pub pooler_answered: bool,
    /// How many times the server told the client that it is ready and in no transaction.
    pub transactions: u64,
    /// A statement has ended, one way or the other.
    pub answered: bool,
    /// New values of settings that the server has told the client.
    pub told: Vec<(Arc<str>, Bytes)>,
    /// The server refused the pooler's own request.
    pub refused: Option<Box<ServerError>>,
    /// Functions may have been made or changed.
    pub defines: bool,
    /// The server ends the connection, and says why.
    pub farewell: Option<Box<ServerError>>,
    /// The errors among what the client gets.
    pub errors: Vec<SqlState>,
    /// Where its last words begin if they answer nothing: everything had been answered and no transaction was
    /// open, so that they concern the client only if the connection is its own for good.
    pub unasked_farewell: Option<usize>,
}

impl Heard {
    /// What was understood up to `start` is as it is; what follows, up to `end`, is not for the client.
    fn leave_out(&mut self, buf: &[u8], start: usize, end: usize) {
        self.take_early(buf, start);
        self.forward_from = end;
    }

    /// Puts what was understood up to `start` in front.
    fn take_early(&mut self, buf: &[u8], start: usize) {
        self.early
            .extend_from_slice(buf.get(self.forward_from..start).unwrap_or_default());
        self.forward_from = start;
    }
}

impl Connection {
    /// Follows the server's messages in `buf`, which begins where the last call stopped consuming. `names` are those
    /// of the client that the server works for.
    ///
    /// # Errors
    /// What came is not the PostgreSQL protocol; the connection is of no more use.
    pub fn hear(&mut self, buf: &[u8], names: Option<&SharedNames>) -> Result<Heard, FrameError> {
        let mut heard = Heard::default();
        let mut at = self.stream.splitter().pass(buf.len());
        if at > 0 && self.rest == Route::Swallow {
            heard.forward_from = at;
        }
        loop {
            let start = at;
            self.say_what_is_due(buf, start, &mut heard);
            let looks = self.whole(names.is_some());
            let step = self.stream.splitter().step(buf, &mut at, looks);
            let (tag, body, whole) = match step.inspect_err(|_| self.broken = Some(CloseReason::OutOfStep))? {
                Step::Whole { tag, body } => (tag, body, true),
                Step::Begun { tag } => (tag, &[][..], false),
                Step::Short => break,
            };
            // There may be millions of them, and they change nothing.
            if matches!(tag, tag::DATA_ROW | tag::COPY_DATA)
                && self.replay.is_off()
                && self.ledger.owes_client_rows()
            {
                self.rest = Route::Forward;
                continue;
            }
            heard.pooler_answered |= self.ledger.owes_pooler();
            let asked_by_nobody = self.ledger.is_between_transactions();
            // A reply out of step is forwarded all the same: the verdict keeps the connection from others.
            let route = self.ledger.received(tag, body).unwrap_or(Route::Forward);
            let kept = if tag == tag::ERROR_RESPONSE {
                let (kept, is_farewell) = self.hear_error(body, route, names, &mut heard);
                if is_farewell && asked_by_nobody {
                    heard.unasked_farewell = Some(start);
                }
                kept
            } else {
                self.note(tag, body, route, &mut heard);
                if tag == tag::COMMAND_COMPLETE {
                    heard.defines |= self.note_command(body, route, names);
                }
                let is_ordinary = route == Route::Forward && tag != tag::NOTIFICATION_RESPONSE;
                if is_ordinary && self.replay.is_off() && !self.ledger.has_outcomes() {
                    self.rest = route;
                    continue;
                }
                match self.our_notification(tag, body, names) {
                    Some(message) => Kept::Instead(message),
                    None => Kept::from(route),
                }
            };
            let message = buf.get(start..at).filter(|_| whole);
            let (kept, before) = self.hold_back(kept, tag, message);
            if let Some(before) = before {
                heard.take_early(buf, start);
                heard.early.unsplit(before);
            }
            if self.ledger.has_outcomes() {
                let outcomes = self.ledger.take_outcomes();
                let shape = Shape::of(tag, body).filter(|_| whole);
                self.settle_outcomes(outcomes, None, shape, names);
            }
            self.rest = route;
            match kept {
                Kept::AsItIs => {}
                Kept::Instead(message) => {
                    heard.leave_out(buf, start, at);
                    heard.early.unsplit(message);
                }
                Kept::Nothing => heard.leave_out(buf, start, at),
            }
        }
        heard.consumed = at;
        Ok(heard)
    }

    /// What is left of a message for the client as long as a batch may be sent again, and what it has to be told before.
    /// `message` is there if it is whole.
    fn hold_back(&mut self, kept: Kept, tag: u8, message: Option<&[u8]>) -> (Kept, Option<BytesMut>) {
        match kept {
            Kept::AsItIs if message.is_some_and(|message| self.replay.hold(tag, message)) => {
                (Kept::Nothing, None)
            }
            Kept::AsItIs | Kept::Instead(_) => (kept, self.replay.give_up()),
            Kept::Nothing => (kept, None),
        }
    }

    /// How much of a message of each type is looked into.
    fn whole(&self, has_client: bool) -> impl Fn(u8) -> usize + use<> {
        let (inquires, describes) = (self.inquiry.is_some(), self.ledger.is_effect_next());
        move |tag| match tag {
            tag::DATA_ROW if inquires => READ_ANSWER,
            tag::ROW_DESCRIPTION if describes => READ_WHOLE,
            // What comes to nobody is not to be left for somebody.
            tag::PARAMETER_DESCRIPTION | tag::NOTIFICATION_RESPONSE if has_client => READ_WHOLE,
            tag::COMMAND_COMPLETE | tag::READY_FOR_QUERY | tag::PARAMETER_STATUS | tag::ERROR_RESPONSE => {
                READ_WHOLE
            }
            _ => 0,
        }
    }

    /// What the pooler says in the server's place stands between two of its messages.
    fn say_what_is_due(&mut self, buf: &[u8], start: usize, heard: &mut Heard) {
        while self.stream.splitter().at_boundary()
            && let Some(forged) = self.ledger.take_due()
        {
            heard.take_early(buf, start);
            heard.early.extend_from_slice(whole_message(forged));
        }
    }

    /// The same when the server has nothing to say.
    pub fn say_due(&mut self, out: &mut BytesMut) {
        while self.stream.splitter().at_boundary()
            && let Some(forged) = self.ledger.take_due()
        {
            out.extend_from_slice(whole_message(forged));
        }
    }

    /// Notes a setting that the server reports.
    pub(super) fn note_reported<'a>(&mut self, body: &'a [u8]) -> Option<(&'a str, &'a [u8])> {
        let (name, value) = backend::parameter_status(body).ok()?;
        let name = std::str::from_utf8(name).ok()?;
        self.parameters.set(name, value, Source::Reported);
        if name == IN_HOT_STANDBY {
            self.note_recovery(value == b"on");
        }
        Some((name, value))
    }

    /// A notification that a client of ours has sent, with the process id that this client was told.
    fn our_notification(&self, tag: u8, body: &[u8], names: Option<&SharedNames>) -> Option<BytesMut> {
        if tag != tag::NOTIFICATION_RESPONSE {
            return None;
        }
        let (&backend, rest) = body.split_first_chunk::<4>()?;
        let (backend, names) = (i32::from_be_bytes(backend), names?);
        let told = if backend == self.key().pid {
            names.pid()
        } else {
            names.told_by_backend(backend)?
        };
        let mut message = BytesMut::new();
        frontend::message(tag, &[&told.to_be_bytes(), rest], &mut message);
        Some(message)
    }

    /// Remembers what a message says about the connection.
    fn note(&mut self, tag: u8, body: &[u8], route: Route, heard: &mut Heard) {
        heard.answered |= matches!(tag, tag::COMMAND_COMPLETE | tag::READY_FOR_QUERY);
        match tag {
            tag::READY_FOR_QUERY => {
                if route == Route::Forward && self.ledger.status() == TransactionStatus::Idle {
                    heard.transactions += 1;
                }
                self.note_ready();
            }
            tag::PARAMETER_STATUS => {
                if let Some((name, value)) = self.note_reported(body)
                    && route == Route::Forward
                {
                    heard.told.push((name.into(), Bytes::copy_from_slice(value)));
                }
            }
            tag::DATA_ROW if route == Route::Swallow => {
                if let Some(inquiry) = &mut self.inquiry {
                    inquiry.row(body);
                }
            }
            _ => {}
        }
    }

    /// Follows what a statement has done, as far as its tag says it. Whether it may have made functions.
    fn note_command(&mut self, command: &[u8], route: Route, names: Option<&SharedNames>) -> bool {
        let forgets = matches!(command, b"DISCARD ALL\0" | b"DEALLOCATE ALL\0");
        if forgets {
            self.forget_statements();
        }
        if route == Route::Forward {
            self.suspect_tag(command);
            if let Some(names) = names.filter(|_| forgets) {
                names.with_any(Names::clear);
            }
        }
        let defines = route == Route::Forward && defines_functions(command);
        if defines {
            // It may have called what nobody has looked at.
            self.suspicion.note_hints(Hints::ASKABLE);
        }
        defines
    }

    /// What becomes of an error for the client, and whether it is the server's farewell.
    fn hear_error(
        &mut self,
        body: &[u8],
        route: Route,
        names: Option<&SharedNames>,
        heard: &mut Heard,
    ) -> (Kept, bool) {
        heard.answered = true;
        let error = ServerError::decode(body);
        let code = error.code.unwrap_or(SqlState::INTERNAL_ERROR);
        if error.is_fatal() {
            heard.errors.push(code);
            self.broken = Some(CloseReason::Lost);
            heard.farewell = Some(Box::new(error));
            // Why the connection ends is the client's to know, whoever has asked last.
            return (Kept::AsItIs, true);
        }
        match error.code {
            Some(SqlState::OUT_OF_MEMORY) => self.mark_broken(CloseReason::OutOfMemory),
            Some(SqlState::READ_ONLY_SQL_TRANSACTION) => self.note_read_only(),
            _ => {}
        }
        let outcomes = self.ledger.take_outcomes();
        let again = route == Route::Forward && self.begin_replay(&error, &outcomes);
        let renamed = rename(body, &error, &outcomes, names);
        self.settle_outcomes(outcomes, Some(&error), None, names);
        if route == Route::Forward && !again {
            heard.errors.push(code);
        }
        let kept = match (route, renamed) {
            _ if again => Kept::Nothing,
            (Route::Forward, Some(message)) => Kept::Instead(message),
            (Route::Forward, None) => Kept::AsItIs,
            (Route::Swallow, _) if let Some(inquiry) = &mut self.inquiry => {
                inquiry.fail();
                Kept::Nothing
            }
            (Route::Swallow, _) => {
                heard.refused = Some(Box::new(error));
                Kept::Nothing
            }
        };
        (kept, false)
    }
}

/// What the client gets of a message.
enum Kept {
    AsItIs,
    Instead(BytesMut),
    Nothing,
}

impl From<Route> for Kept {
    fn from(route: Route) -> Self {
        match route {
            Route::Forward => Self::AsItIs,
            Route::Swallow => Self::Nothing,
        }
    }
}

fn whole_message(forged: Forged) -> &'static [u8] {
    match forged {
        Forged::ParseComplete => &backend::PARSE_COMPLETE,
        Forged::CloseComplete => &backend::CLOSE_COMPLETE,
    }
}

/// An error about a prepared statement, with the name that the client knows.
fn rename(
    body: &[u8],
    error: &ServerError,
    outcomes: &[(Effect, Outcome)],
    names: Option<&SharedNames>,
) -> Option<BytesMut> {
    if let Some((Effect::Changed { .. }, Outcome::Failed)) = outcomes.first() {
        // Whatever the server says: the statement was given a name that it does not have.
        return Some(reply::result_type_changed());
    }
    // The last of them is what PostgreSQL says of a wrong number of parameters.
    let Some(
        SqlState::INVALID_SQL_STATEMENT_NAME
        | SqlState::DUPLICATE_PREPARED_STATEMENT
        | SqlState::PROTOCOL_VIOLATION,
    ) = error.code
    else {
        return None;
    };
    if let (Effect::Unknown { name }, Outcome::Failed) = outcomes.first()? {
        return Some(reply::with_replaced(body, NOBODYS.as_bytes(), name));
    }
    let (id, name) = match outcomes.first()? {
        (Effect::Taken { id, name } | Effect::Deallocated { id, name }, Outcome::Failed) => {
            (*id, name.clone())
        }
        (Effect::Used { id } | Effect::Described { id, .. }, Outcome::Failed) => {
            let name = names?.with_any(|names| names.name_of(*id).map(Box::from))??;
            (*id, name)
        }
        _ => return None,
    };
    let from = super::statements::name(id);
    Some(reply::with_replaced(body, from.as_bytes(), &name))
}
