//! When a server takes writes, seen by asking it and nobody else.

use std::{
    net::SocketAddr,
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use super::super::TryClient;

const POLL: Duration = Duration::from_millis(4);
const LOG_IN_LIMIT: Duration = Duration::from_secs(1);

/// A thread that asks a server again and again whether it is in recovery.
pub struct Watch {
    seen: Receiver<Instant>,
}

impl Watch {
    /// Begins to ask; gives up after `limit`.
    pub(super) fn start(address: SocketAddr, limit: Duration) -> Self {
        let (tell, seen) = mpsc::channel();
        let deadline = Instant::now() + limit;
        thread::spawn(move || {
            if let Some(at) = wait(address, deadline) {
                // Nobody may want to know any more.
                let _ = tell.send(at);
            }
        });
        Self { seen }
    }

    /// When the server was first seen to take writes; fails the test if it was not within its limit.
    #[track_caller]
    pub fn writable_since(&self) -> Instant {
        self.seen.recv().expect("the server takes writes at last")
    }

    /// When it was first seen to take writes, if that is or comes within `limit`.
    pub fn writable_within(&self, limit: Duration) -> Option<Instant> {
        self.seen.recv_timeout(limit).ok()
    }
}

fn wait(address: SocketAddr, deadline: Instant) -> Option<Instant> {
    while Instant::now() < deadline {
        if let Ok(mut client) = TryClient::log_in(address, "postgres", "postgres", LOG_IN_LIMIT) {
            while let Ok(answer) = client.value("SELECT pg_is_in_recovery()") {
                if answer == "f" {
                    return Some(Instant::now());
                }
                if Instant::now() >= deadline {
                    return None;
                }
                thread::sleep(POLL);
            }
        }
        thread::sleep(POLL);
    }
    None
}
