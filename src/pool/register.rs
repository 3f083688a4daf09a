//! Every server connection of the process and every attempt to open one, for whoever looks.
//!
//! A connection is entered when it is opened and left out when it is closed; in between nobody comes by here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{server::Vitals, types::PoolKey};

/// A server connection, as others see it.
#[derive(Debug, Clone)]
pub struct ServerView {
    /// Unique in the process.
    pub id: u64,
    /// The pool that it belongs to.
    pub pool: PoolKey,
    /// What it shows of itself; absent while it is being opened.
    pub vitals: Option<Arc<Vitals>>,
    /// When it was opened, or when it was begun to be.
    pub since: Instant,
    /// It looks users up (`auth_query`), and belongs to no pool: `pool` is what one would have that does the same.
    pub is_look_up: bool,
    /// It is closed when its client gives it back: there was a RECONNECT, or it is for what the configuration does not
    /// say any more.
    pub close_needed: bool,
}

/// The connections, by number.
#[derive(Debug, Default)]
pub(super) struct Register(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    last: u64,
    entries: BTreeMap<u64, ServerView>,
}

/// One entry; struck out when dropped.
#[derive(Debug)]
pub(super) struct Registered {
    register: Arc<Register>,
    id: u64,
}

impl Register {
    /// Enters a connection, or an attempt to open one.
    pub(super) fn enter(self: &Arc<Self>, pool: &PoolKey, vitals: Option<Arc<Vitals>>) -> Registered {
        let since = vitals.as_ref().map_or_else(Instant::now, |vitals| vitals.opened);
        self.add(ServerView {
            id: 0,
            pool: pool.clone(),
            vitals,
            since,
            is_look_up: false,
            close_needed: false,
        })
    }

    /// Enters a connection that looks users up.
    pub(super) fn enter_look_up(self: &Arc<Self>, pool: PoolKey, vitals: Arc<Vitals>) -> Registered {
        self.add(ServerView {
            id: 0,
            pool,
            since: vitals.opened,
            vitals: Some(vitals),
            is_look_up: true,
            close_needed: false,
        })
    }

    fn add(self: &Arc<Self>, view: ServerView) -> Registered {
        let mut book = self.lock();
        book.last += 1;
        let id = book.last;
        book.entries.insert(id, ServerView { id, ..view });
        drop(book);
        Registered {
            register: self.clone(),
            id,
        }
    }

    /// All of them as they are now, in the order in which they came.
    pub(super) fn views(&self) -> Vec<ServerView> {
        self.lock().entries.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.register.lock().entries.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Role;

    #[test]
    fn who_is_gone_is_not_shown() {
        let register = Arc::new(Register::default());
        let key = PoolKey {
            database: "d".into(),
            user: "u".into(),
            role: Role::ReadWrite,
        };
        let (first, second) = (register.enter(&key, None), register.enter(&key, None));
        drop(first);
        let ids: Vec<_> = register.views().iter().map(|view| view.id).collect();
        assert_eq!(ids, [second.id]);
        let third = register.enter(&key, None);
        assert!(third.id > second.id, "no number is given twice");
    }
}
