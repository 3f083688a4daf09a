//! What a client sends, on its way to the server that works for it: names of prepared statements become those that
//! the statements have on servers, and what the server lacks is put in front.
//!
//! Everything else passes as it came, uncopied. No socket: the caller writes.

mod forgetting;
mod shapes;
mod statements;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::{error::SessionError, request};
use crate::{
    pool::{Metrics, Pool},
    server::{
        Batch, Connection, Keeps, REMEMBERED,
        hints::Hints,
        parameters::Parameters,
        statements::{Names, SharedNames, Statement},
    },
    traces::Context,
    wire::{
        frame::{HEADER, Splitter, Step},
        frontend::{self, tag},
    },
};

/// Up to this size a message with a name or a text in it is looked at as a whole.
const LOOKED_AT: usize = 8 * 1024;

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
    /// Parse messages of the client.
    parses: u32,
    /// Bind messages of the client.
    binds: u32,
}

impl Forwarded {
    /// Counts what was taken.
    pub(super) fn count(&self, connection: &mut Connection, metrics: &Metrics) {
        metrics.received.inc_by(self.taken as u64);
        if self.parses > 0 {
            metrics.client_parses.inc_by(self.parses.into());
        }
        if self.binds > 0 {
            metrics.binds.inc_by(self.binds.into());
        }
        // A Bind may have had a Parse put in front of it.
        let sent = connection.take_parses();
        if sent > 0 {
            metrics.server_parses.inc_by(sent.into());
        }
    }
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
        let keeps = self.pool.keeps();
        if !self.shares {
            return plain(connection, splitter, bytes, keeps);
        }
        if connection.ledger().has_outcomes() {
            // What is skipped is known at once.
            connection.settle_effects(None, Some(self.names));
        }
        if connection.ledger().is_settled() {
            connection.note_settled();
        }
        if let Some(forwarded) = self.lone_query(connection, splitter, bytes, keeps) {
            return Ok(forwarded);
        }
        self.names.with(|names| {
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
                keeps,
            };
            pass.run(splitter)
        })
    }
}

impl Sender<'_> {
    /// A Query alone, of a client that has no statements: what most requests are, and there is nothing to do for it that
    /// [`Pass`] would not do as well, in more steps.
    fn lone_query(
        &self,
        connection: &mut Connection,
        splitter: &mut Splitter,
        bytes: &[u8],
        keeps: Keeps,
    ) -> Option<Forwarded> {
        let (mut ahead, mut at) = (*splitter, 0);
        if bytes.first() != Some(&tag::QUERY) || !ahead.at_boundary() || self.names.are_any() {
            return None;
        }
        let Ok(Step::Whole { body, .. }) = ahead.step(bytes, &mut at, looked_at) else {
            return None;
        };
        let reading = self.pool.read(text_of(body));
        if at != bytes.len() || reading.hints.contains(Hints::PREPARED) {
            return None;
        }
        *splitter = ahead;
        if keeps.any() {
            note_text(connection, tag::QUERY, body, keeps);
        }
        connection.suspect(&reading);
        connection.note_sent(tag::QUERY);
        connection.set_unnamed(0);
        connection.note_batch();
        connection.remember(None);
        Some(Forwarded {
            taken: at,
            ..Forwarded::default()
        })
    }
}

/// Messages whose statements nobody else shares.
fn plain(
    connection: &mut Connection,
    splitter: &mut Splitter,
    bytes: &[u8],
    keeps: Keeps,
) -> Result<Forwarded, SessionError> {
    let mut at = splitter.pass(bytes.len());
    if at > 0 {
        connection.note_more(bytes.get(..at).unwrap_or_default(), keeps);
    }
    let mut forwarded = Forwarded::default();
    loop {
        forwarded.taken = at;
        let start = at;
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
                forwarded.parses += u32::from(tag == tag::PARSE);
                forwarded.binds += u32::from(tag == tag::BIND);
                connection.note_sent(tag);
                if keeps.any() {
                    let body = bytes.get(start + HEADER..).unwrap_or_default();
                    note_text(connection, tag, body, keeps);
                }
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
    /// What of queries may be wanted.
    keeps: Keeps,
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
        let more = self.bytes.get(..at).unwrap_or_default();
        if at > 0 {
            self.read_on(more, splitter.at_boundary());
            self.connection.note_more(more, self.keeps);
        }
        if at > 0 && std::mem::take(&mut self.names.grows) {
            self.names.grow_unnamed(more, splitter.at_boundary());
            self.names.grows = !splitter.at_boundary();
        }
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
        if self.keeps.any() {
            note_text(self.connection, message.tag, message.body, self.keeps);
        }
        match message.tag {
            tag::PARSE => {
                self.parse(message)?;
                // One that is still being collected comes here again.
                self.forwarded.parses += u32::from(self.names.collected.is_empty());
            }
            tag::BIND => {
                self.forwarded.binds += 1;
                self.bind(message);
            }
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

/// Keeps what is wanted of the text that stands in the body of a message of this type, if one does.
fn note_text(connection: &mut Connection, tag: u8, body: &[u8], keeps: Keeps) {
    if let Some(text) = text_in(tag, body) {
        return connection.note_text(text, keeps);
    }
    if tag == tag::BIND && keeps.texts {
        let portal = text_of(body).len();
        let name = text_of(body.get(portal + 1..).unwrap_or_default());
        if !name.is_empty() {
            // Where the statement is shared its text takes this place.
            connection.note_text(&[b"prepared statement ", name].concat(), keeps);
        }
    }
}

/// The query that stands in the body of a message of this type, if one does.
fn text_in(tag: u8, body: &[u8]) -> Option<&[u8]> {
    match tag {
        tag::QUERY => Some(text_of(body)),
        tag::PARSE => {
            let name = text_of(body).len();
            Some(text_of(body.get(name + 1..).unwrap_or_default()))
        }
        _ => None,
    }
}

/// The context that the first query in a request brings, of one that is not sent.
pub(super) fn context(request: &[u8]) -> Option<Context> {
    let (mut splitter, mut at) = (Splitter::default(), 0);
    loop {
        let start = at;
        let (Step::Whole { tag, .. } | Step::Begun { tag }) = splitter.step(request, &mut at, |_| 0).ok()?
        else {
            return None;
        };
        if let Some(text) = text_in(tag, request.get(start + HEADER..at)?) {
            return Context::in_text(text);
        }
    }
}

/// The text at the beginning of a body.
fn text_of(body: &[u8]) -> &[u8] {
    let end = memchr::memchr(0, body);
    end.and_then(|end| body.get(..end)).unwrap_or(body)
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
