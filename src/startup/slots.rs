//! How many clients there may be (`max_client_conn`), counted by guards.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The places for clients.
#[derive(Debug)]
pub struct Slots {
    limit: AtomicUsize,
    taken: AtomicUsize,
}

/// One client's place; free again when dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// So many places, all free.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            taken: AtomicUsize::new(0),
        })
    }

    /// Takes a place, if there is one.
    pub fn take(self: &Arc<Self>) -> Option<Slot> {
        let limit = self.limit();
        let free = |taken: usize| (taken < limit).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, free)
            .ok()?;
        Some(Slot(self.clone()))
    }

    /// Whether there is none to take at this moment.
    pub fn are_full(&self) -> bool {
        self.taken() >= self.limit()
    }

    /// The limit in force.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets a new limit; whoever has a place keeps it.
    pub fn resize(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// How many places are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_owner_is_gone() {
        let slots = Slots::new(2);
        let (first, second) = (slots.take().unwrap(), slots.take());
        assert!(second.is_some() && slots.are_full() && slots.take().is_none());
        drop(first);
        assert!(slots.taken() == 1 && !slots.are_full());
        assert!(slots.take().is_some());
        slots.resize(0);
        assert!(slots.take().is_none());
    }
}
