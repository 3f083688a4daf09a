//! Taking back the server connection of a client that has gone in the middle of something: whatever the server still
//! does for nobody is canceled, what the client has begun is undone, and the connection is given on. One that does not
//! get that far within a limit is closed.
//!
//! It runs on the control runtime, and the connection keeps its place in the pool meanwhile: there are never more
//! connections than the pool may have. But when another server is the primary, the place is needed there, and the old one
//! may never answer.

use std::time::{Duration, Instant};

use super::cancel::{CancelTarget, Pending};
use crate::{
    pool::Lease,
    server::{
        Home, SettleError, Unwinding, Word,
        state::{CloseReason, Verdict},
    },
    types::PoolMode,
};

/// How long a server may take to let go of what its client has left.
const LIMIT: Duration = Duration::from_secs(10);
/// Pauses between the cancel requests of that time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const SCRATCH: usize = 32 * 1024;

/// A server connection whose client is gone.
pub(super) struct Recovery {
    lease: Lease,
    /// Requests to cancel that are on their way to it; none may reach the next client.
    cancels: Vec<Pending>,
    mode: PoolMode,
}

/// Why a connection is closed after all.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Settle(#[from] SettleError),
    #[error("not fit for another client: {0:?}")]
    Unfit(CloseReason),
    #[error("a transaction is still open after ROLLBACK")]
    NotRolledBack,
    #[error("another server is the primary now")]
    Fenced,
    #[error("not done within {LIMIT:?}")]
    Late,
}

/// When the server is next asked to stop. A cancel finds nothing to cancel when the server has not yet begun with what
/// it was sent, so it is repeated.
struct Pace {
    next: Instant,
    pause: Duration,
}

impl Recovery {
    pub(super) fn new(lease: Lease, cancels: Vec<Pending>, mode: PoolMode) -> Self {
        Self { lease, cancels, mode }
    }

    /// Gives the connection on, or closes it; in the background.
    pub(super) fn spawn(self) {
        let tasks = self.lease.tasks().clone();
        tasks.spawn("recovery", self.run());
    }

    async fn run(mut self) {
        let start = Instant::now();
        if self.lease.rehome(Home::Control).is_err() {
            return;
        }
        let fenced = self.lease.fenced();
        let recovered = tokio::select! {
            biased;
            () = fenced => Err(Failure::Fenced),
            recovered = tokio::time::timeout(LIMIT, self.recover()) => recovered.unwrap_or(Err(Failure::Late)),
        };
        let span = self.lease.span();
        match recovered {
            Ok(()) => {
                let took = start.elapsed();
                span.in_scope(|| tracing::debug!(?took, "taken back from a client that has gone"));
                self.lease.release(self.mode);
            }
            Err(error) => {
                span.in_scope(|| tracing::info!(%error, "closing the connection of a client that has gone"));
                self.lease.mark_broken(CloseReason::Unfinished);
                wind_up(self.lease, start + LIMIT).await;
            }
        }
    }

    /// Ends with a connection that is as good as one that its client has given back.
    async fn recover(&mut self) -> Result<(), Failure> {
        let (mut unwinding, mut scratch) = (Unwinding::default(), vec![0; SCRATCH]);
        let mut pace = Pace::new(self.lease.ledger().waits_for_client());
        while !self.is_recovered()? {
            if let Some(word) = unwinding.next(self.lease.ledger()) {
                if word == Word::RollBack {
                    // They are meant for what the client wanted.
                    self.settle_cancels().await;
                }
                self.lease.say(word);
                pace.rest();
            } else if self.lease.ledger().is_settled() {
                if !self.lease.ledger().is_between_transactions() {
                    return Err(Failure::NotRolledBack);
                }
                if !self.cancels.is_empty() {
                    self.settle_cancels().await;
                    continue;
                }
            }
            if self.works() && pace.is_due() {
                self.cancel().await;
                pace.slow_down();
            }
            match tokio::time::timeout(pace.left(), self.lease.unwind(&mut scratch)).await {
                Ok(heard) => heard?,
                Err(_) if self.works() => {}
                Err(_) => pace.rest(),
            }
        }
        Ok(())
    }

    fn is_recovered(&self) -> Result<bool, Failure> {
        match self.lease.verdict() {
            // It is cleaned when it is given back.
            Verdict::Reuse | Verdict::Close(CloseReason::Unclean) => Ok(self.cancels.is_empty()),
            Verdict::Close(CloseReason::Unfinished) => Ok(false),
            Verdict::Close(reason) => Err(Failure::Unfit(reason)),
        }
    }

    /// Whether the server may be at work on what the client wanted, and not on what the pooler says.
    fn works(&self) -> bool {
        let ledger = self.lease.ledger();
        ledger.unanswered() > 0 && !ledger.owes_pooler() && !ledger.is_copying_in()
    }

    /// The server has dealt with the cancel when this returns: it cannot hit what is said later.
    async fn cancel(&mut self) {
        let (target, pending) = CancelTarget::new(&self.lease, self.lease.target_in_force());
        target.deliver().await;
        self.cancels.push(pending);
        self.settle_cancels().await;
    }

    async fn settle_cancels(&mut self) {
        while let Some(pending) = self.cancels.pop() {
            if let Some(reason) = pending.settle().await {
                self.lease.mark_broken(reason);
            }
        }
    }
}

impl Pace {
    /// At once, if the server is at work as far as one knows.
    fn new(waits: bool) -> Self {
        let pause = if waits { FIRST_PAUSE } else { Duration::ZERO };
        Self {
            next: Instant::now() + pause,
            pause: FIRST_PAUSE,
        }
    }

    fn is_due(&self) -> bool {
        self.left().is_zero()
    }

    fn left(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    fn slow_down(&mut self) {
        self.next = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// The server gets a moment to answer what it was told.
    fn rest(&mut self) {
        self.next = self.next.max(Instant::now() + FIRST_PAUSE);
    }
}

/// Closes a connection after asking the server to stop working for nobody. Its place in the pool is free when the
/// server has let go, or is the primary no more.
async fn wind_up(mut lease: Lease, deadline: Instant) {
    let fenced = lease.fenced();
    tokio::select! {
        biased;
        () = fenced => {}
        () = see_off(&mut lease, deadline) => return,
    }
    lease.say_goodbye();
}

async fn see_off(lease: &mut Lease, deadline: Instant) {
    cancel(lease).await;
    lease.say_goodbye();
    let mut pause = FIRST_PAUSE;
    while tokio::time::timeout(pause, lease.closed()).await.is_err() && Instant::now() < deadline {
        cancel(lease).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn cancel(lease: &Lease) {
    let (target, _) = CancelTarget::new(lease, lease.target_in_force());
    target.deliver().await;
}

/// Closes the connection of a client that is gone and that nobody else can have, such as one that has sent a part of
/// its last message: the server would take anybody's bytes for the rest.
pub(super) fn close(mut lease: Lease) {
    lease.mark_broken(CloseReason::Unfinished);
    let tasks = lease.tasks().clone();
    tasks.spawn("wind up", async move {
        if lease.rehome(Home::Control).is_ok() {
            wind_up(lease, Instant::now() + LIMIT).await;
        }
    });
}
