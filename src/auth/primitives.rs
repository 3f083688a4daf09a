//! The few cryptographic helpers that every method needs. It knows no protocol.

use ring::{
    digest, hmac,
    rand::{SecureRandom, SystemRandom},
};
use thiserror::Error;

/// The operating system gave no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the operating system's random number generator failed")]
pub struct RandomUnavailable;

/// `N` random bytes from the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], RandomUnavailable> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| RandomUnavailable)?;
    Ok(bytes)
}

/// Whether two byte strings are equal, in a time that does not depend on where they differ.
///
/// ring's own comparison is deprecated; verifying a MAC is its one comparison with a promise.
pub(super) fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"compare");
    hmac::verify(&key, a, hmac::sign(&key, b).as_ref()).is_ok()
}

/// HMAC-SHA-256 of the concatenation of `parts`.
pub(super) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    array_of_32(context.sign().as_ref())
}

/// SHA-256.
pub(super) fn sha256(data: &[u8]) -> [u8; 32] {
    array_of_32(digest::digest(&digest::SHA256, data).as_ref())
}

fn array_of_32(digest: &[u8]) -> [u8; 32] {
    digest.try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_sees_value_and_length() {
        assert!(constant_time_eq(b"", b""));
        assert!(constant_time_eq(b"abc", b"abc"));
        assert!(!constant_time_eq(b"abc", b"abd"));
        assert!(!constant_time_eq(b"abc", b"ab"));
    }

    #[test]
    fn random_numbers_differ() {
        assert_ne!(random::<16>(), random::<16>());
    }
}
