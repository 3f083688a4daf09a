//! One byte stream, with or without TLS around it.
//!
//! It knows no PostgreSQL message.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{
    client,
    rustls::{CommonState, ProtocolVersion},
    server,
};

use super::{
    end_point,
    names::{self, NamesError},
};
use crate::{
    net::Socket,
    types::{CertificateNames, EndPointHash},
};

/// A connection to a client or to a server.
///
/// Writing through TLS: `poll_write` may take bytes while their ciphertext is still in memory because
/// the socket was full. They leave only with `poll_flush`: call it after the last write, and again
/// until it is ready.
#[derive(Debug)]
pub enum Stream {
    /// No TLS.
    Plain(Socket),
    /// TLS that a client began.
    Accepted(Box<server::TlsStream<Socket>>),
    /// TLS with a server.
    Connected(Box<client::TlsStream<Socket>>),
}

/// How a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cipher {
    /// `TLSv1.3`
    pub version: &'static str,
    /// `TLS13_AES_256_GCM_SHA384`
    pub suite: &'static str,
}

/// As PgBouncer shows it: `TLSv1.3/TLS_AES_256_GCM_SHA384`.
impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, suite } = self;
        match suite.strip_prefix("TLS13_") {
            Some(suite) => write!(f, "{version}/TLS_{suite}"),
            None => write!(f, "{version}/{suite}"),
        }
    }
}

impl Stream {
    /// The socket below.
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Accepted(stream) => stream.get_ref().0,
            Self::Connected(stream) => stream.get_ref().0,
        }
    }

    /// The socket below. Reading or writing it directly would break TLS.
    pub fn socket_mut(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Accepted(stream) => stream.get_mut().0,
            Self::Connected(stream) => stream.get_mut().0,
        }
    }

    /// Whether the bytes are encrypted.
    pub fn is_tls(&self) -> bool {
        self.session().is_some()
    }

    /// The TLS version as PostgreSQL's `pg_stat_ssl` writes it: `TLSv1.3`.
    pub fn tls_version(&self) -> Option<&'static str> {
        match self.session()?.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            _ => None,
        }
    }

    /// The version and the cipher suite; `None` without TLS.
    pub fn cipher(&self) -> Option<Cipher> {
        let session = self.session()?;
        Some(Cipher {
            version: self.tls_version().unwrap_or("TLS"),
            suite: session.negotiated_cipher_suite()?.suite().as_str()?,
        })
    }

    /// The application protocol that both sides agreed on. Where TLS began without an SSLRequest it
    /// must be [`super::ALPN`]; elsewhere it may be absent.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.session()?.alpn_protocol()
    }

    /// The peer's own certificate in DER. It has been verified as far as the mode says, which for a
    /// server may be not at all.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        Some(self.session()?.peer_certificates()?.first()?)
    }

    /// Who a client is by the certificate that it has shown; `None` where it has shown none. The acceptor takes only
    /// those that its CAs answer for. Nothing of it is kept here: ask once.
    ///
    /// # Errors
    /// The certificate names nobody.
    pub fn client_names(&self) -> Result<Option<CertificateNames>, NamesError> {
        match self {
            Self::Accepted(_) => self.peer_certificate().map(names::of_certificate).transpose(),
            Self::Plain(_) | Self::Connected(_) => Ok(None),
        }
    }

    /// What SCRAM is bound to at a server; `None` without TLS, and as [`super::Acceptor::end_point`].
    pub fn end_point(&self) -> Option<EndPointHash> {
        match self {
            Self::Connected(_) => self.peer_certificate().and_then(end_point::hash),
            Self::Plain(_) | Self::Accepted(_) => None,
        }
    }

    /// Moves the connection from the runtime it was made on to the current one. Wakers that were
    /// registered before are forgotten: poll again.
    ///
    /// # Errors
    /// As [`Socket::rehome`]; the connection is closed then.
    pub fn rehome(&mut self) -> io::Result<()> {
        self.socket_mut().rehome()
    }

    /// The same, and the runtime hears nothing of it before there is something to read: see
    /// [`Socket::rehome_for_reads`].
    ///
    /// # Errors
    /// As [`Stream::rehome`].
    pub fn rehome_for_reads(&mut self) -> io::Result<()> {
        self.socket_mut().rehome_for_reads()
    }

    /// Whether decrypted bytes wait in memory, or the peer's close_notify has been read: the session wants no more
    /// records then.
    pub fn has_plaintext(&self) -> bool {
        self.session().is_some_and(|session| !session.wants_read())
    }

    /// Whether a read is worth trying: decrypted bytes wait in memory, or the socket has something:
    /// bytes, end of stream or an error. No system call is made. Registers the waker when the answer
    /// is no.
    ///
    /// A TLS peer may also send what is not for the reader (a ticket, a key update), so ready means
    /// "perhaps"; only a read tells for certain. Not ready is always true.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_plaintext() {
            return Poll::Ready(Ok(()));
        }
        self.socket().poll_read_ready(cx)
    }

    fn session(&self) -> Option<&CommonState> {
        match self {
            Self::Plain(_) => None,
            Self::Accepted(stream) => Some(stream.get_ref().1),
            Self::Connected(stream) => Some(stream.get_ref().1),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Accepted(stream) => Pin::new(stream).poll_read(cx, buf).map(end_of_stream),
            Self::Connected(stream) => Pin::new(stream).poll_read(cx, buf).map(end_of_stream),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Accepted(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Connected(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Accepted(stream) => Pin::new(stream).poll_flush(cx),
            Self::Connected(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Accepted(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Connected(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A peer that goes without close_notify has simply closed the connection, as it would without TLS.
/// PostgreSQL's messages carry their length, so what is cut off is noticed above.
fn end_of_stream(read: io::Result<()>) -> io::Result<()> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        read => read,
    }
}
