//! What a client says: type bytes, and the messages that the pooler sends as a client of a server.

use bytes::{BufMut, Bytes, BytesMut};
use pgwire::messages::{
    Message,
    cancel::CancelRequest,
    copy::CopyFail,
    extendedquery::{Bind, Execute, Parse},
    simplequery::Query,
    startup::{SecretKey, SslRequest, Startup},
};

use crate::types::BackendKey;

/// Type bytes of frontend messages ("Message Formats").
pub mod tag {
    #![allow(missing_docs, reason = "each constant is the message of that name")]
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// Sync, whole.
pub const SYNC: [u8; 5] = [tag::SYNC, 0, 0, 0, 4];
/// Terminate, whole.
pub const TERMINATE: [u8; 5] = [tag::TERMINATE, 0, 0, 0, 4];
/// Flush, whole.
pub const FLUSH: [u8; 5] = [tag::FLUSH, 0, 0, 0, 4];

/// Appends an SSLRequest.
pub fn ssl_request(out: &mut BytesMut) {
    encode(&SslRequest::new(), out);
}

/// Appends a StartupMessage of protocol 3.`minor`.
pub fn startup<'a>(minor: u16, parameters: impl IntoIterator<Item = (&'a str, &'a str)>, out: &mut BytesMut) {
    let mut message = Startup::new();
    message.protocol_number_minor = minor;
    message.parameters = parameters
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    encode(&message, out);
}

/// Appends a CancelRequest.
pub fn cancel_request(key: &BackendKey, out: &mut BytesMut) {
    encode(
        &CancelRequest::new(key.pid, SecretKey::Bytes(Bytes::copy_from_slice(&key.secret))),
        out,
    );
}

/// Appends a PasswordMessage, SASLInitialResponse or SASLResponse with a body that `auth` made.
pub fn password(body: &[u8], out: &mut BytesMut) {
    message(tag::PASSWORD, &[body], out);
}

/// Appends a message whose body is these parts, one after the other.
pub fn message(tag: u8, parts: &[&[u8]], out: &mut BytesMut) {
    let length = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    out.put_u8(tag);
    out.put_u32(u32::try_from(length).unwrap_or(super::frame::MAX_LENGTH));
    for part in parts {
        out.put_slice(part);
    }
}

/// Appends a simple Query.
pub fn query(sql: &str, out: &mut BytesMut) {
    encode(&Query::new(sql.to_owned()), out);
}

/// Appends Parse, Bind and Execute of an unnamed statement without parameters, and no Sync.
pub fn parse_execute(sql: &str, out: &mut BytesMut) {
    encode(&Parse::new(None, sql.to_owned(), Vec::new()), out);
    encode(&Bind::new(None, None, Vec::new(), Vec::new(), Vec::new()), out);
    encode(&Execute::new(None, 0), out);
}

/// Appends Parse of an unnamed statement, one Bind and Execute for each list of text values, and no Sync.
pub fn execute_each(sql: &str, values: &[Vec<Bytes>], out: &mut BytesMut) {
    encode(&Parse::new(None, sql.to_owned(), Vec::new()), out);
    for row in values {
        let parameters = row.iter().cloned().map(Some).collect();
        encode(&Bind::new(None, None, Vec::new(), parameters, Vec::new()), out);
        encode(&Execute::new(None, 0), out);
    }
}

/// Appends Parse, Bind and Execute of an unnamed statement with one text parameter, of whose rows one is wanted, and Sync.
pub fn execute_one(sql: &str, value: Bytes, out: &mut BytesMut) {
    encode(&Parse::new(None, sql.to_owned(), Vec::new()), out);
    let parameters = vec![Some(value)];
    encode(&Bind::new(None, None, Vec::new(), parameters, Vec::new()), out);
    encode(&Execute::new(None, 1), out);
    out.put_slice(&SYNC);
}

/// Appends a CopyFail with its reason.
pub fn copy_fail(reason: &str, out: &mut BytesMut) {
    encode(&CopyFail::new(reason.to_owned()), out);
}

/// pgwire refuses only what is larger than a gigabyte or a cancel key out of range; neither is built here.
fn encode(message: &impl Message, out: &mut BytesMut) {
    let start = out.len();
    if message.encode(out).is_err() {
        out.truncate(start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{Splitter, Step};

    fn tags(bytes: &[u8]) -> Vec<u8> {
        let (mut splitter, mut at, mut tags) = (Splitter::default(), 0, Vec::new());
        while let Step::Whole { tag, .. } = splitter.step(bytes, &mut at, |_| usize::MAX).unwrap() {
            tags.push(tag);
        }
        assert_eq!(at, bytes.len());
        tags
    }

    #[test]
    fn messages_are_framed_exactly() {
        let mut out = BytesMut::new();
        query("select 1", &mut out);
        password(b"secret\0", &mut out);
        let row = vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")];
        execute_each("select $1, $2", &[row.clone(), row], &mut out);
        copy_fail("gone", &mut out);
        execute_one("select $1", Bytes::from_static(b"a"), &mut out);
        for whole in [FLUSH, SYNC, TERMINATE] {
            out.extend_from_slice(&whole);
        }
        assert_eq!(tags(&out), b"QpPBEBEfPBESHSX");
    }

    #[test]
    fn packets_without_type_are_exact() {
        let mut out = BytesMut::new();
        ssl_request(&mut out);
        assert_eq!(&out[..], [0, 0, 0, 8, 4, 210, 22, 47]);
        out.clear();
        cancel_request(
            &BackendKey {
                pid: 1,
                secret: [0, 0, 0, 2].into(),
            },
            &mut out,
        );
        assert_eq!(&out[..], [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2]);
        out.clear();
        startup(2, [("user", "u"), ("database", "d")], &mut out);
        assert_eq!(&out[4..8], [0, 3, 0, 2]);
    }
}
