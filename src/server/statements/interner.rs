//! The statements of all clients, each text once.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use dashmap::DashMap;

use super::Statement;
use crate::server::{hints::Scanner, parameters::Planning};

/// What a statement costs besides its text: its own fields, its place in the table.
const OVERHEAD: usize = size_of::<Statement>() + 64;

/// Every statement that a client has, and those that clients had lately.
#[derive(Debug)]
pub struct Interner {
    /// By the hash of what makes a statement.
    statements: DashMap<u64, Vec<Arc<Statement>>>,
    hasher: RandomState,
    scanner: Scanner,
    next: AtomicU64,
    bytes: AtomicUsize,
    /// What is used beyond this has those evicted that no client has.
    limit: AtomicUsize,
    /// Looking for them is not worth while below this.
    sweep_at: AtomicUsize,
}

/// How many statements there are, and how large they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// How many.
    pub statements: usize,
    /// Their texts and tables.
    pub bytes: usize,
}

impl Interner {
    /// One that keeps at most `limit` bytes for statements that no client has.
    pub fn new(limit: usize) -> Self {
        Self {
            statements: DashMap::new(),
            hasher: RandomState::new(),
            scanner: Scanner::new(),
            next: AtomicU64::new(1),
            bytes: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            sweep_at: AtomicUsize::new(limit),
        }
    }

    /// Keeps at most `limit` bytes from now on.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        self.sweep_at.store(limit, Ordering::Relaxed);
    }

    /// How many bytes are kept at most for statements that no client has.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// The statement of this Parse message (`body` is what follows the name), read under these settings.
    pub fn intern(&self, body: &[u8], settings: &Planning) -> Arc<Statement> {
        let hash = self.hasher.hash_one((body, settings));
        let mut same_hash = self.statements.entry(hash).or_default();
        let known = same_hash
            .iter()
            .find(|known| known.body == body && known.settings == *settings);
        if let Some(known) = known {
            return known.clone();
        }
        let text = body.split(|&byte| byte == 0).next().unwrap_or_default();
        let statement = Arc::new(Statement {
            id: self.number(),
            body: Bytes::copy_from_slice(body),
            settings: settings.clone(),
            reading: self.scanner.read(text),
        });
        same_hash.push(statement.clone());
        drop(same_hash);
        let cost = OVERHEAD + body.len();
        let bytes = self.bytes.fetch_add(cost, Ordering::Relaxed) + cost;
        if bytes > self.sweep_at.load(Ordering::Relaxed) {
            self.sweep();
        }
        statement
    }

    /// What looks at the texts of statements.
    pub fn scanner(&self) -> &Scanner {
        &self.scanner
    }

    /// A number for a statement that is not interned.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Forgets what no client has. As long as clients have most of it, that is not tried at each statement.
    fn sweep(&self) {
        let mut freed = 0;
        self.statements.retain(|_, same_hash| {
            same_hash.retain(|statement| {
                let held = Arc::strong_count(statement) > 1;
                if !held {
                    freed += OVERHEAD + statement.body.len();
                }
                held
            });
            !same_hash.is_empty()
        });
        let before = self.bytes.fetch_sub(freed, Ordering::Relaxed);
        let held = before.saturating_sub(freed);
        let limit = self.limit.load(Ordering::Relaxed);
        self.sweep_at
            .store(limit.max(held.saturating_mul(2)), Ordering::Relaxed);
    }

    /// What there is.
    pub fn counts(&self) -> Counts {
        Counts {
            statements: self.statements.iter().map(|same_hash| same_hash.len()).sum(),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::parameters::{Parameters, Source};

    fn settings(search_path: &str) -> Planning {
        let mut parameters = Parameters::default();
        parameters.set("search_path", search_path.as_bytes(), Source::Session);
        parameters.planning()
    }

    #[test]
    fn one_text_is_one_statement_unless_types_or_settings_differ() {
        let interner = Interner::new(1 << 20);
        let a = interner.intern(b"select $1\0\0\0", &settings("a"));
        let same = interner.intern(b"select $1\0\0\0", &settings("a"));
        let types = interner.intern(b"select $1\0\0\x01\0\0\0\x17", &settings("a"));
        let path = interner.intern(b"select $1\0\0\0", &settings("b"));
        assert_eq!(a.id(), same.id());
        assert!(a.id() != types.id() && a.id() != path.id());
        assert_eq!(interner.counts().statements, 3);
    }

    #[test]
    fn only_what_no_client_has_is_forgotten() {
        let interner = Interner::new(10 * (OVERHEAD + 20));
        let held = interner.intern(b"select held\0\0\0", &settings("a"));
        for number in 0..100 {
            let text = format!("select {number}\0\0\0");
            drop(interner.intern(text.as_bytes(), &settings("a")));
            assert!(interner.counts().bytes <= 11 * (OVERHEAD + 20));
        }
        let again = interner.intern(b"select held\0\0\0", &settings("a"));
        assert_eq!(held.id(), again.id());
        let many: Vec<_> = (0..100)
            .map(|number| interner.intern(format!("held {number}\0\0\0").as_bytes(), &settings("a")))
            .collect();
        for (number, statement) in many.iter().enumerate() {
            let again = interner.intern(format!("held {number}\0\0\0").as_bytes(), &settings("a"));
            assert_eq!(again.id(), statement.id());
        }
    }
}
