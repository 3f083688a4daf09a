//! The queues of a pool as a pure value: who is idle, who waits, how many are under way.
//!
//! A server connection is in exactly one place: connecting, idle or active (lent). The functions here are
//! the only ones that move it, so that the counts are right by construction. Time is passed in; connections
//! and waiters are type parameters, so that the tests need neither sockets nor tasks.

use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

/// How large a pool may and should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `pool_size`: connecting, idle and active together.
    pub size: NonZeroUsize,
    /// `min_pool_size`: kept open even when nobody asks.
    pub min: usize,
    /// `reserve_pool_size`: beyond the size, for those who have waited long.
    pub reserve: usize,
    /// `reserve_pool_timeout`: how long that is; zero is never.
    pub reserve_after: Duration,
}

/// A place in the queue, unique in its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

/// What happened to a connection that came back or was opened.
#[derive(Debug, PartialEq, Eq)]
pub enum Placed<C, W> {
    /// It goes to the waiter that has waited longest.
    HandedOver(W, C),
    /// It waits for the next client.
    Idle,
    /// The pool is larger than it may be: to be closed.
    Surplus(C),
}

/// What becomes of a connection that is past its lifetime and still needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Succession {
    /// A successor is to be opened, which is counted as connecting; until it is there the old one serves.
    Open,
    /// A successor is under way.
    Awaited,
    /// A successor is there: the old one ends.
    End,
    /// There is no room for both: the old one ends, and [`State::begin_successor`] says whether another is to be opened.
    Exchange,
}

/// What a pool does for those who ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Service {
    /// It lends.
    #[default]
    Open,
    /// Who asks waits; connections are kept (PgBouncer's SUSPEND).
    Suspended,
    /// Who asks waits; connections are closed as they come back (PgBouncer's PAUSE).
    Paused,
    /// It is over.
    Retired,
}

/// One connection at a time is succeeded by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Successor {
    #[default]
    None,
    Opening,
    Arrived,
    /// The server has no place for one.
    NoRoom,
}

/// How many connections stand where, and how many clients wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Being opened, or being proved good after a long rest.
    pub connecting: usize,
    /// Ready for a client.
    pub idle: usize,
    /// Lent to a client.
    pub active: usize,
    /// Clients in the queue.
    pub waiting: usize,
}

impl Counts {
    /// Server connections in any place.
    pub fn servers(&self) -> usize {
        self.connecting + self.idle + self.active
    }
}

#[derive(Debug)]
struct Waiter<W> {
    ticket: Ticket,
    since: Instant,
    waiter: W,
}

/// The queues of one pool.
#[derive(Debug)]
pub struct State<C, W> {
    limits: Limits,
    /// The most recently used one last.
    idle: Vec<C>,
    waiters: VecDeque<Waiter<W>>,
    connecting: usize,
    /// Of these, idle connections that are being checked.
    checking: usize,
    active: usize,
    next_ticket: u64,
    service: Service,
    successor: Successor,
    /// Whether the idle connection is lent that has rested longest.
    round_robin: bool,
}

impl<C, W> State<C, W> {
    /// An empty pool.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            idle: Vec::new(),
            waiters: VecDeque::new(),
            connecting: 0,
            checking: 0,
            active: 0,
            next_ticket: 0,
            service: Service::Open,
            successor: Successor::None,
            round_robin: false,
        }
    }

    /// Lends the most recently used idle connection, of those that `prefer` likes if there are any; with
    /// [`State::set_round_robin`] the one that has rested longest.
    /// Nobody overtakes a waiter.
    pub fn check_out(&mut self, prefer: impl Fn(&C) -> bool) -> Option<C> {
        if self.service != Service::Open || !self.waiters.is_empty() {
            return None;
        }
        let last = self.idle.len().checked_sub(1)?;
        let index = if self.round_robin {
            0
        } else {
            self.idle.iter().rposition(prefer).unwrap_or(last)
        };
        self.active += 1;
        Some(self.idle.remove(index))
    }

    /// Lends an idle connection of the least rank, of these the most recently used one. Nobody overtakes a waiter.
    pub fn check_out_least<R: Ord>(&mut self, rank: impl Fn(&C) -> R) -> Option<C> {
        if self.service != Service::Open || !self.waiters.is_empty() {
            return None;
        }
        let ranked = self.idle.iter().enumerate().rev();
        let (index, _) = ranked.min_by_key(|(_, connection)| rank(connection))?;
        self.active += 1;
        Some(self.idle.remove(index))
    }

    /// Takes back a connection that was lent and not used.
    pub fn put_back(&mut self, connection: C) {
        self.active = self.active.saturating_sub(1);
        self.idle.push(connection);
    }

    /// Takes an idle connection that must be proved good before a waiter may have it, if there is a waiter that
    /// nothing is on its way to. It is counted as connecting from here on: [`State::connected`] when it is good,
    /// [`State::connecting_failed`] when not.
    pub fn begin_check(&mut self) -> Option<C> {
        if self.service != Service::Open || self.waiters.len() <= self.checking {
            return None;
        }
        let connection = self.idle.pop()?;
        self.connecting += 1;
        self.checking += 1;
        Some(connection)
    }

    /// A lent connection comes back and must be proved good. It is counted as connecting from here on, as by
    /// [`State::begin_check`].
    pub fn check_lent(&mut self) {
        self.active = self.active.saturating_sub(1);
        self.connecting += 1;
        self.checking += 1;
    }

    /// A connection was opened and must be proved good; it stays counted as connecting, as by [`State::begin_check`].
    pub fn check_opened(&mut self) {
        self.checking += 1;
    }

    /// A check has ended; how, [`State::connected`] or [`State::connecting_failed`] is told next.
    pub fn end_check(&mut self) {
        self.checking = self.checking.saturating_sub(1);
    }

    /// Joins the end of the queue.
    pub fn enqueue(&mut self, now: Instant, waiter: W) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiters.push_back(Waiter {
            ticket,
            since: now,
            waiter,
        });
        ticket
    }

    /// Leaves the queue. `None` when it was left before.
    pub fn withdraw(&mut self, ticket: Ticket) -> Option<W> {
        let index = self.waiters.iter().position(|waiter| waiter.ticket == ticket)?;
        self.waiters.remove(index).map(|waiter| waiter.waiter)
    }

    /// How many connections to start opening now for those who wait; they are counted as connecting from here
    /// on.
    pub fn begin_connecting(&mut self, now: Instant) -> usize {
        let wanted = self.waiters.len().saturating_sub(self.connecting);
        let (size, servers) = (self.limits.size.get(), self.counts().servers());
        // The reserve is opened for as many as have waited long, and no more.
        let long = self.long_waiting(now).saturating_sub(self.connecting);
        let reserve = (size + self.limits.reserve).saturating_sub(servers.max(size));
        self.begin(wanted, size.saturating_sub(servers) + reserve.min(long))
    }

    /// The same for `min_pool_size`.
    pub fn begin_minimum(&mut self) -> usize {
        self.begin_in_size(self.limits.min.saturating_sub(self.counts().servers()))
    }

    fn begin_in_size(&mut self, wanted: usize) -> usize {
        let size = self.limits.size.get();
        self.begin(wanted, size.saturating_sub(self.counts().servers()))
    }

    /// How many have waited long enough for the reserve.
    fn long_waiting(&self, now: Instant) -> usize {
        let after = self.limits.reserve_after;
        if self.limits.reserve == 0 || after.is_zero() {
            return 0;
        }
        let enough = self.limits.reserve + self.connecting;
        let waiters = self.waiters.iter().take(enough);
        waiters
            .take_while(|waiter| now.saturating_duration_since(waiter.since) >= after)
            .count()
    }

    fn begin(&mut self, wanted: usize, room: usize) -> usize {
        let begin = match self.service {
            Service::Open => wanted.min(room),
            _ => 0,
        };
        self.connecting += begin;
        begin
    }

    /// Decides about a connection that is past its lifetime, so that no client has to wait for a log-in on that account.
    pub fn succeed(&mut self) -> Succession {
        match self.successor {
            Successor::Arrived => {
                self.successor = Successor::None;
                Succession::End
            }
            Successor::Opening => Succession::Awaited,
            Successor::NoRoom => {
                self.successor = Successor::None;
                Succession::Exchange
            }
            Successor::None => match self.begin_in_size(1) {
                0 => Succession::Exchange,
                _ => {
                    self.successor = Successor::Opening;
                    Succession::Open
                }
            },
        }
    }

    /// Whether to open a connection in the place of one that has just ended; counted as connecting then.
    pub fn begin_successor(&mut self) -> usize {
        self.begin_in_size(1)
    }

    /// The successor was opened; [`State::connected`] places it as any other.
    pub fn successor_arrived(&mut self) {
        self.successor = Successor::Arrived;
    }

    /// The successor could not be opened; [`State::connecting_failed`] counts it as any other. If the server has no
    /// place for one beside the old one, the two are exchanged next time.
    pub fn successor_failed(&mut self, no_room: bool) {
        self.successor = if no_room {
            Successor::NoRoom
        } else {
            Successor::None
        };
    }

    /// Whether an attempt that failed should be made again at once: somebody waits for it, and it fits.
    pub fn wants_connecting(&self) -> bool {
        let fits = self.counts().servers() <= self.limits.size.get() + self.limits.reserve;
        self.service == Service::Open
            && fits
            && !self.waiters.is_empty()
            && self.waiters.len() >= self.connecting
    }

    /// An attempt to connect was given up.
    pub fn connecting_failed(&mut self) {
        self.connecting = self.connecting.saturating_sub(1);
    }

    /// A connection was opened.
    pub fn connected(&mut self, connection: C) -> Placed<C, W> {
        self.connecting = self.connecting.saturating_sub(1);
        self.place(connection)
    }

    /// A lent connection comes back and may be used again.
    pub fn check_in(&mut self, connection: C) -> Placed<C, W> {
        self.active = self.active.saturating_sub(1);
        self.place(connection)
    }

    /// A connection was opened, or was proved good, and nobody may have it yet.
    pub fn rest(&mut self, connection: C) -> Placed<C, W> {
        self.connecting = self.connecting.saturating_sub(1);
        if !self.has_room() {
            return Placed::Surplus(connection);
        }
        self.idle.push(connection);
        Placed::Idle
    }

    /// Gives idle connections that rested, and may be lent now, to those who wait.
    pub fn wake_rested(&mut self, mut may_be_lent: impl FnMut(&mut C) -> bool) -> Vec<(W, C)> {
        let (mut given, mut kept) = (Vec::new(), Vec::with_capacity(self.idle.len()));
        for mut connection in self.idle.drain(..).rev() {
            if self.service == Service::Open && !self.waiters.is_empty() && may_be_lent(&mut connection) {
                if let Some(waiter) = self.waiters.pop_front() {
                    given.push((waiter.waiter, connection));
                }
            } else {
                kept.push(connection);
            }
        }
        kept.reverse();
        self.idle = kept;
        self.active += given.len();
        given
    }

    /// A lent connection was closed.
    pub fn lost(&mut self) {
        self.active = self.active.saturating_sub(1);
    }

    /// Whether there is a place for one more: in the reserve too while somebody waits.
    fn has_room(&self) -> bool {
        let reserve = if self.waiters.is_empty() {
            0
        } else {
            self.limits.reserve
        };
        self.keeps_servers() && self.counts().servers() < self.limits.size.get() + reserve
    }

    fn place(&mut self, connection: C) -> Placed<C, W> {
        if !self.has_room() {
            return Placed::Surplus(connection);
        }
        let next = match self.service {
            Service::Open => self.waiters.pop_front(),
            _ => None,
        };
        match next {
            Some(waiter) => {
                self.active += 1;
                Placed::HandedOver(waiter.waiter, connection)
            }
            None => {
                self.idle.push(connection);
                Placed::Idle
            }
        }
    }

    /// Since when the waiter waits that has waited longest.
    pub fn waiting_since(&self) -> Option<Instant> {
        Some(self.waiters.front()?.since)
    }

    /// Takes out the waiters that have waited for `timeout` or longer.
    pub fn expire(&mut self, now: Instant, timeout: Duration) -> Vec<W> {
        let expired = self
            .waiters
            .iter()
            .take_while(|waiter| now.saturating_duration_since(waiter.since) >= timeout)
            .count();
        self.waiters
            .drain(..expired)
            .map(|waiter| waiter.waiter)
            .collect()
    }

    /// Takes out the waiters that came at `latest` or before.
    pub fn dismiss_until(&mut self, latest: Instant) -> Vec<W> {
        let count = self
            .waiters
            .iter()
            .take_while(|waiter| waiter.since <= latest)
            .count();
        self.waiters.drain(..count).map(|waiter| waiter.waiter).collect()
    }

    /// Takes out every waiter.
    pub fn dismiss(&mut self) -> Vec<W> {
        self.waiters.drain(..).map(|waiter| waiter.waiter).collect()
    }

    /// Takes out the idle connections that `keep` gives a reason against, least recently used first.
    /// `keep` is also told how many connections the pool would have without this one.
    pub fn sweep<R>(&mut self, mut keep: impl FnMut(&mut C, usize) -> Option<R>) -> Vec<(C, R)> {
        let mut others = self.counts().servers();
        let mut removed = Vec::new();
        let mut kept = Vec::with_capacity(self.idle.len());
        for mut connection in self.idle.drain(..) {
            match keep(&mut connection, others.saturating_sub(1)) {
                Some(reason) => {
                    others -= 1;
                    removed.push((connection, reason));
                }
                None => kept.push(connection),
            }
        }
        self.idle = kept;
        removed
    }

    /// Takes out the idle connection that was used least recently, to make room elsewhere.
    pub fn evict(&mut self) -> Option<C> {
        (!self.idle.is_empty()).then(|| self.idle.remove(0))
    }

    /// The idle connection that [`State::evict`] would take.
    pub fn least_recently_used(&self) -> Option<&C> {
        self.idle.first()
    }

    /// Applies new limits. What is too much goes as it becomes idle; [`State::sweep`] finds the rest.
    pub fn resize(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether idle connections are lent in turns (`server_round_robin`), so that all of them are in use, or the most
    /// recently used one first, so that those beyond the need become superfluous.
    pub fn set_round_robin(&mut self, round_robin: bool) {
        self.round_robin = round_robin;
    }

    /// From now on nothing is lent or opened; what comes back is surplus.
    pub fn retire(&mut self) {
        self.service = Service::Retired;
    }

    /// Whether [`State::retire`] was called.
    pub fn is_retired(&self) -> bool {
        self.service == Service::Retired
    }

    /// Serves in this way from now on; nobody brings back a pool that is retired.
    pub fn set_service(&mut self, service: Service) {
        if !self.is_retired() {
            self.service = service;
        }
    }

    /// Whether requests wait until somebody sets another service.
    pub fn is_halted(&self) -> bool {
        matches!(self.service, Service::Paused | Service::Suspended)
    }

    /// Whether connections that nobody uses are kept.
    pub fn keeps_servers(&self) -> bool {
        matches!(self.service, Service::Open | Service::Suspended)
    }

    /// Whether no connection is lent or kept. One that is being opened is surplus when it is open.
    pub fn is_empty_of_servers(&self) -> bool {
        self.active + self.idle.len() + self.checking == 0
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What stands where.
    pub fn counts(&self) -> Counts {
        Counts {
            connecting: self.connecting,
            idle: self.idle.len(),
            active: self.active,
            waiting: self.waiters.len(),
        }
    }
}

#[cfg(test)]
mod tests;
