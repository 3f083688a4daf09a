//! What clients' log-ins have taught about a role's secret. Pure: the time is passed in.

use std::time::Instant;

use crate::auth::{flow::Learned, server_login::ServerCredential};

/// The newest of it.
#[derive(Debug, Default)]
pub(super) struct Taught {
    credential: ServerCredential,
    since: Option<Instant>,
}

impl Taught {
    /// Takes what a log-in has taught, by a secret that was found out at `since`. One that took longer than another may
    /// have been judged by a secret that has been changed meanwhile.
    pub(super) fn note(&mut self, news: ServerCredential, since: Instant) {
        let is_nothing = news == ServerCredential::default();
        if is_nothing || self.since.is_some_and(|newest| since < newest) {
            return;
        }
        self.since = Some(since);
        if news.secret.is_some() {
            self.credential.secret = news.secret;
        }
        if news.learned != Learned::Nothing {
            self.credential.learned = news.learned;
        }
    }

    pub(super) fn credential(&self) -> &ServerCredential {
        &self.credential
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::secret::{Password, Secret};

    fn credential(password: &str) -> ServerCredential {
        let password = Password::new(password.as_bytes());
        ServerCredential {
            secret: Some(Secret::Plain(password.clone())),
            learned: Learned::Password(password),
        }
    }

    #[test]
    fn a_log_in_that_began_with_the_old_secret_does_not_bring_it_back() {
        // Begun before the password was changed and ended after somebody had come in by the new one, it left the pool with
        // a password that the server refuses, until the next log-in.
        let (mut taught, start) = (Taught::default(), Instant::now());
        let second = Duration::from_secs(1);
        taught.note(credential("old"), start);
        taught.note(credential("new"), start + 2 * second);
        taught.note(credential("old"), start + second);
        assert_eq!(*taught.credential(), credential("new"));
        taught.note(credential("newer"), start + 2 * second);
        assert_eq!(*taught.credential(), credential("newer"));
        taught.note(ServerCredential::default(), start + 3 * second);
        assert_eq!(*taught.credential(), credential("newer"), "it has taught nothing");
    }
}
