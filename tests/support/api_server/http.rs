//! HTTP/1.1, as much as the played API server needs of it: GET, and answers with and without a length.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read, Write},
    net::{Shutdown, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{fault::Failure, store::Framing};

/// Longer lists have no length.
const LONGEST_WITH_LENGTH: usize = 2048;
const PIECE: usize = 0x800;
const PAUSE: Duration = Duration::from_millis(2);

/// The head of a request.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    /// Names in small letters.
    headers: BTreeMap<String, String>,
}

impl Head {
    /// `None` at the end of the connection.
    pub(super) fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let target = line.split_whitespace().nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut head = Self {
            path: decoded(path),
            ..Self::default()
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            head.query.insert(decoded(name), decoded(value));
        }
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                return Ok(Some(head));
            };
            head.headers
                .insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }

    pub(super) fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.parameter(name), "true" | "1")
    }

    /// Whether the client wants the connection to end with the answer.
    pub(super) fn is_last(&self) -> bool {
        self.headers
            .get("connection")
            .is_some_and(|value| value == "close")
    }

    pub(super) fn bearer(&self) -> Option<&str> {
        self.headers.get("authorization")?.strip_prefix("Bearer ")
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The server's side of a connection, with or without TLS.
pub(super) enum Stream {
    Plain(Shared),
    Tls(Box<StreamOwned<ServerConnection, Shared>>),
}

/// A socket that others may end.
pub(super) struct Shared(pub(super) Arc<TcpStream>);

impl Stream {
    pub(super) fn new(socket: Arc<TcpStream>, tls: Option<&Arc<ServerConfig>>) -> Self {
        match tls {
            None => Self::Plain(Shared(socket)),
            Some(config) => {
                let connection =
                    ServerConnection::new(Arc::clone(config)).expect("the configuration is sound");
                Self::Tls(Box::new(StreamOwned::new(connection, Shared(socket))))
            }
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(shared) => &shared.0,
            Self::Tls(stream) => &stream.sock.0,
        }
    }

    /// Makes the end of this connection a reset.
    pub(super) fn reset_at_end(&self) -> io::Result<()> {
        socket2::SockRef::from(self.socket()).set_linger(Some(Duration::ZERO))
    }

    /// Whether the client has gone.
    pub(super) fn is_closed(&self) -> bool {
        let socket = self.socket();
        let mut byte = [0];
        let looked = socket.set_nonblocking(true).and_then(|()| socket.peek(&mut byte));
        let _ = socket.set_nonblocking(false);
        match looked {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Ends it without a word.
    pub(super) fn end(&self) {
        let _ = self.socket().shutdown(Shutdown::Both);
    }
}

impl Read for Shared {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(into)
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

fn head(status: u16, content_type: &str, more: &str) -> String {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        410 => "Gone",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Internal Server Error",
    };
    format!(
        "HTTP/1.1 {status} {reason}\r\nAudit-Id: 80addc2f-0959-4637-a1b4-35615ddb875a\r\nCache-Control: no-cache, private\r\n\
         Content-Type: {content_type}\r\nX-Kubernetes-Pf-Flowschema-Uid: 0bfd5c3c-c65b-46eb-8a28-f565cd789758\r\n\
         Date: Sun, 22 Nov 2026 07:33:28 GMT\r\n{more}\r\n"
    )
}

pub(super) fn write_failure(stream: &mut Stream, failure: &Failure) -> io::Result<()> {
    let retry = if failure.retry_after {
        "Retry-After: 1\r\n"
    } else {
        ""
    };
    let more = format!("{retry}Content-Length: {}\r\n", failure.body.len());
    let head = head(failure.status, failure.content_type, &more);
    stream.write_all((head + &failure.body).as_bytes())?;
    stream.flush()
}

/// A body with its length, or in pieces that end anywhere.
pub(super) fn write_body(stream: &mut Stream, body: &str) -> io::Result<()> {
    if body.len() <= LONGEST_WITH_LENGTH {
        let more = format!("Content-Length: {}\r\n", body.len());
        stream.write_all((head(200, "application/json", &more) + body).as_bytes())?;
        return stream.flush();
    }
    write_watch_head(stream)?;
    for piece in body.as_bytes().chunks(PIECE) {
        write_chunk(stream, piece)?;
    }
    write_last_chunk(stream)
}

/// Half of what was announced.
pub(super) fn write_half(stream: &mut Stream) -> io::Result<()> {
    let text = head(200, "application/json", "Content-Length: 4000\r\n")
        + "{\"kind\":\"EndpointSliceList\",\"items\":[{";
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

/// Sent at once, before there is any event.
pub(super) fn write_watch_head(stream: &mut Stream) -> io::Result<()> {
    let head = head(200, "application/json", "Transfer-Encoding: chunked\r\n");
    stream.write_all(head.as_bytes())?;
    stream.flush()
}

/// Events, one a line, cut as `framing` says.
pub(super) fn write_events(stream: &mut Stream, events: &[String], framing: Framing) -> io::Result<()> {
    match framing {
        Framing::Several if !events.is_empty() => write_chunk(stream, events.concat().as_bytes()),
        Framing::Whole | Framing::Several => events
            .iter()
            .try_for_each(|event| write_chunk(stream, event.as_bytes())),
        Framing::Split => events.iter().try_for_each(|event| {
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            write_slowly(stream, chunk.as_bytes(), 100)
        }),
        Framing::Crumbs => {
            for crumb in events.concat().as_bytes().chunks(37) {
                write_chunk(stream, crumb)?;
            }
            Ok(())
        }
    }
}

fn write_slowly(stream: &mut Stream, bytes: &[u8], size: usize) -> io::Result<()> {
    for piece in bytes.chunks(size) {
        stream.write_all(piece)?;
        stream.flush()?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn write_chunk(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    stream.write_all(&chunk)?;
    stream.flush()
}

pub(super) fn write_last_chunk(stream: &mut Stream) -> io::Result<()> {
    stream.write_all(b"0\r\n\r\n")?;
    stream.flush()
}
