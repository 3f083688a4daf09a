//! What is known of a user: a password, an md5 hash or a SCRAM verifier.
//!
//! It does not know where it came from (a users file, a query).

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use super::{
    md5::Md5Hash,
    primitives::constant_time_eq,
    scram::{DEFAULT_ITERATIONS, MECHANISM, ScramVerifier, VerifierError},
};

/// A password in clear; any bytes, as clients send them. Clones share it.
#[derive(Clone)]
pub struct Password(Arc<Clear>);

struct Clear {
    bytes: Box<[u8]>,
    /// Made at the first SCRAM login, because it costs 1 to 3 ms.
    verifier: OnceLock<Arc<ScramVerifier>>,
}

/// A secret as PostgreSQL (`pg_authid.rolpassword`) and PgBouncer (`auth_file`) store it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself.
    Plain(Password),
    /// `md5` and 32 hexadecimal digits.
    Md5(Md5Hash),
    /// `SCRAM-SHA-256$...`
    Scram(Arc<ScramVerifier>),
}

impl Password {
    /// A password of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Arc::new(Clear {
            bytes: bytes.into(),
            verifier: OnceLock::new(),
        }))
    }

    /// The password.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// PostgreSQL takes an empty password for none at all.
    pub fn is_empty(&self) -> bool {
        self.0.bytes.is_empty()
    }

    /// A verifier of the password, made once, with the salt of the first call.
    pub fn verifier(&self, salt: &[u8]) -> Arc<ScramVerifier> {
        let derive = || {
            Arc::new(ScramVerifier::from_password(
                &self.0.bytes,
                salt,
                DEFAULT_ITERATIONS,
            ))
        };
        Arc::clone(self.0.verifier.get_or_init(derive))
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        constant_time_eq(self.as_bytes(), other.as_bytes())
    }
}

impl Eq for Password {}

impl Secret {
    /// Reads a stored secret. What looks neither like an md5 hash nor like a SCRAM verifier is a password.
    ///
    /// # Errors
    /// When it begins like a SCRAM verifier and is none: taken for a password it would let in whoever has
    /// read the broken verifier.
    pub fn parse(text: &str) -> Result<Self, VerifierError> {
        if let Some(hash) = Md5Hash::parse(text) {
            return Ok(Self::Md5(hash));
        }
        let is_scram = text
            .strip_prefix(MECHANISM)
            .is_some_and(|rest| rest.starts_with('$'));
        if is_scram {
            return Ok(Self::Scram(Arc::new(text.parse()?)));
        }
        Ok(Self::Plain(Password::new(text.as_bytes())))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain(..)",
            Self::Md5(_) => "Md5(..)",
            Self::Scram(_) => "Scram(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAM: &str = "SCRAM-SHA-256$4096:AAECAwQFBgcICQoLDA0ODw==$THoPhoTAuqyoQsK4dUHncUzgfD8fdmhsgKZhWVqNP5U=:7YiHMMi2OcXGRogub03Ek06JRZ9bkhTOdCzHa5iPLiQ=";
    const MD5: &str = "md54a0a68b43b6cd5cf266fa02f196e2371";

    #[test]
    fn kind_follows_from_the_text_and_debug_shows_no_more() {
        for (text, kind) in [
            (SCRAM, "Scram(..)"),
            (MD5, "Md5(..)"),
            ("secret", "Plain(..)"),
            ("", "Plain(..)"),
            ("md5sum", "Plain(..)"),
            ("SCRAM-SHA-256", "Plain(..)"),
        ] {
            assert_eq!(format!("{:?}", Secret::parse(text).unwrap()), kind, "{text}");
        }
        assert_eq!(format!("{:?}", Password::new(b"secret")), "Password(..)");
    }

    #[test]
    fn broken_verifier_is_no_password() {
        assert_eq!(Secret::parse(&SCRAM[..60]), Err(VerifierError::Shape));
    }

    #[test]
    fn verifier_is_made_once_and_shared_by_clones() {
        let password = Password::new(b"secret");
        let first = password.clone().verifier(b"salt");
        assert!(first.matches(b"secret"));
        assert!(Arc::ptr_eq(&first, &password.verifier(b"other salt")));
    }
}
