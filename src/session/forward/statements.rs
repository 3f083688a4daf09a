//! Messages about prepared statements: names become those that the statements have on servers.

use bytes::BufMut;

use super::{Message, Pass, text_of};
use crate::{
    server::{
        Supply,
        hints::Hints,
        statements::{self, Effect, NOBODYS, UNKNOWN},
    },
    session::{deallocate, error::SessionError},
    wire::{
        backend::TransactionStatus,
        frontend::{self, tag},
        reader::Reader,
    },
};

/// The largest Parse message with a name: all of it has to be known before the first byte can be sent.
const LARGEST_NAMED: usize = 16 * 1024 * 1024;

/// What may lie across the border of two pieces of a text: a name, in quotes.
const SEAM: usize = 72;

impl Pass<'_> {
    pub(super) fn parse(&mut self, message: Message<'_>) -> Result<(), SessionError> {
        let mut reader = Reader::new(message.body);
        let Ok(name) = reader.cstring() else {
            self.connection.note_sent(tag::PARSE);
            return Ok(());
        };
        let body = reader.rest();
        if name.is_empty() {
            self.parse_unnamed(message, body);
            return Ok(());
        }
        if !self.sender.renames {
            self.suspect(body);
            self.connection.note_sent(tag::PARSE);
            return Ok(());
        }
        if !message.whole {
            if message.length as usize > LARGEST_NAMED {
                return Err(SessionError::StatementTooLong);
            }
            let begun = self.bytes.get(message.start..message.end).unwrap_or_default();
            self.names.collected.extend_from_slice(begun);
            self.leave_out(message.start, message.end);
            return Ok(());
        }
        self.copy_to(message.start);
        let taken = self
            .names
            .resolve(name, self.sender.parameters, self.sender.pool.statements());
        let supply = if let Some(taken) = taken {
            // As PostgreSQL refuses it: after its own look at the text. It must be there for that.
            let failed = self.connection.ledger().status() == TransactionStatus::Failed;
            // In a failed transaction, or where there may be one by then, it could not be prepared.
            if !failed && self.connection.prepared().is_first_batch() {
                self.connection.distrust(taken.id());
            }
            let supply = self.connection.supply(&taken, self.most(), self.out);
            if supply != Supply::Hit {
                // A later batch cannot know whether it is there: after the refusal nothing can be prepared.
                self.names.unsettle(name, None);
            }
            let (id, name) = (taken.id(), name.into());
            frontend::message(tag::PARSE, &[taken.name().as_bytes(), &[0], body], self.out);
            self.connection
                .note_sent_with(tag::PARSE, Effect::Taken { id, name });
            supply
        } else {
            let settings = self.names.fingerprint(self.sender.parameters).clone();
            let statement = self.sender.pool.statements().intern(body, &settings);
            let naming = self.names.give(name, statement.clone());
            self.connection.define(&statement, naming, self.most(), self.out)
        };
        self.leave_out(message.start, message.end);
        // A Parse that is sent cannot be sent again.
        if supply != Supply::Hit {
            self.record = None;
        }
        self.count(supply);
        Ok(())
    }

    /// Notes what the text at the beginning of `body` may do.
    pub(super) fn suspect(&mut self, body: &[u8]) -> Hints {
        let text = text_of(body);
        let reading = self.sender.pool.read(text);
        self.connection.suspect(&reading);
        reading.hints
    }

    /// Remembers that the rest of a text is still to come.
    pub(super) fn read_later(&mut self, text: &[u8]) {
        self.names.tail = Some(end_of(text).into());
    }

    /// Looks at more of a text that comes in pieces: at whether it may do anything, and no closer.
    pub(super) fn read_on(&mut self, more: &[u8], is_end: bool) {
        let Some(tail) = self.names.tail.take() else {
            return;
        };
        let pool = self.sender.pool;
        let seam = [&tail, more.get(..SEAM).unwrap_or(more)].concat();
        if pool.may_matter(&seam) || pool.may_matter(more) {
            self.connection.suspect_everything();
            if self.names.grows {
                self.names.suspect_unnamed();
            } else {
                self.names.waits_for_end = true;
            }
        } else if !is_end {
            let end = if more.len() < SEAM { &seam } else { more };
            self.names.tail = Some(end_of(end).into());
        }
    }

    pub(super) fn parse_unnamed(&mut self, message: Message<'_>, body: &[u8]) {
        let number = self.sender.pool.statements().number();
        let reading = self.sender.pool.read(text_of(body));
        let forgets = reading.hints.contains(Hints::PREPARED);
        self.names.set_unnamed(number, body, message.whole, reading);
        self.names.grows = !message.whole;
        if !message.whole {
            self.read_later(body);
        }
        if forgets && message.whole && self.parse_deallocate(message, body) {
            return;
        }
        self.connection.set_unnamed(number);
        self.connection
            .note_sent_with(tag::PARSE, Effect::Unnamed { number });
    }

    pub(super) fn bind(&mut self, message: Message<'_>) {
        let mut reader = Reader::new(message.body);
        let portal = reader.cstring().map(<[u8]>::len);
        let at = message.body.len() - reader.rest().len();
        match (portal, reader.cstring()) {
            (Ok(_), Ok(name)) => self.use_statement(message, at, name),
            _ => self.connection.note_sent(tag::BIND),
        }
    }

    pub(super) fn describe(&mut self, message: Message<'_>) {
        match message
            .body
            .strip_prefix(b"S")
            .map(|body| Reader::new(body).cstring())
        {
            Some(Ok(name)) => self.use_statement(message, 1, name),
            _ => self.describe_portal(message),
        }
    }

    pub(super) fn describe_portal(&mut self, message: Message<'_>) {
        let portal = message.body.strip_prefix(b"P").map(text_of);
        match &self.names.portal {
            Some((bound, id)) if portal == Some(bound) => {
                let (id, to_client) = (*id, true);
                self.connection
                    .note_sent_with(tag::DESCRIBE, Effect::Described { id, to_client });
            }
            _ => self.connection.note_sent(tag::DESCRIBE),
        }
    }

    /// A Bind or Describe of the statement whose name stands at `at` in the body.
    pub(super) fn use_statement(&mut self, message: Message<'_>, at: usize, name: &[u8]) {
        if message.tag == tag::BIND {
            self.names.portal = None;
        }
        if name.is_empty() {
            self.use_unnamed(message.start);
            if message.tag == tag::BIND
                && let Some(reading) = self.names.unnamed_reading()
            {
                self.connection.suspect(reading);
                self.names.waits |= reading.hints.contains(Hints::PREPARED);
            }
            return self.connection.note_sent(message.tag);
        }
        let statement = self
            .names
            .resolve(name, self.sender.parameters, self.sender.pool.statements());
        let Some(statement) = statement else {
            // It may be a statement of SQL PREPARE, which may do anything.
            self.connection.suspect_if_pinned();
            // Otherwise the server says what is wrong, with the name that the client knows.
            if !name.starts_with(statements::PREFIX.as_bytes()) {
                return self.connection.note_sent(message.tag);
            }
            // Another client's statement may have that name.
            let effect = Effect::Unknown { name: name.into() };
            self.connection.note_sent_with(message.tag, effect);
            return self.put_renamed(&message, at, name, NOBODYS);
        };
        self.copy_to(message.start);
        let supply = self.connection.supply(&statement, self.most(), self.out);
        self.count(supply);
        if self.keeps.any() {
            self.connection.note_text(text_of(statement.body()), self.keeps);
        }
        let id = statement.id();
        let is_bind = message.tag == tag::BIND;
        let changed = is_bind && self.has_changed(&message, name, id);
        self.connection.note_sent_with(
            message.tag,
            match (is_bind, changed) {
                (true, true) => Effect::Changed { id },
                (true, false) => Effect::Used { id },
                (false, _) => Effect::Described { id, to_client: true },
            },
        );
        if !is_bind {
            self.described = Some(id);
        }
        if is_bind {
            let portal = message.body.get(..at.saturating_sub(1)).unwrap_or_default();
            self.names.portal = Some((portal.into(), id));
            if self.names.told(name).is_some() && !self.is_told_anew(&message, id) {
                // Who reads rows by what it was told before must hear of a change.
                self.record = None;
            }
            let reading = self.sender.pool.read_statement(&statement);
            self.connection.suspect(&reading);
            self.names.waits |= reading.hints.contains(Hints::PREPARED);
        }
        let new_name = if changed {
            NOBODYS.to_owned()
        } else {
            statement.name()
        };
        self.put_renamed(&message, at, name, &new_name);
        match (&mut self.record, supply) {
            (Some(record), Supply::Hit) => record.push(statement),
            (record, _) => *record = None,
        }
    }

    /// Sends a message with another name in the place of `name`, which stands at `at` in its body.
    pub(super) fn put_renamed(&mut self, message: &Message<'_>, at: usize, name: &[u8], new_name: &str) {
        self.copy_to(message.start);
        self.out.put_u8(message.tag);
        // Lengths are at most 2^30, and names much shorter.
        let difference = i64::try_from(new_name.len()).unwrap_or(0) - i64::try_from(name.len()).unwrap_or(0);
        let length = i64::from(message.length) + difference;
        self.out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        let (before, after) = message.body.split_at(at);
        self.out.put_slice(before);
        self.out.put_slice(new_name.as_bytes());
        self.out.put_slice(after.get(name.len()..).unwrap_or_default());
        self.leave_out(message.start, message.end);
    }

    /// Has the server have the client's unnamed statement, or none.
    pub(super) fn use_unnamed(&mut self, start: usize) {
        let number = self.names.unnamed();
        if self.connection.unnamed() == number {
            return;
        }
        self.copy_to(start);
        self.forwarded.rewritten = true;
        self.record = None;
        // A later batch must not take for granted what may be skipped in this one.
        self.names.unsettle_unnamed();
        match (self.names.unnamed_body(), &self.names.deallocates) {
            (Some(body), Some((id, _))) => {
                let body = deallocating(*id, body);
                self.connection.stand_in(*id, false, self.out);
                self.connection.supply_unnamed(number, &body, self.out);
            }
            (Some(body), None) => self.connection.supply_unnamed(number, body, self.out),
            (None, _) => self.connection.take_unnamed(self.out),
        }
    }

    pub(super) fn close(&mut self, message: Message<'_>) {
        let name = message
            .body
            .strip_prefix(b"S")
            .map(|body| Reader::new(body).cstring());
        let Some(Ok(name)) = name else {
            return self.connection.note_sent(tag::CLOSE);
        };
        if name.is_empty() {
            self.names.drop_unnamed(true);
            self.connection.set_unnamed(UNKNOWN);
        }
        match self.names.give_up(name) {
            Some(naming) => {
                self.connection.undefine(naming);
                self.copy_to(message.start);
                self.leave_out(message.start, message.end);
            }
            None => {
                self.connection.note_sent(tag::CLOSE);
                if name.starts_with(statements::PREFIX.as_bytes()) {
                    self.put_renamed(&message, 1, name, NOBODYS);
                }
            }
        }
    }

    pub(super) fn most(&self) -> usize {
        self.sender.pool.max_prepared_statements()
    }

    pub(super) fn count(&self, supply: Supply) {
        let metrics = self.sender.pool.metrics();
        match supply {
            Supply::Hit => metrics.prepared_hits.inc(),
            Supply::Miss => metrics.prepared_misses.inc(),
            Supply::Evicting => {
                metrics.prepared_misses.inc();
                metrics.prepared_evictions.inc();
            }
        }
    }
}

/// What follows the name in the Parse message of a `DEALLOCATE`, with the name that the statement has on servers.
pub(super) fn deallocating(id: u64, body: &[u8]) -> Vec<u8> {
    let types = body.get(text_of(body).len()..).unwrap_or_default();
    [&deallocate::of(&statements::name(id)), types].concat()
}

fn end_of(text: &[u8]) -> &[u8] {
    text.get(text.len().saturating_sub(SEAM)..).unwrap_or_default()
}
