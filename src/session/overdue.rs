//! What a session does when it has run into a limit of time.

use tokio::sync::oneshot;

use super::{
    activity::{Stage, Tick},
    deadline::{Due, Expired, Limits},
    error::{End, SessionError},
    run::{Phase, Session},
};
use crate::{
    fault::{Fault, chain},
    pool::LeaseError,
    wire::reply,
};

impl<Slot> Session<Slot> {
    /// Does what is due now. Whoever asked for it has looked from outside and a moment ago; this look counts.
    pub(super) fn look_at_clock(&mut self) -> Result<(), End> {
        let now = self.entry.clock().now();
        let limits = Limits::of(&self.pool.plan().settings);
        match limits.due(now, self.member.activity.snapshot(), self.member.pinned.since()) {
            None => {}
            Some(Due::Notice) => self.tell_to_wait(now),
            Some(Due::Cancel(limit)) => self.cancel_query(limit, now),
            // The server connection is as good as any.
            Some(Due::End(expired @ (Expired::ClientIdle(_) | Expired::Pinned(_)))) => {
                return Err(self.leave(End::Fault(expired.into())));
            }
            Some(Due::End(expired)) => return Err(self.fault(expired.into())),
        }
        Ok(())
    }

    /// Tells a client that waits what it waits for.
    fn tell_to_wait(&mut self, now: Tick) {
        let activity = &self.member.activity;
        let waited = now.elapsed(activity.snapshot().since);
        activity.note_notified();
        let why = self.pool.why_waiting(waited);
        let key = self.pool.key();
        let message = format!(
            "waiting for a server connection of pool \"{}\" of user \"{}\" for {waited:?}",
            key.database, key.user
        );
        let detail = match &why {
            LeaseError::Timeout { .. } => None,
            other => Some(other.client_message().into_owned()),
        };
        let why = self.entry.explain(&self.pool, why.into());
        let detail = detail.or_else(|| why.detail().map(Into::into));
        self.member.identity.span().in_scope(|| {
            tracing::info!(
                ?waited,
                reason = chain(&why),
                detail,
                "client waits for a server connection"
            );
        });
        reply::notice(&message, detail.as_deref(), self.client.output());
    }

    /// Asks the server to stop. Its own words reach the client, which say "user request": the notice before them
    /// says who that was.
    fn cancel_query(&mut self, limit: std::time::Duration, now: Tick) {
        let Phase::Relaying(relay) = &mut self.phase else {
            return;
        };
        self.member.activity.enter(Stage::Canceling, now);
        let (reply, target) = oneshot::channel();
        relay.cancel(reply);
        relay.tasks().spawn("query timeout", async move {
            if let Ok(target) = target.await {
                target.deliver().await;
            }
        });
        self.member.identity.span().in_scope(|| {
            tracing::warn!(query_timeout = ?limit, "query canceled: it took too long");
        });
        if relay.can_speak() {
            let message = format!("canceling statement due to query_timeout ({limit:?}) of pgweir");
            reply::notice(&message, None, self.client.output());
        }
    }
}

impl From<Expired> for SessionError {
    fn from(expired: Expired) -> Self {
        Self::Expired(expired)
    }
}
