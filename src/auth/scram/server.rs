//! The server's side of SCRAM, for clients that log in to us.
//!
//! Each state is a type that its message consumes. It does not know users: the caller brings a verifier and
//! says whether it is genuine.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use thiserror::Error;

use super::{
    BINDING_TYPE, ClientKey, MECHANISM, MECHANISM_PLUS, MessageError, ScramVerifier,
    message::{BindingFlag, ClientFinal, ClientFirst},
};
use crate::{
    auth::primitives::{RandomUnavailable, constant_time_eq, random},
    types::EndPointHash,
};

/// Whether the verifier belongs to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    Genuine,
    /// It does not: the exchange goes all the way and then fails.
    Mock,
}

/// Whether the client has chosen to bind the exchange to its TLS connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerBinding {
    /// It has: to a connection with this certificate.
    Chosen(EndPointHash),
    /// It could have, and has not.
    Declined,
    /// It was not given the choice.
    NotOffered,
}

/// Why a client's SCRAM login failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScramServerError {
    /// A message that is none.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The final message is about another exchange.
    #[error("the nonce is not the one of this exchange")]
    Nonce,
    /// The final message repeats another GS2 header than the first had.
    #[error("the channel binding does not match the first message")]
    ChannelBinding,
    /// It is bound to another certificate: somebody stands between the client and us.
    #[error("the client's TLS connection does not end here: its server has another certificate")]
    OtherEndPoint,
    /// The client did not see that channel binding is offered.
    #[error("the client supports SCRAM channel binding but thinks the server does not; this server does")]
    Downgrade,
    /// Bound to something that is not the certificate.
    #[error("the channel binding type is not {BINDING_TYPE}")]
    BindingType,
    /// The mechanism with channel binding, and a message without.
    #[error("the client selected {MECHANISM_PLUS}, but its message has no channel binding")]
    BindingMissing,
    /// The mechanism without channel binding, and a message with it.
    #[error("the client selected {MECHANISM} without channel binding, but its message has one")]
    BindingUnasked,
    /// The client does not have the password.
    #[error("wrong proof")]
    WrongProof,
    /// No nonce could be made.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
}

/// Waits for the client's first message.
#[derive(Debug)]
pub struct ScramServer {
    verifier: Arc<ScramVerifier>,
    mode: Mode,
    binding: ServerBinding,
}

/// Waits for the client's final message.
#[derive(Debug)]
pub struct AwaitingProof {
    verifier: Arc<ScramVerifier>,
    mode: Mode,
    gs2_header: Vec<u8>,
    end_point: Option<EndPointHash>,
    /// Client's and server's part.
    nonce: Vec<u8>,
    /// `client-first-message-bare , server-first-message`
    auth_message: Vec<u8>,
}

/// The client has proved that it has the password.
#[derive(Debug)]
pub struct Verified {
    /// The server-final message, by which the client verifies us.
    pub server_final: Vec<u8>,
    /// What the client has proved to have: with it we can log in to a server that has the same verifier.
    pub client_key: ClientKey,
}

impl ScramServer {
    /// Begins an exchange.
    pub fn new(verifier: Arc<ScramVerifier>, mode: Mode, binding: ServerBinding) -> Self {
        Self {
            verifier,
            mode,
            binding,
        }
    }

    /// Answers the client's first message with the server-first message.
    ///
    /// # Errors
    /// When the message is malformed, or random numbers cannot be had.
    pub fn client_first(self, message: &[u8]) -> Result<(Vec<u8>, AwaitingProof), ScramServerError> {
        let nonce = BASE64.encode(random::<18>()?);
        self.client_first_with_nonce(message, nonce.as_bytes())
    }

    pub(super) fn client_first_with_nonce(
        self,
        message: &[u8],
        server_nonce: &[u8],
    ) -> Result<(Vec<u8>, AwaitingProof), ScramServerError> {
        let first = ClientFirst::decode(message)?;
        let end_point = self.binding.agree(first.flag)?;
        let nonce = [first.nonce, server_nonce].concat();
        let cost = format!(
            ",s={},i={}",
            BASE64.encode(&self.verifier.salt),
            self.verifier.iterations
        );
        let server_first = [b"r=", nonce.as_slice(), cost.as_bytes()].concat();
        let next = AwaitingProof {
            verifier: self.verifier,
            mode: self.mode,
            gs2_header: first.gs2_header.to_vec(),
            end_point,
            nonce,
            auth_message: [first.bare, &server_first].join(&b','),
        };
        Ok((server_first, next))
    }
}

impl ServerBinding {
    /// What the client's final message has to be bound to. Refused is what does not fit the mechanism, and a client
    /// that did not see the offer, which somebody may have removed.
    fn agree(self, flag: BindingFlag<'_>) -> Result<Option<EndPointHash>, ScramServerError> {
        match (self, flag) {
            (Self::Chosen(end_point), BindingFlag::Bound(name)) if name == BINDING_TYPE.as_bytes() => {
                Ok(Some(end_point))
            }
            (Self::Chosen(_), BindingFlag::Bound(_)) => Err(ScramServerError::BindingType),
            (Self::Chosen(_), _) => Err(ScramServerError::BindingMissing),
            (_, BindingFlag::Bound(_)) => Err(ScramServerError::BindingUnasked),
            (Self::Declined, BindingFlag::NotOffered) => Err(ScramServerError::Downgrade),
            (_, BindingFlag::Unsupported | BindingFlag::NotOffered) => Ok(None),
        }
    }
}

impl AwaitingProof {
    /// Checks the proof in the client's final message.
    ///
    /// # Errors
    /// When the message is malformed or of another exchange, when the proof is wrong, and always for a mock.
    pub fn client_final(mut self, message: &[u8]) -> Result<Verified, ScramServerError> {
        let last = ClientFinal::decode(message)?;
        self.check_binding(last.channel_binding)?;
        if !constant_time_eq(last.nonce, &self.nonce) {
            return Err(ScramServerError::Nonce);
        }
        self.auth_message.push(b',');
        self.auth_message.extend_from_slice(last.without_proof);
        let client_key = ClientKey::recover(last.proof, &self.verifier.stored_key, &self.auth_message);
        // A mock does all the work too, so that its answer takes as long.
        let accepted = self.verifier.accepts(&client_key);
        let signature = self.verifier.server_signature(&self.auth_message);
        if !accepted || self.mode == Mode::Mock {
            return Err(ScramServerError::WrongProof);
        }
        Ok(Verified {
            server_final: format!("v={}", BASE64.encode(signature)).into_bytes(),
            client_key,
        })
    }

    fn check_binding(&self, given: &[u8]) -> Result<(), ScramServerError> {
        let end_point = self.end_point.as_ref().map_or(&[][..], EndPointHash::as_bytes);
        let expected = BASE64.encode([&self.gs2_header, end_point].concat());
        match (&self.end_point, given == expected.as_bytes()) {
            (_, true) => Ok(()),
            (Some(_), false) => Err(ScramServerError::OtherEndPoint),
            (None, false) => Err(ScramServerError::ChannelBinding),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::scram::DEFAULT_ITERATIONS;

    // The exchange of RFC 7677, section 3; the client is "user" with the password "pencil".
    const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &[u8] = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const SERVER_FIRST: &[u8] =
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn pencil() -> Arc<ScramVerifier> {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Arc::new(ScramVerifier::from_password(b"pencil", &salt, DEFAULT_ITERATIONS))
    }

    fn begin(mode: Mode) -> (Vec<u8>, AwaitingProof) {
        ScramServer::new(pencil(), mode, ServerBinding::NotOffered)
            .client_first_with_nonce(CLIENT_FIRST, SERVER_NONCE)
            .unwrap()
    }

    #[test]
    fn follows_rfc_7677() {
        let (server_first, awaiting) = begin(Mode::Genuine);
        assert_eq!(server_first, SERVER_FIRST);
        let verified = awaiting.client_final(CLIENT_FINAL).unwrap();
        assert_eq!(verified.server_final, SERVER_FINAL);
        assert!(pencil().accepts(&verified.client_key));
    }

    #[test]
    fn mock_fails_even_with_the_right_proof() {
        let (server_first, awaiting) = begin(Mode::Mock);
        assert_eq!(server_first, SERVER_FIRST);
        let error = awaiting.client_final(CLIENT_FINAL).unwrap_err();
        assert_eq!(error, ScramServerError::WrongProof);
    }

    #[test]
    fn final_message_must_fit_the_exchange() {
        let text = String::from_utf8(CLIENT_FINAL.to_vec()).unwrap();
        let cases = [
            (text.replace("biws", "eSws"), ScramServerError::ChannelBinding),
            (text.replace("c=biws", "c="), ScramServerError::ChannelBinding),
            (text.replace("rOpr", "sOpr"), ScramServerError::Nonce),
            (
                text.replace("r=rOprNGfwEbeRWgbNEkqO", "r="),
                ScramServerError::Nonce,
            ),
            (text.replace("p=d", "p=e"), ScramServerError::WrongProof),
            (text.replace(",p=", ",x=1,p="), ScramServerError::WrongProof),
        ];
        for (message, error) in cases {
            let (_, awaiting) = begin(Mode::Genuine);
            assert_eq!(
                awaiting.client_final(message.as_bytes()).unwrap_err(),
                error,
                "{message}"
            );
        }
    }

    fn first_words(binding: ServerBinding, header: &str) -> Result<AwaitingProof, ScramServerError> {
        let message = format!("{header}n=,r=abc");
        let server = ScramServer::new(pencil(), Mode::Genuine, binding);
        let (_, awaiting) = server.client_first_with_nonce(message.as_bytes(), b"def")?;
        Ok(awaiting)
    }

    #[test]
    fn the_first_message_must_fit_the_mechanism() {
        use ServerBinding::{Chosen, Declined, NotOffered};
        let chosen = || Chosen(b"hash".as_slice().into());
        let plus = "p=tls-server-end-point,,";
        for (binding, header, expected) in [
            (chosen(), plus, None),
            (chosen(), "p=tls-unique,,", Some(ScramServerError::BindingType)),
            (chosen(), "n,,", Some(ScramServerError::BindingMissing)),
            (chosen(), "y,,", Some(ScramServerError::BindingMissing)),
            (Declined, plus, Some(ScramServerError::BindingUnasked)),
            (Declined, "n,,", None),
            (Declined, "y,,", Some(ScramServerError::Downgrade)),
            (NotOffered, plus, Some(ScramServerError::BindingUnasked)),
            (NotOffered, "n,,", None),
            (NotOffered, "y,,", None),
        ] {
            let outcome = first_words(binding.clone(), header).err();
            assert_eq!(outcome, expected, "{binding:?} {header}");
        }
    }

    #[test]
    fn the_final_message_is_bound_to_the_certificate() {
        let header = "p=tls-server-end-point,,";
        let answer = |bound: &str| {
            let chosen = ServerBinding::Chosen(b"hash".as_slice().into());
            let binding = BASE64.encode(format!("{header}{bound}"));
            let message = format!("c={binding},r=abcdef,p={}", BASE64.encode([0; 32]));
            let awaiting = first_words(chosen, header).unwrap();
            awaiting.client_final(message.as_bytes()).unwrap_err()
        };
        assert_eq!(
            answer("hash"),
            ScramServerError::WrongProof,
            "only the proof is wrong"
        );
        for other in ["", "has", "hash2", "Hash"] {
            assert_eq!(answer(other), ScramServerError::OtherEndPoint, "{other}");
        }
    }

    #[test]
    fn nonces_are_never_the_same() {
        let begin = || {
            ScramServer::new(pencil(), Mode::Genuine, ServerBinding::NotOffered).client_first(CLIENT_FIRST)
        };
        assert_ne!(begin().unwrap().0, begin().unwrap().0);
    }
}
