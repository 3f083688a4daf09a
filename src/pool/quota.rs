//! A limit that several pools share: the server connections of one database (`max_db_connections`) or of one
//! user (`max_user_connections`).
//!
//! It counts and queues; which connection makes room is for the pools to say.

use std::{
    collections::VecDeque,
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
}

impl Scope {
    /// The setting that limits it.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Database => "max_db_connections",
            Self::User => "max_user_connections",
        }
    }
}

/// The limit, who counts towards it and who waits for it.
#[derive(Debug)]
pub(super) struct Quota {
    scope: Scope,
    inner: Mutex<Inner>,
    /// Somebody waits for room; the only thing that is looked at when a connection comes back.
    contended: AtomicBool,
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
pub(super) struct Share(Arc<Quota>);

impl Quota {
    pub(super) fn new(scope: Scope) -> Arc<Self> {
        Arc::new(Self {
            scope,
            inner: Mutex::new(Inner {
                account: Account::default(),
                members: Vec::new(),
            }),
            contended: AtomicBool::new(false),
        })
    }

    pub(super) fn scope(&self) -> Scope {
        self.scope
    }

    /// How much is used, and the limit.
    pub(super) fn usage(&self) -> (usize, Option<NonZeroUsize>) {
        let inner = self.lock();
        (inner.account.used, inner.account.limit)
    }

    pub(super) fn limit(&self) -> Option<NonZeroUsize> {
        self.lock().account.limit
    }

    /// Counts a pool among those that share the limit.
    pub(super) fn join(&self, pool: &Arc<Pool>) {
        let mut inner = self.lock();
        inner.members.retain(|(_, member)| member.strong_count() > 0);
        inner.members.push((id(pool), Arc::downgrade(pool)));
    }

    /// Sets the limit. Whoever has a share keeps it.
    pub(super) fn resize(&self, limit: Option<NonZeroUsize>) {
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
        let (taken, next) = {
            let mut inner = self.lock();
            // Pools that are gone do not stand in the way.
            inner.next();
            let taken = inner.account.take(id(pool), now);
            self.note(&inner);
            let next = taken.is_ok().then(|| inner.next()).flatten();
            (taken, next)
        };
        wake(next);
        taken.map(|()| Share(self.clone()))
    }

    /// A share for a connection that nobody waits for.
    pub(super) fn take_spare(self: &Arc<Self>) -> Option<Share> {
        self.lock().account.take_spare().then(|| Share(self.clone()))
    }

    /// The pool wants nothing any more.
    pub(super) fn leave(&self, pool: &Arc<Pool>) {
        if !self.is_contended() {
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

    /// Whether any pool waits for room.
    pub(super) fn is_contended(&self) -> bool {
        self.contended.load(Ordering::Relaxed)
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
        self.contended
            .store(!inner.account.queue.is_empty(), Ordering::Relaxed);
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

impl Drop for Share {
    fn drop(&mut self) {
        let next = {
            let mut inner = self.0.lock();
            inner.account.give_back();
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
    limit: Option<NonZeroUsize>,
    used: usize,
    queue: VecDeque<(M, Instant)>,
}

impl<M> Default for Account<M> {
    fn default() -> Self {
        Self {
            limit: None,
            used: 0,
            queue: VecDeque::new(),
        }
    }
}

impl<M: Copy + PartialEq> Account<M> {
    fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.used < limit.get())
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

    fn give_back(&mut self) {
        self.used = self.used.saturating_sub(1);
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
            limit: NonZeroUsize::new(limit),
            ..Account::default()
        }
    }

    #[test]
    fn without_a_limit_everyone_is_counted_and_nobody_waits() {
        let now = Instant::now();
        let mut account = account(0);
        assert!((0..100).all(|_| account.take('a', now).is_ok()));
        account.limit = NonZeroUsize::new(100);
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
        account.give_back();
        assert_eq!(account.next(), Some('b'));
        for late in ['a', 'c'] {
            assert_eq!(account.take(late, now), Err(Refused::NotYet), "nobody overtakes");
        }
        assert!(!account.take_spare());
        assert_eq!(account.take('b', now), Ok(()));
        account.give_back();
        assert_eq!(account.next(), Some('c'));
        account.leave('c');
        assert_eq!(account.next(), Some('a'));
    }
}
