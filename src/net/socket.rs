//! One byte stream to a peer: TCP or a unix socket, and its move between runtimes.

use std::{
    io,
    net::IpAddr,
    path::Path,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// Idle seconds before the kernel probes a silent peer, between probes, and probes before it gives up.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// A connected stream socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// Unix domain.
    Unix(UnixStream),
    /// Taken out of a runtime by [`Socket::detach`]; reads and writes fail.
    Detached,
    /// A pipe in memory, for tests that need no network.
    #[cfg(test)]
    Memory(tokio::io::DuplexStream),
}

/// A socket that belongs to no runtime, on its way to one.
#[derive(Debug)]
pub enum DetachedSocket {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// Unix domain.
    Unix(std::os::unix::net::UnixStream),
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAddress {
    /// A TCP peer.
    Ip(IpAddr, u16),
    /// A process on this machine.
    Local,
}

impl std::fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(ip, port) => write!(f, "{}", std::net::SocketAddr::new(*ip, *port)),
            Self::Local => f.write_str("local"),
        }
    }
}

impl Socket {
    /// Connects to `host:port`, trying each address that the name resolves to.
    ///
    /// Not bounded in time; cancel-safe.
    ///
    /// # Errors
    /// Name resolution, or the last address's error.
    pub async fn connect_tcp(host: &str, port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((host, port)).await?;
        let socket = Self::Tcp(stream);
        socket.tune()?;
        Ok(socket)
    }

    /// Connects to a unix socket file.
    ///
    /// # Errors
    /// Those of `connect(2)`.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        Ok(Self::Unix(UnixStream::connect(path).await?))
    }

    /// Turns Nagle's algorithm off and keepalive on (TCP only).
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    pub fn tune(&self) -> io::Result<()> {
        if let Self::Tcp(stream) = self {
            stream.set_nodelay(true)?;
            let keepalive = TcpKeepalive::new()
                .with_time(KEEPALIVE_IDLE)
                .with_interval(KEEPALIVE_INTERVAL)
                .with_retries(KEEPALIVE_RETRIES);
            SockRef::from(stream).set_tcp_keepalive(&keepalive)?;
        }
        Ok(())
    }

    /// The other end's address.
    pub fn peer(&self) -> PeerAddress {
        match self {
            Self::Tcp(stream) => match stream.peer_addr() {
                Ok(address) => PeerAddress::Ip(address.ip(), address.port()),
                Err(_) => PeerAddress::Local,
            },
            _ => PeerAddress::Local,
        }
    }

    /// Takes the socket out of its runtime's reactor. `self` is left [`Socket::Detached`].
    ///
    /// # Errors
    /// The reactor refused to let go of the descriptor; the socket is closed then.
    pub fn detach(&mut self) -> io::Result<DetachedSocket> {
        match std::mem::replace(self, Self::Detached) {
            Self::Tcp(stream) => stream.into_std().map(DetachedSocket::Tcp),
            Self::Unix(stream) => stream.into_std().map(DetachedSocket::Unix),
            Self::Detached => Err(io::ErrorKind::NotConnected.into()),
            #[cfg(test)]
            Self::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Puts a detached socket into the reactor of the current runtime.
    ///
    /// # Errors
    /// The reactor could not register the descriptor.
    pub fn attach(&mut self, socket: DetachedSocket) -> io::Result<()> {
        *self = match socket {
            DetachedSocket::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream)?),
            DetachedSocket::Unix(stream) => Self::Unix(UnixStream::from_std(stream)?),
        };
        Ok(())
    }

    /// Moves the socket from the runtime it was made on to the current one.
    ///
    /// # Errors
    /// As [`Socket::detach`] and [`Socket::attach`].
    pub fn rehome(&mut self) -> io::Result<()> {
        let detached = self.detach()?;
        self.attach(detached)
    }

    /// The next byte, without taking it; `None` where the stream has ended or cannot be looked into.
    /// Cancel-safe.
    ///
    /// # Errors
    /// Those of `recv(2)`.
    pub async fn peek_byte(&self) -> io::Result<Option<u8>> {
        let Self::Tcp(stream) = self else { return Ok(None) };
        let mut byte = [0];
        let count = stream.peek(&mut byte).await?;
        Ok((count > 0).then_some(byte[0]))
    }

    /// Whether the peer has sent something that nobody has read.
    pub fn has_unread(&self) -> bool {
        let Self::Tcp(stream) = self else { return false };
        let (mut byte, mut cx) = ([0], Context::from_waker(std::task::Waker::noop()));
        matches!(stream.poll_peek(&mut cx, &mut ReadBuf::new(&mut byte)), Poll::Ready(Ok(count)) if count > 0)
    }

    /// Whether the connection has ended in both directions, as by a reset, although there may be bytes to read
    /// before one meets the end. No system call is made; it is what the reactor has last heard.
    pub fn is_dead(&self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let ready = match self {
            Self::Tcp(stream) => pin!(stream.ready(Interest::WRITABLE)).poll(&mut cx),
            Self::Unix(stream) => pin!(stream.ready(Interest::WRITABLE)).poll(&mut cx),
            Self::Detached => return true,
            #[cfg(test)]
            Self::Memory(_) => return false,
        };
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_write_closed())
    }

    /// Whether a read would return at once: bytes, end of stream or an error. No system call is made;
    /// it is what the reactor has last heard. Registers the waker when the answer is no.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Detached => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            #[cfg(test)]
            Self::Memory(_) => Poll::Pending,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Detached => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            #[cfg(test)]
            Self::Memory(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Detached => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            #[cfg(test)]
            Self::Memory(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Detached => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            #[cfg(test)]
            Self::Memory(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Detached => Poll::Ready(Ok(())),
            #[cfg(test)]
            Self::Memory(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn a_reset_is_seen_behind_bytes_that_nobody_has_read_and_an_end_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for linger in [Some(Duration::ZERO), None] {
            let mut peer = TcpStream::connect(address).await.unwrap();
            let mut socket = Socket::Tcp(listener.accept().await.unwrap().0);
            peer.write_all(b"unread").await.unwrap();
            assert!(!socket.is_dead());
            SockRef::from(&peer).set_linger(linger).unwrap();
            drop(peer);
            let dead = tokio::time::timeout(Duration::from_millis(500), async {
                while !socket.is_dead() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            assert_eq!(dead.await.is_ok(), linger.is_some());
            if linger.is_none() {
                let mut rest = Vec::new();
                socket.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest, b"unread");
            }
        }
    }
}
