//! Our login to a server: which of the secrets we have answers what the server asks.
//!
//! It sends nothing: it takes the decoded `R` messages and returns the bodies of `p` messages. The server may
//! be hostile; it is refused when its requests come out of order or ask for too much.

use std::{borrow::Cow, fmt, sync::Arc};

use thiserror::Error;

use super::{
    flow::Learned,
    md5::Md5Hash,
    request::{AuthRequest, AuthRequestError, Mechanisms, UnsupportedMethod},
    scram::{
        ClientBinding, MECHANISM, MECHANISM_PLUS, ScramClient, ScramClientError, ScramCredential,
        client::{AwaitingServerFinal, AwaitingServerFirst},
    },
    secret::{Password, Secret},
};
use crate::{
    fault::{Blame, Fault, SqlState},
    types::EndPointHash,
};

/// What we have to log in with, all of it about the same user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerCredential {
    /// What is stored.
    pub secret: Option<Secret>,
    /// What the client's own login taught.
    pub learned: Learned,
}

/// A login under way.
#[derive(Debug)]
pub struct ServerLogin {
    user: Box<str>,
    credential: ServerCredential,
    end_point: Option<EndPointHash>,
    state: State,
}

#[derive(Debug)]
enum State {
    Start,
    ScramFirst(AwaitingServerFirst),
    ScramFinal(AwaitingServerFinal),
    /// All is said; only AuthenticationOk may come.
    Answered,
}

/// What follows from one `R` message.
#[derive(Debug)]
#[must_use]
pub enum Progress {
    /// Send a `p` message with this body, then read on.
    Send {
        /// The body.
        body: Vec<u8>,
        /// Takes the next request.
        next: ServerLogin,
    },
    /// Read on.
    Wait(ServerLogin),
    /// The server has let us in.
    LoggedIn,
}

/// Why our login to a server failed, before the server itself said so.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ServerLoginError {
    /// What we have does not answer what the server asks.
    #[error("the server asks for {asked}, but {held} for user \"{user}\"")]
    MissingCredential {
        /// The user who would have logged in.
        user: Box<str>,
        /// What the server wants.
        asked: Asked,
        /// What we have.
        held: Held,
    },
    /// A method that we do not know.
    #[error("the server asks for {0}, which is not supported")]
    Unsupported(UnsupportedMethod),
    /// SASL, but without SCRAM-SHA-256.
    #[error("the server does not offer the SASL mechanism {MECHANISM}")]
    Mechanisms,
    /// A request that does not belong here, AuthenticationOk in the middle of SCRAM among them.
    #[error("the server's authentication requests are out of order")]
    OutOfOrder,
    /// The SCRAM exchange failed.
    #[error("SCRAM authentication to the server failed: {0}")]
    Scram(ScramClientError),
    /// An `R` message that is none.
    #[error(transparent)]
    Request(#[from] AuthRequestError),
}

/// What a server asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The password in clear.
    CleartextPassword,
    /// A salted md5 hash.
    Md5,
    /// SCRAM-SHA-256.
    Scram,
}

/// What we have of a user, where it is not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// An md5 hash, which answers md5 only.
    Md5Hash,
    /// A SCRAM verifier, which answers nothing without its client key (one learned before the secret changed
    /// is not it).
    Verifier,
    /// A SCRAM verifier and a client key, which answer SCRAM only.
    VerifierAndClientKey,
}

impl ServerLogin {
    /// A login as `user`, who is also the user in our startup packet.
    pub fn new(user: &str, credential: ServerCredential) -> Self {
        Self {
            user: user.into(),
            credential,
            end_point: None,
            state: State::Start,
        }
    }

    /// The same over TLS, bound to the certificate that the server has shown where the server offers that.
    #[must_use]
    pub fn bound_to(mut self, end_point: Option<EndPointHash>) -> Self {
        self.end_point = end_point;
        self
    }

    /// Takes the server's next request.
    ///
    /// It costs one PBKDF2 where a password answers SCRAM (1 to 3 ms for 4096 iterations).
    ///
    /// # Errors
    /// When the request cannot be answered or must not be: close the connection.
    pub fn on_request(mut self, request: AuthRequest<'_>) -> Result<Progress, ServerLoginError> {
        let state = std::mem::replace(&mut self.state, State::Answered);
        match (state, request) {
            (State::Start | State::Answered, AuthRequest::Ok) => Ok(Progress::LoggedIn),
            (State::Start, AuthRequest::CleartextPassword) => self.send_password(),
            (State::Start, AuthRequest::Md5Password { salt }) => self.send_md5(salt),
            (State::Start, AuthRequest::Sasl(mechanisms)) => self.begin_scram(mechanisms),
            (State::ScramFirst(scram), AuthRequest::SaslContinue(message)) => {
                self.continue_scram(scram, message)
            }
            (State::ScramFinal(scram), AuthRequest::SaslFinal(message)) => {
                scram.server_final(message).map_err(ServerLoginError::Scram)?;
                Ok(Progress::Wait(self))
            }
            (State::Start, AuthRequest::Unsupported(method)) => Err(ServerLoginError::Unsupported(method)),
            _ => Err(ServerLoginError::OutOfOrder),
        }
    }

    fn send_password(self) -> Result<Progress, ServerLoginError> {
        let Some(password) = self.credential.password() else {
            return Err(self.missing(Asked::CleartextPassword));
        };
        let body = [password.as_bytes(), b"\0"].concat();
        Ok(Progress::Send { body, next: self })
    }

    fn send_md5(self, salt: [u8; 4]) -> Result<Progress, ServerLoginError> {
        let Some(hash) = self.credential.md5_hash(&self.user) else {
            return Err(self.missing(Asked::Md5));
        };
        let mut body = hash.response(salt);
        body.push(0);
        Ok(Progress::Send { body, next: self })
    }

    fn begin_scram(mut self, mechanisms: Mechanisms<'_>) -> Result<Progress, ServerLoginError> {
        let (mechanism, binding) = match self.end_point.take() {
            Some(end_point) if mechanisms.contains(MECHANISM_PLUS) => {
                (MECHANISM_PLUS, ClientBinding::Bound(end_point))
            }
            Some(_) if mechanisms.contains(MECHANISM) => (MECHANISM, ClientBinding::NotOffered),
            None if mechanisms.contains(MECHANISM) => (MECHANISM, ClientBinding::Impossible),
            _ => return Err(ServerLoginError::Mechanisms),
        };
        let Some(credential) = self.credential.scram() else {
            return Err(self.missing(Asked::Scram));
        };
        let (message, awaiting) = ScramClient::new(credential, binding)
            .client_first()
            .map_err(ServerLoginError::Scram)?;
        self.state = State::ScramFirst(awaiting);
        let body = sasl_initial_response(mechanism, &message);
        Ok(Progress::Send { body, next: self })
    }

    fn continue_scram(
        mut self,
        scram: AwaitingServerFirst,
        message: &[u8],
    ) -> Result<Progress, ServerLoginError> {
        let (body, awaiting) = scram.server_first(message).map_err(ServerLoginError::Scram)?;
        self.state = State::ScramFinal(awaiting);
        Ok(Progress::Send { body, next: self })
    }

    fn missing(self, asked: Asked) -> ServerLoginError {
        ServerLoginError::MissingCredential {
            held: self.credential.held(),
            user: self.user,
            asked,
        }
    }
}

impl ServerCredential {
    fn password(&self) -> Option<&Password> {
        match (&self.secret, &self.learned) {
            (Some(Secret::Plain(password)), _) if !password.is_empty() => Some(password),
            (_, Learned::Password(password)) => Some(password),
            _ => None,
        }
    }

    fn md5_hash(&self, user: &str) -> Option<Md5Hash> {
        match (self.password(), &self.secret) {
            (Some(password), _) => Some(Md5Hash::from_password(password.as_bytes(), user)),
            (None, Some(Secret::Md5(hash))) => Some(hash.clone()),
            _ => None,
        }
    }

    fn scram(&self) -> Option<ScramCredential> {
        match (self.password(), &self.secret, &self.learned) {
            (Some(password), _, _) => Some(ScramCredential::Password(password.clone())),
            (None, Some(Secret::Scram(verifier)), Learned::ClientKey(client_key))
                if verifier.accepts(client_key) =>
            {
                Some(ScramCredential::PassThrough {
                    client_key: client_key.clone(),
                    verifier: Arc::clone(verifier),
                })
            }
            _ => None,
        }
    }

    /// What there is, given that there is no password.
    fn held(&self) -> Held {
        match (&self.secret, &self.learned) {
            (Some(Secret::Md5(_)), _) => Held::Md5Hash,
            (Some(Secret::Scram(verifier)), Learned::ClientKey(key)) if verifier.accepts(key) => {
                Held::VerifierAndClientKey
            }
            (Some(Secret::Scram(_)), _) => Held::Verifier,
            _ => Held::Nothing,
        }
    }
}

/// Mechanism, length, data.
fn sasl_initial_response(mechanism: &str, message: &[u8]) -> Vec<u8> {
    let length = i32::try_from(message.len()).expect("our first SCRAM message has less than 100 bytes");
    [mechanism.as_bytes(), b"\0", &length.to_be_bytes(), message].concat()
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CleartextPassword => "the password",
            Self::Md5 => "md5",
            Self::Scram => MECHANISM,
        })
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "no secret is known",
            Self::Md5Hash => "only an md5 hash is known",
            Self::Verifier => "only a SCRAM verifier is known, and no client's SCRAM login that fits it",
            Self::VerifierAndClientKey => "only a SCRAM verifier and a client's SCRAM login are known",
        })
    }
}

impl Fault for ServerLoginError {
    fn blame(&self) -> Blame {
        match self {
            Self::MissingCredential { .. }
            | Self::Scram(ScramClientError::SecretDiffers | ScramClientError::Random(_)) => Blame::Pooler,
            _ => Blame::Server,
        }
    }

    fn sqlstate(&self) -> SqlState {
        match self {
            Self::MissingCredential { .. } | Self::Scram(ScramClientError::SecretDiffers) => {
                SqlState::INVALID_AUTHORIZATION
            }
            Self::Scram(ScramClientError::Random(_)) => SqlState::INTERNAL_ERROR,
            _ => SqlState::CONNECTION_FAILURE,
        }
    }

    fn client_message(&self) -> Cow<'_, str> {
        "login to the server failed".into()
    }

    fn detail(&self) -> Option<Cow<'_, str>> {
        Some(self.to_string().into())
    }

    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::MissingCredential { .. } => {
                Some("Store the user's password, or the very SCRAM verifier that the server has.".into())
            }
            Self::Scram(ScramClientError::SecretDiffers) => {
                Some("Copy the user's secret from pg_authid on the server again.".into())
            }
            _ => None,
        }
    }
}
