//! What is known of a user who logs in: from the users file, and of those who are not in it from a look-up.

use std::time::Duration;

use super::{door::Attempt, error::StartupError, login::Policy};
use crate::auth::{
    AuthError,
    access::Method,
    flow::{Account, Awaiting, Flow},
    secret::Secret,
    source::{Found, Freshness, SecretSource},
};

/// How long a client whose answer was wrong waits for another secret.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of a user.
pub(super) struct Known<'a> {
    user: &'a str,
    database: &'a str,
    from: From<'a>,
}

enum From<'a> {
    File(&'a Secret),
    LookUp(&'a dyn SecretSource, Found),
    /// Nobody knows the user.
    Nowhere,
    /// Nobody keeps a list.
    NoList,
    /// A directory knows, and says no more than whether an answer is right.
    Directory,
}

impl<'a> Known<'a> {
    /// Finds out.
    pub(super) async fn find(
        policy: &'a Policy,
        method: Method,
        database: &'a str,
        user: &'a str,
    ) -> Result<Self, StartupError> {
        if method == Method::Ldap {
            let from = From::Directory;
            return Ok(Self { user, database, from });
        }
        let in_file = policy.users.as_ref().and_then(|users| users.get(user));
        let from = match (in_file, &policy.source) {
            (Some(secret), _) => From::File(secret),
            (None, Some(source)) => match source.look_up(database, user, Freshness::Remembered).await? {
                Found::NotAsked => Self::unlisted(policy),
                found => {
                    if let Found::Secret(secret) = &found {
                        policy.mocks.note_looked_up(secret);
                    }
                    From::LookUp(&**source, found)
                }
            },
            (None, None) => Self::unlisted(policy),
        };
        Ok(Self { user, database, from })
    }

    fn unlisted(policy: &Policy) -> From<'a> {
        match (&policy.users, &policy.source) {
            (None, None) => From::NoList,
            _ => From::Nowhere,
        }
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
            Ok(Ok(now)) if now != *before => *before = now,
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

    /// The secret that was looked up.
    pub(super) fn looked_up(self) -> Option<Secret> {
        match self.from {
            From::LookUp(_, Found::Secret(secret)) => Some(secret),
            _ => None,
        }
    }
}

fn account(found: &Found) -> Account<'_> {
    match found {
        Found::Secret(secret) => Account::Known(secret),
        Found::WithoutSecret => Account::WithoutSecret,
        Found::Unknown | Found::NotAsked => Account::Unknown,
    }
}
