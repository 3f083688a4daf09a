//! `SELECT pg_cancel_backend(pid)` and `pg_terminate_backend(pid)` with the process id that a client was told: tools and
//! drivers ask for that on another connection, and no server knows the id.
//!
//! What is asked for, what becomes of it, and how PostgreSQL would answer.

use bytes::{BufMut, BytesMut};

use super::{cancel, control::Order, member::Member, table::Entry};
use crate::wire::{
    backend::{self, TransactionStatus},
    frame::{Splitter, Step},
    frontend::{self, tag},
    reader::{Malformed, Reader},
    reply,
};

/// No request of that kind is longer.
const LONGEST: usize = 512;

/// What is to be done to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// `pg_cancel_backend`
    Cancel,
    /// `pg_terminate_backend`
    Terminate,
}

/// A request that is nothing but such a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) signal: Signal,
    /// Of the session that it is for.
    pub(super) pid: i32,
    /// How long the request is.
    pub(super) length: usize,
    form: Form,
}

/// How it is asked, which says how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Query,
    Batch {
        /// The result is described.
        described: bool,
        /// The result is in binary.
        binary: bool,
    },
}

impl Signal {
    /// The function's name.
    pub(super) fn function(self) -> &'static str {
        match self {
            Self::Cancel => "pg_cancel_backend",
            Self::Terminate => "pg_terminate_backend",
        }
    }
}

/// Reads the first request in `bytes`, if it is such a call.
pub(super) fn read(bytes: &[u8]) -> Option<Ask> {
    // By far most requests are not, and that is soon seen.
    let front = bytes.get(..bytes.len().min(LONGEST))?;
    let text = match front {
        [tag::QUERY, _, _, _, _, text @ ..] | [tag::PARSE, _, _, _, _, 0, text @ ..] => text,
        _ => return None,
    };
    if !after_select(text)?.starts_with(b"pg_") {
        return None;
    }
    let (mut splitter, mut at) = (Splitter::default(), 0);
    let mut next = || match splitter.step(front, &mut at, |_| LONGEST) {
        Ok(Step::Whole { tag, body }) => Some((tag, body, at)),
        _ => None,
    };
    let (tag, body, length) = next()?;
    if tag == tag::QUERY {
        let (signal, argument) = call(body.strip_suffix(b"\0")?)?;
        let pid = number(argument)?;
        let form = Form::Query;
        return Some(Ask {
            signal,
            pid,
            length,
            form,
        });
    }
    let mut parse = Reader::new(body);
    if !parse.cstring().ok()?.is_empty() {
        return None;
    }
    let (signal, argument) = call(parse.cstring().ok()?)?;
    let (tag::BIND, body, _) = next()? else {
        return None;
    };
    let (pid, binary) = bound(body).ok()??;
    let pid = if argument.strip_prefix(b"$1").is_some_and(is_cast) {
        pid?
    } else {
        number(argument)?
    };
    let (mut described, mut message) = (false, next()?);
    if let (tag::DESCRIBE, b"P\0", _) = message {
        described = true;
        message = next()?;
    }
    let (tag::EXECUTE, [0, ..], _) = message else {
        return None;
    };
    let (tag::SYNC, _, length) = next()? else {
        return None;
    };
    let form = Form::Batch { described, binary };
    Some(Ask {
        signal,
        pid,
        length,
        form,
    })
}

/// `SELECT [pg_catalog.]pg_..._backend(argument)`: which function, and its argument.
fn call(text: &[u8]) -> Option<(Signal, &[u8])> {
    let text = text.trim_ascii();
    let text = text.strip_suffix(b";").unwrap_or(text).trim_ascii_end();
    let rest = after_select(text)?;
    let rest = rest.strip_prefix(b"pg_catalog.").unwrap_or(rest);
    [Signal::Cancel, Signal::Terminate]
        .into_iter()
        .find_map(|signal| {
            let argument = rest.strip_prefix(signal.function().as_bytes())?;
            let argument = argument.strip_prefix(b"(")?.strip_suffix(b")")?;
            Some((signal, argument.trim_ascii()))
        })
}

/// What follows the word at the beginning of a text, if that is SELECT.
fn after_select(text: &[u8]) -> Option<&[u8]> {
    let (select, rest) = text.trim_ascii_start().split_first_chunk::<6>()?;
    // Of any byte and a letter, this is what makes a capital one small.
    let is_select = select.map(|byte| byte | 0x20) == *b"select";
    (is_select && rest.first()?.is_ascii_whitespace()).then(|| rest.trim_ascii_start())
}

/// A number, perhaps with a cast.
fn number(argument: &[u8]) -> Option<i32> {
    let digits = argument.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, cast) = argument.split_at(digits);
    if !is_cast(cast) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether what follows a number leaves it a number.
fn is_cast(text: &[u8]) -> bool {
    matches!(text, b"" | b"::int" | b"::int4" | b"::integer")
}

/// The number that is bound to the unnamed portal, if there is one, and whether the result is wanted in binary. `None`
/// for other portals and statements.
#[allow(clippy::type_complexity, reason = "read here and nowhere else")]
fn bound(body: &[u8]) -> Result<Option<(Option<i32>, bool)>, Malformed> {
    let mut bind = Reader::new(body);
    if !bind.cstring()?.is_empty() || !bind.cstring()?.is_empty() {
        return Ok(None);
    }
    let mut binary_parameter = false;
    for _ in 0..bind.uint16()? {
        binary_parameter = bind.uint16()? == 1;
    }
    let mut pid = None;
    for _ in 0..bind.uint16()? {
        let length = usize::try_from(bind.int32()?).map_err(|_| Malformed)?;
        let value = bind.bytes(length)?;
        pid = if binary_parameter {
            integer(value)
        } else {
            number(value)
        };
    }
    let mut binary = false;
    for _ in 0..bind.uint16()? {
        binary = bind.uint16()? == 1;
    }
    Ok(Some((pid, binary)))
}

fn integer(value: &[u8]) -> Option<i32> {
    match *value {
        [a, b] => Some(i16::from_be_bytes([a, b]).into()),
        [a, b, c, d] => Some(i32::from_be_bytes([a, b, c, d])),
        [0, 0, 0, 0, a, b, c, d] => i32::try_from(u32::from_be_bytes([a, b, c, d])).ok(),
        _ => None,
    }
}

impl Ask {
    /// Carries it out for a client that may do that, and appends PostgreSQL's answer: true. Says how long the request was;
    /// `None` if no session has that process id, or it is not for this client to ask: the server says so then.
    pub(super) fn carry_out(
        self,
        member: &Member,
        entry: &Entry,
        status: TransactionStatus,
        out: &mut BytesMut,
    ) -> Option<usize> {
        let (target, control) = entry.told(self.pid)?;
        let settings = member.pool.fresh_parameters();
        let superuser = settings.and_then(|settings| settings.get("is_superuser").cloned());
        if target.identity.user != member.identity.user && superuser.as_deref() != Some(b"on") {
            return None;
        }
        match self.signal {
            Signal::Cancel => member.pool.tasks().spawn("cancel", cancel::send(&control)),
            Signal::Terminate => control.give(Order::Kill),
        }
        // Who ends itself has no answer.
        if self.signal == Signal::Cancel || self.pid != member.names.pid() {
            self.grant(status, out);
        }
        Some(self.length)
    }

    fn grant(self, status: TransactionStatus, out: &mut BytesMut) {
        let binary = matches!(self.form, Form::Batch { binary: true, .. });
        let describe = |out: &mut BytesMut| reply::bool_column(self.signal.function(), binary, out);
        match self.form {
            Form::Query => describe(out),
            Form::Batch { described, .. } => {
                out.put_slice(&backend::PARSE_COMPLETE);
                out.put_slice(&backend::BIND_COMPLETE);
                if described {
                    describe(out);
                }
            }
        }
        let value: &[u8] = if binary { &[1] } else { b"t" };
        frontend::message(backend::tag::DATA_ROW, &[&[0, 1, 0, 0, 0, 1], value], out);
        reply::command_complete("SELECT 1", out);
        reply::ready_in(status, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Option<(Signal, i32)> {
        let mut bytes = BytesMut::new();
        frontend::message(tag::QUERY, &[text.as_bytes(), &[0]], &mut bytes);
        read(&bytes).map(|ask| (ask.signal, ask.pid))
    }

    #[test]
    fn exactly_such_a_call_and_no_other() {
        for text in [
            "SELECT pg_cancel_backend(7)",
            " select\tpg_catalog.pg_cancel_backend( 7 ) ; ",
            "SELECT pg_cancel_backend(7::int)",
        ] {
            assert_eq!(query(text), Some((Signal::Cancel, 7)), "{text}");
        }
        assert_eq!(
            query("select pg_terminate_backend(8)"),
            Some((Signal::Terminate, 8))
        );
        for text in [
            "SELECT pg_cancel_backend(7), 1",
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity",
            "SELECT pg_cancel_backend(99999999999)",
            "SELECT pg_cancel_backend(7); SELECT 1",
            "SELECT pg_terminate_backend(7, 1000)",
            "SELECT other_backend(7)",
            "DO pg_cancel_backend(7)",
        ] {
            assert_eq!(query(text), None, "{text}");
        }
    }

    fn batch(parameter: &[u8], format: u8, result: u8) -> BytesMut {
        let mut bytes = BytesMut::new();
        frontend::message(
            tag::PARSE,
            &[b"\0select pg_cancel_backend($1::int)\0\0\0"],
            &mut bytes,
        );
        let length = u8::try_from(parameter.len()).unwrap();
        let head = [0, 0, 0, 1, 0, format, 0, 1, 0, 0, 0, length];
        frontend::message(tag::BIND, &[&head, parameter, &[0, 1, 0, result]], &mut bytes);
        frontend::message(tag::DESCRIBE, &[b"P\0"], &mut bytes);
        frontend::message(tag::EXECUTE, &[&[0, 0, 0, 0, 0]], &mut bytes);
        bytes.put_slice(&frontend::SYNC);
        bytes
    }

    #[test]
    fn the_number_may_be_a_parameter_in_text_or_binary() {
        for (parameter, format) in [(&b"258"[..], 0), (&[1, 2], 1), (&[0, 0, 1, 2], 1)] {
            let bytes = batch(parameter, format, 1);
            let ask = read(&bytes).unwrap();
            assert_eq!((ask.pid, ask.length), (258, bytes.len()));
            let mut out = BytesMut::new();
            ask.grant(TransactionStatus::Idle, &mut out);
            assert!(out.starts_with(&[&backend::PARSE_COMPLETE[..], &backend::BIND_COMPLETE].concat()));
            assert!(out.windows(11).any(|row| row == b"D\0\0\0\x0b\0\x01\0\0\0\x01"));
        }
        assert_eq!(read(&batch(b"x", 0, 0)), None);
        let cut = batch(b"258", 0, 0);
        assert_eq!(read(&cut[..cut.len() - 1]), None);
    }
}
