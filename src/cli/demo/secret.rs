//! Random passwords that need no quoting anywhere: not in SQL, a URL, a shell or TOML.

use std::io;

use ring::rand::{SecureRandom, SystemRandom};

const LENGTH: usize = 24;
/// 32 letters, so that a byte's low five bits choose one without bias.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A password of 120 random bits.
///
/// # Errors
/// The system's random numbers cannot be read.
pub(super) fn password() -> io::Result<String> {
    let mut bytes = [0_u8; LENGTH];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("no random numbers from the system"))?;
    Ok(bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_differ_and_need_no_quoting() {
        let (one, two) = (password().unwrap(), password().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), LENGTH);
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
