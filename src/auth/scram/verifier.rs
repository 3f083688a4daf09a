//! What a server stores of a SCRAM password, and PostgreSQL's text form of it.

use std::{fmt, num::NonZeroU32, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use thiserror::Error;

use super::{ClientKey, Keys, MECHANISM};
use crate::auth::primitives::{constant_time_eq, hmac_sha256};

/// More than this in a stored secret is a mistake: one login would take many seconds.
pub const MAX_STORED_ITERATIONS: u32 = 10_000_000;
/// PostgreSQL's salts have 16 bytes.
const MAX_SALT: usize = 256;

/// A SCRAM-SHA-256 verifier: enough to check a proof, not enough to make one.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    pub(super) iterations: NonZeroU32,
    pub(super) salt: Box<[u8]>,
    pub(super) stored_key: [u8; 32],
    pub(super) server_key: [u8; 32],
}

/// Why a text is not a SCRAM-SHA-256 verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum VerifierError {
    /// The parts do not stand where they should.
    #[error("a SCRAM verifier is SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey")]
    Shape,
    /// The iteration count is no number or out of bounds.
    #[error("the iteration count of a SCRAM verifier is a number from 1 to {MAX_STORED_ITERATIONS}")]
    Iterations,
    /// The salt is not base64, empty or too long.
    #[error("the salt of a SCRAM verifier is base64 of 1 to {MAX_SALT} bytes")]
    Salt,
    /// A key is not base64 of 32 bytes.
    #[error("the keys of a SCRAM verifier are base64 of 32 bytes each")]
    Key,
}

impl ScramVerifier {
    /// The verifier of a password. It costs `iterations` rounds of PBKDF2 (1 to 3 ms for 4096).
    pub fn from_password(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let keys = Keys::derive(password, salt, iterations);
        Self {
            iterations,
            salt: salt.into(),
            stored_key: keys.client.stored_key(),
            server_key: keys.server,
        }
    }

    /// A verifier that no password is known for (see [`crate::auth::mock`]).
    pub(in crate::auth) fn from_keys(
        salt: &[u8],
        iterations: NonZeroU32,
        stored_key: [u8; 32],
        server_key: [u8; 32],
    ) -> Self {
        Self {
            iterations,
            salt: salt.into(),
            stored_key,
            server_key,
        }
    }

    /// The iteration count.
    pub fn iterations(&self) -> NonZeroU32 {
        self.iterations
    }

    /// Whether this is the verifier of `password`. As costly as [`Self::from_password`].
    pub fn matches(&self, password: &[u8]) -> bool {
        let other = Self::from_password(password, &self.salt, self.iterations);
        constant_time_eq(&self.stored_key, &other.stored_key)
    }

    /// Whether `key` is the client key that this verifier was made from.
    pub(in crate::auth) fn accepts(&self, key: &ClientKey) -> bool {
        constant_time_eq(&self.stored_key, &key.stored_key())
    }

    /// `HMAC(ServerKey, AuthMessage)`.
    pub(super) fn server_signature(&self, auth_message: &[u8]) -> [u8; 32] {
        hmac_sha256(&self.server_key, &[auth_message])
    }
}

impl FromStr for ScramVerifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        let mut parts = text.split('$');
        let (Some(MECHANISM), Some(cost), Some(keys), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(VerifierError::Shape);
        };
        let (iterations, salt) = cost.split_once(':').ok_or(VerifierError::Shape)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or(VerifierError::Shape)?;
        Ok(Self {
            iterations: parse_iterations(iterations)?,
            salt: parse_salt(salt)?,
            stored_key: parse_key(stored_key)?,
            server_key: parse_key(server_key)?,
        })
    }
}

fn parse_iterations(text: &str) -> Result<NonZeroU32, VerifierError> {
    let iterations: NonZeroU32 = text.parse().map_err(|_| VerifierError::Iterations)?;
    if iterations.get() > MAX_STORED_ITERATIONS {
        return Err(VerifierError::Iterations);
    }
    Ok(iterations)
}

fn parse_salt(text: &str) -> Result<Box<[u8]>, VerifierError> {
    let salt = BASE64.decode(text).map_err(|_| VerifierError::Salt)?;
    if salt.is_empty() || salt.len() > MAX_SALT {
        return Err(VerifierError::Salt);
    }
    Ok(salt.into())
}

fn parse_key(text: &str) -> Result<[u8; 32], VerifierError> {
    let key = BASE64.decode(text).map_err(|_| VerifierError::Key)?;
    key.try_into().map_err(|_| VerifierError::Key)
}

/// PostgreSQL's text form (`pg_authid.rolpassword`). It is a secret: not for logs.
impl fmt::Display for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{MECHANISM}${}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(self.stored_key),
            BASE64.encode(self.server_key)
        )
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramVerifier(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::scram::DEFAULT_ITERATIONS;

    // Computed with python's hashlib: salt 00..0f, 4096 iterations, passwords "secret" and "pässwörd".
    const SECRET: &str = "SCRAM-SHA-256$4096:AAECAwQFBgcICQoLDA0ODw==$THoPhoTAuqyoQsK4dUHncUzgfD8fdmhsgKZhWVqNP5U=:7YiHMMi2OcXGRogub03Ek06JRZ9bkhTOdCzHa5iPLiQ=";
    const NON_ASCII: &str = "SCRAM-SHA-256$4096:AAECAwQFBgcICQoLDA0ODw==$HV4TtNKIt8oOQWZCIedFYDVMOGn3/uurWVfN15VjjP4=:bGoGbn5l5XEF6vc5q836UvsaNZ/n1s4zNZ+A5nNQQv8=";

    #[test]
    fn agrees_with_postgresql() {
        let salt: Vec<u8> = (0..16).collect();
        for (password, stored) in [("secret", SECRET), ("pässwörd", NON_ASCII)] {
            let verifier = ScramVerifier::from_password(password.as_bytes(), &salt, DEFAULT_ITERATIONS);
            assert_eq!(verifier.to_string(), stored);
            assert_eq!(stored.parse(), Ok(verifier.clone()));
            assert!(verifier.matches(password.as_bytes()));
            assert!(!verifier.matches(b"Secret"));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let cases = [
            ("", VerifierError::Shape),
            ("SCRAM-SHA-256$4096:AAEC", VerifierError::Shape),
            ("SCRAM-SHA-1$4096:AAEC$AA:AA", VerifierError::Shape),
            ("SCRAM-SHA-256$4096$AA:AA", VerifierError::Shape),
            ("SCRAM-SHA-256$4096:AAEC$AA:AA$", VerifierError::Shape),
            ("SCRAM-SHA-256$0:AAEC$AA:AA", VerifierError::Iterations),
            ("SCRAM-SHA-256$-1:AAEC$AA:AA", VerifierError::Iterations),
            ("SCRAM-SHA-256$10000001:AAEC$AA:AA", VerifierError::Iterations),
            ("SCRAM-SHA-256$99999999999:AAEC$AA:AA", VerifierError::Iterations),
            ("SCRAM-SHA-256$1:$AA:AA", VerifierError::Salt),
            ("SCRAM-SHA-256$1:!$AA:AA", VerifierError::Salt),
            ("SCRAM-SHA-256$1:AAEC$AAEC:AAEC", VerifierError::Key),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<ScramVerifier>(), Err(error), "{text}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let verifier: ScramVerifier = SECRET.parse().unwrap();
        assert_eq!(format!("{verifier:?}"), "ScramVerifier(..)");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(tail in ".*", cut in 0..SECRET.len()) {
            let _ = tail.parse::<ScramVerifier>();
            let _ = format!("{}{tail}", &SECRET[..cut]).parse::<ScramVerifier>();
        }
    }
}
