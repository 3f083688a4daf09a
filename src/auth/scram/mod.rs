//! SCRAM-SHA-256 (RFC 5802, RFC 7677) as PostgreSQL speaks it, both sides, with and without channel binding.
//!
//! Messages come and go as the bytes inside the SASL data; it knows nothing of PostgreSQL's messages
//! around them.

pub mod client;
pub mod message;
pub mod server;
pub mod verifier;

#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod saslprep;

pub use client::{ClientBinding, ScramClient, ScramClientError, ScramCredential};
pub use message::MessageError;
pub use server::{Mode, ScramServer, ScramServerError, ServerBinding, Verified};
pub use verifier::{ScramVerifier, VerifierError};

use std::{fmt, num::NonZeroU32};

use super::primitives::{hmac_sha256, sha256};

/// The mechanism's name in SASL messages.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// The same, bound to the TLS connection that it runs over.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// What it is bound to: the server's certificate (RFC 5929), the only type that PostgreSQL knows.
const BINDING_TYPE: &str = "tls-server-end-point";

/// PostgreSQL's default `scram_iterations`.
pub const DEFAULT_ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");

/// What a client proves that it has. Whoever knows it and the verifier can log in to the server: it is as
/// secret as the password.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKey([u8; 32]);

impl ClientKey {
    /// `H(ClientKey)`, what the server stores.
    fn stored_key(&self) -> [u8; 32] {
        sha256(&self.0)
    }

    /// `ClientKey XOR HMAC(StoredKey, AuthMessage)`.
    fn proof(&self, auth_message: &[u8]) -> [u8; 32] {
        xor(self.0, &hmac_sha256(&self.stored_key(), &[auth_message]))
    }

    /// The key that must have made `proof`; the caller compares its stored key.
    fn recover(proof: [u8; 32], stored_key: &[u8; 32], auth_message: &[u8]) -> Self {
        Self(xor(proof, &hmac_sha256(stored_key, &[auth_message])))
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey(..)")
    }
}

/// Both keys that follow from a password, a salt and an iteration count.
struct Keys {
    client: ClientKey,
    server: [u8; 32],
}

impl Keys {
    fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = [0; 32];
        ring::pbkdf2::derive(
            ring::pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            salt,
            &saslprep::prepare(password),
            &mut salted,
        );
        Self {
            client: ClientKey(hmac_sha256(&salted, &[b"Client Key"])),
            server: hmac_sha256(&salted, &[b"Server Key"]),
        }
    }
}

fn xor(mut a: [u8; 32], b: &[u8; 32]) -> [u8; 32] {
    for (x, y) in a.iter_mut().zip(b) {
        *x ^= y;
    }
    a
}
