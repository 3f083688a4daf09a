//! Binding an address, and what may be done to a file that stands in the way.
//!
//! It accepts nothing.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    num::NonZeroU32,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use nix::unistd::Group;
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::io::{Interest, unix::AsyncFd};
use tracing::debug;

use super::{super::reactor::watch, BindOptions};
use crate::config::ListenAddress;

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
pub enum BindError {
    /// The kernel refused.
    #[error("cannot listen on {}", text(address))]
    Socket {
        /// The address asked for.
        address: ListenAddress,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// A live server answers on the unix socket.
    #[error("another server is listening on {}", path.display())]
    Taken {
        /// The socket file.
        path: PathBuf,
    },
    /// `unix_socket_group` is not known here.
    #[error("there is no group \"{name}\" for the unix socket")]
    NoGroup {
        /// Its name.
        name: String,
    },
    /// The path exists and is something that must not be removed.
    #[error("{} exists and is not a socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
}

/// The number of a group.
fn group_id(name: &str) -> Result<u32, BindError> {
    let group = Group::from_name(name).ok().flatten();
    group
        .map(|group| group.gid.as_raw())
        .ok_or_else(|| BindError::NoGroup {
            name: name.to_owned(),
        })
}

/// A socket file of ours, removed when dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// Device and inode: what is at a path later may be another server's.
type Identity = (u64, u64);

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            debug!(%error, path = %self.path.display(), "cannot remove the socket file");
        }
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens on a TCP address; returns the one that the kernel gave.
pub(super) fn bind_tcp(
    address: SocketAddr,
    backlog: NonZeroU32,
) -> Result<(AsyncFd<TcpListener>, SocketAddr), BindError> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // Without it a restart would have to wait for the old connections' TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        listen(&socket, backlog)?;
        let listener = TcpListener::from(socket);
        let bound = listener.local_addr()?;
        let listener = watch(listener, Interest::READABLE)?;
        Ok((listener, bound))
    };
    bind().map_err(|source| BindError::Socket {
        address: ListenAddress::Tcp(address),
        source,
    })
}

/// Listens on a unix socket file, in the place of one that a dead server left.
pub(super) fn bind_unix(
    path: &Path,
    options: &BindOptions,
) -> Result<(AsyncFd<UnixListener>, SocketFile), BindError> {
    let group = options.unix_socket_group.as_deref().map(group_id).transpose()?;
    make_room(path)?;
    let bind = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile::at(path)?;
        if let Some(group) = group {
            chown(path, None, Some(group))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(options.unix_socket_mode))?;
        listen(&socket, options.backlog)?;
        let listener = watch(UnixListener::from(socket), Interest::READABLE)?;
        Ok((listener, file))
    };
    bind().map_err(|source| refused(path, source))
}

fn listen(socket: &Socket, backlog: NonZeroU32) -> io::Result<()> {
    socket.listen(i32::try_from(backlog.get()).unwrap_or(i32::MAX))
}

/// Removes the socket file that a server which is gone has left behind.
fn make_room(path: &Path) -> Result<(), BindError> {
    let found = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(path, error)),
    };
    let path_buf = || path.to_owned();
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket { path: path_buf() });
    }
    match knock(path) {
        Ok(()) => Err(BindError::Taken { path: path_buf() }),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(|error| refused(path, error)),
            io::ErrorKind::NotFound => Ok(()),
            // A full queue has a server behind it.
            io::ErrorKind::WouldBlock => Err(BindError::Taken { path: path_buf() }),
            _ => Err(refused(path, error)),
        },
    }
}

/// Connects without waiting.
fn knock(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

fn refused(path: &Path, source: io::Error) -> BindError {
    BindError::Socket {
        address: ListenAddress::Unix(path.to_owned()),
        source,
    }
}

/// An address as the configuration writes it.
pub(super) fn text(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}
