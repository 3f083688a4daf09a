//! What is known about logging in to each server: how many log-ins may be under way at once, whichever pool they are
//! for (after a restart every pool wants all its connections back, and each costs the server a process and a password
//! check), and which version of the protocol to ask for.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::types::Endpoint;

/// So many servers are remembered before the ones that nobody connects to are forgotten.
const REMEMBERED: usize = 64;
/// For this long a server that has refused a newer version of the protocol is asked for 3.0 at once. It may be replaced
/// by another, or may have refused for another reason.
const OUTDATED: Duration = Duration::from_secs(600);
/// A server's refusals are worth a line this often.
const COMPLAINT: Duration = Duration::from_secs(10);

/// The places for log-ins, per server. They are given out in the order in which they were asked for.
#[derive(Debug)]
pub struct Logins {
    limit: NonZeroUsize,
    servers: Mutex<HashMap<Endpoint, Arc<Semaphore>>>,
    /// Those that speak 3.0 and refuse to negotiate, since when.
    outdated: Mutex<HashMap<Endpoint, Instant>>,
    /// Those whose refusals were logged, when.
    complaints: Mutex<HashMap<Endpoint, Instant>>,
}

/// A place for a log-in; dropping it makes room for the next.
#[derive(Debug)]
pub(super) struct LoginPlace {
    /// `None` never happens: the semaphores are not closed.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Logins {
    /// `limit` places at each server.
    pub fn new(limit: NonZeroUsize) -> Self {
        Self {
            limit,
            servers: Mutex::default(),
            outdated: Mutex::default(),
            complaints: Mutex::default(),
        }
    }

    /// How many places there are at each server.
    pub fn limit(&self) -> NonZeroUsize {
        self.limit
    }

    /// Waits for a place. Cancel-safe: the place in the queue is lost.
    pub(super) async fn enter(&self, server: &Endpoint) -> LoginPlace {
        let places = self.places(server);
        LoginPlace {
            _permit: places.acquire_owned().await.ok(),
        }
    }

    /// Notes that the server has refused a newer version than 3.0.
    pub(super) fn note_outdated(&self, server: &Endpoint, now: Instant) {
        let mut outdated = self.outdated.lock().unwrap_or_else(PoisonError::into_inner);
        outdated.retain(|_, since| now.saturating_duration_since(*since) < OUTDATED);
        if outdated.len() < REMEMBERED {
            outdated.insert(server.clone(), now);
        }
    }

    /// Whether it did so lately.
    pub(super) fn is_outdated(&self, server: &Endpoint, now: Instant) -> bool {
        let outdated = self.outdated.lock().unwrap_or_else(PoisonError::into_inner);
        let since = outdated.get(server);
        since.is_some_and(|since| now.saturating_duration_since(*since) < OUTDATED)
    }

    /// Whether a refusal of the server is to be logged, as none was for a while.
    pub(super) fn begin_complaint(&self, server: &Endpoint, now: Instant) -> bool {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.retain(|_, since| now.saturating_duration_since(*since) < COMPLAINT);
        let is_due = complaints.len() < REMEMBERED && !complaints.contains_key(server);
        if is_due {
            complaints.insert(server.clone(), now);
        }
        is_due
    }

    fn places(&self, server: &Endpoint) -> Arc<Semaphore> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = servers.get(server) {
            return places.clone();
        }
        if servers.len() >= REMEMBERED {
            // Whoever waits or logs in holds the semaphore.
            servers.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let places = Arc::new(Semaphore::new(self.limit.get()));
        servers.insert(server.clone(), places.clone());
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> Endpoint {
        Endpoint::Tcp {
            host: "db".to_owned(),
            port,
        }
    }

    fn logins(limit: usize) -> Logins {
        Logins::new(NonZeroUsize::new(limit).unwrap())
    }

    #[tokio::test]
    async fn places_are_per_server_and_come_back() {
        let logins = logins(2);
        let first = logins.enter(&server(1)).await;
        let _second = logins.enter(&server(1)).await;
        let _elsewhere = logins.enter(&server(2)).await;
        let mut third = asked_once(logins.enter(&server(1)));
        assert!(third.is_none());
        drop(first);
        third = asked_once(logins.enter(&server(1)));
        assert!(third.is_some());
    }

    /// What a future says when it is asked once.
    fn asked_once<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut future = Box::pin(future);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn a_stream_of_servers_is_forgotten_and_those_in_use_are_not() {
        let logins = logins(1);
        let _held = logins.enter(&server(0)).await;
        for port in 1..1000 {
            drop(logins.enter(&server(port)).await);
        }
        assert!(logins.servers.lock().unwrap().len() <= REMEMBERED);
        assert!(asked_once(logins.enter(&server(0))).is_none());
    }

    #[test]
    fn a_server_is_complained_of_now_and_then() {
        let (logins, now) = (logins(1), Instant::now());
        assert!(logins.begin_complaint(&server(1), now) && logins.begin_complaint(&server(2), now));
        assert!(!logins.begin_complaint(&server(1), now));
        assert!(logins.begin_complaint(&server(1), now + COMPLAINT));
        for port in 0..200 {
            logins.begin_complaint(&server(port), now);
        }
        assert!(logins.complaints.lock().unwrap().len() <= REMEMBERED);
    }

    #[test]
    fn a_refusal_of_the_protocol_is_remembered_for_a_while() {
        let (logins, now) = (logins(1), Instant::now());
        assert!(!logins.is_outdated(&server(1), now));
        logins.note_outdated(&server(1), now);
        assert!(logins.is_outdated(&server(1), now) && !logins.is_outdated(&server(2), now));
        assert!(!logins.is_outdated(&server(1), now + OUTDATED));
        for port in 0..200 {
            logins.note_outdated(&server(port), now);
        }
        assert_eq!(logins.outdated.lock().unwrap().len(), REMEMBERED);
    }
}
