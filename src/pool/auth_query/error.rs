//! Why a user could not be looked up. None of it says anything about the user.

use std::{borrow::Cow, sync::Arc, time::Duration};

use crate::{
    fault::{Blame, Fault, SqlState},
    server::{ConnectError, SettleError},
};

/// Why a user could not be looked up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueryError {
    /// `auth_database` names none.
    #[error("auth_query cannot be asked: there is no database \"{0}\" in the configuration")]
    NoDatabase(String),
    /// The client's own database, in which it would be asked, does not exist on the server.
    #[error("database \"{0}\" does not exist")]
    NoClientDatabase(String),
    /// The role that asks could not log in.
    #[error("auth_user cannot log in")]
    Connect(#[source] Arc<ConnectError>),
    /// The server has refused the query.
    #[error("auth_query failed")]
    Query(#[source] Arc<SettleError>),
    /// The answer has one column, or none.
    #[error("auth_query returned fewer than two columns: the user and the password are expected")]
    Columns,
    /// The answer is about somebody else.
    #[error("auth_query returned another user than it was asked for")]
    OtherUser,
    /// It took too long.
    #[error("auth_query was not answered within {0:?}")]
    Timeout(Duration),
    /// The pooler stops, or has another configuration now.
    #[error("auth_query was given up")]
    GivenUp,
}

impl QueryError {
    /// Whether it may work in a moment, with nobody having changed anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_transient(),
            Self::Query(error) => match &**error {
                SettleError::Refused(error) => error
                    .code
                    .is_none_or(|code| matches!(code.class(), "53" | "57" | "08")),
                _ => true,
            },
            Self::Timeout(_) | Self::GivenUp => true,
            Self::NoDatabase(_) | Self::NoClientDatabase(_) | Self::Columns | Self::OtherUser => false,
        }
    }

    /// The server's code, if the server has said something.
    pub fn server_code(&self) -> Option<SqlState> {
        match self {
            Self::Connect(error) => match &**error {
                ConnectError::Server(error) => error.code,
                _ => None,
            },
            Self::Query(error) => match &**error {
                SettleError::Refused(error) => error.code,
                _ => None,
            },
            _ => None,
        }
    }
}

impl Fault for QueryError {
    fn blame(&self) -> Blame {
        match self {
            Self::NoDatabase(_) | Self::GivenUp => Blame::Pooler,
            Self::NoClientDatabase(_) => Blame::Client,
            _ => Blame::Server,
        }
    }

    fn sqlstate(&self) -> SqlState {
        match self {
            Self::NoClientDatabase(_) => SqlState::INVALID_CATALOG_NAME,
            Self::GivenUp => SqlState::CANNOT_CONNECT_NOW,
            Self::Connect(error) if error.is_transient() => error.sqlstate(),
            error if error.is_transient() => SqlState::CONNECTION_FAILURE,
            _ => SqlState::SYSTEM_ERROR,
        }
    }

    fn client_message(&self) -> Cow<'_, str> {
        match self {
            Self::NoClientDatabase(_) => self.to_string().into(),
            error if error.is_transient() => {
                "pgweir cannot reach the PostgreSQL server to look up users".into()
            }
            _ => "pgweir cannot look up users on the PostgreSQL server".into(),
        }
    }

    fn hint(&self) -> Option<Cow<'_, str>> {
        (!self.is_transient() && !matches!(self, Self::NoClientDatabase(_)))
            .then(|| "pgweir's log says what is wrong with auth_query.".into())
    }
}
