//! What stands between a stranger and a log-in: places, and the memory of who has failed too often.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::Semaphore;

use super::{directory::AT_ONCE, error::StartupError, newcomers::Newcomers, slots::Slots};
use crate::{
    auth::{
        AuthError, Guess,
        throttle::{Blocked, Claimant, Scope, Throttle},
    },
    config::{FailureLimits, Listen},
    net::PeerAddress,
};

/// What every connection passes; it stays the same when the settings change.
#[derive(Debug)]
pub struct Door {
    /// The places for clients.
    pub slots: Arc<Slots>,
    /// The places for those who have not logged in.
    pub(super) newcomers: Arc<Newcomers>,
    throttle: Mutex<Throttle>,
    /// The turns to ask a directory.
    directory: Semaphore,
    failures: IntCounterVec,
    refused: IntCounter,
}

/// One attempt to log in, as the memory of failures sees it.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    door: &'a Door,
    limits: &'a FailureLimits,
    user: &'a str,
    peer: PeerAddress,
    counted: Counted,
}

/// Whether its failure has been counted.
#[derive(Debug, Clone, Copy)]
enum Counted {
    NotYet,
    /// The answer is to be held back for so long.
    Yes(Duration),
    /// It has been found to tell nothing about the user's secret.
    TakenBack,
}

impl Door {
    /// A door that nobody has passed. The registry adds the prefix `pgweir_`.
    ///
    /// # Errors
    /// A metric of that name is registered already.
    pub fn new(settings: &Listen, registry: &Registry) -> prometheus::Result<Self> {
        let failures = IntCounterVec::new(
            Opts::new("auth_failures_total", "Log-ins that failed, by reason"),
            &["reason"],
        )?;
        let refused = IntCounter::new(
            "auth_refused_total",
            "Log-ins refused unseen, after too many that failed",
        )?;
        let unauthenticated =
            IntGauge::new("unauthenticated_clients", "Connections that have not logged in")?;
        for guess in Guess::ALL {
            failures.with_label_values(&[guess.as_str()]);
        }
        registry.register(Box::new(failures.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(unauthenticated.clone()))?;
        Ok(Self {
            slots: Slots::new(settings.max_client_conn.get()),
            newcomers: Newcomers::new(settings.max_unauthenticated_clients.get(), unauthenticated),
            throttle: Mutex::default(),
            directory: Semaphore::new(AT_ONCE),
            failures,
            refused,
        })
    }

    /// Goes by new limits; whoever has a place keeps it.
    pub fn resize(&self, settings: &Listen) {
        self.slots.resize(settings.max_client_conn.get());
        self.newcomers.resize(settings.max_unauthenticated_clients.get());
    }

    /// How many have not logged in, and how many may.
    pub fn newcomers(&self) -> (usize, usize) {
        (self.newcomers.count(), self.newcomers.limit())
    }

    /// How many connections have not logged in.
    pub fn unauthenticated(&self) -> usize {
        self.newcomers.present()
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Attempt<'a> {
    pub(super) fn new(door: &'a Door, limits: &'a FailureLimits, user: &'a str, peer: PeerAddress) -> Self {
        Self {
            door,
            limits,
            user,
            peer,
            counted: Counted::NotYet,
        }
    }

    pub(super) fn peer(&self) -> PeerAddress {
        self.peer
    }

    /// `None` on a unix socket.
    fn claimant(&self) -> Option<Claimant<'a>> {
        match self.peer {
            PeerAddress::Ip(address, _) => Some(Claimant {
                address,
                user: self.user,
            }),
            PeerAddress::Local => None,
        }
    }

    /// Whether it may go on.
    pub(super) fn check(&self) -> Result<(), StartupError> {
        let Some(who) = self.claimant() else { return Ok(()) };
        let checked = self.door.throttle().check(who, self.limits, Instant::now());
        checked.map_err(|Blocked { scope, remaining }| {
            self.door.refused.inc();
            let user = (scope == Scope::User).then(|| self.user.into());
            AuthError::TooManyFailures { user, remaining }.into()
        })
    }

    /// Counts what may be a failure, before anybody waits for finding out whether it is. Whoever leaves meanwhile, or has
    /// many go on side by side, has guessed all the same.
    pub(super) fn suspect(&mut self, error: &AuthError) {
        if matches!(self.counted, Counted::NotYet) && error.guess().is_some() {
            self.counted = Counted::Yes(self.count());
        }
    }

    /// Takes it back: the answer was held against a secret that was no longer the user's.
    pub(super) fn pardon(&mut self) {
        if let (Counted::Yes(_), Some(who)) = (self.counted, self.claimant()) {
            self.door.throttle().pardon(who, self.limits);
        }
        self.counted = Counted::TakenBack;
    }

    /// Counts a failure, if it is one that counts. Returns how long the answer is to be held back.
    pub(super) fn failed(&mut self, error: &StartupError) -> Duration {
        let StartupError::Auth(error) = error else {
            return Duration::ZERO;
        };
        let Some(guess) = error.guess() else {
            return Duration::ZERO;
        };
        self.door.failures.with_label_values(&[guess.as_str()]).inc();
        self.suspect(error);
        match self.counted {
            Counted::Yes(delay) => delay,
            Counted::NotYet | Counted::TakenBack => Duration::ZERO,
        }
    }

    fn count(&self) -> Duration {
        let Some(who) = self.claimant() else {
            return Duration::ZERO;
        };
        let penalty = self.door.throttle().failed(who, self.limits, Instant::now());
        let seconds = self.limits.block.as_secs();
        match penalty.begins {
            Some(Scope::User) => tracing::warn!(
                address = %who.address, user = self.user, seconds,
                "too many failed log-ins: the user is refused from this address for a while"
            ),
            Some(Scope::Address) => tracing::warn!(
                address = %who.address, seconds,
                "too many failed log-ins: everybody is refused from this address for a while"
            ),
            None => {}
        }
        penalty.delay
    }

    /// Whose turn it is to ask a directory.
    pub(super) fn turns(&self) -> &'a Semaphore {
        &self.door.directory
    }

    pub(super) fn succeeded(&mut self) {
        self.pardon();
        if let Some(who) = self.claimant() {
            self.door.throttle().succeeded(who);
        }
    }
}
