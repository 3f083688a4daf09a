//! A client whose failures are values: for those who go on when their server is gone.

use std::{
    io::{self, BufReader, ErrorKind, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use super::frames::{self, Frame};

/// A connection that is logged in, blocking.
#[derive(Debug)]
pub struct TryClient {
    reader: BufReader<TcpStream>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What the peer's error says; `None` if the connection ended without a word.
    pub sqlstate: Option<String>,
    pub message: String,
    /// Whether the connection is of no use any more.
    pub is_fatal: bool,
}

/// Ends a connection from another thread; who reads from it has trouble then.
#[derive(Debug)]
pub struct Plug(TcpStream);

impl TryClient {
    /// Connects and logs in without TLS and without a password; each read waits for `limit` at most.
    pub fn log_in(address: SocketAddr, user: &str, database: &str, limit: Duration) -> Result<Self, Trouble> {
        let stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let mut client = Self {
            reader: BufReader::new(stream),
        };
        let parameters = [("user", user), ("database", database)];
        client.send(&frames::startup(frames::PROTOCOL_3_0, &parameters))?;
        client.read_until_ready()?;
        Ok(client)
    }

    /// What ends this connection.
    pub fn plug(&self) -> Result<Plug, Trouble> {
        Ok(Plug(self.reader.get_ref().try_clone()?))
    }

    /// Sends a simple query and reads up to ReadyForQuery: the messages, if none of them is an error.
    pub fn query(&mut self, sql: &str) -> Result<Vec<Frame>, Trouble> {
        self.send(&frames::query(sql))?;
        self.read_until_ready()
    }

    /// The first column of the first row; empty if there is none.
    pub fn value(&mut self, sql: &str) -> Result<String, Trouble> {
        let messages = self.query(sql)?;
        let row = messages.iter().find(|message| message.tag == b'D');
        let column = row.and_then(|row| row.columns().into_iter().next());
        Ok(column.flatten().unwrap_or_default())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        match self.reader.get_mut().write_all(bytes) {
            Ok(()) => Ok(()),
            // The peer may have said why it left.
            Err(error) => Err(self.farewell().unwrap_or_else(|| error.into())),
        }
    }

    fn farewell(&mut self) -> Option<Trouble> {
        loop {
            let message = Frame::read(&mut self.reader).ok()?;
            if message.tag == b'E' {
                return Some(Trouble::from_error(&message));
            }
        }
    }

    fn read_until_ready(&mut self) -> Result<Vec<Frame>, Trouble> {
        let (mut messages, mut trouble) = (Vec::new(), None);
        loop {
            let message = Frame::read(&mut self.reader)?;
            match message.tag {
                b'E' => {
                    let said = Trouble::from_error(&message);
                    if said.is_fatal {
                        return Err(said);
                    }
                    trouble = Some(said);
                }
                b'Z' => return trouble.map_or(Ok(messages), Err),
                _ => messages.push(message),
            }
        }
    }
}

impl Drop for TryClient {
    fn drop(&mut self) {
        // The peer may be gone.
        let _ = self.reader.get_mut().write_all(&frames::terminate());
    }
}

impl Plug {
    /// Ends the connection.
    pub fn pull(&self) {
        // Fails only if it has ended already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Trouble {
    fn from_error(error: &Frame) -> Self {
        let field = |code| error.field(code).unwrap_or_default();
        Self {
            sqlstate: Some(field(b'C')),
            message: field(b'M'),
            is_fatal: matches!(field(b'V').as_str(), "FATAL" | "PANIC")
                // PgBouncer does not say it untranslated.
                || matches!(field(b'S').as_str(), "FATAL" | "PANIC"),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        let message = match error.kind() {
            ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => "no answer in time".to_owned(),
            _ => error.to_string(),
        };
        Self {
            sqlstate: None,
            message,
            is_fatal: true,
        }
    }
}
