//! What a session is overdue with, from what it is doing, the time and the limits.
//!
//! Pure: it reads no clock and ends nothing.

use std::{borrow::Cow, time::Duration};

use super::activity::{Snapshot, Stage, TICK, Tick};
use crate::{
    config::{PoolSettings, Timeouts},
    fault::{Blame, Fault, SqlState},
};

/// How long a server may take to stop a query that was canceled because of `query_timeout`.
pub(super) const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// The limits that hold for a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    timeouts: Timeouts<Duration>,
    notify: Duration,
    pin: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The client is told that it waits.
    Notice,
    /// The query has run for longer than this, and is canceled.
    Cancel(Duration),
    /// The session ends.
    End(Expired),
}

/// A limit that ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Expired {
    /// `query_timeout`, and the server did not answer the cancel.
    #[error("terminating connection due to query timeout")]
    Query(Duration),
    /// `transaction_timeout`
    #[error("terminating connection due to transaction timeout")]
    Transaction(Duration),
    /// `idle_transaction_timeout`
    #[error("terminating connection due to idle-in-transaction timeout")]
    IdleTransaction(Duration),
    /// `client_idle_timeout`
    #[error("terminating connection due to idle-session timeout")]
    ClientIdle(Duration),
    /// `max_pin_duration`
    #[error("terminating connection due to pin timeout")]
    Pinned(Duration),
}

impl Limits {
    /// The limits of a pool.
    pub(super) fn of(settings: &PoolSettings) -> Self {
        Self {
            timeouts: settings.timeouts,
            notify: settings.query_wait_notify,
            pin: settings.max_pin_duration,
        }
    }

    /// The shortest of them, if there are any.
    pub(super) fn shortest(&self) -> Option<Duration> {
        let Timeouts {
            query,
            transaction,
            idle_transaction,
            client_idle,
        } = self.timeouts;
        let limits = [
            query,
            transaction,
            idle_transaction,
            client_idle,
            self.notify,
            self.pin,
        ];
        limits.into_iter().filter(|limit| !limit.is_zero()).min()
    }

    /// What is due now. Never too early, although a tick may be read when it is almost over. `pinned` says since when
    /// its server connection has stayed with the session between transactions.
    pub(super) fn due(&self, now: Tick, session: Snapshot, pinned: Option<Tick>) -> Option<Due> {
        let Timeouts {
            query,
            transaction,
            idle_transaction,
            client_idle,
        } = self.timeouts;
        let since = session.since;
        if session.stage.is_in_transaction() && is_over(now, session.transaction, transaction) {
            return Some(Due::End(Expired::Transaction(transaction)));
        }
        match session.stage {
            Stage::Active if is_over(now, since, query) => Some(Due::Cancel(query)),
            Stage::Canceling if is_over(now, since, CANCEL_GRACE) => Some(Due::End(Expired::Query(query))),
            Stage::InTransaction if is_over(now, since, idle_transaction) => {
                Some(Due::End(Expired::IdleTransaction(idle_transaction)))
            }
            Stage::Held if pinned.is_some_and(|since| is_over(now, since, self.pin)) => {
                Some(Due::End(Expired::Pinned(self.pin)))
            }
            Stage::Idle | Stage::Held if is_over(now, since, client_idle) => {
                Some(Due::End(Expired::ClientIdle(client_idle)))
            }
            Stage::Waiting if is_over(now, since, self.notify) => Some(Due::Notice),
            _ => None,
        }
    }
}

/// Whether more than `limit` has certainly passed; zero is no limit.
fn is_over(now: Tick, since: Tick, limit: Duration) -> bool {
    let whole = limit.as_millis().div_ceil(TICK.as_millis());
    !limit.is_zero() && u128::from(now.since(since)) > whole
}

impl Fault for Expired {
    fn blame(&self) -> Blame {
        match self {
            Self::Query(_) => Blame::Server,
            Self::Transaction(_) | Self::IdleTransaction(_) | Self::ClientIdle(_) | Self::Pinned(_) => {
                Blame::Client
            }
        }
    }

    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Query(_) => SqlState::QUERY_CANCELED,
            Self::Transaction(_) => SqlState::TRANSACTION_TIMEOUT,
            Self::IdleTransaction(_) => SqlState::IDLE_IN_TRANSACTION_TIMEOUT,
            Self::ClientIdle(_) | Self::Pinned(_) => SqlState::IDLE_SESSION_TIMEOUT,
        }
    }

    fn client_message(&self) -> Cow<'_, str> {
        self.to_string().into()
    }

    fn detail(&self) -> Option<Cow<'_, str>> {
        let detail = match self {
            Self::Query(limit) => format!(
                "The query was canceled after query_timeout ({limit:?}) of pgweir, and the server has not answered for {CANCEL_GRACE:?}."
            ),
            Self::Transaction(limit) => {
                format!("The transaction was open for longer than transaction_timeout ({limit:?}) of pgweir.")
            }
            Self::IdleTransaction(limit) => format!(
                "The server waited in a transaction for longer than idle_transaction_timeout ({limit:?}) of pgweir."
            ),
            Self::ClientIdle(limit) => {
                format!("The client was idle for longer than client_idle_timeout ({limit:?}) of pgweir.")
            }
            Self::Pinned(limit) => format!(
                "State in the session has kept a server connection for longer than max_pin_duration ({limit:?}) of pgweir."
            ),
        };
        Some(detail.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const LIMITS: Limits = Limits {
        timeouts: Timeouts {
            query: SECOND,
            transaction: Duration::from_secs(3),
            idle_transaction: Duration::from_secs(2),
            client_idle: Duration::from_secs(10),
        },
        notify: Duration::from_millis(250),
        pin: Duration::from_secs(4),
    };

    fn due(stage: Stage, since: u32, transaction: u32, now: u32) -> Option<Due> {
        let snapshot = Snapshot {
            stage,
            since: Tick::new(since),
            transaction: Tick::new(transaction),
        };
        LIMITS.due(Tick::new(now), snapshot, None)
    }

    #[test]
    fn each_stage_has_its_limit_and_is_never_early() {
        let end = |expired| Some(Due::End(expired));
        for (stage, ticks, expected) in [
            (Stage::Idle, 100, end(Expired::ClientIdle(SECOND * 10))),
            (Stage::Held, 100, end(Expired::ClientIdle(SECOND * 10))),
            (Stage::Waiting, 3, Some(Due::Notice)),
            (Stage::Active, 10, Some(Due::Cancel(SECOND))),
            (Stage::Canceling, 50, end(Expired::Query(SECOND))),
            (
                Stage::InTransaction,
                20,
                end(Expired::IdleTransaction(SECOND * 2)),
            ),
        ] {
            let at = |now| due(stage, 7, 7 + ticks, now);
            assert_eq!(at(7 + ticks), None, "{stage:?}");
            assert_eq!(at(8 + ticks), expected, "{stage:?}");
        }
        let held = Snapshot {
            stage: Stage::Held,
            since: Tick::new(45),
            transaction: Tick::new(45),
        };
        let pinned = |now| LIMITS.due(Tick::new(now), held, Some(Tick::new(7)));
        assert_eq!(pinned(47), None);
        assert_eq!(pinned(48), end(Expired::Pinned(SECOND * 4)));
        for stage in [Stage::Notified, Stage::Ended] {
            assert_eq!(due(stage, 0, 0, 1_000_000), None, "{stage:?}");
        }
    }

    #[test]
    fn a_transaction_may_not_be_long_whatever_it_does() {
        let expected = Some(Due::End(Expired::Transaction(SECOND * 3)));
        for stage in [Stage::Active, Stage::Canceling, Stage::InTransaction] {
            assert_eq!(due(stage, 30, 0, 30), None);
            assert_eq!(due(stage, 30, 0, 31), expected);
        }
        assert_eq!(due(Stage::Held, 30, 0, 31), None);
    }

    #[test]
    fn the_shortest_limit_is_not_zero() {
        assert_eq!(LIMITS.shortest(), Some(Duration::from_millis(250)));
        let none = Limits {
            timeouts: Timeouts::default(),
            notify: Duration::ZERO,
            pin: Duration::ZERO,
        };
        assert_eq!(none.shortest(), None);
    }

    proptest! {
        #[test]
        fn without_limits_nothing_is_due(stage in 0..4_usize, since in 0..99_u32, now in 99..999_u32) {
            let none = Limits { timeouts: Timeouts::default(), notify: Duration::ZERO, pin: Duration::ZERO };
            let stage = [Stage::Idle, Stage::Waiting, Stage::Active, Stage::InTransaction][stage];
            let snapshot = Snapshot { stage, since: Tick::new(since), transaction: Tick::new(since) };
            prop_assert_eq!(none.due(Tick::new(now), snapshot, Some(Tick::default())), None);
        }
    }
}
