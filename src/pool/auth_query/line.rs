//! One server connection of `auth_user`: no client's setting reaches it, and no client's request.

use std::{
    sync::Arc,
    task::{Context, Waker},
    time::Instant,
};

use prometheus::IntGauge;

use super::{AuthPlan, QueryError};
use crate::{
    auth::{
        secret::{Password, Secret},
        source::Found,
    },
    pool::{register::Registered, standing::is_left, succession::RENEWAL},
    server::{
        Column, Connection, SettleError, Vitals,
        state::{CloseReason, Verdict},
    },
    topology::Observation,
};

/// character_not_in_repertoire: no role of the server can have such a name.
const NO_NAME: &str = "22021";

/// A connection; counted, and said goodbye to when dropped.
pub(super) struct Line {
    connection: Connection,
    count: IntGauge,
    _registered: Registered,
}

/// What became of a question.
pub(super) enum Answer {
    /// The server has answered.
    Said(Result<Found, QueryError>),
    /// The connection is of no use any more.
    Lost(SettleError),
}

impl Line {
    pub(super) fn new(
        connection: Connection,
        count: IntGauge,
        register: impl FnOnce(Arc<Vitals>) -> Registered,
    ) -> Self {
        count.inc();
        Self {
            _registered: register(connection.vitals().clone()),
            connection,
            count,
        }
    }

    /// Whether another question may be asked, as far as can be seen without asking. Certificates make a connection old
    /// once a server has accepted those that came after them. What the server says of its own end is told to its cluster.
    pub(super) fn is_good(&mut self, plan: &AuthPlan, now: Instant) -> bool {
        let is_old = self.connection.has_outlived(plan.lifetime, now)
            || (self.has_old_certificates(plan, now) && plan.target.connector.is_proven());
        let target = &plan.target;
        let is_usable =
            !is_old && !self.connection.has_moved() && self.connection.verdict() == Verdict::Reuse;
        if !is_usable || is_left(target, self.connection.endpoint()) {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        let lives = self.connection.check_idle(&mut cx);
        if lives == Err(CloseReason::Dismissed) {
            let endpoint = self.connection.endpoint().clone();
            target.cluster.observe(&Observation::Dropped { endpoint }, now);
        }
        lives.is_ok()
    }

    /// Whether it was made with certificates that were replaced, and is to be replaced itself.
    pub(super) fn has_old_certificates(&self, plan: &AuthPlan, now: Instant) -> bool {
        self.connection.has_old_certificates(&plan.target, RENEWAL, now)
    }

    pub(super) fn idle_since(&self) -> Instant {
        self.connection.idle_since()
    }

    pub(super) fn note_idle(&mut self, now: Instant) {
        self.connection.note_idle(now);
    }

    /// Asks for the secret of a user.
    pub(super) async fn ask(&mut self, query: &str, user: &str) -> Answer {
        self.connection.note_lent();
        ask(&mut self.connection, query, user).await
    }
}

/// Asks for the secret of a user. Not bounded in time.
pub(super) async fn ask(connection: &mut Connection, query: &str, user: &str) -> Answer {
    match connection.ask_about(query, user).await {
        Ok(None) => Answer::Said(Ok(Found::Unknown)),
        Ok(Some(row)) => Answer::Said(read(&row, user)),
        Err(SettleError::Refused(error)) if !error.is_fatal() => Answer::Said(match error.code {
            Some(code) if code.as_str() == NO_NAME => Ok(Found::Unknown),
            _ => Err(QueryError::Query(SettleError::Refused(error).into())),
        }),
        Err(error) => Answer::Lost(error),
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.connection.say_goodbye();
        self.count.dec();
    }
}

fn read(row: &[Column], user: &str) -> Result<Found, QueryError> {
    let [name, secret, ..] = row else {
        return Err(QueryError::Columns);
    };
    match name.as_deref() {
        Some(name) if name == user.as_bytes() => {}
        // A name of more than 63 bytes was cut to one that exists.
        Some(name) if !name.is_empty() && user.as_bytes().starts_with(name) => return Ok(Found::Unknown),
        _ => return Err(QueryError::OtherUser),
    }
    let Some(secret) = secret else {
        return Ok(Found::WithoutSecret);
    };
    let secret = match str::from_utf8(secret) {
        Ok(text) => Secret::parse(text),
        Err(_) => Ok(Secret::Plain(Password::new(secret))),
    };
    Ok(secret.map_or_else(
        |error| {
            tracing::warn!(user, %error, "auth_query returned a broken secret, with which nobody logs in");
            Found::WithoutSecret
        },
        Found::Secret,
    ))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn found(row: &[Option<&str>], user: &str) -> Result<Found, QueryError> {
        let row: Vec<_> = row
            .iter()
            .map(|column| column.map(|text| Bytes::copy_from_slice(text.as_bytes())))
            .collect();
        read(&row, user)
    }

    #[test]
    fn a_row_is_a_user_and_a_secret() {
        let secret = found(&[Some("a"), Some("md54a0a68b43b6cd5cf266fa02f196e2371")], "a");
        assert!(matches!(secret, Ok(Found::Secret(Secret::Md5(_)))));
        assert!(matches!(
            found(&[Some("a"), Some("x")], "a"),
            Ok(Found::Secret(Secret::Plain(_)))
        ));
        assert_eq!(found(&[Some("a"), None], "a").unwrap(), Found::WithoutSecret);
        assert_eq!(
            found(&[Some("a"), Some("SCRAM-SHA-256$x")], "a").unwrap(),
            Found::WithoutSecret
        );
        assert!(matches!(found(&[Some("a")], "a"), Err(QueryError::Columns)));
        assert!(matches!(found(&[], "a"), Err(QueryError::Columns)));
    }

    #[test]
    fn a_row_about_somebody_else_is_nobodys_secret() {
        for other in [Some("b"), Some("A"), Some("ab"), Some(""), None] {
            let read = found(&[other, Some("x")], "a");
            assert!(matches!(read, Err(QueryError::OtherUser)), "{other:?}");
        }
        assert_eq!(
            found(&[Some("long"), Some("x")], "longer").unwrap(),
            Found::Unknown
        );
    }
}
