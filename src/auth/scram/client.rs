//! The client's side of SCRAM, for our logins to a server, which may be hostile.

use std::{num::NonZeroU32, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use thiserror::Error;

use super::{
    BINDING_TYPE, ClientKey, Keys, MessageError, ScramVerifier,
    message::{ServerFinal, ServerFirst},
};
use crate::{
    auth::{
        primitives::{RandomUnavailable, constant_time_eq, hmac_sha256, random},
        secret::Password,
    },
    types::EndPointHash,
};

/// More than this is not computed for a server: it would cost seconds of CPU per login.
pub const MAX_SERVER_ITERATIONS: u32 = 1_000_000;

/// What we prove to the server.
#[derive(Debug, Clone)]
pub enum ScramCredential {
    /// The password.
    Password(Password),
    /// What a client of the same user proved to us, for a server with the same verifier.
    PassThrough {
        /// Learned from the client's proof.
        client_key: ClientKey,
        /// The verifier that the proof was checked with.
        verifier: Arc<ScramVerifier>,
    },
}

/// How the exchange is tied to the connection that it runs over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientBinding {
    /// To the certificate that we have seen; a server with another one refuses.
    Bound(EndPointHash),
    /// We could, and the server does not offer it. One that has offered it refuses, as somebody has removed it.
    NotOffered,
    /// There is nothing to bind it to.
    Impossible,
}

impl ClientBinding {
    /// We act for nobody else: the second part is empty.
    fn gs2_header(&self) -> String {
        match self {
            Self::Bound(_) => format!("p={BINDING_TYPE},,"),
            Self::NotOffered => "y,,".to_owned(),
            Self::Impossible => "n,,".to_owned(),
        }
    }

    /// The attribute `c`.
    fn attribute(&self) -> String {
        let header = self.gs2_header();
        let data = match self {
            Self::Bound(hash) => hash.as_bytes(),
            Self::NotOffered | Self::Impossible => &[],
        };
        BASE64.encode([header.as_bytes(), data].concat())
    }
}

/// Why a SCRAM login to a server failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScramClientError {
    /// A message that is none.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The server's nonce does not begin with ours, or adds nothing to it.
    #[error("the server's nonce does not extend ours")]
    Nonce,
    /// The server asks for more work than a login is worth.
    #[error("the server asks for more than {MAX_SERVER_ITERATIONS} iterations")]
    Iterations,
    /// Salt or iteration count differ from those of the verifier that we have.
    #[error("the server has a different secret for this user than the one known here")]
    SecretDiffers,
    /// The server does not know the password either.
    #[error("the server's signature is wrong: it does not have this user's secret")]
    ServerSignature,
    /// `e=...` instead of a signature.
    #[error("the server refused the proof")]
    Refused,
    /// No nonce could be made.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
}

/// Begins an exchange.
#[derive(Debug)]
pub struct ScramClient {
    credential: ScramCredential,
    binding: ClientBinding,
}

/// Waits for the server-first message.
#[derive(Debug)]
pub struct AwaitingServerFirst {
    credential: ScramCredential,
    binding: ClientBinding,
    nonce: Vec<u8>,
}

/// Waits for the server-final message.
pub struct AwaitingServerFinal {
    signature: [u8; 32],
}

impl std::fmt::Debug for AwaitingServerFinal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AwaitingServerFinal(..)")
    }
}

impl ScramClient {
    /// An exchange that proves `credential`.
    pub fn new(credential: ScramCredential, binding: ClientBinding) -> Self {
        Self { credential, binding }
    }

    /// The client-first message.
    ///
    /// # Errors
    /// When random numbers cannot be had.
    pub fn client_first(self) -> Result<(Vec<u8>, AwaitingServerFirst), ScramClientError> {
        let nonce = BASE64.encode(random::<18>()?);
        Ok(self.client_first_with_nonce(nonce.as_bytes()))
    }

    pub(super) fn client_first_with_nonce(self, nonce: &[u8]) -> (Vec<u8>, AwaitingServerFirst) {
        let header = self.binding.gs2_header();
        let message = [header.as_bytes(), &bare_first_message(nonce)].concat();
        let next = AwaitingServerFirst {
            credential: self.credential,
            binding: self.binding,
            nonce: nonce.to_vec(),
        };
        (message, next)
    }
}

impl AwaitingServerFirst {
    /// Answers the server-first message with the client-final message.
    ///
    /// It costs the server's number of PBKDF2 rounds (1 to 3 ms for 4096), except in pass-through.
    ///
    /// # Errors
    /// When the message is malformed, asks for too much, or is about another secret than ours.
    pub fn server_first(self, message: &[u8]) -> Result<(Vec<u8>, AwaitingServerFinal), ScramClientError> {
        let first = ServerFirst::decode(message)?;
        let extends = first.nonce.starts_with(&self.nonce) && first.nonce.len() > self.nonce.len();
        if !extends {
            return Err(ScramClientError::Nonce);
        }
        let keys = keys_for(self.credential, &first.salt, first.iterations)?;
        let binding = self.binding.attribute();
        let without_proof = [b"c=", binding.as_bytes(), b",r=", first.nonce].concat();
        let bare_first = bare_first_message(&self.nonce);
        let auth_message = [bare_first.as_slice(), message, &without_proof].join(&b',');
        let proof = BASE64.encode(keys.client.proof(&auth_message));
        let next = AwaitingServerFinal {
            signature: hmac_sha256(&keys.server, &[&auth_message]),
        };
        Ok((
            [&without_proof, b",p=".as_slice(), proof.as_bytes()].concat(),
            next,
        ))
    }
}

impl AwaitingServerFinal {
    /// Checks that the server has the user's secret too.
    ///
    /// # Errors
    /// When it has not, or does not say.
    pub fn server_final(self, message: &[u8]) -> Result<(), ScramClientError> {
        match ServerFinal::decode(message)? {
            ServerFinal::Signature(signature) if constant_time_eq(&signature, &self.signature) => Ok(()),
            ServerFinal::Signature(_) => Err(ScramClientError::ServerSignature),
            ServerFinal::Refused => Err(ScramClientError::Refused),
        }
    }
}

/// We name no user: PostgreSQL takes the one of the startup packet.
fn bare_first_message(nonce: &[u8]) -> Vec<u8> {
    [b"n=,r=", nonce].concat()
}

fn keys_for(
    credential: ScramCredential,
    salt: &[u8],
    iterations: NonZeroU32,
) -> Result<Keys, ScramClientError> {
    match credential {
        ScramCredential::Password(_) if iterations.get() > MAX_SERVER_ITERATIONS => {
            Err(ScramClientError::Iterations)
        }
        ScramCredential::Password(password) => Ok(Keys::derive(password.as_bytes(), salt, iterations)),
        ScramCredential::PassThrough { client_key, verifier } => {
            if *verifier.salt != *salt || verifier.iterations != iterations {
                return Err(ScramClientError::SecretDiffers);
            }
            Ok(Keys {
                client: client_key,
                server: verifier.server_key,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &[u8] = b"rOprNGfwEbeRWgbNEkqO";

    fn password(text: &str) -> ScramCredential {
        ScramCredential::Password(Password::new(text.as_bytes()))
    }

    fn begin(credential: ScramCredential) -> AwaitingServerFirst {
        let client = ScramClient::new(credential, ClientBinding::Impossible);
        let (message, awaiting) = client.client_first_with_nonce(NONCE);
        assert_eq!(message, b"n,,n=,r=rOprNGfwEbeRWgbNEkqO");
        awaiting
    }

    #[test]
    fn the_binding_is_said_first_and_repeated_last() {
        let hash = ClientBinding::Bound([1; 32].as_slice().into());
        let bound = [b"p=tls-server-end-point,,".as_slice(), &[1; 32]].concat();
        for (binding, header, repeated) in [
            (hash, "p=tls-server-end-point,,", bound),
            (ClientBinding::NotOffered, "y,,", b"y,,".to_vec()),
            (ClientBinding::Impossible, "n,,", b"n,,".to_vec()),
        ] {
            let client = ScramClient::new(password("pencil"), binding);
            let (first, awaiting) = client.client_first_with_nonce(NONCE);
            assert!(first.starts_with(format!("{header}n=,").as_bytes()));
            let (last, _) = awaiting
                .server_first(b"r=rOprNGfwEbeRWgbNEkqOx,s=c2FsdA==,i=1")
                .unwrap();
            let attribute = format!("c={},r=", BASE64.encode(repeated));
            assert!(last.starts_with(attribute.as_bytes()), "{header}");
        }
    }

    #[test]
    fn hostile_server_first_is_refused() {
        let salt = "W22ZaJ0SNY7soEsUEjb6gQ==";
        let cases = [
            (format!("r=other,s={salt},i=1"), ScramClientError::Nonce),
            (
                format!("r=rOprNGfwEbeRWgbNEkqO,s={salt},i=1"),
                ScramClientError::Nonce,
            ),
            (
                format!("r=rOprNGfwEbeRWgbNEkqOx,s={salt},i=1000001"),
                ScramClientError::Iterations,
            ),
            (
                format!("r=rOprNGfwEbeRWgbNEkqOx,s={salt}"),
                ScramClientError::Message(MessageError::Attribute(b'i')),
            ),
        ];
        for (message, error) in cases {
            let answer = begin(password("pencil")).server_first(message.as_bytes());
            assert_eq!(answer.unwrap_err(), error, "{message}");
        }
    }

    #[test]
    fn pass_through_needs_the_same_salt_and_iterations() {
        let verifier = Arc::new(ScramVerifier::from_password(b"pencil", b"salt", NonZeroU32::MIN));
        let credential = || ScramCredential::PassThrough {
            client_key: Keys::derive(b"pencil", b"salt", NonZeroU32::MIN).client,
            verifier: Arc::clone(&verifier),
        };
        let other_salt = begin(credential()).server_first(b"r=rOprNGfwEbeRWgbNEkqOx,s=AAEC,i=1");
        assert_eq!(other_salt.unwrap_err(), ScramClientError::SecretDiffers);
        let other_cost = begin(credential()).server_first(b"r=rOprNGfwEbeRWgbNEkqOx,s=c2FsdA==,i=2");
        assert_eq!(other_cost.unwrap_err(), ScramClientError::SecretDiffers);
        assert!(
            begin(credential())
                .server_first(b"r=rOprNGfwEbeRWgbNEkqOx,s=c2FsdA==,i=1")
                .is_ok()
        );
    }

    #[test]
    fn server_must_prove_itself() {
        let begin = || {
            let (_, last) = begin(password("pencil"))
                .server_first(b"r=rOprNGfwEbeRWgbNEkqOx,s=c2FsdA==,i=1")
                .unwrap();
            last
        };
        let wrong = format!("v={}", BASE64.encode([0; 32]));
        let error = begin().server_final(wrong.as_bytes()).unwrap_err();
        assert_eq!(error, ScramClientError::ServerSignature);
        let error = begin().server_final(b"e=invalid-proof").unwrap_err();
        assert_eq!(error, ScramClientError::Refused);
        assert!(begin().server_final(b"").is_err());
    }
}
