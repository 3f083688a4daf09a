//! Entering the current runtime's reactor.

use std::{io, net::TcpListener, os::fd::AsRawFd, os::unix::net::UnixListener};

use tokio::io::{Interest, unix::AsyncFd};

use super::socket::Raw;

/// What keeps one descriptor open for as long as it lives.
pub(super) trait Descriptor: AsRawFd {}

impl Descriptor for Raw {}
impl Descriptor for TcpListener {}
impl Descriptor for UnixListener {}

/// Registers a descriptor, which does not wait, with the reactor of the current runtime.
///
/// # Errors
/// The reactor refused it; it is closed then.
///
/// # Panics
/// There is no current runtime.
pub(super) fn watch<T: Descriptor>(descriptor: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    #[allow(
        deprecated,
        reason = "tokio cannot know that it stays open, which a `Descriptor` does; its other constructor is unsafe code"
    )]
    AsyncFd::with_interest(descriptor, interest)
}
