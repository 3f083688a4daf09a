//! One byte stream to a peer: TCP or a unix socket, and its move between runtimes.

mod raw;

use std::{
    io, mem,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
    net::{TcpStream, UnixStream},
};

pub(super) use self::raw::Raw;
use super::reactor;
use crate::config::Tcp;

/// A connected stream socket: TCP or Unix domain.
///
/// It enters a runtime's reactor when somebody first has to wait for it. What one connection needs while it logs in is
/// often there already, and it leaves that runtime for another one afterwards.
#[derive(Debug)]
pub struct Socket(State);

#[derive(Debug)]
enum State {
    /// Nobody has had to wait for it: it is in no reactor.
    Loose(Raw),
    /// In a reactor, which watches it for this.
    Watched(AsyncFd<Raw>, Watch),
    /// A reactor refused it, which closed it; reads and writes fail.
    Lost,
    /// A pipe in memory, for tests that need no network; it belongs to no runtime. It reads ahead, to know
    /// whether there is something to read.
    #[cfg(any(fuzzing, test))]
    Memory(std::sync::Mutex<tokio::io::BufReader<tokio::io::DuplexStream>>),
}

/// What a reactor watches a socket for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// Bytes to read, and the end. A socket can be written to at first, which would be told at once.
    Reads,
    /// Also room to write.
    All,
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

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address.ip(), address.port())
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
        let socket = Self::watched(Raw::Tcp(stream.into_std()?))?;
        socket.tune(options)?;
        Ok(socket)
    }

    /// Connects to a unix socket file.
    ///
    /// # Errors
    /// Those of `connect(2)`.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        Self::watched(Raw::Unix(UnixStream::connect(path).await?.into_std()?))
    }

    fn watched(raw: Raw) -> io::Result<Self> {
        let mut socket = Self::accepted(raw);
        socket.watch(Watch::All)?;
        Ok(socket)
    }

    /// One that a listener has accepted.
    pub(super) fn accepted(raw: Raw) -> Self {
        Self(State::Loose(raw))
    }

    /// One end of a pipe in memory.
    #[cfg(any(fuzzing, test))]
    pub fn memory(end: tokio::io::DuplexStream) -> Self {
        Self(State::Memory(std::sync::Mutex::new(tokio::io::BufReader::new(
            end,
        ))))
    }

    #[cfg(any(fuzzing, test))]
    fn memory_mut(&mut self) -> Option<Pin<&mut tokio::io::BufReader<tokio::io::DuplexStream>>> {
        match &mut self.0 {
            State::Memory(stream) => Some(Pin::new(
                stream
                    .get_mut()
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
            )),
            _ => None,
        }
    }

    #[cfg(not(any(fuzzing, test)))]
    #[allow(clippy::unused_self, reason = "there is no memory here")]
    fn memory_mut(&mut self) -> Option<Pin<&mut tokio::io::Empty>> {
        None
    }

    fn raw(&self) -> Option<&Raw> {
        match &self.0 {
            State::Loose(raw) => Some(raw),
            State::Watched(watched, _) => Some(watched.get_ref()),
            _ => None,
        }
    }

    /// Whether both ends are on this machine and it is no network in between.
    pub fn is_unix(&self) -> bool {
        matches!(self.raw(), Some(Raw::Unix(_)))
    }

    /// Its options (TCP only).
    pub(super) fn tcp(&self) -> Option<SockRef<'_>> {
        self.raw()?.tcp()
    }

    /// Turns Nagle's algorithm off and sets what `options` say (TCP only).
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    pub fn tune(&self, options: &Tcp) -> io::Result<()> {
        self.tcp().map_or(Ok(()), |socket| tune(&socket, options))
    }

    /// Sets for how long what was sent may stay unacknowledged; zero is the kernel's limit (TCP only).
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    pub fn set_user_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.tcp()
            .map_or(Ok(()), |socket| socket.set_tcp_user_timeout(set(timeout)))
    }

    /// The other end's address.
    ///
    /// # Errors
    /// There is no other end any more. It must not be taken for a local one.
    pub fn peer(&self) -> io::Result<PeerAddress> {
        self.raw().map_or(Ok(PeerAddress::Local), Raw::peer)
    }

    /// This end's address.
    ///
    /// # Errors
    /// Those of `getsockname(2)`.
    pub fn local(&self) -> io::Result<PeerAddress> {
        self.raw().map_or(Ok(PeerAddress::Local), Raw::local)
    }

    /// The user who runs the process at the other end of a unix socket (`SO_PEERCRED`).
    pub fn peer_uid(&self) -> Option<u32> {
        self.raw()?.peer_uid()
    }

    /// Moves the socket to the reactor of the current runtime. Wakers that were registered before are forgotten.
    ///
    /// # Errors
    /// The reactor refused the descriptor; the socket is closed then.
    pub fn rehome(&mut self) -> io::Result<()> {
        self.watch(Watch::All)
    }

    /// As [`Socket::rehome`], and the reactor says nothing before there is something to read.
    ///
    /// # Errors
    /// As there.
    pub fn rehome_for_reads(&mut self) -> io::Result<()> {
        self.watch(Watch::Reads)
    }

    fn watch(&mut self, watch: Watch) -> io::Result<()> {
        let raw = match mem::replace(&mut self.0, State::Lost) {
            State::Loose(raw) => raw,
            State::Watched(watched, _) => watched.into_inner(),
            State::Lost => return Err(io::ErrorKind::NotConnected.into()),
            #[cfg(any(fuzzing, test))]
            memory @ State::Memory(_) => {
                self.0 = memory;
                return Ok(());
            }
        };
        let interest = match watch {
            Watch::Reads => Interest::READABLE,
            Watch::All => Interest::READABLE | Interest::WRITABLE,
        };
        self.0 = State::Watched(reactor::watch(raw, interest)?, watch);
        Ok(())
    }

    /// The next byte, without taking it; `None` where the stream has ended or cannot be looked into.
    /// Cancel-safe.
    ///
    /// # Errors
    /// Those of `recv(2)`.
    pub async fn peek_byte(&mut self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let mut count = self.raw().map_or(Ok(0), |raw| raw.peek(&mut byte));
        if is_early(&count) {
            if let State::Loose(_) = self.0 {
                self.watch(Watch::Reads)?;
            }
            if let State::Watched(watched, _) = &self.0 {
                count = watched
                    .async_io(Interest::READABLE, |raw| raw.peek(&mut byte))
                    .await;
            }
        }
        Ok((count? > 0).then_some(byte[0]))
    }

    /// Whether the peer has sent something that nobody has read.
    pub fn has_unread(&self) -> bool {
        self.raw()
            .is_some_and(|raw| raw.peek(&mut [0]).is_ok_and(|count| count > 0))
    }

    /// Whether the connection has ended in both directions, as by a reset, although there may be bytes to read
    /// before one meets the end. No system call is made; it is what the reactor has last heard.
    pub fn is_dead(&self) -> bool {
        match &self.0 {
            State::Watched(watched, _) => {
                let mut cx = Context::from_waker(Waker::noop());
                let ready = pin!(watched.ready(Interest::WRITABLE)).poll(&mut cx);
                matches!(ready, Poll::Ready(Ok(ready)) if ready.ready().is_write_closed())
            }
            State::Lost => true,
            _ => false,
        }
    }

    /// Whether a read is worth trying: bytes, end of stream or an error, or nobody knows yet. No system call is made;
    /// it is what the reactor has last heard. Registers the waker when the answer is no.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            State::Loose(_) => Poll::Ready(Ok(())),
            State::Watched(watched, _) => watched.poll_read_ready(cx).map_ok(drop),
            State::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            #[cfg(any(fuzzing, test))]
            State::Memory(stream) => {
                let mut stream = stream.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                tokio::io::AsyncBufRead::poll_fill_buf(Pin::new(&mut *stream), cx).map_ok(|_| ())
            }
        }
    }

    /// A write has to wait until there is room.
    #[cold]
    fn poll_room(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !matches!(self.0, State::Watched(_, Watch::All)) {
            self.watch(Watch::All)?;
            // Who waits to read from it has been forgotten.
            cx.waker().wake_by_ref();
        }
        let State::Watched(watched, _) = &self.0 else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        loop {
            let mut ready = ready!(watched.poll_write_ready(cx))?;
            let written = watched.get_ref().write(bytes);
            if !is_early(&written) {
                return Poll::Ready(written);
            }
            ready.clear_ready();
        }
    }
}

/// Whether there was nothing to read, or no room to write.
fn is_early(outcome: &io::Result<usize>) -> bool {
    matches!(outcome, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn poll_read_watched(
    watched: &AsyncFd<Raw>,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    loop {
        let mut ready = ready!(watched.poll_read_ready(cx))?;
        let room = buf.initialize_unfilled();
        let most = room.len();
        let read = watched.get_ref().read(room);
        match read {
            Ok(count) => {
                // All that was there: the reactor tells of what comes next, and nobody need look in vain.
                if (1..most).contains(&count) {
                    ready.clear_ready();
                }
                buf.advance(count);
                return Poll::Ready(Ok(()));
            }
            read if is_early(&read) => ready.clear_ready(),
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let State::Loose(raw) = &this.0 {
            let read = raw.read(buf.initialize_unfilled());
            if !is_early(&read) {
                return Poll::Ready(read.map(|count| buf.advance(count)));
            }
            this.watch(Watch::Reads)?;
        }
        if let State::Watched(watched, _) = &this.0 {
            return poll_read_watched(watched, cx, buf);
        }
        match this.memory_mut() {
            Some(memory) => memory.poll_read(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(raw) = this.raw() {
            // Only who has to wait says whom to wake, which costs more than all the rest in user space.
            let written = raw.write(buf);
            if is_early(&written) {
                return this.poll_room(cx, buf);
            }
            return Poll::Ready(written);
        }
        match this.memory_mut() {
            Some(memory) => memory.poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().memory_mut() {
            Some(memory) => memory.poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.memory_mut() {
            Some(memory) => memory.poll_shutdown(cx),
            None => Poll::Ready(this.raw().map_or(Ok(()), Raw::shutdown)),
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
        let ends = [Some(Duration::ZERO), None];
        for (linger, watch) in ends
            .into_iter()
            .flat_map(|end| [(end, Watch::Reads), (end, Watch::All)])
        {
            let (mut peer, mut socket) = loose();
            socket.watch(watch).unwrap();
            io::Write::write_all(&mut peer, b"unread").unwrap();
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

    /// Both ends of a connection; ours is in no reactor.
    fn loose() -> (std::net::TcpStream, Socket) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (peer, Socket::accepted(Raw::Tcp(ours)))
    }

    /// There is no runtime here whose reactor it could enter: that would panic.
    #[test]
    fn what_is_there_already_is_read_and_answered_without_a_reactor() {
        let (mut peer, mut socket) = loose();
        io::Write::write_all(&mut peer, b"ask").unwrap();
        let begun = std::time::Instant::now();
        while !socket.has_unread() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::yield_now();
        }
        let mut cx = Context::from_waker(Waker::noop());
        let (mut asked, mut answer) = ([0; 8], [0; 6]);
        let mut buffer = ReadBuf::new(&mut asked);
        assert!(Pin::new(&mut socket).poll_read(&mut cx, &mut buffer).is_ready());
        assert_eq!(buffer.filled(), b"ask");
        let written = Pin::new(&mut socket).poll_write(&mut cx, b"answer");
        assert!(matches!(written, Poll::Ready(Ok(6))));
        io::Read::read_exact(&mut peer, &mut answer).unwrap();
        assert_eq!(&answer, b"answer");
    }

    #[tokio::test]
    async fn the_first_byte_is_waited_for_and_stays_where_it_is() {
        let (peer, mut socket) = loose();
        let mut peer = TcpStream::from_std({
            peer.set_nonblocking(true).unwrap();
            peer
        })
        .unwrap();
        let (first, written) = tokio::join!(socket.peek_byte(), peer.write_all(b"ab"));
        written.unwrap();
        assert_eq!(first.unwrap(), Some(b'a'));
        assert_eq!(socket.peek_byte().await.unwrap(), Some(b'a'));
        let mut both = [0; 2];
        socket.read_exact(&mut both).await.unwrap();
        assert_eq!(&both, b"ab");
        drop(peer);
        assert_eq!(socket.peek_byte().await.unwrap(), None);
    }

    /// A reactor that is asked for reads alone does not say when there is room to write.
    #[tokio::test]
    async fn who_waits_to_read_is_woken_although_a_write_had_to_wait_meanwhile() {
        let (peer, mut socket) = loose();
        peer.set_nonblocking(true).unwrap();
        let mut peer = TcpStream::from_std(peer).unwrap();
        socket.rehome_for_reads().unwrap();
        let sent = vec![7; 16 << 20];
        let (mut at, mut answer) = (0, [0; 2]);
        let ours = std::future::poll_fn(|cx| {
            let mut buffer = ReadBuf::new(&mut answer);
            let read = Pin::new(&mut socket).poll_read(cx, &mut buffer);
            while at < sent.len() {
                match Pin::new(&mut socket).poll_write(cx, &sent[at..]) {
                    Poll::Ready(written) => at += written.unwrap(),
                    Poll::Pending => break,
                }
            }
            read
        });
        let theirs = async {
            let mut received = vec![0; sent.len()];
            peer.read_exact(&mut received).await.unwrap();
            peer.write_all(b"ok").await.unwrap();
            received
        };
        let (read, received) = tokio::join!(ours, theirs);
        read.unwrap();
        assert!(received == sent && &answer == b"ok");
    }

    async fn tuned(options: &Tcp) -> Socket {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Socket::connect_tcp("127.0.0.1", port, options).await.unwrap()
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
        let socket = tuned(&options).await;
        let socket = socket.tcp().unwrap();
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
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
        let socket = tuned(&Tcp {
            keepalive: false,
            user_timeout: Duration::ZERO,
            ..Tcp::default()
        })
        .await;
        let socket = socket.tcp().unwrap();
        assert!(!socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }

    /// A query whose server has lost power ends; a client that does not read for a while stays.
    #[tokio::test]
    async fn servers_are_missed_in_seconds_by_default_and_clients_are_not() {
        let TcpSides { clients, servers } = TcpSides::default();
        let (client, server) = (tuned(&clients).await, tuned(&servers).await);
        assert_eq!(client.tcp().unwrap().tcp_user_timeout().unwrap(), None);
        let server = server.tcp().unwrap();
        let limits = (
            server.tcp_user_timeout().unwrap(),
            server.tcp_keepalive_time().unwrap(),
            server.tcp_keepalive_interval().unwrap(),
        );
        let seconds = Duration::from_secs;
        assert_eq!(limits, (Some(seconds(10)), seconds(5), seconds(2)));
    }
}
