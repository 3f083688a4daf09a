//! What is known of a user who logs in: from the users file, and of those who are not in it from a look-up.

use std::time::{Duration, Instant};

use super::{door::Attempt, error::StartupError, login::Policy};
use crate::{
    auth::{
        AuthError,
        access::Method,
        flow::{Account, Awaiting, Flow},
        secret::Secret,
        source::{Found, Freshness, SecretSource},
    },
    config::RESERVED_NAMES,
    fault::chain,
};

/// How long a client whose answer was wrong waits for another secret.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of a user.
pub(super) struct Known<'a> {
    user: &'a str,
    database: &'a str,
    from: From<'a>,
    since: Instant,
}

enum From<'a> {
    File(&'a Secret),
    LookUp(&'a dyn SecretSource, Found),
    /// Nobody knows the user.
    Nowhere,
    /// Nobody keeps a list, or none is needed.
    NoList,
    /// A directory knows, and says no more than whether an answer is right.
    Directory,
}

impl<'a> Known<'a> {
    /// Finds out. Whoever has been identified by the connection needs nobody who knows a secret: one only serves the
    /// server connection, and the console has none.
    pub(super) async fn find(
        policy: &'a Policy,
        method: Method,
        database: &'a str,
        user: &'a str,
    ) -> Result<Self, StartupError> {
        if method == Method::Ldap {
            return Ok(Self {
                user,
                database,
                from: From::Directory,
                since: Instant::now(),
            });
        }
        let in_file = policy.users.as_ref().and_then(|users| users.get(user));
        let identified = method.proves_identity();
        let from = match (in_file, &policy.source) {
            (Some(secret), _) => From::File(secret),
            (None, Some(_)) if identified && RESERVED_NAMES.contains(&database) => From::NoList,
            (None, Some(source)) => match source.look_up(database, user, Freshness::Remembered).await {
                Ok(Found::NotAsked) if identified && policy.users.is_none() => From::NoList,
                Ok(Found::NotAsked) => From::Nowhere,
                Ok(found) => {
                    if let Found::Secret(secret) = &found {
                        policy.mocks.note_looked_up(secret);
                    }
                    From::LookUp(&**source, found)
                }
                Err(error) if identified => {
                    tracing::debug!(
                        user,
                        error = chain(&error),
                        "logging in without the user's secret"
                    );
                    From::NoList
                }
                Err(error) => return Err(error.into()),
            },
            (None, None) if policy.users.is_some() => From::Nowhere,
            (None, None) => From::NoList,
        };
        let since = Instant::now();
        Ok(Self {
            user,
            database,
            from,
            since,
        })
    }

    /// As a log-in sees it.
    pub(super) fn account(&self) -> Account<'_> {
        match &self.from {
            From::File(secret) => Account::Known(secret),
            From::LookUp(_, found) => account(found),
            From::Nowhere => Account::Unknown,
            From::NoList | From::Directory => Account::WithoutSecret,
        }
    }

    /// Takes the client's answer. If it is wrong and the secret was looked up, the secret may have changed since: it is
    /// looked up again, and the answer compared with it where that is possible. Where it is not, the next log-in goes
    /// by the new one, and this one is not held against anybody: it was about a secret that is none any more.
    pub(super) async fn judge(
        &mut self,
        awaiting: Awaiting,
        answer: &[u8],
        attempt: &mut Attempt<'_>,
    ) -> Result<Flow, AuthError> {
        let again = awaiting.again();
        let refused = match awaiting.answer(answer) {
            Err(refused @ AuthError::Refused { .. }) => refused,
            judged => return judged,
        };
        let From::LookUp(source, before) = &mut self.from else {
            return Err(refused);
        };
        attempt.suspect(&refused);
        let asking = source.look_up(self.database, self.user, Freshness::Anew);
        // A server that fails or hesitates now does not make a wrong password something else.
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Ok(now)) if now != *before => {
                *before = now;
                self.since = Instant::now();
            }
            _ => return Err(refused),
        }
        match again {
            Some(again) => again.answer(account(before), answer),
            None => {
                attempt.pardon();
                Err(refused)
            }
        }
    }

    /// The secret that was looked up, if one was, and when all this was known.
    pub(super) fn looked_up(self) -> (Option<Secret>, Instant) {
        let secret = match self.from {
            From::LookUp(_, Found::Secret(secret)) => Some(secret),
            _ => None,
        };
        (secret, self.since)
    }
}

fn account(found: &Found) -> Account<'_> {
    match found {
        Found::Secret(secret) => Account::Known(secret),
        Found::WithoutSecret => Account::WithoutSecret,
        Found::Unknown | Found::NotAsked => Account::Unknown,
    }
}
