//! Why a server connection could not be had.

use std::{borrow::Cow, io, time::Duration};

use nix::errno::Errno;

use super::settle::SettleError;
use crate::{
    auth::server_login::ServerLoginError,
    fault::{Blame, Fault, SqlState},
    tls::TlsError,
    topology::Failure,
    types::{Endpoint, Role},
    wire::{backend::ServerError, reader::Malformed, stream::ReadError},
};

/// Why a server connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing to connect to.
    #[error("no server is known for this database")]
    NoEndpoint,
    /// The socket could not be connected or failed.
    #[error("cannot connect to {endpoint}")]
    Io {
        /// The server.
        endpoint: Endpoint,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `server_connect_timeout` passed.
    #[error("no log-in to {endpoint} within {after:?}")]
    Timeout {
        /// The server.
        endpoint: Endpoint,
        /// The limit.
        after: Duration,
    },
    /// The connection ended or broke during log-in.
    #[error("server closed the connection during log-in")]
    Read(#[from] ReadError),
    /// The server said something that has no place in a log-in.
    #[error("server broke the protocol during log-in")]
    Protocol,
    /// The server has no TLS and the mode insists on it.
    #[error("{endpoint} does not offer TLS, which server_tls.mode requires")]
    TlsRefused {
        /// The server.
        endpoint: Endpoint,
    },
    /// The server answered the request for TLS with an error, as one does that cannot start another process.
    #[error("{endpoint} answered the request for TLS with an error")]
    TlsUnanswered {
        /// The server.
        endpoint: Endpoint,
    },
    /// TLS could not be agreed on.
    #[error("tls to the server failed")]
    Tls(#[source] TlsError),
    /// The server's question could not be answered.
    #[error(transparent)]
    Login(#[from] ServerLoginError),
    /// The server refused, in its own words.
    #[error("server refused: {0}")]
    Server(ServerError),
    /// The pooler's `connect_query` did not succeed.
    #[error("connect_query failed")]
    ConnectQuery(#[source] SettleError),
    /// A standby where a primary is wanted, or the other way round.
    #[error("{endpoint} does not have the role {}", role.as_str())]
    WrongRole {
        /// The server.
        endpoint: Endpoint,
        /// What is wanted.
        role: Role,
    },
    /// A primary that another has taken the place of, and that does not know it.
    #[error("{endpoint} is on timeline {timeline}, and there is a primary on timeline {newest}")]
    Superseded {
        /// The server.
        endpoint: Endpoint,
        /// The one that it writes.
        timeline: u32,
        /// The one that was seen elsewhere.
        newest: u32,
    },
}

impl From<Malformed> for ConnectError {
    fn from(_: Malformed) -> Self {
        Self::Protocol
    }
}

impl ConnectError {
    /// Whether it may work in a moment, with nobody having changed anything: the server is starting,
    /// restarting, full or away. Anything else is told to whoever waits at once.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Io { .. }
            | Self::Timeout { .. }
            | Self::Read(_)
            | Self::WrongRole { .. }
            | Self::Superseded { .. } => true,
            Self::Server(error) | Self::ConnectQuery(SettleError::Refused(error)) => error
                .code
                .is_none_or(|code| matches!(code.class(), "53" | "57" | "08")),
            Self::TlsUnanswered { .. } | Self::ConnectQuery(_) => true,
            Self::Tls(error) => error.disconnect().is_some(),
            Self::NoEndpoint => true,
            Self::Protocol | Self::TlsRefused { .. } | Self::Login(_) => false,
        }
    }

    /// What it says about whether the server is there; `None` where it is there, and refuses this log-in for a reason
    /// of its own.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Timeout { .. } => Some(Failure::Silent),
            Self::Io { source, .. } | Self::Read(ReadError::Io(source)) => lost(source),
            Self::Read(ReadError::Closed) => Some(Failure::Unreachable),
            Self::Tls(error) => lost(error.disconnect()?),
            Self::Server(error) | Self::ConnectQuery(SettleError::Refused(error)) => error
                .code
                // 57P01 may be about this session alone.
                .is_some_and(|code| code == SqlState::CRASH_SHUTDOWN || code == SqlState::CANNOT_CONNECT_NOW)
                .then_some(Failure::CannotConnectNow),
            _ => None,
        }
    }
}

impl Fault for ConnectError {
    fn blame(&self) -> Blame {
        match self {
            Self::Login(error) => error.blame(),
            Self::NoEndpoint => Blame::Pooler,
            _ => Blame::Server,
        }
    }

    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Server(error) | Self::ConnectQuery(SettleError::Refused(error)) => {
                error.code.unwrap_or(SqlState::CONNECTION_FAILURE)
            }
            Self::Login(error) => error.sqlstate(),
            Self::NoEndpoint | Self::WrongRole { .. } | Self::Superseded { .. } => {
                SqlState::CANNOT_CONNECT_NOW
            }
            _ => SqlState::CONNECTION_FAILURE,
        }
    }

    fn client_message(&self) -> Cow<'_, str> {
        match self {
            Self::Server(error) | Self::ConnectQuery(SettleError::Refused(error)) => {
                Cow::Borrowed(&error.message)
            }
            Self::ConnectQuery(_)
            | Self::Io { .. }
            | Self::Timeout { .. }
            | Self::Read(_)
            | Self::TlsUnanswered { .. } => "cannot connect to the PostgreSQL server".into(),
            Self::Login(_) => "pgweir cannot log in to the PostgreSQL server".into(),
            Self::Tls(_) | Self::TlsRefused { .. } => "cannot agree on TLS with the PostgreSQL server".into(),
            Self::Protocol => "the PostgreSQL server broke the protocol during log-in".into(),
            Self::NoEndpoint => "no PostgreSQL server is known for this database".into(),
            Self::WrongRole { role, .. } => {
                format!("no PostgreSQL server with role \"{}\" answers", role.as_str()).into()
            }
            Self::Superseded { .. } => "the PostgreSQL server that answers was replaced by another".into(),
        }
    }

    fn detail(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Server(error) => error.detail.as_deref().map(Cow::Borrowed),
            Self::ConnectQuery(_) => {
                Some("pgweir ran the database's connect_query on a new server connection.".into())
            }
            Self::Login(error) => Some(error.to_string().into()),
            Self::Io { source, .. } => Some(reason(source).into()),
            Self::Timeout { after, .. } => Some(format!("no log-in within {after:?}").into()),
            Self::Tls(error) => Some(error.to_string().into()),
            _ => None,
        }
    }

    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Server(error) => error.hint.as_deref().map(Cow::Borrowed),
            Self::Login(error) => error.hint(),
            Self::WrongRole { .. } => {
                Some("\"role\" of the database is \"rw\", \"ro\", or \"r\" for any server".into())
            }
            Self::TlsRefused { .. } | Self::Tls(_) => {
                Some("see [server_tls] in pgweir's configuration and its log".into())
            }
            _ => None,
        }
    }
}

/// How a socket has failed: the kernel gives a silent peer up in its own time. What this machine lacks says nothing about
/// the peer.
fn lost(error: &io::Error) -> Option<Failure> {
    const OWN: [Errno; 5] = [
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::ENOBUFS,
        Errno::ENOMEM,
        Errno::EADDRNOTAVAIL,
    ];
    match (error.kind(), error.raw_os_error().map(Errno::from_raw)) {
        (_, Some(code)) if OWN.contains(&code) => None,
        (io::ErrorKind::TimedOut, _) => Some(Failure::Silent),
        _ => Some(Failure::Unreachable),
    }
}

/// The kind of an error, or the system's own words for one that has no kind, such as a lack of descriptors.
fn reason(error: &io::Error) -> String {
    match (error.kind().to_string(), error.raw_os_error()) {
        (kind, Some(code)) if kind == "uncategorized error" => Errno::from_raw(code).desc().to_owned(),
        (kind, _) => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With no descriptors or ports left nothing can be reached, and the primary was taken for unreachable: every pool's
    /// connections waited for each other to find it again.
    #[test]
    fn what_the_pooler_lacks_is_not_the_servers_failure() {
        let failure = |errno: Errno| {
            let (endpoint, source) = (Endpoint::Unix("/nowhere".into()), io::Error::from(errno));
            ConnectError::Io { endpoint, source }.failure()
        };
        for own in [Errno::EMFILE, Errno::ENFILE, Errno::EADDRNOTAVAIL] {
            assert_eq!(failure(own), None, "{own}");
        }
        assert_eq!(failure(Errno::ECONNREFUSED), Some(Failure::Unreachable));
        assert_eq!(failure(Errno::EHOSTUNREACH), Some(Failure::Unreachable));
        assert_eq!(failure(Errno::ETIMEDOUT), Some(Failure::Silent));
    }

    /// The server's node vanished between its word that it has TLS and the end of the handshake: everybody in the pool was
    /// refused at once, as if the settings were wrong.
    #[test]
    fn a_network_that_fails_in_a_handshake_is_no_refusal() {
        let error = |errno: Errno| ConnectError::Tls(TlsError::Handshake(io::Error::from(errno)));
        assert!(error(Errno::ETIMEDOUT).is_transient() && error(Errno::EHOSTUNREACH).is_transient());
        assert_eq!(error(Errno::ETIMEDOUT).failure(), Some(Failure::Silent));
        assert_eq!(error(Errno::EHOSTUNREACH).failure(), Some(Failure::Unreachable));
        assert_eq!(error(Errno::ECONNRESET).failure(), Some(Failure::Unreachable));
    }

    #[test]
    fn a_lack_of_descriptors_is_named() {
        let error = |errno: Errno| reason(&io::Error::from(errno));
        assert_eq!(error(Errno::EMFILE), "Too many open files");
        assert_eq!(error(Errno::ECONNREFUSED), "connection refused");
    }
}
