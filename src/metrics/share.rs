//! Who has series of its own, where names are for strangers to choose.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What all are called that have none.
pub const OTHER: &str = "other";

/// So many names have series of their own. Who has one keeps it until it is gone.
#[derive(Debug)]
pub struct Shares<N> {
    limit: AtomicUsize,
    named: Mutex<BTreeSet<N>>,
}

impl<N: Ord + Clone> Shares<N> {
    /// Nobody has any yet.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            named: Mutex::default(),
        }
    }

    /// From now on so many. Whoever has one keeps it.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// How many have.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether this name has one; a new name does if there is one left.
    pub fn claim(&self, name: &N) -> bool {
        let mut named = self.lock();
        if named.contains(name) {
            return true;
        }
        let is_free = named.len() < self.limit.load(Ordering::Relaxed);
        if is_free {
            named.insert(name.clone());
        }
        is_free
    }

    /// Whether this name has one.
    pub fn has(&self, name: &N) -> bool {
        self.lock().contains(name)
    }

    /// The name is gone.
    pub fn give_up(&self, name: &N) {
        self.lock().remove(name);
    }

    /// Only these names are left.
    pub fn retain(&self, is_left: impl Fn(&N) -> bool) {
        self.lock().retain(is_left);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<N>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ones_have_names_until_they_are_gone() {
        let shares = Shares::new(2);
        assert!(shares.claim(&"a") && shares.claim(&"b") && !shares.claim(&"c"));
        shares.set_limit(1);
        assert!(shares.claim(&"a") && shares.claim(&"b"));
        shares.give_up(&"b");
        assert!(!shares.claim(&"c"));
        shares.give_up(&"a");
        assert!(shares.claim(&"c") && !shares.claim(&"a"));
    }
}
