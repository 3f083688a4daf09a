//! A client's login, from the method to the verdict, one `p` message at a time.
//!
//! It sends nothing: [`Flow::Ask`] says which request to send, and [`Awaiting::answer`] takes the body of the
//! message that comes back. A user who does not exist goes through the same steps, at the same cost, as one
//! who does, and fails in the same way.

use std::sync::Arc;

use super::{
    access::Method,
    error::{AuthError, Refusal},
    ldap,
    md5::Md5Hash,
    mock::MockSecrets,
    primitives::{constant_time_eq, random},
    response,
    scram::{
        ClientKey, MECHANISM, MECHANISM_PLUS, Mode, ScramServer, ScramServerError, ScramVerifier,
        ServerBinding, server::AwaitingProof,
    },
    secret::{Password, Secret},
    usual::Usual,
};
use crate::types::EndPointHash;

/// What the configuration asks of a login.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The method.
    pub method: Method,
    /// Whether `password` may be asked for without TLS.
    pub allow_plaintext_password: bool,
    /// For users who do not exist.
    pub mocks: &'a MockSecrets,
    /// What the secrets of those who do are like.
    pub usual: Usual,
}

/// Who wants to log in, and how they came.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The user of the startup packet.
    pub user: &'a str,
    /// What is known of the user.
    pub account: Account<'a>,
    /// What the connection runs over.
    pub channel: Channel,
    /// What SCRAM can be bound to: our certificate, where the client has seen it.
    pub end_point: Option<&'a EndPointHash>,
}

/// What is known of a user.
#[derive(Debug, Clone, Copy)]
pub enum Account<'a> {
    /// The user's secret.
    Known(&'a Secret),
    /// The user may exist, but there is no secret: only `trust` lets them in. Also where no source of users
    /// is configured.
    WithoutSecret,
    /// There is a source of users, and it does not know this one.
    Unknown,
}

/// What a client's connection runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Anyone on the way can read it.
    Plain,
    /// TLS, or a unix socket.
    Protected,
}

/// Where a login stands.
#[derive(Debug)]
#[must_use]
pub enum Flow {
    /// Send the challenge, then give the client's answer to [`Awaiting::answer`].
    Ask(Challenge, Awaiting),
    /// Send AuthenticationSASLFinal if there is something for it, and AuthenticationOk.
    Accepted {
        /// The data of AuthenticationSASLFinal.
        sasl_final: Option<Vec<u8>>,
        /// What the login gave away that a server may accept too.
        learned: Learned,
    },
    /// Ask the directory whether this is the user's password. If it is, the client is in.
    AskDirectory(Password),
}

/// An authentication request to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// AuthenticationCleartextPassword
    CleartextPassword,
    /// AuthenticationMD5Password
    Md5 {
        /// Goes into the response.
        salt: [u8; 4],
    },
    /// AuthenticationSASL
    Sasl {
        /// What is offered.
        mechanisms: &'static [&'static str],
    },
    /// AuthenticationSASLContinue
    SaslContinue(Vec<u8>),
}

/// What a client's login teaches about its secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Learned {
    /// Nothing.
    #[default]
    Nothing,
    /// The password, which was sent in clear.
    Password(Password),
    /// The SCRAM client key that belongs to the user's verifier.
    ClientKey(ClientKey),
}

/// A login that waits for the client's next `p` message.
#[derive(Debug)]
pub struct Awaiting {
    claim: Claim,
    stage: Stage,
}

/// The same question, for an answer that did not fit the secret of then and may fit the one of now.
#[derive(Debug)]
pub struct Again {
    user: Box<str>,
    stage: AgainStage,
}

#[derive(Debug)]
enum AgainStage {
    Password { mock: Arc<ScramVerifier> },
    Md5 { salt: [u8; 4] },
}

/// Who the client says it is, and whether it fails whatever it answers.
#[derive(Debug)]
struct Claim {
    user: Box<str>,
    denial: Option<Refusal>,
    end_point: Option<EndPointHash>,
}

#[derive(Debug)]
enum Stage {
    Password {
        secret: Option<Secret>,
        mock: Arc<ScramVerifier>,
    },
    Md5 {
        salt: [u8; 4],
        hash: Md5Hash,
    },
    /// Somebody else knows whether it is the password.
    Directory,
    SaslInitial(VerifierSource),
    /// The client has chosen the mechanism and waits for an empty challenge.
    ScramFirst(VerifierSource, ServerBinding),
    ScramFinal(AwaitingProof),
}

/// Where the verifier comes from; the costly way is only taken once the client has sent something.
#[derive(Debug)]
enum VerifierSource {
    Stored(Arc<ScramVerifier>),
    Derived { password: Password, salt: [u8; 16] },
}

impl Flow {
    /// The client is in, and this is its password.
    pub fn learned(password: Password) -> Self {
        accepted(Learned::Password(password))
    }
}

/// Begins a login.
///
/// # Errors
/// When the method refuses the client without a question, or random numbers cannot be had.
pub fn start(rules: &Rules<'_>, attempt: &Attempt<'_>) -> Result<Flow, AuthError> {
    let (secret, denial) = attempt.account.secret();
    let claim = Claim {
        user: attempt.user.into(),
        denial,
        end_point: attempt.end_point.cloned(),
    };
    match rules.method {
        // Who it is has been found out before.
        Method::Trust | Method::Cert | Method::Peer => claim.trust(),
        Method::Password | Method::Ldap
            if attempt.channel == Channel::Plain && !rules.allow_plaintext_password =>
        {
            Err(AuthError::PlaintextPassword)
        }
        Method::Ldap => Ok(claim.ask(Challenge::CleartextPassword, Stage::Directory)),
        Method::Password => Ok(claim.ask_password(secret, rules)),
        Method::Md5 => claim.ask_md5(secret, rules),
        Method::ScramSha256 => Ok(claim.ask_scram(secret, rules)),
    }
}

impl Rules<'_> {
    fn mock_verifier(&self, user: &str) -> Arc<ScramVerifier> {
        self.mocks.verifier(user, self.usual.iterations())
    }
}

impl<'a> Account<'a> {
    /// The secret, or why there is none.
    fn secret(self) -> (Option<&'a Secret>, Option<Refusal>) {
        match self {
            Self::Known(Secret::Plain(password)) if password.is_empty() => (None, Some(Refusal::NoSecret)),
            Self::Known(secret) => (Some(secret), None),
            Self::WithoutSecret => (None, Some(Refusal::NoSecret)),
            Self::Unknown => (None, Some(Refusal::UnknownUser)),
        }
    }
}

impl Claim {
    fn trust(self) -> Result<Flow, AuthError> {
        match self.denial {
            Some(Refusal::UnknownUser) => Err(AuthError::NotTrusted { user: self.user }),
            _ => Ok(accepted(Learned::Nothing)),
        }
    }

    fn ask_password(self, secret: Option<&Secret>, rules: &Rules<'_>) -> Flow {
        let stage = Stage::Password {
            secret: secret.cloned(),
            mock: rules.mock_verifier(&self.user),
        };
        self.ask(Challenge::CleartextPassword, stage)
    }

    /// MD5, or SCRAM for a SCRAM secret. Users of whom nothing is known get what the others usually get.
    fn ask_md5(self, secret: Option<&Secret>, rules: &Rules<'_>) -> Result<Flow, AuthError> {
        let hash = match secret {
            Some(Secret::Scram(_)) => return Ok(self.ask_scram(secret, rules)),
            Some(Secret::Md5(hash)) => hash.clone(),
            Some(Secret::Plain(password)) => Md5Hash::from_password(password.as_bytes(), &self.user),
            None if rules.usual != Usual::Md5 => return Ok(self.ask_scram(secret, rules)),
            None => rules.mocks.md5(&self.user),
        };
        let salt = random()?;
        Ok(self.ask(Challenge::Md5 { salt }, Stage::Md5 { salt, hash }))
    }

    fn ask_scram(mut self, secret: Option<&Secret>, rules: &Rules<'_>) -> Flow {
        let source = match secret {
            Some(Secret::Scram(verifier)) => VerifierSource::Stored(Arc::clone(verifier)),
            Some(Secret::Plain(password)) => VerifierSource::Derived {
                password: password.clone(),
                salt: rules.mocks.salt(&self.user),
            },
            Some(Secret::Md5(_)) => {
                self.denial = Some(Refusal::Md5HashUnderScram);
                VerifierSource::Stored(rules.mock_verifier(&self.user))
            }
            None => VerifierSource::Stored(rules.mock_verifier(&self.user)),
        };
        // The better one first, as PostgreSQL.
        let mechanisms: &[&str] = match self.end_point {
            Some(_) => &[MECHANISM_PLUS, MECHANISM],
            None => &[MECHANISM],
        };
        let challenge = Challenge::Sasl { mechanisms };
        self.ask(challenge, Stage::SaslInitial(source))
    }

    fn ask(self, challenge: Challenge, stage: Stage) -> Flow {
        Flow::Ask(challenge, Awaiting { claim: self, stage })
    }

    fn refuse(self, reason: Refusal) -> AuthError {
        AuthError::Refused {
            user: self.user,
            reason: self.denial.unwrap_or(reason),
        }
    }

    fn accept_if(self, correct: bool, learned: Learned) -> Result<Flow, AuthError> {
        if !correct || self.denial.is_some() {
            return Err(self.refuse(Refusal::WrongPassword));
        }
        Ok(accepted(learned))
    }
}

fn accepted(learned: Learned) -> Flow {
    Flow::Accepted {
        sasl_final: None,
        learned,
    }
}

impl Awaiting {
    /// The same question for another secret, if its answer does not depend on the secret that was known when it was
    /// asked. That of SCRAM does: it has the salt in it.
    pub fn again(&self) -> Option<Again> {
        let stage = match &self.stage {
            Stage::Password { mock, .. } => AgainStage::Password { mock: mock.clone() },
            Stage::Md5 { salt, .. } => AgainStage::Md5 { salt: *salt },
            Stage::Directory | Stage::SaslInitial(_) | Stage::ScramFirst(..) | Stage::ScramFinal(_) => {
                return None;
            }
        };
        let user = self.claim.user.clone();
        Some(Again { user, stage })
    }

    /// Takes the body of the client's `p` message.
    ///
    /// It can cost one PBKDF2 (1 to 3 ms): always for `password`, and for SCRAM at the first login of a user
    /// whose secret is a plain password.
    ///
    /// # Errors
    /// When the client is not let in.
    pub fn answer(self, body: &[u8]) -> Result<Flow, AuthError> {
        let claim = self.claim;
        match self.stage {
            Stage::Password { secret, mock } => {
                let password = response::password(body)?;
                let correct = is_password(password, &claim.user, secret.as_ref(), &mock);
                claim.accept_if(correct, Learned::Password(Password::new(password)))
            }
            Stage::Md5 { salt, hash } => {
                let correct = hash.verify(salt, response::password(body)?);
                claim.accept_if(correct, Learned::Nothing)
            }
            Stage::Directory => match response::password(body)? {
                [] => Err(AuthError::Directory {
                    user: claim.user,
                    reason: ldap::Refusal::EmptyPassword,
                }),
                password => Ok(Flow::AskDirectory(Password::new(password))),
            },
            Stage::SaslInitial(source) => sasl_initial(claim, source, body),
            Stage::ScramFirst(source, binding) => scram_first(claim, source, binding, response::sasl(body)?),
            Stage::ScramFinal(scram) => scram_final(claim, scram, response::sasl(body)?),
        }
    }
}

impl Again {
    /// Takes the same body again.
    ///
    /// # Errors
    /// When the client is not let in.
    pub fn answer(self, account: Account<'_>, body: &[u8]) -> Result<Flow, AuthError> {
        let (secret, denial) = account.secret();
        let claim = Claim {
            user: self.user,
            denial,
            end_point: None,
        };
        let stage = match (self.stage, secret) {
            (AgainStage::Password { mock }, secret) => Stage::Password {
                secret: secret.cloned(),
                mock,
            },
            (AgainStage::Md5 { salt }, Some(Secret::Md5(hash))) => Stage::Md5 {
                salt,
                hash: hash.clone(),
            },
            (AgainStage::Md5 { salt }, Some(Secret::Plain(password))) => Stage::Md5 {
                salt,
                hash: Md5Hash::from_password(password.as_bytes(), &claim.user),
            },
            (AgainStage::Md5 { .. }, Some(Secret::Scram(_)) | None) => {
                return Err(claim.refuse(Refusal::WrongPassword));
            }
        };
        Awaiting { claim, stage }.answer(body)
    }
}

/// Every answer costs one PBKDF2, whatever is stored, so that its time does not tell whether the user exists.
fn is_password(password: &[u8], user: &str, secret: Option<&Secret>, mock: &ScramVerifier) -> bool {
    let verifier = match secret {
        Some(Secret::Scram(verifier)) => verifier,
        _ => mock,
    };
    let fits_verifier = verifier.matches(password);
    let correct = match secret {
        Some(Secret::Scram(_)) => fits_verifier,
        Some(Secret::Md5(hash)) => hash.matches(password, user),
        Some(Secret::Plain(known)) => constant_time_eq(known.as_bytes(), password),
        None => false,
    };
    correct && !password.is_empty()
}

fn sasl_initial(mut claim: Claim, source: VerifierSource, body: &[u8]) -> Result<Flow, AuthError> {
    let initial = response::sasl_initial(body)?;
    let binding = match claim.end_point.take() {
        Some(end_point) if initial.mechanism == MECHANISM_PLUS.as_bytes() => ServerBinding::Chosen(end_point),
        Some(_) if initial.mechanism == MECHANISM.as_bytes() => ServerBinding::Declined,
        None if initial.mechanism == MECHANISM.as_bytes() => ServerBinding::NotOffered,
        _ => return Err(AuthError::Mechanism),
    };
    match initial.data {
        Some(message) => scram_first(claim, source, binding, message),
        None => {
            let stage = Stage::ScramFirst(source, binding);
            Ok(claim.ask(Challenge::SaslContinue(Vec::new()), stage))
        }
    }
}

fn scram_first(
    claim: Claim,
    source: VerifierSource,
    binding: ServerBinding,
    message: &[u8],
) -> Result<Flow, AuthError> {
    let verifier = match source {
        VerifierSource::Stored(verifier) => verifier,
        VerifierSource::Derived { password, salt } => password.verifier(&salt),
    };
    let mode = match claim.denial {
        Some(_) => Mode::Mock,
        None => Mode::Genuine,
    };
    match ScramServer::new(verifier, mode, binding).client_first(message) {
        Ok((answer, next)) => Ok(claim.ask(Challenge::SaslContinue(answer), Stage::ScramFinal(next))),
        Err(error) => Err(scram_error(claim, error)),
    }
}

fn scram_final(claim: Claim, scram: AwaitingProof, message: &[u8]) -> Result<Flow, AuthError> {
    match scram.client_final(message) {
        Ok(verified) => Ok(Flow::Accepted {
            sasl_final: Some(verified.server_final),
            learned: Learned::ClientKey(verified.client_key),
        }),
        Err(error) => Err(scram_error(claim, error)),
    }
}

fn scram_error(claim: Claim, error: ScramServerError) -> AuthError {
    match error {
        ScramServerError::WrongProof => claim.refuse(Refusal::WrongPassword),
        ScramServerError::Random(error) => error.into(),
        error => AuthError::Scram(error),
    }
}
