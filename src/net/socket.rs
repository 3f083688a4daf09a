//! One byte stream to a peer: TCP or a unix socket, and its move between runtimes.

use std::{
    io,
    net::{IpAddr, SocketAddr},
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

use crate::config::Tcp;

/// A connected stream socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// Unix domain.
    Unix(UnixStream),
    /// Taken out of a runtime by [`Socket::detach`]; reads and writes fail.
    Detached,
    /// A pipe in memory, for tests that need no network; it belongs to no runtime. It reads ahead, to know
    /// whether there is something to read.
    #[cfg(any(fuzzing, test))]
    Memory(std::sync::Mutex<tokio::io::BufReader<tokio::io::DuplexStream>>),
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// A TCP peer.
    Ip(IpAddr, u16),
    /// A process on this machine.
    Local,
}

impl std::fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(ip, port) => write!(f, "{}", SocketAddr::new(*ip, *port)),
            Self::Local => f.write_str("local"),
        }
    }
}

impl Socket {
    /// Connects to `host:port`, trying each address that the name resolves to, and tunes the socket.
    ///
    /// Not bounded in time; cancel-safe.
    ///
    /// # Errors
    /// Name resolution, or the last address's error.
    pub async fn connect_tcp(host: &str, port: u16, options: &Tcp) -> io::Result<Self> {
        Self::connected(TcpStream::connect((host, port)).await?, options)
    }

    /// Connects to an address, and tunes the socket. Not bounded in time; cancel-safe.
    ///
    /// # Errors
    /// Those of `connect(2)`.
    pub async fn connect_address(address: SocketAddr, options: &Tcp) -> io::Result<Self> {
        Self::connected(TcpStream::connect(address).await?, options)
    }

    fn connected(stream: TcpStream, options: &Tcp) -> io::Result<Self> {
        let socket = Self::Tcp(stream);
        socket.tune(options)?;
        Ok(socket)
    }

    /// Connects to a unix socket file.
    ///
    /// # Errors
    /// Those of `connect(2)`.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        Ok(Self::Unix(UnixStream::connect(path).await?))
    }

    /// One end of a pipe in memory.
    #[cfg(any(fuzzing, test))]
    pub fn memory(end: tokio::io::DuplexStream) -> Self {
        Self::Memory(std::sync::Mutex::new(tokio::io::BufReader::new(end)))
    }

    /// Turns Nagle's algorithm off and sets what `options` say (TCP only).
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    pub fn tune(&self, options: &Tcp) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => tune(&SockRef::from(stream), options),
            _ => Ok(()),
        }
    }

    /// Sets for how long what was sent may stay unacknowledged; zero is the kernel's limit (TCP only).
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    pub fn set_user_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream).set_tcp_user_timeout(set(timeout)),
            _ => Ok(()),
        }
    }

    /// The other end's address.
    ///
    /// # Errors
    /// There is no other end any more. It must not be taken for a local one.
    pub fn peer(&self) -> io::Result<PeerAddress> {
        match self {
            Self::Tcp(stream) => stream
                .peer_addr()
                .map(|address| PeerAddress::Ip(address.ip(), address.port())),
            _ => Ok(PeerAddress::Local),
        }
    }

    /// This end's address.
    ///
    /// # Errors
    /// Those of `getsockname(2)`.
    pub fn local(&self) -> io::Result<PeerAddress> {
        match self {
            Self::Tcp(stream) => stream
                .local_addr()
                .map(|address| PeerAddress::Ip(address.ip(), address.port())),
            _ => Ok(PeerAddress::Local),
        }
    }

    /// The user who runs the process at the other end of a unix socket (`SO_PEERCRED`).
    pub fn peer_uid(&self) -> Option<u32> {
        match self {
            Self::Unix(stream) => Some(stream.peer_cred().ok()?.uid()),
            _ => None,
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
            #[cfg(any(fuzzing, test))]
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
        #[cfg(any(fuzzing, test))]
        if let Self::Memory(_) = self {
            return Ok(());
        }
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
            #[cfg(any(fuzzing, test))]
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
            #[cfg(any(fuzzing, test))]
            Self::Memory(stream) => {
                let mut stream = stream.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                tokio::io::AsyncBufRead::poll_fill_buf(Pin::new(&mut *stream), cx).map_ok(|_| ())
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Detached => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            #[cfg(any(fuzzing, test))]
            Self::Memory(stream) => Pin::new(
                stream
                    .get_mut()
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
            )
            .poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => match stream.try_write(buf) {
                // Only who has to wait says whom to wake, which costs more than all the rest in user space.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Pin::new(stream).poll_write(cx, buf)
                }
                written => Poll::Ready(written),
            },
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Detached => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            #[cfg(any(fuzzing, test))]
            Self::Memory(stream) => Pin::new(
                stream
                    .get_mut()
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
            )
            .poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Detached => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            #[cfg(any(fuzzing, test))]
            Self::Memory(stream) => Pin::new(
                stream
                    .get_mut()
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
            )
            .poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Detached => Poll::Ready(Ok(())),
            #[cfg(any(fuzzing, test))]
            Self::Memory(stream) => Pin::new(
                stream
                    .get_mut()
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
            )
            .poll_shutdown(cx),
        }
    }
}

/// What the socket calls no limit is zero in the settings.
fn set(timeout: Duration) -> Option<Duration> {
    Some(timeout).filter(|timeout| !timeout.is_zero())
}

/// Turns Nagle's algorithm off and sets what `options` say. What is set on a listening socket, the connections that
/// it accepts from then on have from the beginning (Linux).
pub(super) fn tune(socket: &SockRef<'_>, options: &Tcp) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if options.keepalive {
        let keepalive = TcpKeepalive::new()
            .with_time(options.keepidle)
            .with_interval(options.keepintvl)
            .with_retries(options.keepcnt);
        socket.set_tcp_keepalive(&keepalive)?;
    } else {
        socket.set_keepalive(false)?;
    }
    socket.set_tcp_user_timeout(set(options.user_timeout))?;
    if options.socket_buffer > 0 {
        socket.set_send_buffer_size(options.socket_buffer)?;
        socket.set_recv_buffer_size(options.socket_buffer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::config::TcpSides;

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

    async fn tuned(options: &Tcp) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let Ok(Socket::Tcp(stream)) = Socket::connect_tcp("127.0.0.1", port, options).await else {
            panic!("not connected");
        };
        stream
    }

    #[tokio::test]
    async fn every_option_reaches_the_kernel() {
        let options = Tcp {
            keepalive: true,
            keepidle: Duration::from_secs(17),
            keepintvl: Duration::from_secs(5),
            keepcnt: 4,
            user_timeout: Duration::from_millis(12_345),
            socket_buffer: 32 * 1024,
        };
        let stream = tuned(&options).await;
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), options.keepidle);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), options.keepintvl);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), options.keepcnt);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(options.user_timeout));
        // Linux doubles what it is asked for, to have room for its own bookkeeping.
        assert_eq!(socket.send_buffer_size().unwrap(), 2 * options.socket_buffer);
        assert_eq!(socket.recv_buffer_size().unwrap(), 2 * options.socket_buffer);
    }

    #[tokio::test]
    async fn what_is_off_is_left_to_the_kernel() {
        let stream = tuned(&Tcp {
            keepalive: false,
            user_timeout: Duration::ZERO,
            ..Tcp::default()
        })
        .await;
        let socket = SockRef::from(&stream);
        assert!(!socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }

    /// A query whose server has lost power ends; a client that does not read for a while stays.
    #[tokio::test]
    async fn servers_are_missed_in_seconds_by_default_and_clients_are_not() {
        let TcpSides { clients, servers } = TcpSides::default();
        let (client, server) = (tuned(&clients).await, tuned(&servers).await);
        assert_eq!(SockRef::from(&client).tcp_user_timeout().unwrap(), None);
        let server = SockRef::from(&server);
        let limits = (
            server.tcp_user_timeout().unwrap(),
            server.tcp_keepalive_time().unwrap(),
            server.tcp_keepalive_interval().unwrap(),
        );
        let seconds = Duration::from_secs;
        assert_eq!(limits, (Some(seconds(10)), seconds(5), seconds(2)));
    }
}
