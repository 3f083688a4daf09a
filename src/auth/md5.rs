//! PostgreSQL's md5 authentication: the stored hash and the salted response.
//!
//! It knows no message: the caller frames what is computed here.

use std::fmt;

use ::md5::{Digest, Md5};

use super::primitives::constant_time_eq;

const PREFIX: &str = "md5";

/// `md5(password || user)` in hexadecimal, as PostgreSQL and PgBouncer store it behind `md5`.
///
/// Whoever knows it can log in: it is as secret as the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Md5Hash([u8; 32]);

impl Md5Hash {
    /// The hash that PostgreSQL stores for a password.
    pub fn from_password(password: &[u8], user: &str) -> Self {
        Self(hex_md5(&[password, user.as_bytes()]))
    }

    /// Reads `md5` and 32 hexadecimal digits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?;
        let mut hex: [u8; 32] = digits.as_bytes().try_into().ok()?;
        hex.make_ascii_lowercase();
        hex.iter().all(u8::is_ascii_hexdigit).then_some(Self(hex))
    }

    /// A hash that belongs to no known password (see [`super::mock`]).
    pub(super) fn from_bytes(bytes: &[u8; 16]) -> Self {
        Self(hex(bytes))
    }

    /// What a client answers to a server's salt.
    pub fn response(&self, salt: [u8; 4]) -> Vec<u8> {
        let mut response = PREFIX.as_bytes().to_vec();
        response.extend_from_slice(&hex_md5(&[&self.0, &salt]));
        response
    }

    /// Whether `response` is the right answer to `salt`, compared in constant time.
    pub fn verify(&self, salt: [u8; 4], response: &[u8]) -> bool {
        constant_time_eq(response, &self.response(salt))
    }

    /// Whether this is the hash of `password`, compared in constant time.
    pub fn matches(&self, password: &[u8], user: &str) -> bool {
        constant_time_eq(&self.0, &Self::from_password(password, user).0)
    }
}

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Hash(..)")
    }
}

fn hex_md5(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Md5::new();
    for part in parts {
        hasher.update(part);
    }
    hex(&hasher.finalize().into())
}

fn hex(bytes: &[u8; 16]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    // Computed with python's hashlib for password "secret" and user "alice", salt 01 02 03 04.
    const STORED: &str = "md54a0a68b43b6cd5cf266fa02f196e2371";
    const ANSWER: &[u8] = b"md598a0412b9c31436fc53776e863350083";
    const SALT: [u8; 4] = [1, 2, 3, 4];

    #[test]
    fn agrees_with_postgresql() {
        let hash = Md5Hash::from_password(b"secret", "alice");
        assert_eq!(Some(&hash), Md5Hash::parse(STORED).as_ref());
        assert_eq!(hash.response(SALT), ANSWER);
        assert!(hash.verify(SALT, ANSWER));
        assert!(hash.matches(b"secret", "alice"));
    }

    #[test]
    fn refuses_what_is_not_the_answer() {
        let hash = Md5Hash::from_password(b"secret", "alice");
        assert!(!hash.verify([1, 2, 3, 5], ANSWER));
        assert!(!hash.verify(SALT, &ANSWER[..34]));
        assert!(!hash.verify(SALT, b""));
        assert!(!hash.verify(SALT, STORED.as_bytes()));
        assert!(!hash.matches(b"secret", "bob"));
        assert!(!hash.matches(b"secreT", "alice"));
    }

    #[test]
    fn reads_only_md5_and_32_digits() {
        assert_eq!(
            Md5Hash::parse(&STORED.replace("4a0a", "4A0A")),
            Md5Hash::parse(STORED)
        );
        for text in [
            "",
            "md5",
            "md54a",
            "4a0a68b43b6cd5cf266fa02f196e2371",
            "md5zz0a68b43b6cd5cf266fa02f196e2371",
        ] {
            assert_eq!(Md5Hash::parse(text), None, "{text}");
        }
    }
}
