//! What a session is doing and since when, for others to see: one word that the session alone writes, in ticks
//! of a clock that somebody else reads for it.
//!
//! It decides nothing; what is overdue is in `deadline`.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The clock's precision, and how often it is set.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// A tick has this many bits: enough for three years of uptime, and for any timeout.
const BITS: u32 = 30;
const MASK: u64 = (1 << BITS) - 1;

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tick(u32);

/// The time, as last looked up. Reading it is one load of a word that seldom changes.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    now: AtomicU32,
}

/// What a session is doing, as far as anybody else has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing; it holds no server connection.
    Idle,
    /// It waits for a server connection.
    Waiting,
    /// The same, and its client has been told so.
    Notified,
    /// The server works.
    Active,
    /// The server works, and has been asked to stop because it has worked for too long.
    Canceling,
    /// The server waits for the client in the middle of a transaction.
    InTransaction,
    /// It holds a server connection between two transactions, as session pools do.
    Held,
    /// It is over, but for its last words.
    Ended,
}

/// A session's word.
#[derive(Debug)]
pub(super) struct Activity {
    /// Stage, beginning of the stage and beginning of the transaction.
    word: AtomicU64,
    /// When the server connection was lent.
    lent: AtomicU32,
    begun: Tick,
}

/// What the word said at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) stage: Stage,
    /// Since when it does that, without a sign of progress.
    pub(super) since: Tick,
    /// When the transaction began, where there is one.
    pub(super) transaction: Tick,
}

/// What has happened between client and server since it was last asked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct News {
    /// The client has said something.
    pub(super) said: bool,
    /// The server has ended a statement.
    pub(super) answered: bool,
    /// The server has ended a transaction.
    pub(super) ended: bool,
}

impl Tick {
    /// How many ticks ago `earlier` was.
    pub(super) fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0) & low_bits(MASK)
    }

    /// The moment as a number, and back.
    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// The moment that this number stands for.
    pub(super) fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// The time that has passed since `earlier`.
    pub(super) fn elapsed(self, earlier: Self) -> Duration {
        TICK * self.since(earlier)
    }
}

#[cfg(test)]
impl Tick {
    pub(super) fn new(ticks: u32) -> Self {
        Self(ticks)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            now: AtomicU32::new(0),
        }
    }
}

impl Clock {
    /// The time, up to a tick old.
    pub(super) fn now(&self) -> Tick {
        Tick(self.now.load(Ordering::Relaxed))
    }

    /// Looks the time up.
    pub(super) fn set(&self) {
        let ticks = self.start.elapsed().as_millis() / TICK.as_millis();
        let ticks = u64::try_from(ticks).unwrap_or_default() & MASK;
        self.now.store(low_bits(ticks), Ordering::Relaxed);
    }
}

impl Stage {
    const ALL: [Self; 8] = [
        Self::Idle,
        Self::Waiting,
        Self::Notified,
        Self::Active,
        Self::Canceling,
        Self::InTransaction,
        Self::Held,
        Self::Ended,
    ];

    /// Whether a transaction is open.
    pub(super) fn is_in_transaction(self) -> bool {
        matches!(self, Self::Active | Self::Canceling | Self::InTransaction)
    }

    /// Whether it holds a server connection.
    pub(super) fn holds_server(self) -> bool {
        self.is_in_transaction() || self == Self::Held
    }
}

impl Activity {
    /// A session that does nothing yet.
    pub(super) fn new(now: Tick) -> Self {
        let word = Snapshot {
            stage: Stage::Idle,
            since: now,
            transaction: now,
        };
        Self {
            word: AtomicU64::new(word.pack()),
            lent: AtomicU32::new(now.0),
            begun: now,
        }
    }

    /// When the session began.
    pub(super) fn begun(&self) -> Tick {
        self.begun
    }

    /// What the word says.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::unpack(self.word.load(Ordering::Relaxed))
    }

    /// When the server connection was lent that it holds.
    pub(super) fn lent(&self) -> Tick {
        Tick(self.lent.load(Ordering::Relaxed))
    }

    /// Notes that another stage begins.
    pub(super) fn enter(&self, stage: Stage, now: Tick) {
        let old = self.snapshot();
        self.store(Snapshot {
            stage,
            since: now,
            transaction: old.transaction,
        });
    }

    /// Notes that the client has been told that it waits; it has waited since before.
    pub(super) fn note_notified(&self) {
        self.store(Snapshot {
            stage: Stage::Notified,
            ..self.snapshot()
        });
    }

    /// Notes that a server connection was lent, and is given work at once.
    pub(super) fn begin(&self, now: Tick) {
        self.lent.store(now.0, Ordering::Relaxed);
        self.store(Snapshot {
            stage: Stage::Active,
            since: now,
            transaction: now,
        });
    }

    /// Notes where an exchange stands, after this has happened in it.
    pub(super) fn follow(&self, stage: Stage, news: News, now: Tick) {
        let old = self.snapshot();
        let new = old.followed_by(stage, news, now);
        if new != old {
            self.store(new);
        }
    }

    fn store(&self, snapshot: Snapshot) {
        self.word.store(snapshot.pack(), Ordering::Relaxed);
    }
}

impl Snapshot {
    fn followed_by(self, stage: Stage, news: News, now: Tick) -> Self {
        // A server that was asked to stop still works until it says something.
        let stage = match (self.stage, stage) {
            (Stage::Canceling, Stage::Active) if !news.answered => Stage::Canceling,
            (_, stage) => stage,
        };
        let progress = match stage {
            Stage::Active => news.answered,
            Stage::InTransaction => news.answered || news.said,
            Stage::Held => news.said,
            _ => false,
        };
        let since = if stage != self.stage || progress {
            now
        } else {
            self.since
        };
        let begins = news.ended || !self.stage.is_in_transaction();
        Self {
            stage,
            since,
            transaction: if begins { now } else { self.transaction },
        }
    }

    fn pack(self) -> u64 {
        (self.stage as u64) << (2 * BITS)
            | (u64::from(self.since.0) & MASK) << BITS
            | u64::from(self.transaction.0) & MASK
    }

    fn unpack(word: u64) -> Self {
        let stage = usize::try_from(word >> (2 * BITS)).unwrap_or_default();
        Self {
            stage: Stage::ALL.get(stage).copied().unwrap_or(Stage::Ended),
            since: Tick(low_bits(word >> BITS & MASK)),
            transaction: Tick(low_bits(word & MASK)),
        }
    }
}

/// A number of at most [`BITS`] bits.
fn low_bits(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAID: News = News {
        said: true,
        answered: false,
        ended: false,
    };
    const ANSWERED: News = News {
        said: false,
        answered: true,
        ended: false,
    };
    const ENDED: News = News {
        said: false,
        answered: true,
        ended: true,
    };

    fn after(steps: &[(Stage, News)]) -> (Stage, u32, u32) {
        let activity = Activity::new(Tick(0));
        activity.begin(Tick(10));
        for (index, (stage, news)) in (11..).zip(steps) {
            activity.follow(*stage, *news, Tick(index));
        }
        let snapshot = activity.snapshot();
        (snapshot.stage, snapshot.since.0, snapshot.transaction.0)
    }

    #[test]
    fn a_stage_lasts_until_there_is_progress_in_it() {
        use Stage::{Active, InTransaction};
        let none = News::default();
        assert_eq!(after(&[(Active, none), (Active, SAID)]), (Active, 10, 10));
        assert_eq!(after(&[(Active, none), (Active, ANSWERED)]), (Active, 12, 10));
        assert_eq!(
            after(&[(InTransaction, ANSWERED), (InTransaction, none)]),
            (InTransaction, 11, 10)
        );
        // Data of a COPY.
        assert_eq!(
            after(&[(InTransaction, ANSWERED), (InTransaction, SAID)]),
            (InTransaction, 12, 10)
        );
    }

    #[test]
    fn a_transaction_lasts_until_the_server_ends_it() {
        use Stage::{Active, Held, InTransaction};
        assert_eq!(
            after(&[(InTransaction, ANSWERED), (Active, SAID)]),
            (Active, 12, 10)
        );
        // Pipelined, and one after the other in a session pool.
        assert_eq!(after(&[(Active, SAID), (Active, ENDED)]), (Active, 12, 12));
        assert_eq!(after(&[(Held, ENDED), (Active, SAID)]), (Active, 12, 12));
    }

    #[test]
    fn who_was_asked_to_stop_is_not_asked_again_before_an_answer() {
        let activity = Activity::new(Tick(0));
        activity.begin(Tick(1));
        activity.enter(Stage::Canceling, Tick(5));
        activity.follow(Stage::Active, SAID, Tick(6));
        assert_eq!(
            (activity.snapshot().stage, activity.snapshot().since),
            (Stage::Canceling, Tick(5))
        );
        assert_eq!(activity.snapshot().transaction, Tick(1));
        activity.follow(Stage::Active, ANSWERED, Tick(7));
        assert_eq!(
            (activity.snapshot().stage, activity.snapshot().since),
            (Stage::Active, Tick(7))
        );
    }

    #[test]
    fn ticks_go_round() {
        assert_eq!(Tick(2).since(Tick((1 << BITS) - 1)), 3);
        assert_eq!(Tick(12).elapsed(Tick(2)), Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn a_word_holds_everything(stage in 0..8_usize, since in 0..1_u32 << BITS, transaction in 0..1_u32 << BITS) {
            let snapshot = Snapshot {
                stage: Stage::ALL[stage],
                since: Tick(since),
                transaction: Tick(transaction),
            };
            prop_assert_eq!(Snapshot::unpack(snapshot.pack()), snapshot);
        }
    }
}
