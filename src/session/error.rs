//! How a session ends, and what a client is told when its request cannot be carried out.

use std::{borrow::Cow, io};

use super::{deadline::Expired, member::Holder};
use crate::{
    fault::{Blame, Fault, SqlState},
    pool::{LeaseError, Pool},
    server::{SettleError, pins::Pins},
    wire::{backend::ServerError, frame::FrameError},
};

/// How a session ends.
#[derive(Debug)]
pub enum End {
    /// The client said Terminate.
    Terminated,
    /// The client closed the connection, or it broke.
    Left(Option<io::Error>),
    /// The server has told the client itself, and closed.
    ServerFarewell(Box<ServerError>),
    /// Something that the client must be told.
    Fault(SessionError),
    /// The server connection broke in the middle of a message to the client, where nothing can be said.
    Cut,
}

impl End {
    /// Counts what the client is told; what the server has said was counted when it passed.
    pub(super) fn count(&self, pool: &Pool) {
        if let Self::Fault(error) = self {
            pool.metrics().count_error(error.sqlstate(), error.blame());
        }
    }
}

/// Why a request or a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is no such database.
    #[error("database \"{0}\" does not exist")]
    NoDatabase(String),
    /// An administrator has disabled the database.
    #[error("database \"{0}\" is disabled")]
    Disabled(String),
    /// The client is one too many for its database or its user.
    #[error("no more connections allowed: {setting} of \"{name}\" is {limit}")]
    TooManyClients {
        /// The setting.
        setting: &'static str,
        /// Whose limit it is.
        name: String,
        /// The limit.
        limit: usize,
    },
    /// A replication connection where there is to be none.
    #[error("replication connections are not allowed for database \"{database}\" and user \"{user}\"")]
    Replication {
        /// The database.
        database: String,
        /// The user.
        user: String,
    },
    /// No server connection could be had.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The same, and this session has held one for longest.
    #[error("{error}")]
    Queue {
        /// Why there is none.
        #[source]
        error: LeaseError,
        /// Who holds one.
        holder: Box<Holder>,
    },
    /// A limit of time.
    #[error(transparent)]
    Expired(Expired),
    /// What the client sent is not the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A message type that no client sends.
    #[error("invalid frontend message type {tag}")]
    MessageType {
        /// The type byte.
        tag: u8,
    },
    /// The server connection ended in the middle of the client's request.
    #[error("server closed the connection unexpectedly")]
    ServerLost(#[source] Option<io::Error>),
    /// The server spoke something else.
    #[error("server broke the protocol")]
    ServerProtocol(#[source] FrameError),
    /// The server refused the client's settings.
    #[error("server refused the session's settings: {0}")]
    Settings(ServerError),
    /// The settings of the startup packet could not be tried.
    #[error("the startup settings could not be applied")]
    Startup(#[source] SettleError),
    /// A transaction block in a statement pool.
    #[error("transaction blocks not allowed in statement pooling mode")]
    TransactionBlock,
    /// A prepared statement whose name does not end, or whose text is too long to be held.
    #[error("name or text of a prepared statement is too long")]
    StatementTooLong,
    /// Something in the session that cannot be taken to another server connection, and must not be.
    #[error("session state is not allowed in this database: {0}")]
    StateRejected(Pins),
    /// The client sends on and on without an answer.
    #[error("too many requests without an answer")]
    Backlog,
    /// The client asked for it.
    #[error("canceling statement due to user request")]
    Canceled,
    /// pgweir is shutting down.
    #[error("terminating connection due to administrator command")]
    Drained,
    /// The server that worked for the client is not the primary any more.
    #[error("terminating connection because another server is the primary now")]
    Fenced,
    /// No cancel key could be made.
    #[error(transparent)]
    NoRandom(#[from] super::table::NoRandom),
}

impl SessionError {
    /// A message, of either side, that is longer than the configuration allows.
    fn limit(&self) -> Option<&FrameError> {
        match self {
            Self::Frame(error) | Self::ServerProtocol(error) => {
                matches!(error, FrameError::TooLong { .. }).then_some(error)
            }
            _ => None,
        }
    }

    fn server_words(&self) -> Option<&ServerError> {
        match self {
            Self::Settings(error) | Self::Startup(SettleError::Refused(error)) => Some(error),
            _ => None,
        }
    }
}

impl Fault for SessionError {
    fn blame(&self) -> Blame {
        match self {
            Self::Lease(error) | Self::Queue { error, .. } => error.blame(),
            Self::Expired(expired) => expired.blame(),
            Self::ServerLost(_) | Self::ServerProtocol(_) | Self::Fenced => Blame::Server,
            Self::Drained | Self::NoRandom(_) | Self::TooManyClients { .. } => Blame::Pooler,
            _ => Blame::Client,
        }
    }

    fn sqlstate(&self) -> SqlState {
        if let Some(code) = self.server_words().and_then(|error| error.code) {
            return code;
        }
        match self {
            _ if self.limit().is_some() => SqlState::PROGRAM_LIMIT_EXCEEDED,
            Self::NoDatabase(_) => SqlState::INVALID_CATALOG_NAME,
            Self::Disabled(_) => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::Replication { .. } => SqlState::INSUFFICIENT_PRIVILEGE,
            Self::TooManyClients { .. } => SqlState::TOO_MANY_CONNECTIONS,
            Self::Lease(error) | Self::Queue { error, .. } => error.sqlstate(),
            Self::Expired(expired) => expired.sqlstate(),
            Self::Frame(_) | Self::MessageType { .. } => SqlState::PROTOCOL_VIOLATION,
            Self::ServerLost(_) | Self::ServerProtocol(_) | Self::Settings(_) | Self::Startup(_) => {
                SqlState::CONNECTION_FAILURE
            }
            Self::TransactionBlock | Self::StateRejected(_) => SqlState::FEATURE_NOT_SUPPORTED,
            Self::Backlog | Self::StatementTooLong => SqlState::PROGRAM_LIMIT_EXCEEDED,
            Self::Canceled => SqlState::QUERY_CANCELED,
            Self::Drained | Self::Fenced => SqlState::ADMIN_SHUTDOWN,
            Self::NoRandom(_) => SqlState::INTERNAL_ERROR,
        }
    }

    fn client_message(&self) -> Cow<'_, str> {
        match (self.server_words(), self) {
            (Some(error), _) => Cow::Borrowed(&error.message),
            (None, Self::Lease(error) | Self::Queue { error, .. }) => error.client_message(),
            (None, _) => match self.limit() {
                Some(error) => error.to_string().into(),
                None => self.to_string().into(),
            },
        }
    }

    fn detail(&self) -> Option<Cow<'_, str>> {
        match (self.server_words(), self) {
            (Some(error), _) => error.detail.as_deref().map(Cow::Borrowed),
            (None, Self::Lease(error)) => error.detail(),
            (None, Self::Queue { error, holder }) => {
                let counts = error.detail().unwrap_or_default();
                Some(format!("{counts} Held longest: {holder}.").into())
            }
            (None, Self::Expired(expired)) => expired.detail(),
            (None, Self::ServerLost(_)) => Some(
                "The server connection ended while it was working for this client; whether the last statement took effect is not known.".into(),
            ),
            (None, Self::Fenced) => Some(
                "The transaction was open on the server that was the primary before; what it has not committed is lost.".into(),
            ),
            _ => None,
        }
    }

    fn hint(&self) -> Option<Cow<'_, str>> {
        match (self.server_words(), self) {
            (Some(error), _) => error.hint.as_deref().map(Cow::Borrowed),
            (None, Self::Lease(error) | Self::Queue { error, .. }) => error.hint(),
            (None, Self::Replication { .. }) => {
                Some("Set allow_replication for the database or the user in pgweir's configuration.".into())
            }
            (None, Self::TransactionBlock) => {
                Some("Use a database or user with pool_mode = \"transaction\".".into())
            }
            (None, Self::StateRejected(_)) => Some(
                "Do without it, or use a database with session_state = \"pin\" or pool_mode = \"session\"."
                    .into(),
            ),
            (None, _) if self.limit().is_some() => {
                Some("Send or fetch less at once, or raise max_packet_size.".into())
            }
            _ => None,
        }
    }
}
