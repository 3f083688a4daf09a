//! What secrets are usually like in this installation, so that what is pretended of a user who does not exist looks like
//! what the others have: the kind of challenge under `md5`, and the iteration count of SCRAM.
//!
//! It never sees whose secret it is. Where users have secrets of several kinds nothing can look like all of them.

use std::{collections::HashMap, num::NonZeroU32};

use super::{scram::DEFAULT_ITERATIONS, secret::Secret};

/// Votes that count at most: after so many look-ups that say otherwise, the installation has changed.
const MOST_VOTES: u32 = 100;

/// What a secret is like, as far as a challenge shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usual {
    /// A SCRAM verifier with so many iterations.
    Scram(NonZeroU32),
    /// An md5 hash or a password, for which `md5` sends a salt of its own.
    Md5,
}

/// As PostgreSQL makes them where nobody has said otherwise.
impl Default for Usual {
    fn default() -> Self {
        Self::Scram(DEFAULT_ITERATIONS)
    }
}

impl Usual {
    /// What one secret is like.
    pub fn of(secret: &Secret) -> Self {
        match secret {
            Secret::Scram(verifier) => Self::Scram(verifier.iterations()),
            Secret::Md5(_) | Secret::Plain(_) => Self::Md5,
        }
    }

    /// What some secrets are like: as most of the SCRAM verifiers among them, if there are any. `None` if there are no
    /// secrets.
    pub fn of_all<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Option<Self> {
        let (mut counts, mut any) = (HashMap::<_, usize>::new(), false);
        for secret in secrets {
            any = true;
            if let Self::Scram(iterations) = Self::of(secret) {
                *counts.entry(iterations).or_default() += 1;
            }
        }
        let most = counts
            .into_iter()
            .max_by_key(|&(iterations, count)| (count, iterations));
        match most {
            Some((iterations, _)) => Some(Self::Scram(iterations)),
            None => any.then_some(Self::Md5),
        }
    }

    /// What is pretended where some users are `listed` and, if `looks_up`, others are looked up, of whom this is known
    /// `lately`. SCRAM unless nobody has it.
    pub fn here(listed: Option<Self>, looks_up: bool, lately: Option<Self>) -> Self {
        let scram = [lately, listed]
            .into_iter()
            .flatten()
            .find(|usual| *usual != Self::Md5);
        let otherwise = if looks_up { lately } else { listed };
        scram.or(otherwise).unwrap_or_default()
    }

    /// The iteration count.
    pub fn iterations(self) -> NonZeroU32 {
        match self {
            Self::Scram(iterations) => iterations,
            Self::Md5 => DEFAULT_ITERATIONS,
        }
    }
}

/// What most of the secrets seen lately are like, in constant space: each votes for its own kind or against another.
#[derive(Debug, Default)]
pub(super) struct Lately {
    most: Option<Usual>,
    votes: u32,
}

impl Lately {
    pub(super) fn note(&mut self, usual: Usual) {
        if self.most == Some(usual) {
            self.votes = (self.votes + 1).min(MOST_VOTES);
        } else if self.votes > 0 {
            self.votes -= 1;
        } else {
            *self = Self {
                most: Some(usual),
                votes: 1,
            };
        }
    }

    pub(super) fn most(&self) -> Option<Usual> {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::{scram::ScramVerifier, secret::Password};

    fn usual(iterations: u32) -> Usual {
        Usual::Scram(NonZeroU32::new(iterations).unwrap())
    }

    fn scram(iterations: u32) -> Secret {
        let iterations = NonZeroU32::new(iterations).unwrap();
        let verifier = ScramVerifier::from_password(b"secret", b"salt", iterations);
        Secret::Scram(Arc::new(verifier))
    }

    #[test]
    fn a_list_is_like_most_of_its_verifiers() {
        let plain = || Secret::Plain(Password::new(b"secret"));
        let of = |secrets: &[Secret]| Usual::of_all(secrets.iter());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[plain(), plain()]), Some(Usual::Md5));
        assert_eq!(of(&[plain(), plain(), scram(7)]), Some(usual(7)));
        assert_eq!(of(&[scram(9), scram(7), scram(7)]), Some(usual(7)));
    }

    #[test]
    fn scram_is_pretended_unless_nobody_has_it() {
        let (md5, scram) = (Some(Usual::Md5), Some(usual(7)));
        for (listed, looks_up, lately, expected) in [
            (None, false, None, Usual::default()),
            (md5, false, None, Usual::Md5),
            (scram, false, None, usual(7)),
            (md5, true, None, Usual::default()),
            (scram, true, None, usual(7)),
            (md5, true, md5, Usual::Md5),
            (None, true, md5, Usual::Md5),
            (scram, true, md5, usual(7)),
            (Some(usual(9)), true, scram, usual(7)),
        ] {
            let here = Usual::here(listed, looks_up, lately);
            assert_eq!(here, expected, "{listed:?} {looks_up} {lately:?}");
        }
    }

    #[test]
    fn a_few_others_change_nothing_and_many_do() {
        let mut lately = Lately::default();
        assert_eq!(lately.most(), None);
        for round in 0..1000 {
            lately.note(if round % 3 == 1 { Usual::Md5 } else { usual(7) });
            assert_eq!(lately.most(), Some(usual(7)), "{round}");
        }
        for _ in 0..=MOST_VOTES {
            lately.note(usual(9));
        }
        assert_eq!(
            lately.most(),
            Some(usual(9)),
            "the server has another setting now"
        );
    }
}
