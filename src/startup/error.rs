//! Why a connection did not become a client.

use std::{borrow::Cow, io};

use super::{directory::DirectoryError, options::UnsupportedSwitch};
use crate::{
    auth::{AuthError, source::LookUpError},
    fault::{Blame, Fault, SqlState},
    tls::TlsError,
    wire::{
        startup::PacketError,
        stream::{ReadAhead, ReadError},
    },
};

/// Why a connection did not become a client.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// It ended, broke, or what came was no startup.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The socket failed while it was written to.
    #[error("write failed")]
    Write(#[source] io::Error),
    /// Bytes in clear behind a request for TLS.
    #[error(transparent)]
    ReadAhead(#[from] ReadAhead),
    /// The handshake failed.
    #[error("tls with the client failed")]
    Tls(#[source] TlsError),
    /// A TLS handshake without SSLRequest that did not agree on the PostgreSQL protocol.
    #[error("received direct TLS connection request without ALPN protocol negotiation extension")]
    NoAlpn,
    /// A TLS handshake where there is no TLS, or a second request for what was answered.
    #[error("unexpected encryption request")]
    Encryption,
    /// TLS is required here and was not asked for.
    #[error("connection requires TLS")]
    TlsRequired,
    /// The startup packet has no user.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// Neither a boolean nor `database`.
    #[error("invalid value for parameter \"replication\": \"{0}\"")]
    Replication(String),
    /// There is no such database.
    #[error("database \"{0}\" does not exist")]
    NoDatabase(String),
    /// A replication connection to the admin console.
    #[error("the admin console has nothing to replicate")]
    ConsoleReplication,
    /// A switch in `options` that cannot be a setting.
    #[error(transparent)]
    Options(#[from] UnsupportedSwitch),
    /// Something other than the answer to an authentication request.
    #[error("expected password response, got message type {tag:#04x}")]
    NotAPassword {
        /// What came.
        tag: u8,
    },
    /// This machine's addresses cannot be had, and a line of the HBA file asks for them.
    #[error("cannot enumerate network interfaces")]
    Interfaces(#[source] io::Error),
    /// The name of the process at the other end cannot be had, and the method is `peer`.
    #[error("could not look up local user")]
    UserName(#[source] io::Error),
    /// The log-in failed.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Nobody could say who the user is.
    #[error(transparent)]
    LookUp(#[from] LookUpError),
    /// No directory could say whether the password is right.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// All places are taken.
    #[error("no more connections allowed (max_client_conn is {limit})")]
    TooManyClients {
        /// The limit.
        limit: usize,
    },
    /// All places of those who have not logged in are taken.
    #[error("too many connections that have not logged in (max_unauthenticated_clients is {limit})")]
    TooManyNewcomers {
        /// The limit.
        limit: usize,
    },
    /// It was waited for, and others came.
    #[error("the connection was silent when others came (max_unauthenticated_clients)")]
    MadeWay,
    /// `client_login_timeout` passed.
    #[error("client did not log in within client_login_timeout")]
    Timeout,
}

impl StartupError {
    /// Whether the peer simply went away, as probes and clients that were only asking do.
    pub fn is_departure(&self) -> bool {
        match self {
            Self::Read(ReadError::Closed | ReadError::Io(_)) | Self::Write(_) => true,
            // One that refuses our certificate says so in an alert.
            Self::Tls(error) => error.disconnect().is_some(),
            _ => false,
        }
    }
}

impl StartupError {
    /// Whether there are so many of these that a line in the log for each would only fill it.
    pub fn is_overload(&self) -> bool {
        matches!(
            self,
            Self::Auth(AuthError::TooManyFailures { .. }) | Self::TooManyNewcomers { .. } | Self::MadeWay
        )
    }
}

impl Fault for StartupError {
    fn blame(&self) -> Blame {
        match self {
            Self::TooManyClients { .. }
            | Self::TooManyNewcomers { .. }
            | Self::Interfaces(_)
            | Self::UserName(_) => Blame::Pooler,
            Self::Auth(error) => error.blame(),
            Self::LookUp(error) => error.blame(),
            Self::Directory(_) => Blame::Server,
            _ => Blame::Client,
        }
    }

    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Auth(error) => error.sqlstate(),
            Self::LookUp(error) => error.sqlstate(),
            Self::TooManyClients { .. } | Self::TooManyNewcomers { .. } | Self::MadeWay => {
                SqlState::TOO_MANY_CONNECTIONS
            }
            Self::TlsRequired | Self::NoUser => SqlState::INVALID_AUTHORIZATION,
            Self::Read(ReadError::Packet(PacketError::Version { .. })) | Self::ConsoleReplication => {
                SqlState::FEATURE_NOT_SUPPORTED
            }
            Self::NoDatabase(_) => SqlState::INVALID_CATALOG_NAME,
            Self::Options(_) | Self::Replication(_) => SqlState::INVALID_PARAMETER_VALUE,
            Self::Interfaces(_) | Self::UserName(_) => SqlState::INTERNAL_ERROR,
            Self::Directory(_) => SqlState::CONNECTION_FAILURE,
            Self::Timeout => SqlState::QUERY_CANCELED,
            _ => SqlState::PROTOCOL_VIOLATION,
        }
    }

    fn client_message(&self) -> Cow<'_, str> {
        match self {
            Self::Auth(error) => error.client_message(),
            Self::LookUp(error) => error.client_message(),
            // Where the directory is, and what is wrong with it, is in the log.
            Self::Directory(_) => "the LDAP server that knows the password could not be asked".into(),
            error => error.to_string().into(),
        }
    }

    fn detail(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Auth(error) => error.detail(),
            Self::LookUp(error) => error.detail(),
            _ => None,
        }
    }

    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Auth(error) => error.hint(),
            Self::LookUp(error) => error.hint(),
            Self::TlsRequired => Some("Connect with sslmode=require or stricter.".into()),
            Self::Replication(_) => Some("Valid values are: \"false\", 0, \"true\", 1, \"database\".".into()),
            Self::Options(_) => Some("Use \"-c name=value\" or \"--name=value\".".into()),
            _ => None,
        }
    }
}
