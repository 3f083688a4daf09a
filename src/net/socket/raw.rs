//! A socket of the operating system, which never waits and belongs to no runtime.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
};

use rustix::net::sockopt::socket_peercred;
use socket2::SockRef;

use super::PeerAddress;

/// A connected socket in non-blocking mode: what would wait fails with [`io::ErrorKind::WouldBlock`].
#[derive(Debug)]
pub(in crate::net) enum Raw {
    /// TCP.
    Tcp(TcpStream),
    /// Unix domain.
    Unix(UnixStream),
}

impl Raw {
    /// `recv(2)`
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        again_if_interrupted(|| match self {
            Self::Tcp(stream) => (&*stream).read(buffer),
            Self::Unix(stream) => (&*stream).read(buffer),
        })
    }

    /// `send(2)`
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        again_if_interrupted(|| match self {
            Self::Tcp(stream) => (&*stream).write(bytes),
            Self::Unix(stream) => (&*stream).write(bytes),
        })
    }

    /// `recv(2)` with `MSG_PEEK`; always the end where the socket is not TCP.
    pub(super) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => again_if_interrupted(|| stream.peek(buffer)),
            Self::Unix(_) => Ok(0),
        }
    }

    /// Ends the sending side. Where there is no other end any more there is nothing to tell it.
    pub(super) fn shutdown(&self) -> io::Result<()> {
        let ended = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
        match ended {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            ended => ended,
        }
    }

    /// The other end's address.
    pub(super) fn peer(&self) -> io::Result<PeerAddress> {
        self.address(TcpStream::peer_addr)
    }

    /// This end's address.
    pub(super) fn local(&self) -> io::Result<PeerAddress> {
        self.address(TcpStream::local_addr)
    }

    fn address(&self, ask: impl FnOnce(&TcpStream) -> io::Result<SocketAddr>) -> io::Result<PeerAddress> {
        match self {
            Self::Tcp(stream) => ask(stream).map(PeerAddress::from),
            Self::Unix(_) => Ok(PeerAddress::Local),
        }
    }

    /// The user who runs the process at the other end of a unix socket.
    pub(super) fn peer_uid(&self) -> Option<u32> {
        match self {
            Self::Unix(stream) => Some(socket_peercred(stream).ok()?.uid.as_raw()),
            Self::Tcp(_) => None,
        }
    }

    /// Its options, if it is TCP.
    pub(super) fn tcp(&self) -> Option<SockRef<'_>> {
        match self {
            Self::Tcp(stream) => Some(stream.into()),
            Self::Unix(_) => None,
        }
    }
}

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

fn again_if_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}
