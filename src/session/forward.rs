//! What a client sends, on its way to the server that works for it: names of prepared statements become those that
//! the statements have on servers, and what the server lacks is put in front.
//!
//! Everything else passes as it came, uncopied. No socket: the caller writes.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::{deallocate, error::SessionError, request};
use crate::{
    pool::Pool,
    server::{
        Batch, Connection, REMEMBERED, Supply,
        hints::Hints,
        parameters::Parameters,
        statements::{self, Effect, NOBODYS, Names, Shape, SharedNames, Statement, UNKNOWN},
    },
    wire::{
        frame::{HEADER, Splitter, Step},
        frontend::{self, tag},
        reader::Reader,
    },
};

/// Up to this size a message with a name or a text in it is looked at as a whole.
const LOOKED_AT: usize = 8 * 1024;
/// The largest Parse message with a name: all of it has to be known before the first byte can be sent.
const LARGEST_NAMED: usize = 16 * 1024 * 1024;

/// Whose messages they are.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) names: &'a SharedNames,
    pub(super) parameters: &'a Parameters,
    pub(super) pool: &'a Pool,
    /// Whether the server connection is for others after this transaction.
    pub(super) shares: bool,
    /// Whether named statements are shared with others.
    pub(super) renames: bool,
}

/// What became of a piece of the client's stream.
#[derive(Debug, Default)]
pub(super) struct Forwarded {
    /// So much of it has been taken; the rest belongs in front of the next piece.
    pub(super) taken: usize,
    /// What is to be sent of it stands in `out`; otherwise it is what was taken, as it is.
    pub(super) rewritten: bool,
    /// Why it was not taken further, if that was not for want of bytes.
    pub(super) stop: Option<Stop>,
    /// The client wants to see what there is to be said by now.
    pub(super) flushes: bool,
    /// A message has begun of which nothing has been sent yet.
    pub(super) collects: bool,
}

/// Why what follows is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The client says goodbye.
    Terminate,
    /// What follows depends on what the server makes of what precedes it.
    Wait,
}

impl Sender<'_> {
    /// Tells `connection` what it is sent, and puts into `out` what is to be sent where that is not `bytes` as it
    /// is. The splitter stands where `bytes` begins; `out` holds what precedes.
    pub(super) fn forward(
        &self,
        connection: &mut Connection,
        splitter: &mut Splitter,
        bytes: &[u8],
        out: &mut BytesMut,
    ) -> Result<Forwarded, SessionError> {
        if !self.shares {
            return plain(connection, splitter, bytes);
        }
        if connection.ledger().has_outcomes() {
            // What is skipped is known at once.
            connection.settle_effects(None, Some(self.names));
        }
        self.names.with(|names| {
            if connection.ledger().is_settled() {
                connection.note_settled();
            }
            if names.are_unsettled() && !connection.ledger().owes_client() {
                names.settle();
            }
            let between = connection.ledger().is_between_transactions();
            let pass = Pass {
                sender: self,
                connection,
                names,
                bytes,
                base: out.len(),
                out,
                copied: 0,
                forwarded: Forwarded::default(),
                record: (between && bytes.len() <= REMEMBERED).then(Vec::new),
                described: None,
            };
            pass.run(splitter)
        })
    }
}

/// Messages whose statements nobody else shares.
fn plain(
    connection: &mut Connection,
    splitter: &mut Splitter,
    bytes: &[u8],
) -> Result<Forwarded, SessionError> {
    let mut at = splitter.pass(bytes.len());
    let mut forwarded = Forwarded::default();
    loop {
        forwarded.taken = at;
        match splitter.step(bytes, &mut at, |_| 0)? {
            Step::Short => break,
            Step::Whole {
                tag: tag::TERMINATE, ..
            }
            | Step::Begun { tag: tag::TERMINATE } => {
                forwarded.stop = Some(Stop::Terminate);
                break;
            }
            Step::Whole { tag, .. } | Step::Begun { tag } if request::is_known(tag) => {
                connection.note_sent(tag);
            }
            Step::Whole { tag, .. } | Step::Begun { tag } => return Err(SessionError::MessageType { tag }),
        }
    }
    Ok(forwarded)
}

/// One piece of a client's stream, while it is looked at.
struct Pass<'a> {
    sender: &'a Sender<'a>,
    connection: &'a mut Connection,
    names: &'a mut Names,
    bytes: &'a [u8],
    out: &'a mut BytesMut,
    /// What precedes in `out`.
    base: usize,
    /// So much of `bytes` is in `out`, as it is or otherwise.
    copied: usize,
    forwarded: Forwarded,
    /// What would have to be sent again; `None` if that is not possible.
    record: Option<Vec<Arc<Statement>>>,
    /// The statement that was described last, in this piece.
    described: Option<u64>,
}

/// A message, or its beginning.
#[derive(Clone, Copy)]
struct Message<'a> {
    tag: u8,
    /// All of the body that is there.
    body: &'a [u8],
    /// The length that its header says.
    length: u32,
    whole: bool,
    /// Where it begins and ends in the piece; equal if it does not stand there.
    start: usize,
    end: usize,
}

impl Pass<'_> {
    fn run(mut self, splitter: &mut Splitter) -> Result<Forwarded, SessionError> {
        let mut at = splitter.pass(self.bytes.len());
        self.collect(splitter, at)?;
        if splitter.at_boundary() && std::mem::take(&mut self.names.waits_for_end) {
            self.forwarded.taken = at;
            self.wait_after(tag::QUERY, at);
        }
        let mut last = 0;
        while self.forwarded.stop.is_none() {
            self.forwarded.taken = at;
            let start = at;
            let step = splitter.step(self.bytes, &mut at, looked_at)?;
            let (tag, whole) = match step {
                Step::Short => break,
                Step::Whole { tag, .. } => (tag, true),
                Step::Begun { tag } => (tag, false),
            };
            let message = Message::at(self.bytes, tag, start..at, whole);
            if !whole && is_cut_short(&message)? {
                splitter.rewind();
                break;
            }
            if tag == tag::TERMINATE {
                self.forwarded.stop = Some(Stop::Terminate);
                break;
            }
            if self.names.are_unsettled() && self.must_wait(&message) {
                splitter.rewind();
                self.wait_before(start);
                break;
            }
            if tag == tag::BIND && self.must_verify(&message) {
                splitter.rewind();
                self.verify(&message);
                self.wait_before(start);
                break;
            }
            last = tag;
            self.pass(message)?;
            self.forwarded.taken = at;
        }
        self.finish(last, splitter.at_boundary())
    }

    fn finish(mut self, last: u8, at_boundary: bool) -> Result<Forwarded, SessionError> {
        let taken = self.forwarded.taken;
        if self.forwarded.rewritten || self.copied > 0 {
            self.copy_to(taken);
            self.forwarded.rewritten = true;
        }
        self.forwarded.collects = !self.names.collected.is_empty();
        let whole = at_boundary && last == tag::SYNC && self.forwarded.stop.is_none();
        let uses = self.record.filter(|uses| whole && !uses.is_empty());
        let batch = uses.map(|uses| Batch {
            messages: Bytes::copy_from_slice(if self.forwarded.rewritten {
                self.out.get(self.base..).unwrap_or_default()
            } else {
                self.bytes.get(..taken).unwrap_or_default()
            }),
            uses,
        });
        self.connection.remember(batch);
        Ok(self.forwarded)
    }

    /// Goes on with a message that has to be known as a whole and came in pieces.
    fn collect(&mut self, splitter: &Splitter, passed: usize) -> Result<(), SessionError> {
        if self.names.collected.is_empty() {
            return Ok(());
        }
        self.leave_out(0, passed);
        self.forwarded.taken = passed;
        let rest = self.bytes.get(..passed).unwrap_or_default();
        self.names.collected.extend_from_slice(rest);
        if !splitter.at_boundary() {
            return Ok(());
        }
        let collected = std::mem::take(&mut self.names.collected);
        self.pass(Message {
            start: passed,
            end: passed,
            ..Message::at(&collected, tag::PARSE, 0..collected.len(), true)
        })
    }

    fn pass(&mut self, message: Message<'_>) -> Result<(), SessionError> {
        match message.tag {
            tag::PARSE => self.parse(message)?,
            tag::BIND => self.bind(message),
            tag::DESCRIBE => self.describe(message),
            tag::CLOSE => self.close(message),
            tag::EXECUTE => self.execute(message),
            tag::QUERY => self.query(message),
            tag::FLUSH => self.forwarded.flushes = true,
            tag if request::is_known(tag) => self.connection.note_sent(tag),
            tag => return Err(SessionError::MessageType { tag }),
        }
        if matches!(message.tag, tag::QUERY | tag::FUNCTION_CALL) {
            self.record = None;
        }
        if message.tag == tag::FUNCTION_CALL {
            // It names a number.
            self.connection.suspect_everything();
        }
        if matches!(message.tag, tag::SYNC | tag::QUERY | tag::FUNCTION_CALL) {
            self.connection.note_batch();
            self.names.next_batch();
        }
        Ok(())
    }

    /// Whether a message is about a name that a batch has changed which may have failed, for all that is known: it
    /// might mean another statement then, or none.
    fn must_wait(&self, message: &Message<'_>) -> bool {
        let mut reader = Reader::new(message.body);
        match message.tag {
            tag::PARSE => match (reader.cstring(), reader.cstring()) {
                (Ok(b""), Ok(text)) => self.deallocates_unsettled(text),
                (Ok(name), _) => self.names.is_unsettled(name),
                _ => false,
            },
            tag::BIND => {
                let _ = reader.cstring();
                reader.cstring().is_ok_and(|name| self.names.is_unsettled(name))
            }
            tag::DESCRIBE | tag::CLOSE => {
                let name = message.body.strip_prefix(b"S").map(Reader::new);
                let name = name.and_then(|mut reader| reader.cstring().ok());
                name.is_some_and(|name| self.names.is_unsettled(name))
            }
            tag::QUERY => self.deallocates_unsettled(message.body.strip_suffix(b"\0").unwrap_or_default()),
            _ => false,
        }
    }

    fn deallocates_unsettled(&self, text: &[u8]) -> bool {
        deallocate::read(text).is_some_and(|found| self.names.is_unsettled(&found.name))
    }

    fn parse(&mut self, message: Message<'_>) -> Result<(), SessionError> {
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
            self.connection.distrust(taken.id());
            let supply = self.connection.supply(&taken, self.most(), self.out);
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
    fn suspect(&mut self, body: &[u8]) -> Hints {
        let text = text_of(body);
        let reading = self.sender.pool.read(text);
        self.connection.suspect(&reading);
        reading.hints
    }

    fn parse_unnamed(&mut self, message: Message<'_>, body: &[u8]) {
        let number = self.sender.pool.statements().number();
        let reading = self.sender.pool.read(text_of(body));
        let forgets = reading.hints.contains(Hints::PREPARED);
        self.names.set_unnamed(number, body, message.whole, reading);
        if forgets && message.whole && self.parse_deallocate(message, body) {
            return;
        }
        self.connection.set_unnamed(number);
        self.connection
            .note_sent_with(tag::PARSE, Effect::Unnamed { number });
    }

    fn bind(&mut self, message: Message<'_>) {
        let mut reader = Reader::new(message.body);
        let portal = reader.cstring().map(<[u8]>::len);
        let at = message.body.len() - reader.rest().len();
        match (portal, reader.cstring()) {
            (Ok(_), Ok(name)) => self.use_statement(message, at, name),
            _ => self.connection.note_sent(tag::BIND),
        }
    }

    fn describe(&mut self, message: Message<'_>) {
        match message
            .body
            .strip_prefix(b"S")
            .map(|body| Reader::new(body).cstring())
        {
            Some(Ok(name)) => self.use_statement(message, 1, name),
            _ => self.describe_portal(message),
        }
    }

    fn describe_portal(&mut self, message: Message<'_>) {
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
    fn use_statement(&mut self, message: Message<'_>, at: usize, name: &[u8]) {
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
    fn put_renamed(&mut self, message: &Message<'_>, at: usize, name: &[u8], new_name: &str) {
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

    /// Whether the server has to be asked, before this Bind, what the rows of its statement look like: the client was
    /// told once, is not told again now, and the statement may be another one since, on this server connection.
    fn must_verify(&mut self, message: &Message<'_>) -> bool {
        let Some((name, told)) = self.relied_on(message) else {
            return false;
        };
        let statement = self
            .names
            .resolve(name, self.sender.parameters, self.sender.pool.statements());
        let Some(id) = statement.map(|statement| statement.id()) else {
            return false;
        };
        let prepared = self.connection.prepared();
        !self.connection.ledger().skips() && prepared.shape(id) != Some(told) && !prepared.is_verified(id)
    }

    /// The name of the statement that a Bind uses, and what its rows look like as far as the client knows, if it is
    /// going to read them by that.
    fn relied_on<'m>(&self, message: &Message<'m>) -> Option<(&'m [u8], Shape)> {
        let mut reader = Reader::new(message.body);
        reader.cstring().ok()?;
        let name = reader.cstring().ok()?;
        let told = self.names.told(name)?;
        let id = self.names.get(name)?.id();
        (!self.is_told_anew(message, id)).then_some((name, told))
    }

    fn verify(&mut self, message: &Message<'_>) {
        self.copy_to(message.start);
        let Some((name, _)) = self.relied_on(message) else {
            return;
        };
        if let Some(statement) = self.names.get(name).cloned() {
            let supply = self.connection.verify(&statement, self.most(), self.out);
            self.count(supply);
        }
    }

    /// Whether the rows of the statement look different, here, from what the client goes by.
    fn has_changed(&self, message: &Message<'_>, name: &[u8], id: u64) -> bool {
        let shape = self.connection.prepared().shape(id);
        let told = self.names.told(name);
        shape.is_some() && told.is_some() && shape != told && !self.is_told_anew(message, id)
    }

    /// Whether the client is told, with this Bind, what the rows look like: the message before it describes the statement,
    /// or the one after it the portal.
    fn is_told_anew(&self, message: &Message<'_>, id: u64) -> bool {
        let next = self.bytes.get(message.end..).unwrap_or_default();
        self.described == Some(id) || matches!(next, [tag::DESCRIBE, _, _, _, _, b'P', ..])
    }

    /// Has the server have the client's unnamed statement, or none.
    fn use_unnamed(&mut self, start: usize) {
        let number = self.names.unnamed();
        if self.connection.unnamed() == number {
            return;
        }
        self.copy_to(start);
        self.forwarded.rewritten = true;
        self.record = None;
        // A later batch must not take for granted what may be skipped in this one.
        self.names.unsettle_unnamed();
        match self.names.unnamed_body() {
            Some(body) => self.connection.supply_unnamed(number, body, self.out),
            None => self.connection.take_unnamed(self.out),
        }
    }

    fn close(&mut self, message: Message<'_>) {
        let name = message
            .body
            .strip_prefix(b"S")
            .map(|body| Reader::new(body).cstring());
        let Some(Ok(name)) = name else {
            return self.connection.note_sent(tag::CLOSE);
        };
        if name.is_empty() {
            self.names.drop_unnamed();
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

    fn execute(&mut self, message: Message<'_>) {
        if !std::mem::take(&mut self.names.waits) {
            return self.connection.note_sent(tag::EXECUTE);
        }
        match self.names.deallocates.take() {
            Some((id, name)) => self
                .connection
                .note_sent_with(tag::EXECUTE, Effect::Deallocated { id, name }),
            None => self.connection.note_sent(tag::EXECUTE),
        }
        self.wait_after(tag::EXECUTE, message.end);
    }

    fn query(&mut self, message: Message<'_>) {
        self.names.drop_unnamed();
        if !self.suspect(message.body).contains(Hints::PREPARED) {
            self.connection.note_sent(tag::QUERY);
        } else {
            if !(message.whole && self.query_deallocate(message)) {
                self.connection.note_sent(tag::QUERY);
            }
            if message.whole {
                self.wait_after(tag::QUERY, message.end);
            } else {
                self.names.waits_for_end = true;
            }
        }
        self.connection.set_unnamed(0);
    }

    /// A Query that is nothing but `DEALLOCATE` of a name that stands for a shared statement.
    fn query_deallocate(&mut self, message: Message<'_>) -> bool {
        let Some((id, name)) = self.deallocated(text_of(message.body)) else {
            return false;
        };
        self.copy_to(message.start);
        if !self.connection.stand_in(id, true, self.out) {
            return false;
        }
        let text = deallocate::of(&statements::name(id));
        frontend::message(tag::QUERY, &[&text, &[0]], self.out);
        self.connection
            .note_sent_with(tag::QUERY, Effect::Deallocated { id, name });
        self.leave_out(message.start, message.end);
        true
    }

    /// The same as the text of an unnamed statement.
    fn parse_deallocate(&mut self, message: Message<'_>, body: &[u8]) -> bool {
        let text = text_of(body);
        let Some((id, name)) = self.deallocated(text) else {
            return false;
        };
        self.copy_to(message.start);
        self.connection.stand_in(id, false, self.out);
        let new_text = deallocate::of(&statements::name(id));
        let types = body.get(text.len()..).unwrap_or_default();
        frontend::message(tag::PARSE, &[&[0], &new_text, types], self.out);
        let number = self.names.unnamed();
        self.connection
            .note_sent_with(tag::PARSE, Effect::Unnamed { number });
        self.leave_out(message.start, message.end);
        self.record = None;
        self.names.deallocates = Some((id, name));
        self.connection.set_unnamed(self.names.unnamed());
        true
    }

    fn deallocated(&self, text: &[u8]) -> Option<(u64, Box<[u8]>)> {
        let name = deallocate::read(text)?.name;
        let statement = self.names.get(&name)?;
        Some((statement.id(), name.into()))
    }

    /// Takes nothing more, from `start` on, before the server has answered what precedes.
    fn wait_before(&mut self, start: usize) {
        self.copy_to(start);
        self.forwarded.rewritten = true;
        self.forwarded.stop = Some(Stop::Wait);
        self.record = None;
        // What precedes may be the beginning of a batch.
        self.out.put_slice(&frontend::FLUSH);
        self.forwarded.flushes = true;
    }

    /// Takes nothing more before the server has answered.
    fn wait_after(&mut self, tag: u8, end: usize) {
        self.copy_to(end);
        self.forwarded.rewritten = true;
        self.forwarded.stop = Some(Stop::Wait);
        self.record = None;
        if tag == tag::EXECUTE {
            self.out.put_slice(&frontend::FLUSH);
        }
    }

    fn most(&self) -> usize {
        self.sender.pool.plan().settings.max_prepared_statements
    }

    fn count(&self, supply: Supply) {
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

    /// What of the piece precedes `end` goes as it is.
    fn copy_to(&mut self, end: usize) {
        if let Some(as_it_is) = self.bytes.get(self.copied..end) {
            self.out.put_slice(as_it_is);
            self.copied = end;
        }
    }

    /// What stands between `start` and `end` has been seen to; what precedes goes as it is.
    fn leave_out(&mut self, start: usize, end: usize) {
        self.copy_to(start);
        self.copied = end;
        self.forwarded.rewritten = true;
    }
}

impl<'a> Message<'a> {
    fn at(bytes: &'a [u8], tag: u8, place: std::ops::Range<usize>, whole: bool) -> Self {
        let message = bytes.get(place.clone()).unwrap_or_default();
        let length = message
            .get(1..HEADER)
            .and_then(|length| length.first_chunk::<4>());
        Self {
            tag,
            body: message.get(HEADER..).unwrap_or_default(),
            length: length.map_or(0, |length| u32::from_be_bytes(*length)),
            whole,
            start: place.start,
            end: place.end,
        }
    }
}

/// The text at the beginning of a body.
fn text_of(body: &[u8]) -> &[u8] {
    body.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn looked_at(tag: u8) -> usize {
    match tag {
        tag::PARSE | tag::BIND | tag::DESCRIBE | tag::EXECUTE | tag::CLOSE | tag::QUERY => LOOKED_AT,
        _ => 0,
    }
}

/// Whether more of a message has to be there before it can be passed on: its names, and of Execute, behind which a
/// Flush may be due, all.
fn is_cut_short(message: &Message<'_>) -> Result<bool, SessionError> {
    let names = match message.tag {
        tag::EXECUTE => usize::MAX,
        tag::PARSE | tag::DESCRIBE | tag::CLOSE => 1,
        tag::BIND => 2,
        _ => 0,
    };
    let there = message.body.iter().filter(|&&byte| byte == 0).take(names).count();
    if there == names {
        Ok(false)
    } else if message.body.len() > LOOKED_AT {
        Err(SessionError::StatementTooLong)
    } else {
        Ok(true)
    }
}
