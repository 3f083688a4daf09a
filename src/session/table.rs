//! The sessions of the process, by the process id that each client was told.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use dashmap::{DashMap, Entry as MapEntry};
use ring::rand::{SecureRandom, SystemRandom};

use super::{
    activity::{Clock, Tick},
    aside::{Aside, Introduction, Shown},
    control::{Control, Order},
    error::SessionError,
    member::{Holder, Member},
    origin::{Origin, Origins},
};
use crate::{
    pool::{LeaseError, Pool},
    server::statements::Neighbours,
    tls::Stream,
    types::{BackendKey, ClientId, PoolKey},
};

/// Bytes of a cancel key: four in protocol 3.0, as many as PostgreSQL 18 sends in 3.2.
const KEY_3_0: usize = 4;
/// Bytes of a process id.
const PID: usize = 4;
const KEY_3_2: usize = 32;

/// The sessions of the process.
#[derive(Debug, Default)]
pub struct Table {
    sessions: DashMap<i32, Session>,
    next_client: AtomicU64,
    draining: AtomicBool,
    clock: Arc<Clock>,
    origins: Origins,
    /// Clients that are no sessions, by the process id that they were told.
    asides: Mutex<HashMap<i32, Arc<Aside>>>,
    /// The last answer to who holds a pool's connections: many clients ask at once.
    asked: Mutex<Option<(Tick, PoolKey, Option<Holder>)>>,
}

#[derive(Debug)]
struct Session {
    secret: Arc<[u8]>,
    control: Arc<Control>,
    /// Absent until it is greeted.
    member: Option<Arc<Member>>,
}

/// A session's place in the table; empty again when dropped.
#[derive(Debug)]
pub struct Entry {
    table: Arc<Table>,
    key: BackendKey,
    control: Arc<Control>,
}

/// The system has no random numbers, so no cancel key can be made.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no random numbers for a cancel key")]
pub struct NoRandom;

/// No process of a server has an id this high (Linux has at most 2^22): what names a client names no backend.
const NO_PROCESS: i32 = 1 << 30;

impl Table {
    /// The next client's number.
    pub fn next_client(&self) -> ClientId {
        ClientId(self.next_client.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Enters a session of protocol 3.`minor` under a process id and a secret that nobody can guess.
    ///
    /// # Errors
    /// The system's random number generator failed.
    pub fn enter(self: &Arc<Self>, minor: u16) -> Result<Entry, NoRandom> {
        let length = if minor >= 2 { KEY_3_2 } else { KEY_3_0 };
        let control = Arc::new(Control::default());
        loop {
            let random = random::<{ PID + KEY_3_2 }>()?;
            let (pid, secret) = random.split_first_chunk::<PID>().unwrap_or((&[0; PID], &[]));
            let pid = i32::from_be_bytes(*pid) & i32::MAX | NO_PROCESS;
            let secret: Arc<[u8]> = secret.get(..length).unwrap_or_default().into();
            if let MapEntry::Vacant(vacant) = self.sessions.entry(pid) {
                vacant.insert(Session {
                    secret: secret.clone(),
                    control: control.clone(),
                    member: None,
                });
                // Set before the others were told, so whoever was not among them sees it here.
                if self.draining.load(Ordering::SeqCst) {
                    control.give(Order::Drain);
                }
                return Ok(Entry {
                    table: self.clone(),
                    key: BackendKey { pid, secret },
                    control,
                });
            }
        }
    }

    /// The session that a CancelRequest names, if the secret is right.
    pub fn find(&self, key: &BackendKey) -> Option<Arc<Control>> {
        let session = self.sessions.get(&key.pid)?;
        is_equal(&session.secret, &key.secret).then(|| session.control.clone())
    }

    /// The session that was told this process id, if it has been greeted.
    fn told(&self, pid: i32) -> Option<(Arc<Member>, Arc<Control>)> {
        let session = self.sessions.get(&pid)?;
        Some((session.member.clone()?, session.control.clone()))
    }

    /// The process id that the client was told for which this server process has worked last. It is looked for only
    /// when somebody is notified by it.
    fn find_told(&self, backend: i32) -> Option<i32> {
        let now = self.clock.now();
        let mut last: Option<(u32, i32)> = None;
        self.for_each_member(|member, _| {
            let ago = now.since(member.activity.lent());
            if member.backend.load(Ordering::Relaxed) == backend && last.is_none_or(|(least, _)| ago < least)
            {
                last = Some((ago, member.names.pid()));
            }
        });
        last.map(|(_, told)| told)
    }

    /// Gives an order to the session that was told this process id. Says whether there is one.
    pub(super) fn give(&self, pid: i32, order: Order) -> bool {
        let control = self.sessions.get(&pid).map(|session| session.control.clone());
        let found = control.is_some();
        if let Some(control) = control {
            control.give(order);
        }
        found
    }

    /// Every session's letter box.
    pub fn controls(&self) -> Vec<Arc<Control>> {
        self.sessions
            .iter()
            .map(|session| session.control.clone())
            .collect()
    }

    /// The time, for everything about sessions.
    pub(super) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Shows each session that has been greeted, and its letter box.
    pub(super) fn for_each_member(&self, mut see: impl FnMut(&Arc<Member>, &Arc<Control>)) {
        for session in &self.sessions {
            if let Some(member) = &session.member {
                see(member, &session.control);
            }
        }
    }

    /// Shows a client that is no session, or does so no more.
    pub(super) fn show_aside(&self, pid: i32, aside: Option<Arc<Aside>>) {
        let mut asides = self.lock_asides();
        match aside {
            Some(aside) => asides.insert(pid, aside),
            None => asides.remove(&pid),
        };
    }

    /// The clients that are no sessions.
    pub(super) fn asides(&self) -> Vec<Arc<Aside>> {
        self.lock_asides().values().cloned().collect()
    }

    fn lock_asides(&self) -> MutexGuard<'_, HashMap<i32, Arc<Aside>>> {
        self.asides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which session has held one of the pool's server connections for longest.
    fn longest_holder(&self, pool: &Pool) -> Option<Holder> {
        let now = self.clock.now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, key, holder)) = &*asked
            && *then == now
            && key == pool.key()
        {
            return holder.clone();
        }
        let mut longest: Option<(_, Arc<Member>)> = None;
        self.for_each_member(|member, _| {
            if member.pool.key() == pool.key()
                && let Some(held) = member.held(now)
                && longest.as_ref().is_none_or(|(longest, _)| held > *longest)
            {
                longest = Some((held, member.clone()));
            }
        });
        let holder = longest.and_then(|(_, member)| member.describe(now));
        *asked = Some((now, pool.key().clone(), holder.clone()));
        holder
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Asks every session, and each that is entered from now on, to end between transactions.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.tell_all(|| Order::Drain);
    }

    /// Gives every session the order that `order` makes.
    pub fn tell_all(&self, order: impl Fn() -> Order) {
        for control in self.controls() {
            control.give(order());
        }
    }
}

impl Neighbours for Table {
    fn told_by_backend(&self, backend: i32) -> Option<i32> {
        self.find_told(backend)
    }
}

impl Entry {
    /// Who knows the other sessions.
    pub(super) fn neighbours(&self) -> Arc<dyn Neighbours> {
        self.table.clone()
    }

    /// What the client is told to cancel with.
    pub fn key(&self) -> &BackendKey {
        &self.key
    }

    /// The time.
    pub(super) fn clock(&self) -> &Arc<Clock> {
        &self.table.clock
    }

    /// Shows the session to others from now on.
    pub(super) fn show(&self, member: Arc<Member>) {
        if let Some(mut session) = self.table.sessions.get_mut(&self.key.pid) {
            session.member = Some(member);
        }
    }

    /// How a client has come in.
    pub(super) fn origin(&self, stream: &Stream) -> Arc<Origin> {
        self.table.origins.of(stream)
    }

    /// Shows a client that is no session to others from now on, until what is returned is dropped.
    pub fn show_aside(&self, stream: &Stream, introduction: Introduction<'_>) -> Shown {
        let now = self.table.clock.now();
        let Introduction {
            identity,
            application_name,
            replication,
            server,
        } = introduction;
        let (pool, server) = server.unzip();
        let aside = Aside {
            identity: identity.clone(),
            origin: self.origin(stream),
            pool,
            pid: self.key.pid,
            application_name: application_name.to_owned(),
            replication,
            server,
            connected: now,
            asked: AtomicU32::new(now.number()),
        };
        Shown::new(self.table.clone(), Arc::new(aside))
    }

    /// Another session, or this one, by the process id that it was told.
    pub(super) fn told(&self, pid: i32) -> Option<(Arc<Member>, Arc<Control>)> {
        self.table.told(pid)
    }

    /// Adds to a client's having waited in vain who holds what it has waited for.
    pub(super) fn explain(&self, pool: &Pool, error: SessionError) -> SessionError {
        match error {
            SessionError::Lease(error @ LeaseError::Timeout { .. }) => {
                match self.table.longest_holder(pool) {
                    Some(holder) => SessionError::Queue {
                        error,
                        holder: Box::new(holder),
                    },
                    None => SessionError::Lease(error),
                }
            }
            other => other,
        }
    }

    /// The session's letter box.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.table.sessions.remove(&self.key.pid);
        // Others may hold the letter box for long.
        self.control.close();
    }
}

fn random<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// Compares without telling by its time how much was right.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn only_the_right_secret_finds_a_session_and_only_while_it_lives() {
        let table = Arc::new(Table::default());
        let entry = table.enter(0).unwrap();
        let key = entry.key().clone();
        assert_eq!(key.secret.len(), KEY_3_0);
        assert!(key.pid > 0 && table.find(&key).is_some());
        let wrong = BackendKey {
            secret: b"nope".as_slice().into(),
            ..key.clone()
        };
        let short = BackendKey {
            secret: key.secret[..3].into(),
            ..key.clone()
        };
        assert!(table.find(&wrong).is_none() && table.find(&short).is_none());
        drop(entry);
        assert!(table.find(&key).is_none() && table.is_empty());
        assert_eq!(table.enter(2).unwrap().key().secret.len(), KEY_3_2);
    }

    #[test]
    fn draining_reaches_those_who_come_later() {
        let table = Arc::new(Table::default());
        let early = table.enter(0).unwrap();
        assert!(early.control().take().is_empty());
        table.drain();
        let late = table.enter(0).unwrap();
        for entry in [early, late] {
            assert!(matches!(entry.control().take()[..], [Order::Drain]));
        }
    }

    #[tokio::test]
    async fn a_cancel_for_a_session_that_is_gone_is_answered() {
        let table = Arc::new(Table::default());
        let entry = table.enter(0).unwrap();
        let control = table.find(entry.key()).unwrap();
        let ((early, early_answer), (late, late_answer)) = (oneshot::channel(), oneshot::channel());
        control.give(Order::Cancel(early));
        drop(entry);
        control.give(Order::Cancel(late));
        assert!(early_answer.await.is_err() && late_answer.await.is_err());
    }

    #[test]
    fn orders_arrive_once() {
        let control = Control::default();
        assert!(control.take().is_empty());
        control.give(Order::Drain);
        control.give(Order::Kill);
        assert!(matches!(control.take()[..], [Order::Drain, Order::Kill]));
        assert!(control.take().is_empty());
    }
}
