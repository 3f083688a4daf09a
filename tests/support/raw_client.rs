//! A client that sends exact bytes and sees every message.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
};

use super::{
    LIMIT,
    frames::{self, Frame},
};

/// A connection, blocking; a read that waits longer than [`LIMIT`] fails the test.
///
/// Generic over the stream, so that it also works on top of TLS ([`RawClient::over`]).
pub struct RawClient<S = TcpStream> {
    stream: S,
    /// ParameterStatus messages seen so far, in order.
    pub parameters: Vec<(String, String)>,
    /// The body of BackendKeyData: process id, then secret.
    pub key: Option<Vec<u8>>,
}

impl RawClient {
    /// Connects; nothing is sent.
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the address accepts connections");
        stream.set_nodelay(true).expect("TCP has nodelay");
        stream
            .set_read_timeout(Some(LIMIT))
            .expect("the limit is not zero");
        stream
            .set_write_timeout(Some(LIMIT))
            .expect("the limit is not zero");
        Self::over(stream)
    }

    /// Connects and logs in without TLS, up to the first ReadyForQuery.
    pub fn log_in(address: &str, user: &str, password: &str, database: &str) -> Self {
        let mut client = Self::connect(address);
        client.authenticate(&[("user", user), ("database", database)], password);
        client
    }

    /// Says that nothing more is sent, and keeps reading.
    pub fn finish_sending(&mut self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("the connection is open");
    }

    /// Gives the socket away, for TLS on top of it.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl<S: Read + Write> RawClient<S> {
    /// A client on a stream that is connected already.
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            parameters: Vec::new(),
            key: None,
        }
    }

    /// Sends a StartupMessage of protocol 3.0 and answers with the password in clear if it is asked for, up
    /// to the first ReadyForQuery. For `trust` and `password`; drivers do the rest.
    pub fn authenticate(&mut self, parameters: &[(&str, &str)], password: &str) {
        self.send(frames::startup(frames::PROTOCOL_3_0, parameters));
        loop {
            let message = self.read();
            match (message.tag, message.body.get(..4)) {
                (b'R', Some([0, 0, 0, 0])) => {}
                (b'R', Some([0, 0, 0, 3])) => self.send(frames::frame(b'p', frames::text(password))),
                (b'Z', _) => return,
                (b'S' | b'K' | b'N', _) => {}
                _ => panic!("unexpected while logging in: {message:?}"),
            }
        }
    }

    /// Sends these bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the peer takes what is sent");
    }

    /// Sends these bytes to a peer that may have gone.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Reads one message.
    #[track_caller]
    pub fn read(&mut self) -> Frame {
        self.try_read().expect("the peer sends a message")
    }

    /// Reads one message from a peer that may have gone.
    pub fn try_read(&mut self) -> io::Result<Frame> {
        let message = Frame::read(&mut self.stream)?;
        match message.tag {
            b'S' => {
                let strings = message.strings();
                assert_eq!(strings.len(), 2, "{message:?}");
                self.parameters.push((strings[0].clone(), strings[1].clone()));
            }
            b'K' => self.key = Some(message.body.clone()),
            _ => {}
        }
        Ok(message)
    }

    /// Reads one byte: the answer to SSLRequest or GSSENCRequest.
    #[track_caller]
    pub fn read_byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).expect("the peer sends a byte");
        byte[0]
    }

    /// Reads up to and with ReadyForQuery.
    #[track_caller]
    pub fn read_until_ready(&mut self) -> Vec<Frame> {
        self.read_until(b'Z')
    }

    /// Reads up to and with a message of this type.
    #[track_caller]
    pub fn read_until(&mut self, tag: u8) -> Vec<Frame> {
        let mut messages = Vec::new();
        loop {
            match self.try_read() {
                Ok(message) => messages.push(message),
                Err(error) => panic!("{error} after {messages:?}"),
            }
            if messages.last().is_some_and(|message| message.tag == tag) {
                return messages;
            }
        }
    }

    /// Sends a simple query and reads up to ReadyForQuery.
    #[track_caller]
    pub fn query(&mut self, sql: &str) -> Vec<Frame> {
        self.send(frames::query(sql));
        self.read_until_ready()
    }

    /// The only column of the only row that a simple query returns.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> String {
        let messages = self.query(sql);
        let rows: Vec<_> = messages.iter().filter(|message| message.tag == b'D').collect();
        match rows[..] {
            [row] => row.columns().remove(0).expect("the value is not null"),
            _ => panic!("{sql} did not return one row: {messages:?}"),
        }
    }

    /// Reads up to the end of the connection: the types of what came. A reset counts as an end.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<Frame> {
        let mut messages = Vec::new();
        loop {
            match self.try_read() {
                Ok(message) => messages.push(message),
                Err(error) if is_end(&error) => return messages,
                Err(error) => panic!("{error} after {messages:?}"),
            }
        }
    }
}

/// Whether the error says that the peer has closed the connection.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
    )
}

/// The type bytes of messages, such as `TDCZ`.
pub fn tags(messages: &[Frame]) -> String {
    messages.iter().map(|message| char::from(message.tag)).collect()
}
