//! A limit that several pools share: the server connections of one database (`max_db_connections`), of one user
//! (`max_user_connections`), or of the process (its part of `server_connection_budget`).
//!
//! It counts and queues; which connection makes room is for the pools to say.

use std::{
    collections::VecDeque,
    fmt,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::Pool;

/// A pool that waits for room as long as this is given a connection's place by a pool that has more.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `max_db_connections`
    Database,
    /// `max_user_connections`
    User,
    /// `server_connection_budget`
    Budget,
}

impl Scope {
    /// The setting that limits it.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Database => "max_db_connections",
            Self::User => "max_user_connections",
            Self::Budget => "server_connection_budget",
        }
    }
}

/// How many server connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What the setting says.
    pub whole: usize,
    /// How many of them may be this process's.
    pub here: usize,
}

impl From<NonZeroUsize> for Limit {
    fn from(all: NonZeroUsize) -> Self {
        Self {
            whole: all.get(),
            here: all.get(),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.whole)?;
        if self.here == self.whole {
            return Ok(());
        }
        write!(f, ", of which this replica may have {} now", self.here)
    }
}

/// The limits that a pool shares with others: its database's, its user's, and the process's.
pub(super) type Quotas = [Arc<Quota>; 3];
/// A connection's part of each.
pub(super) type Shares = [Share; 3];

/// The limit, who counts towards it and who waits for it.
#[derive(Debug)]
pub(super) struct Quota {
    scope: Scope,
    inner: Mutex<Inner>,
    /// Somebody waits for room, or there are more than there may be; the only thing that is looked at when a
    /// connection comes back.
    pressed: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    account: Account<usize>,
    members: Vec<(usize, Weak<Pool>)>,
}

/// Why there is no share for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The limit is reached, and the pool is the first that waits.
    Full,
    /// Others wait.
    NotYet,
}

/// One server connection's share; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    quota: Arc<Quota>,
    /// The connection has been closed, and its server has not let go of it yet.
    leaving: bool,
}

impl Quota {
    pub(super) fn new(scope: Scope) -> Arc<Self> {
        Arc::new(Self {
            scope,
            inner: Mutex::new(Inner {
                account: Account::default(),
                members: Vec::new(),
            }),
            pressed: AtomicBool::new(false),
        })
    }

    pub(super) fn scope(&self) -> Scope {
        self.scope
    }

    /// How much is used, and the limit.
    pub(super) fn usage(&self) -> (usize, Option<Limit>) {
        let inner = self.lock();
        (inner.account.used, inner.account.limit)
    }

    pub(super) fn limit(&self) -> Option<Limit> {
        self.lock().account.limit
    }

    /// Counts a pool among those that share the limit.
    pub(super) fn join(&self, pool: &Arc<Pool>) {
        let mut inner = self.lock();
        inner.members.retain(|(_, member)| member.strong_count() > 0);
        inner.members.push((id(pool), Arc::downgrade(pool)));
    }

    /// Sets the limit. Whoever has a share keeps it for now: see [`Quota::surplus`].
    pub(super) fn resize(&self, limit: Option<Limit>) {
        let next = {
            let mut inner = self.lock();
            inner.account.limit = limit;
            self.note(&inner);
            inner.next()
        };
        wake(next);
    }

    /// A share for a connection that somebody waits for.
    ///
    /// # Errors
    /// The pool stands in the queue, and its bell rings when its turn has come.
    pub(super) fn take(self: &Arc<Self>, pool: &Arc<Pool>, now: Instant) -> Result<Share, Refused> {
        // A pool whose last handle is dropped gives shares back: never under the lock.
        let (taken, next, _first) = {
            let mut inner = self.lock();
            // Pools that are gone do not stand in the way.
            let first = inner.next();
            let taken = inner.account.take(id(pool), now);
            self.note(&inner);
            let next = taken.is_ok().then(|| inner.next()).flatten();
            (taken, next, first)
        };
        wake(next);
        taken.map(|()| Share::new(self))
    }

    /// A share for a connection that nobody waits for.
    pub(super) fn take_spare(self: &Arc<Self>) -> Option<Share> {
        self.lock().account.take_spare().then(|| Share::new(self))
    }

    /// How many connections there are beyond the limit, those that are being closed left out.
    pub(super) fn surplus(&self) -> usize {
        if !self.is_pressed() {
            return 0;
        }
        self.lock().account.surplus()
    }

    /// How many places will be free as soon as servers have let go of connections that were closed.
    pub(super) fn leaving(&self) -> usize {
        self.lock().account.leaving
    }

    /// The pool wants nothing any more.
    pub(super) fn leave(&self, pool: &Arc<Pool>) {
        if !self.is_pressed() {
            return;
        }
        let next = {
            let mut inner = self.lock();
            inner.account.leave(id(pool));
            self.note(&inner);
            inner.next()
        };
        wake(next);
    }

    /// Whether any pool waits for room, or there are more connections than there may be.
    pub(super) fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// The pool that has waited for room for so long that one with more must give way.
    pub(super) fn starving(&self, now: Instant) -> Option<Arc<Pool>> {
        let inner = self.lock();
        let (id, since) = inner.account.first()?;
        (!inner.account.has_room() && now.saturating_duration_since(since) >= PATIENCE)
            .then(|| inner.member(id))
            .flatten()
    }

    /// The pools that share the limit.
    pub(super) fn members(&self) -> Vec<Arc<Pool>> {
        let inner = self.lock();
        inner
            .members
            .iter()
            .filter_map(|(_, pool)| pool.upgrade())
            .collect()
    }

    /// Whether the pool waits for room.
    pub(super) fn is_awaited_by(&self, pool: &Arc<Pool>) -> bool {
        let inner = self.lock();
        inner
            .account
            .queue
            .iter()
            .any(|(waiting, _)| *waiting == id(pool))
    }

    fn note(&self, inner: &Inner) {
        let account = &inner.account;
        let pressed = !account.queue.is_empty() || account.surplus() > 0;
        self.pressed.store(pressed, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whose turn it is, if there is room.
    fn next(&mut self) -> Option<Arc<Pool>> {
        while let Some(id) = self.account.next() {
            match self.member(id) {
                Some(pool) => return Some(pool),
                None => self.account.leave(id),
            }
        }
        None
    }

    fn member(&self, id: usize) -> Option<Arc<Pool>> {
        let (_, pool) = self.members.iter().find(|(member, _)| *member == id)?;
        pool.upgrade()
    }
}

impl Share {
    fn new(quota: &Arc<Quota>) -> Self {
        Self {
            quota: quota.clone(),
            leaving: false,
        }
    }

    /// Whether anybody may have to wait for it.
    pub(super) fn is_scarce(&self) -> bool {
        self.quota.limit().is_some()
    }

    /// The connection has been closed: the share is on its way back, and counts until it is dropped.
    pub(super) fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            let mut inner = self.quota.lock();
            inner.account.leaving += 1;
            self.quota.note(&inner);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let next = {
            let mut inner = self.quota.lock();
            inner.account.give_back(self.leaving);
            self.quota.note(&inner);
            inner.next()
        };
        wake(next);
    }
}

/// Where a pool is, which is what it is told apart by as long as it lives.
fn id(pool: &Arc<Pool>) -> usize {
    Arc::as_ptr(pool).addr()
}

fn wake(pool: Option<Arc<Pool>>) {
    if let Some(pool) = pool {
        pool.ring();
    }
}

/// The account as a pure value: shares, and who waits for one.
#[derive(Debug)]
struct Account<M> {
    limit: Option<Limit>,
    used: usize,
    /// Of these, connections that were closed and whose servers have not let go of them yet.
    leaving: usize,
    queue: VecDeque<(M, Instant)>,
}

impl<M> Default for Account<M> {
    fn default() -> Self {
        Self {
            limit: None,
            used: 0,
            leaving: 0,
            queue: VecDeque::new(),
        }
    }
}

impl<M: Copy + PartialEq> Account<M> {
    fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.used < limit.here)
    }

    fn surplus(&self) -> usize {
        let staying = self.used.saturating_sub(self.leaving);
        self.limit.map_or(0, |limit| staying.saturating_sub(limit.here))
    }

    /// Takes a share, or a place in the queue. Nobody overtakes.
    fn take(&mut self, member: M, now: Instant) -> Result<(), Refused> {
        let first = self.queue.front().is_none_or(|(first, _)| *first == member);
        if first && self.has_room() {
            self.used += 1;
            self.queue.pop_front();
            return Ok(());
        }
        if !self.queue.iter().any(|(waiting, _)| *waiting == member) {
            self.queue.push_back((member, now));
        }
        Err(if first { Refused::Full } else { Refused::NotYet })
    }

    fn take_spare(&mut self) -> bool {
        let taken = self.queue.is_empty() && self.has_room();
        self.used += usize::from(taken);
        taken
    }

    fn give_back(&mut self, leaving: bool) {
        self.used = self.used.saturating_sub(1);
        self.leaving = self.leaving.saturating_sub(usize::from(leaving));
    }

    fn leave(&mut self, member: M) {
        self.queue.retain(|(waiting, _)| *waiting != member);
    }

    fn first(&self) -> Option<(M, Instant)> {
        self.queue.front().copied()
    }

    fn next(&self) -> Option<M> {
        self.queue
            .front()
            .filter(|_| self.has_room())
            .map(|(member, _)| *member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(limit: usize) -> Account<char> {
        Account {
            limit: NonZeroUsize::new(limit).map(Limit::from),
            ..Account::default()
        }
    }

    #[test]
    fn without_a_limit_everyone_is_counted_and_nobody_waits() {
        let now = Instant::now();
        let mut account = account(0);
        assert!((0..100).all(|_| account.take('a', now).is_ok()));
        account.limit = NonZeroUsize::new(100).map(Limit::from);
        assert_eq!(
            account.take('b', now),
            Err(Refused::Full),
            "those from before the limit count"
        );
    }

    #[test]
    fn room_goes_to_whoever_has_waited_longest() {
        let now = Instant::now();
        let mut account = account(1);
        assert_eq!(account.take('a', now), Ok(()));
        assert_eq!(account.take('b', now), Err(Refused::Full));
        assert_eq!(account.take('c', now), Err(Refused::NotYet));
        assert_eq!(account.take('b', now), Err(Refused::Full));
        assert_eq!(account.next(), None);
        account.give_back(false);
        assert_eq!(account.next(), Some('b'));
        for late in ['a', 'c'] {
            assert_eq!(account.take(late, now), Err(Refused::NotYet), "nobody overtakes");
        }
        assert!(!account.take_spare());
        assert_eq!(account.take('b', now), Ok(()));
        account.give_back(false);
        assert_eq!(account.next(), Some('c'));
        account.leave('c');
        assert_eq!(account.next(), Some('a'));
    }

    #[test]
    fn what_is_beyond_the_limit_goes_and_what_is_going_counts() {
        let now = Instant::now();
        let mut account = account(0);
        for _ in 0..3 {
            account.take('a', now).unwrap();
        }
        let part = |here| Some(Limit { whole: 9, here });
        account.limit = part(1);
        assert_eq!(account.surplus(), 2);
        account.leaving += 1;
        assert_eq!(account.surplus(), 1, "one is on its way");
        account.limit = part(2);
        assert_eq!(account.surplus(), 0);
        assert_eq!(
            account.take('b', now),
            Err(Refused::Full),
            "the server still has all three"
        );
        account.give_back(true);
        assert_eq!((account.used, account.leaving), (2, 0));
        assert_eq!(account.take('b', now), Err(Refused::Full));
        // A newcomer among the replicas has none.
        account.limit = part(0);
        assert_eq!(account.surplus(), 2);
        assert!(!account.take_spare());
    }

    #[test]
    fn a_limit_says_what_is_this_replicas() {
        let limit = |whole, here| Limit { whole, here }.to_string();
        assert_eq!(limit(12, 12), "12");
        assert_eq!(limit(12, 4), "12, of which this replica may have 4 now");
    }
}
