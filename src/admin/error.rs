//! Why the console does not do what it is asked to.

use std::borrow::Cow;

use super::{command::UnknownCommand, premises::SetError};
use crate::{
    fault::{Blame, Fault, SqlState},
    pool::HaltError,
};

#[derive(Debug, thiserror::Error)]
pub(super) enum ConsoleError {
    #[error("user \"{0}\" may not use the admin console")]
    NotAllowed(String),
    #[error("admin access needed")]
    AdminNeeded,
    #[error(transparent)]
    Unknown(#[from] UnknownCommand),
    #[error("unrecognized configuration parameter \"{name}\"")]
    UnknownSetting { name: String, near: Option<String> },
    #[error("cannot set \"{name}\"")]
    Set { name: String, error: SetError },
    #[error(transparent)]
    Halt(#[from] HaltError),
    #[error("no such database: {0}")]
    NoDatabase(String),
    #[error("{0} is the admin console")]
    AdminDatabase(String),
    #[error("client not found")]
    NoClient,
    #[error("the configuration was not reloaded")]
    Reload(Vec<String>),
    #[error("pooler is shutting down")]
    ShuttingDown,
    #[error("canceling statement due to user request")]
    Canceled,
    #[error("terminating connection due to administrator command")]
    Drained,
    #[error(transparent)]
    Extended(#[from] ExtendedError),
    #[error("invalid frontend message")]
    Protocol,
}

/// A message of the extended protocol that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExtendedError {
    #[error("cannot insert multiple commands into a prepared statement")]
    Several,
    #[error("prepared statement \"{0}\" already exists")]
    StatementExists(String),
    #[error("prepared statement \"{0}\" does not exist")]
    NoStatement(String),
    #[error("portal \"{0}\" does not exist")]
    NoPortal(String),
    #[error("bind message supplies {0} parameters, but commands of the console have none")]
    Parameters(u16),
    #[error("bind message has {0} result formats but query has {1} columns")]
    Formats(usize, usize),
    #[error("too many prepared statements")]
    TooMany,
}

impl Fault for ConsoleError {
    fn blame(&self) -> Blame {
        match self {
            Self::Drained | Self::ShuttingDown => Blame::Pooler,
            _ => Blame::Client,
        }
    }

    fn sqlstate(&self) -> SqlState {
        match self {
            Self::NotAllowed(_) | Self::AdminNeeded => SqlState::INSUFFICIENT_PRIVILEGE,
            Self::Unknown(_) => SqlState::SYNTAX_ERROR,
            Self::UnknownSetting { .. } => SqlState::UNDEFINED_OBJECT,
            Self::Set { error, .. } => match error {
                SetError::Unknown(_) => SqlState::UNDEFINED_OBJECT,
                SetError::Fixed => SqlState::CANT_CHANGE_RUNTIME_PARAM,
                SetError::Value { .. } => SqlState::INVALID_PARAMETER_VALUE,
                SetError::File(_) => SqlState::CONFIG_FILE_ERROR,
            },
            Self::Halt(_) | Self::AdminDatabase(_) => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::NoDatabase(_) => SqlState::INVALID_CATALOG_NAME,
            Self::NoClient => SqlState::UNDEFINED_OBJECT,
            Self::Reload(_) => SqlState::CONFIG_FILE_ERROR,
            Self::ShuttingDown => SqlState::CANNOT_CONNECT_NOW,
            Self::Canceled => SqlState::QUERY_CANCELED,
            Self::Drained => SqlState::ADMIN_SHUTDOWN,
            Self::Extended(error) => error.sqlstate(),
            Self::Protocol => SqlState::PROTOCOL_VIOLATION,
        }
    }

    fn client_message(&self) -> Cow<'_, str> {
        self.to_string().into()
    }

    fn detail(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Set { error, .. } => match error {
                SetError::Value { message, .. } => Some(message.into()),
                SetError::File(problems) => Some(problems.join("\n").into()),
                SetError::Unknown(_) => Some("There is no setting of this name.".into()),
                SetError::Fixed => Some("It cannot be changed while pgweir runs.".into()),
            },
            Self::Reload(problems) => Some(problems.join("\n").into()),
            _ => None,
        }
    }

    fn hint(&self) -> Option<Cow<'_, str>> {
        let probably = |near: &Option<String>| match near {
            Some(near) => format!("Did you mean {near}?").into(),
            None => "SHOW CONFIG lists the settings.".into(),
        };
        match self {
            Self::NotAllowed(_) => Some(
                "Name the user in auth.stats_users or auth.admin_users of pgweir's configuration.".into(),
            ),
            Self::AdminNeeded => Some("Name the user in auth.admin_users of pgweir's configuration.".into()),
            Self::Unknown(UnknownCommand::Word { near: Some(near), .. }) => {
                Some(format!("Did you mean {near}? SHOW HELP lists the commands.").into())
            }
            Self::Unknown(_) => Some("SHOW HELP lists the commands.".into()),
            Self::UnknownSetting { near, .. } => Some(probably(near)),
            Self::Set { error, .. } => match error {
                SetError::Unknown(near) => Some(probably(near)),
                SetError::Fixed => Some("Change it in the configuration file and restart pgweir.".into()),
                SetError::Value { hint, .. } => hint.as_deref().map(Cow::Borrowed),
                SetError::File(_) => Some("Correct the configuration file first.".into()),
            },
            Self::Halt(HaltError::Already) => Some("RESUME goes on.".into()),
            Self::NoDatabase(_) => Some("SHOW DATABASES lists them.".into()),
            Self::NoClient => Some("SHOW CLIENTS lists them, with their ids.".into()),
            Self::Reload(_) => {
                Some("What was in force before still is. `pgweir check` says the same.".into())
            }
            _ => None,
        }
    }
}

impl ExtendedError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Several => SqlState::SYNTAX_ERROR,
            Self::StatementExists(_) => SqlState::DUPLICATE_PREPARED_STATEMENT,
            Self::NoStatement(_) => SqlState::INVALID_SQL_STATEMENT_NAME,
            Self::NoPortal(_) => SqlState::INVALID_CURSOR_NAME,
            Self::Parameters(_) | Self::Formats(..) => SqlState::PROTOCOL_VIOLATION,
            Self::TooMany => SqlState::PROGRAM_LIMIT_EXCEEDED,
        }
    }
}
