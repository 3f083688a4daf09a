//! What one server connection does for its client, from the beginning of a transaction to its end, and whether anybody
//! wants to know.
//!
//! That is decided when a query has been answered: by the context that it has brought or, for the first of a
//! transaction, by the sampler. No clock, no connection.

use std::time::Instant;

use super::context::Context;
use crate::fault::SqlState;

/// So many queries of one transaction have a span each; of more only the number is told.
const MOST_QUERIES: usize = 64;

/// A transaction that is under way, or none.
#[derive(Debug, Default)]
pub struct Recorder {
    asked: Option<Instant>,
    began: Option<Instant>,
    /// One of its queries has been looked at.
    is_decided: bool,
    /// Absent as long as nobody wants to know.
    recorded: Option<Box<Recorded>>,
}

/// What is known of a transaction that is traced.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// What its first traced query has brought.
    pub(super) parent: Option<Context>,
    pub(super) queries: Vec<Query>,
    /// Queries beyond those.
    pub(super) left_out: u32,
}

/// One time that a server has worked for a client: a query, or a batch of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Since when.
    pub since: Instant,
    /// Until when.
    pub until: Instant,
    /// The context that it has brought.
    pub context: Option<Context>,
    /// What it says, where that is wanted.
    pub text: Option<Box<str>>,
    /// The last error that the server has raised.
    pub error: Option<SqlState>,
}

/// How a transaction has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As its client wanted, whatever that was.
    Finished,
    /// With its session or its server connection.
    Cut,
    /// Before it had a server connection, with this error.
    Refused(SqlState),
}

/// A transaction that is over.
#[derive(Debug)]
pub struct Transaction {
    /// When its client began to wait for a server connection, if it had to.
    pub(super) asked: Option<Instant>,
    pub(super) began: Instant,
    pub(super) until: Instant,
    pub(super) ending: Ending,
    pub(super) recorded: Recorded,
}

impl Recorder {
    /// The connection is a client's now, who has waited since `asked`.
    pub fn lend(&mut self, asked: Option<Instant>) {
        *self = Self {
            asked,
            ..Self::default()
        };
    }

    /// The server begins to work for the client.
    pub fn begin(&mut self, now: Instant) {
        self.began.get_or_insert(now);
    }

    /// The server has answered. `sample` says whether a transaction is to be traced that nobody has asked for.
    pub fn note(&mut self, query: Query, sample: impl FnOnce() -> bool) {
        let is_first = !std::mem::replace(&mut self.is_decided, true);
        let is_wanted = match query.context {
            Some(context) => context.sampled,
            None => self.recorded.is_some() || (is_first && sample()),
        };
        if !is_wanted {
            return;
        }
        self.began.get_or_insert(query.since);
        let recorded = self.recorded.get_or_insert_with(|| {
            Box::new(Recorded {
                parent: query.context,
                ..Recorded::default()
            })
        });
        if recorded.queries.len() < MOST_QUERIES {
            recorded.queries.push(query);
        } else {
            recorded.left_out += 1;
        }
    }

    /// The transaction is over. The next one, on the same connection for the same client, has not waited.
    pub fn end(&mut self, until: Instant, ending: Ending) -> Option<Transaction> {
        let began = self.began?;
        let Self { asked, recorded, .. } = std::mem::take(self);
        Some(Transaction {
            asked,
            began,
            until,
            ending,
            recorded: *recorded?,
        })
    }
}

impl Transaction {
    /// One that its client has waited for in vain.
    pub fn refused(asked: Instant, until: Instant, context: Option<Context>, error: SqlState) -> Self {
        Self {
            asked: Some(asked),
            began: until,
            until,
            ending: Ending::Refused(error),
            recorded: Recorded {
                parent: context,
                ..Recorded::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PARENT: Context = Context {
        trace: 7,
        span: 8,
        sampled: true,
    };

    struct Times(Instant);

    impl Times {
        fn at(&self, millis: u64) -> Instant {
            self.0 + Duration::from_millis(millis)
        }

        fn query(&self, since: u64, context: Option<Context>) -> Query {
            Query {
                since: self.at(since),
                until: self.at(since + 1),
                context,
                text: None,
                error: None,
            }
        }
    }

    fn never() -> bool {
        false
    }

    #[test]
    fn a_context_has_its_transaction_traced_from_the_wait_on() {
        let times = Times(Instant::now());
        let mut recorder = Recorder::default();
        recorder.lend(Some(times.at(0)));
        recorder.begin(times.at(5));
        recorder.note(times.query(5, None), never);
        recorder.begin(times.at(10));
        recorder.note(times.query(10, Some(PARENT)), || unreachable!());
        // Only the first query may be sampled, and this one belongs to what is traced already.
        recorder.note(times.query(20, None), || unreachable!());
        let transaction = recorder.end(times.at(30), Ending::Finished).unwrap();
        assert_eq!(transaction.asked, Some(times.at(0)));
        assert_eq!(
            (transaction.began, transaction.until),
            (times.at(5), times.at(30))
        );
        assert_eq!(transaction.recorded.parent, Some(PARENT));
        assert_eq!(transaction.recorded.queries.len(), 2);
        assert!(recorder.end(times.at(30), Ending::Finished).is_none());
    }

    #[test]
    fn what_a_caller_does_not_record_is_not_recorded() {
        let times = Times(Instant::now());
        let mut recorder = Recorder::default();
        let unsampled = Context {
            sampled: false,
            ..PARENT
        };
        recorder.begin(times.at(0));
        recorder.note(times.query(0, Some(unsampled)), || unreachable!());
        assert!(recorder.end(times.at(1), Ending::Finished).is_none());
        // In the middle of a transaction that is.
        recorder.begin(times.at(0));
        recorder.note(times.query(0, None), || true);
        recorder.note(times.query(1, Some(unsampled)), || unreachable!());
        let transaction = recorder.end(times.at(2), Ending::Finished).unwrap();
        assert_eq!(transaction.recorded.queries.len(), 1);
        assert_eq!(transaction.recorded.parent, None);
    }

    #[test]
    fn the_first_query_alone_is_sampled() {
        let times = Times(Instant::now());
        let mut recorder = Recorder::default();
        recorder.begin(times.at(0));
        recorder.note(times.query(0, None), never);
        recorder.note(times.query(1, None), || unreachable!());
        assert!(recorder.end(times.at(2), Ending::Finished).is_none());
        // The next transaction is another matter, and has not waited.
        recorder.begin(times.at(3));
        recorder.note(times.query(3, None), || true);
        let next = recorder.end(times.at(4), Ending::Cut).unwrap();
        assert_eq!((next.asked, next.ending), (None, Ending::Cut));
    }

    #[test]
    fn a_lease_begins_with_nothing() {
        let times = Times(Instant::now());
        let mut recorder = Recorder::default();
        recorder.lend(Some(times.at(0)));
        assert!(recorder.end(times.at(1), Ending::Cut).is_none());
        recorder.begin(times.at(2));
        recorder.note(times.query(2, Some(PARENT)), never);
        recorder.lend(None);
        assert!(recorder.end(times.at(3), Ending::Cut).is_none());
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let times = Times(Instant::now());
        let mut recorder = Recorder::default();
        for _ in 0..MOST_QUERIES + 3 {
            recorder.begin(times.at(0));
            recorder.note(times.query(0, Some(PARENT)), never);
        }
        let recorded = recorder.end(times.at(1), Ending::Finished).unwrap().recorded;
        assert_eq!((recorded.queries.len(), recorded.left_out), (MOST_QUERIES, 3));
    }
}
