//! The connections of all look-ups together: those that are idle, and the places for those to databases that clients may
//! call as they like. However many names a stranger makes up, the server has few connections for them.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Places for connections, open or being opened.
const PLACES: usize = 20;
/// How many log-ins may be under way at once: fewer than the pools' (`max_server_logins`), so that these never wait
/// behind a stranger's alone.
const LOG_INS: usize = 2;

/// What all channels share.
#[derive(Debug)]
pub(super) struct Room<L> {
    /// Those that were used longest ago first, with their channels.
    idle: Mutex<Vec<(u64, Placed<L>)>>,
    places: Arc<Semaphore>,
    log_ins: Semaphore,
    channels: AtomicU64,
}

/// A connection, and its place if it needs one.
#[derive(Debug)]
pub(super) struct Placed<L> {
    pub(super) line: L,
    place: Option<OwnedSemaphorePermit>,
}

impl<L> Placed<L> {
    pub(super) fn new(line: L, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { line, place }
    }
}

impl<L> Room<L> {
    pub(super) fn new() -> Self {
        Self {
            idle: Mutex::default(),
            places: Arc::new(Semaphore::new(PLACES)),
            log_ins: Semaphore::new(LOG_INS),
            channels: AtomicU64::new(0),
        }
    }

    /// A number for a channel.
    pub(super) fn channel(&self) -> u64 {
        self.channels.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits for a place. The idle connection that was used longest ago makes way.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Some(place);
        }
        let evicted = {
            let mut idle = self.idle();
            let first = idle.iter().position(|(_, placed)| placed.place.is_some());
            first.map(|index| idle.remove(index))
        };
        drop(evicted);
        // Never closed.
        self.places.clone().acquire_owned().await.ok()
    }

    /// Waits until another log-in may begin.
    pub(super) async fn log_in(&self) -> Option<SemaphorePermit<'_>> {
        self.log_ins.acquire().await.ok()
    }

    pub(super) fn put(&self, channel: u64, placed: Placed<L>) {
        self.idle().push((channel, placed));
    }

    /// The connection of a channel that was used last.
    pub(super) fn take(&self, channel: u64) -> Option<Placed<L>> {
        let mut idle = self.idle();
        let last = idle.iter().rposition(|(owner, _)| *owner == channel)?;
        Some(idle.remove(last).1)
    }

    /// Closes those of a channel that are not to be kept.
    pub(super) fn retain(&self, channel: u64, mut keep: impl FnMut(&mut L) -> bool) {
        self.idle()
            .retain_mut(|(owner, placed)| *owner != channel || keep(&mut placed.line));
    }

    pub(super) fn has_any(&self, channel: u64) -> bool {
        self.idle().iter().any(|(owner, _)| *owner == channel)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(u64, Placed<L>)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn placed(room: &Room<usize>, line: usize) -> Placed<usize> {
        Placed::new(line, room.place().await)
    }

    /// Clients of very many databases come once each: no more connections are kept for them than there are places, and
    /// those of databases that the configuration has chosen are none of these.
    #[tokio::test]
    async fn idle_connections_make_way_for_those_to_other_databases() {
        let room = Room::new();
        room.put(u64::MAX, Placed::new(0, None));
        for number in 0..PLACES * 3 {
            let line = placed(&room, number).await;
            room.put(number as u64, line);
        }
        assert_eq!(room.idle().len(), PLACES + 1);
        assert!(room.has_any(u64::MAX) && !room.has_any(0));
        assert!(
            room.has_any(PLACES as u64 * 3 - 1),
            "the last used is the last to go"
        );
    }

    /// All places are in use: whoever comes then waits until one is given back.
    #[tokio::test]
    async fn connections_in_use_are_waited_for() {
        let room = Room::new();
        let mut used = Vec::new();
        for number in 0..PLACES {
            used.push(placed(&room, number).await);
        }
        let mut waiting = Box::pin(room.place());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        used.pop();
        assert!(waiting.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn a_channel_has_its_own_again_and_the_last_used_first() {
        let room = Room::new();
        for (channel, line) in [(1, 10), (2, 20), (1, 11)] {
            room.put(channel, Placed::new(line, None));
        }
        room.retain(2, |_| false);
        assert!(!room.has_any(2) && room.has_any(1));
        let taken = || room.take(1).map(|placed| placed.line);
        assert_eq!([taken(), taken(), taken()], [Some(11), Some(10), None]);
    }
}
