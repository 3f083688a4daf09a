//! As much of the protocol as it takes to log in without a password and to read answers to their end.
//!
//! Values only, and a blocking connection around them; who wants another one brings it along.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use pgweir::wire::frame::{FrameError, Splitter, Step};

use super::site::ROLE;

/// Errors and ReadyForQuery are looked at up to this size; everything else passes by.
const LARGEST_KEPT: usize = 8 * 1024;
const PROTOCOL_3_0: u32 = 196_608;
/// SSLRequest: its length and the code 1234, 5679 ("SSL Session Encryption").
pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What goes wrong on a client's connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the pooler closed the connection")]
    Closed,
    #[error("the pooler does not take TLS")]
    NoTls,
    #[error("the pooler answered with an error: {0}")]
    Refused(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// A StartupMessage for `database`.
pub(crate) fn startup(database: &str) -> Vec<u8> {
    let mut body = PROTOCOL_3_0.to_be_bytes().to_vec();
    for text in ["user", ROLE, "database", database, ""] {
        body.extend(text.as_bytes());
        body.push(0);
    }
    with_length(&body)
}

/// A Query message.
pub(crate) fn query(sql: &str) -> Vec<u8> {
    let mut body = sql.as_bytes().to_vec();
    body.push(0);
    [&b"Q"[..], &with_length(&body)].concat()
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), body].concat()
}

/// The answers of one connection, read until the pooler is ready for the next query.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    splitter: Splitter,
    /// The beginning of a message.
    held: Vec<u8>,
}

impl Answers {
    /// Takes what has arrived; whether ReadyForQuery was the end of it.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<bool, ClientError> {
        if bytes.is_empty() {
            return Err(ClientError::Closed);
        }
        let mut ready = false;
        let mut at = 0;
        self.held.extend_from_slice(bytes);
        let whole = |tag| match tag {
            b'E' | b'Z' => LARGEST_KEPT,
            _ => 0,
        };
        loop {
            match self.splitter.step(&self.held, &mut at, whole)? {
                Step::Whole { tag: b'E', body } => return Err(ClientError::Refused(error_text(body))),
                Step::Whole { tag, .. } | Step::Begun { tag } => ready = tag == b'Z',
                Step::Short => break,
            }
        }
        self.held.drain(..at);
        Ok(ready && self.held.is_empty())
    }
}

/// The fields of an ErrorResponse that a person reads: code and message.
fn error_text(body: &[u8]) -> String {
    let fields = body.split(|&byte| byte == 0);
    let wanted: Vec<_> = fields
        .filter_map(|field| match field {
            [b'C' | b'M', text @ ..] => Some(String::from_utf8_lossy(text)),
            _ => None,
        })
        .collect();
    wanted.join(" ")
}

/// A blocking connection without TLS that has logged in.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    answers: Answers,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects and logs in; waits `limit` at most for each piece of an answer.
    pub(crate) fn log_in(port: u16, database: &str, limit: Duration) -> Result<Self, ClientError> {
        let stream = TcpStream::connect_timeout(&address(port), limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        let mut client = Self {
            stream,
            answers: Answers::default(),
            buffer: vec![0; 256 * 1024],
        };
        client.stream.write_all(&startup(database))?;
        while !client.read()?.is_ready {}
        Ok(client)
    }

    /// Sends a query; its answer is still to be read.
    pub(crate) fn send(&mut self, sql: &str) -> Result<(), ClientError> {
        Ok(self.stream.write_all(&query(sql))?)
    }

    /// Reads what there is of an answer.
    pub(crate) fn read(&mut self) -> Result<Progress, ClientError> {
        let count = self.stream.read(&mut self.buffer)?;
        let is_ready = self.answers.take(&self.buffer[..count])?;
        Ok(Progress { count, is_ready })
    }
}

/// What one read came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// Bytes.
    pub(crate) count: usize,
    /// Whether the answer is complete.
    pub(crate) is_ready: bool,
}

pub(crate) fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &[u8] = b"Z\0\0\0\x05I";

    #[test]
    fn an_answer_may_come_byte_by_byte() {
        let mut answers = Answers::default();
        let bytes = [b"D\0\0\0\x06ab", READY].concat();
        let ready: Vec<bool> = bytes.iter().map(|byte| answers.take(&[*byte]).unwrap()).collect();
        assert_eq!(ready.iter().position(|&ready| ready), Some(bytes.len() - 1));
    }

    #[test]
    fn a_ready_in_the_middle_is_not_the_end() {
        let mut answers = Answers::default();
        assert!(!answers.take(&[READY, b"T\0\0"].concat()).unwrap());
        assert!(answers.take(&[&b"\0\x04"[..], READY].concat()).unwrap());
    }

    #[test]
    fn errors_and_ends_are_told() {
        let error = b"E\0\0\0\x19SFATAL\0C53300\0Mno, \0\0";
        let told = Answers::default().take(error).unwrap_err().to_string();
        assert!(told.ends_with("53300 no, "), "{told}");
        assert!(matches!(Answers::default().take(b""), Err(ClientError::Closed)));
    }

    #[test]
    fn messages_have_their_lengths() {
        assert_eq!(query("x"), b"Q\0\0\0\x06x\0");
        let startup = startup("d");
        assert_eq!(
            startup[..8],
            [0, 0, 0, u8::try_from(startup.len()).unwrap(), 0, 3, 0, 0]
        );
        assert!(startup.ends_with(b"database\0d\0\0"));
    }
}
