//! A listening socket whose accept never fails and never spins.
//!
//! It does not know who may connect or how many; it hands out tuned sockets.

mod bind;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    num::NonZeroU32,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use nix::errno::Errno;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::SockRef;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep_until},
};
use tracing::{debug, error};

pub use self::bind::BindError;
use self::bind::{SocketFile, bind_tcp, bind_unix, text};
use super::{
    reactor::Descriptor,
    socket::{PeerAddress, Raw, Socket, tune},
};
use crate::config::{ListenAddress, Tcp};

/// The wait after the first failed accept, doubled by every further one.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How often a lasting shortage is told.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What accepted sockets are tuned with. Its clones are one, so that a reload reaches the listeners.
#[derive(Debug, Clone, Default)]
pub struct Tuning(Arc<ArcSwap<Tcp>>);

impl Tuning {
    /// These options.
    pub fn new(options: Tcp) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(options)))
    }

    /// Other options for the connections to come.
    pub fn set(&self, options: Tcp) {
        self.0.store(Arc::new(options));
    }
}

/// How an address is listened on.
#[derive(Debug, Clone)]
pub struct BindOptions {
    /// Connections that the kernel queues.
    pub backlog: NonZeroU32,
    /// Who may connect to a unix socket: its file's permissions.
    pub unix_socket_mode: u32,
    /// The group of its file; the process's own when absent.
    pub unix_socket_group: Option<String>,
    /// What accepted sockets are tuned with.
    pub tuning: Tuning,
}

/// A listening socket. A unix socket's file is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    source: Source,
    address: ListenAddress,
    tuning: Tuning,
    /// What the listening socket is tuned with, and so the connections that it accepts.
    inherited: Option<Arc<Tcp>>,
    shortage: Shortage,
}

#[derive(Debug)]
enum Source {
    Tcp(AsyncFd<TcpListener>),
    Unix {
        listener: AsyncFd<UnixListener>,
        _file: SocketFile,
    },
    /// Accepts that fail with these in turn, then succeed.
    #[cfg(test)]
    Scripted(std::collections::VecDeque<Errno>),
}

/// Has the connections to come begin with these options, and says whether they will.
fn inherit(source: &Source, options: Arc<Tcp>) -> Option<Arc<Tcp>> {
    match source {
        Source::Tcp(listener) => tune(&SockRef::from(listener.get_ref()), &options)
            .ok()
            .map(|()| options),
        _ => Some(options),
    }
}

impl Listener {
    /// Connections are tuned as their listening socket was when they came. After other options were set, the first is
    /// tuned itself.
    fn tune(&mut self, socket: Socket) -> io::Result<Socket> {
        let options = self.tuning.0.load_full();
        if self
            .inherited
            .as_ref()
            .is_some_and(|inherited| Arc::ptr_eq(inherited, &options))
        {
            return Ok(socket);
        }
        // Whatever setsockopt says, it is about this connection.
        socket
            .tune(&options)
            .map_err(|_| io::ErrorKind::ConnectionAborted)?;
        self.inherited = inherit(&self.source, options);
        Ok(socket)
    }

    /// Binds and listens; the kernel queues connections from here on.
    ///
    /// Must be called inside the runtime that accepts (it panics outside of one).
    ///
    /// # Errors
    /// The address is taken or may not be used.
    pub fn bind(address: &ListenAddress, options: &BindOptions) -> Result<Self, BindError> {
        let backlog = options.backlog;
        let (source, address) = match address {
            ListenAddress::Tcp(ip) => {
                let (listener, bound) = bind_tcp(*ip, backlog)?;
                (Source::Tcp(listener), ListenAddress::Tcp(bound))
            }
            ListenAddress::Unix(path) => {
                let (listener, file) = bind_unix(path, options)?;
                let source = Source::Unix {
                    listener,
                    _file: file,
                };
                (source, address.clone())
            }
        };
        let inherited = inherit(&source, options.tuning.0.load_full());
        Ok(Self {
            source,
            address,
            tuning: options.tuning.clone(),
            inherited,
            shortage: Shortage::default(),
        })
    }

    /// Where it listens; port 0 has become the port that the kernel chose.
    pub fn local_address(&self) -> &ListenAddress {
        &self.address
    }

    /// The next connection, tuned, and where it comes from.
    ///
    /// A connection that died in the queue is skipped. When the process or the machine has run out of
    /// something (descriptors above all), it is logged and waited for. Cancel-safe: no connection is lost
    /// and the wait goes on where it was.
    pub async fn accept(&mut self) -> (Socket, PeerAddress) {
        loop {
            self.shortage.wait().await;
            let accepted = self.source.accept().await;
            let tuned = accepted.and_then(|(socket, peer)| Ok((self.tune(socket)?, peer)));
            match tuned {
                Ok(accepted) => {
                    self.shortage.over();
                    return accepted;
                }
                Err(error) if is_about_one_peer(&error) => {
                    debug!(%error, "connection was gone before it was accepted");
                }
                Err(error) => {
                    if let Some(failures) = self.shortage.failed(Instant::now()) {
                        let address = text(&self.address);
                        error!(%error, address, failures, "cannot accept connections");
                    }
                }
            }
        }
    }
}

impl Source {
    async fn accept(&mut self) -> io::Result<(Socket, PeerAddress)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, from) = accept(listener).await?;
                let from = from.and_then(|from| SocketAddr::try_from(from).ok());
                let peer = from.ok_or(io::ErrorKind::ConnectionAborted)?;
                Ok((Socket::accepted(Raw::Tcp(socket.into())), peer.into()))
            }
            Self::Unix { listener, .. } => {
                let (socket, _) = accept(listener).await?;
                Ok((Socket::accepted(Raw::Unix(socket.into())), PeerAddress::Local))
            }
            #[cfg(test)]
            Self::Scripted(failures) => match failures.pop_front() {
                Some(errno) => Err(errno.into()),
                None => Ok((Socket::memory(tokio::io::duplex(1).0), PeerAddress::Local)),
            },
        }
    }
}

/// `accept4(2)`: the socket does not wait, no child inherits it, and it is in no reactor.
async fn accept<L: Descriptor + AsFd>(listener: &AsyncFd<L>) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    listener
        .async_io(Interest::READABLE, |listener| {
            Ok(acceptfrom_with(listener, flags)?)
        })
        .await
}

/// How long to leave the kernel alone after it had nothing left to make a connection from.
#[derive(Debug, Default)]
struct Shortage {
    wait: Duration,
    until: Option<Instant>,
    logged: Option<Instant>,
    failures: u64,
}

impl Shortage {
    /// Waits out the last failure. Cancel-safe.
    async fn wait(&mut self) {
        if let Some(until) = self.until {
            sleep_until(until).await;
            self.until = None;
        }
    }

    /// Counts a failure and sets the wait. Returns the failures since the last log line if it is time for
    /// another one.
    fn failed(&mut self, now: Instant) -> Option<u64> {
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
        self.until = Some(now + self.wait);
        self.failures += 1;
        if self.logged.is_some_and(|logged| now < logged + LOG_INTERVAL) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.failures))
    }

    /// An accept has worked.
    fn over(&mut self) {
        self.wait = Duration::ZERO;
    }
}

/// Whether an accept failed because of the connection that it took from the queue, so that the next one may
/// be tried at once: `accept(2)`, "Error handling". Anything unknown counts as a shortage, which cannot spin.
fn is_about_one_peer(error: &io::Error) -> bool {
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return true;
    }
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(
            Errno::EINTR
                | Errno::ECONNRESET
                | Errno::ETIMEDOUT
                | Errno::EPROTO
                | Errno::ENOPROTOOPT
                | Errno::EPERM
                | Errno::EHOSTDOWN
                | Errno::EHOSTUNREACH
                | Errno::ENETDOWN
                | Errno::ENETUNREACH
                | Errno::EOPNOTSUPP
        )
    )
}

#[cfg(test)]
mod tests;
