//! Why a client's login failed, and how little of it the client is told.
//!
//! `Display` is for the log and has the true reason; [`Fault`] is for the client, to whom an unknown user, a
//! user without a secret and a wrong password all look the same.

use std::{borrow::Cow, time::Duration};

use thiserror::Error;

use super::{
    access::IdentityError, hba::Denial, ldap, primitives::RandomUnavailable, response::ResponseError,
    scram::ScramServerError,
};
use crate::fault::{Blame, Fault, SqlState};

/// Why a client's login failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthError {
    /// The client did not prove that it is the user.
    #[error("password authentication failed for user \"{user}\": {reason}")]
    Refused {
        /// Who the client says it is.
        user: Box<str>,
        /// For the log only.
        reason: Refusal,
    },
    /// A directory does not take the client for the user.
    #[error("LDAP authentication failed for user \"{user}\": {reason}")]
    Directory {
        /// Who the client says it is.
        user: Box<str>,
        /// For the log only.
        reason: ldap::Refusal,
    },
    /// `trust` is only for users who are known, where anybody keeps a list.
    #[error("user \"{user}\" is not known")]
    NotTrusted {
        /// Who the client says it is.
        user: Box<str>,
    },
    /// The HBA file keeps the connection out.
    #[error(transparent)]
    Denied(Denial),
    /// The connection says that the client is somebody else.
    #[error(transparent)]
    Identity(IdentityError),
    /// `password` would go over the wire in clear.
    #[error("password authentication without TLS is not allowed")]
    PlaintextPassword,
    /// A `p` message with a malformed body.
    #[error("malformed authentication response")]
    Response(#[from] ResponseError),
    /// A SASL mechanism that was not offered.
    #[error("the client chose a SASL mechanism that was not offered")]
    Mechanism,
    /// A SCRAM message that does not belong here.
    #[error("invalid SCRAM message")]
    Scram(#[source] ScramServerError),
    /// There were too many failures before this.
    #[error("too many failed log-ins{}, refused for another {}s", whose(user.as_deref()), remaining.as_secs() + 1)]
    TooManyFailures {
        /// Who the client says it is; `None` where everybody from its address is refused.
        user: Option<Box<str>>,
        /// For how long still.
        remaining: Duration,
    },
    /// No salt or nonce could be made.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
}

/// The true reason of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The secret is known, and this was not it.
    #[error("wrong password")]
    WrongPassword,
    /// Nothing is known of the user.
    #[error("no such user")]
    UnknownUser,
    /// The user is known, and has no password.
    #[error("the user has no password")]
    NoSecret,
    /// SCRAM cannot be done with an md5 hash.
    #[error("the method is scram-sha-256 and the user's secret is an md5 hash")]
    Md5HashUnderScram,
}

/// A failure that may be somebody's guess, in few words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    /// Not the user's password.
    WrongPassword,
    /// No such user.
    UnknownUser,
    /// A user who has no password that would do.
    NoSecret,
}

impl Guess {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::WrongPassword, Self::UnknownUser, Self::NoSecret];

    /// The word used in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WrongPassword => "wrong_password",
            Self::UnknownUser => "unknown_user",
            Self::NoSecret => "no_secret",
        }
    }
}

impl AuthError {
    /// Whether it is held against the client. What is not the client's doing is not, nor is what tells it nothing.
    pub fn guess(&self) -> Option<Guess> {
        match self {
            Self::Refused { reason, .. } => Some(match reason {
                Refusal::WrongPassword => Guess::WrongPassword,
                Refusal::UnknownUser => Guess::UnknownUser,
                Refusal::NoSecret | Refusal::Md5HashUnderScram => Guess::NoSecret,
            }),
            Self::NotTrusted { .. } => Some(Guess::UnknownUser),
            Self::Directory { reason, .. } => Some(match reason {
                ldap::Refusal::EmptyPassword | ldap::Refusal::Bind(_) => Guess::WrongPassword,
                ldap::Refusal::Name | ldap::Refusal::NotFound | ldap::Refusal::Ambiguous => {
                    Guess::UnknownUser
                }
            }),
            Self::Denied(_)
            | Self::Identity(_)
            | Self::PlaintextPassword
            | Self::Response(_)
            | Self::Mechanism
            | Self::Scram(_)
            | Self::TooManyFailures { .. }
            | Self::Random(_) => None,
        }
    }
}

fn whose(user: Option<&str>) -> String {
    match user {
        Some(user) => format!(" of user \"{user}\" from this address"),
        None => " from this address".to_owned(),
    }
}

impl Fault for AuthError {
    fn blame(&self) -> Blame {
        match self {
            Self::Random(_) => Blame::Pooler,
            _ => Blame::Client,
        }
    }

    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Refused { .. } => SqlState::INVALID_PASSWORD,
            // As PostgreSQL, which has another code for passwords of its own.
            Self::Directory { .. }
            | Self::NotTrusted { .. }
            | Self::Denied(_)
            | Self::Identity(_)
            | Self::PlaintextPassword
            | Self::TooManyFailures { .. }
            | Self::Scram(ScramServerError::Downgrade | ScramServerError::OtherEndPoint) => {
                SqlState::INVALID_AUTHORIZATION
            }
            Self::Response(_) | Self::Mechanism | Self::Scram(_) => SqlState::PROTOCOL_VIOLATION,
            Self::Random(_) => SqlState::INTERNAL_ERROR,
        }
    }

    fn client_message(&self) -> Cow<'_, str> {
        match self {
            Self::Refused { user, .. } => {
                format!("password authentication failed for user \"{user}\"").into()
            }
            Self::Directory { user, .. } => format!("LDAP authentication failed for user \"{user}\"").into(),
            Self::Scram(ScramServerError::Downgrade) => "SCRAM channel binding negotiation error".into(),
            Self::Scram(ScramServerError::OtherEndPoint) => "SCRAM channel binding check failed".into(),
            Self::Identity(error) => error.client_message().into(),
            other => other.to_string().into(),
        }
    }

    fn detail(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Response(reason) => Some(reason.to_string().into()),
            Self::Scram(reason) => Some(reason.to_string().into()),
            _ => None,
        }
    }

    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::PlaintextPassword => {
                Some("Connect with TLS, or set auth.allow_plaintext_password = true.".into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_cannot_tell_one_refusal_from_another() {
        let refused = |reason| AuthError::Refused {
            user: "alice".into(),
            reason,
        };
        for reason in [
            Refusal::WrongPassword,
            Refusal::UnknownUser,
            Refusal::NoSecret,
            Refusal::Md5HashUnderScram,
        ] {
            let error = refused(reason);
            assert_eq!(
                error.client_message(),
                "password authentication failed for user \"alice\""
            );
            assert_eq!(error.sqlstate().as_str(), "28P01");
            assert_eq!((error.detail(), error.hint()), (None, None));
            assert!(error.to_string().ends_with(&reason.to_string()));
        }
    }

    #[test]
    fn refused_plaintext_names_the_setting() {
        let error = AuthError::PlaintextPassword;
        assert_eq!(error.sqlstate().as_str(), "28000");
        assert!(error.hint().unwrap().contains("auth.allow_plaintext_password"));
    }
}
