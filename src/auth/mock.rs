//! What is pretended of users who do not exist, so that a login tells nobody who does.
//!
//! Everything follows from one key and the user's name: the same unknown user always sees the same salt. What is not the
//! user's own is as it usually is here.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ring::hmac;

use super::{
    md5::Md5Hash,
    primitives::{RandomUnavailable, random},
    scram::ScramVerifier,
    secret::Secret,
    usual::{Lately, Usual},
};

/// The key that all pretended secrets are derived from. One per process; replicas that share it also agree
/// about the salts they show.
pub struct MockSecrets {
    key: hmac::Key,
    looked_up: Mutex<Lately>,
}

impl MockSecrets {
    /// A new random key.
    ///
    /// # Errors
    /// When random numbers cannot be had.
    pub fn random() -> Result<Self, RandomUnavailable> {
        Ok(Self::from_key(&random::<32>()?))
    }

    /// A key that others have too. It must be secret: with it one can tell pretended users from real ones.
    pub fn from_key(key: &[u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            looked_up: Mutex::default(),
        }
    }

    /// Remembers what a secret was like that a user has who is in no file.
    pub fn note_looked_up(&self, secret: &Secret) {
        self.looked_up().note(Usual::of(secret));
    }

    /// What such secrets have been like lately.
    pub fn lately(&self) -> Option<Usual> {
        self.looked_up().most()
    }

    fn looked_up(&self) -> MutexGuard<'_, Lately> {
        self.looked_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The salt of a user of whom no verifier is stored. Users with a plain password get theirs from here
    /// too, so that neither a reload nor adding the user changes what an onlooker sees.
    pub fn salt(&self, user: &str) -> [u8; 16] {
        first_16(self.derive(b"salt", user))
    }

    /// A verifier that no password fits.
    pub fn verifier(&self, user: &str, iterations: NonZeroU32) -> Arc<ScramVerifier> {
        Arc::new(ScramVerifier::from_keys(
            &self.salt(user),
            iterations,
            self.derive(b"stored key", user),
            self.derive(b"server key", user),
        ))
    }

    /// An md5 hash that no password fits.
    pub fn md5(&self, user: &str) -> Md5Hash {
        Md5Hash::from_bytes(&first_16(self.derive(b"md5", user)))
    }

    fn derive(&self, purpose: &[u8], user: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [purpose, b"\0", user.as_bytes()] {
            context.update(part);
        }
        let mut derived = [0; 32];
        derived.copy_from_slice(context.sign().as_ref());
        derived
    }
}

impl fmt::Debug for MockSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MockSecrets(..)")
    }
}

fn first_16(bytes: [u8; 32]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(bytes.split_at(16).0);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salt_depends_on_key_and_user_alone() {
        let one = MockSecrets::from_key(&[1; 32]);
        let other = MockSecrets::from_key(&[2; 32]);
        assert_eq!(one.salt("alice"), MockSecrets::from_key(&[1; 32]).salt("alice"));
        let seven = NonZeroU32::new(7).unwrap();
        assert_eq!(one.verifier("alice", seven), one.verifier("alice", seven));
        assert_eq!(one.verifier("alice", seven).iterations(), seven);
        assert_ne!(one.salt("alice"), one.salt("bob"));
        assert_ne!(one.salt("alice"), other.salt("alice"));
        assert_ne!(one.md5("alice"), one.md5("bob"));
    }
}
