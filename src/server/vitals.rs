//! What a server connection shows of itself to whoever looks, while somebody else works with it.
//!
//! Nothing here decides anything. What changes is written with relaxed stores by the one who has the connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicU8, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::connect::{Address, Target};
use crate::{
    net::PeerAddress,
    tls::{Cipher, Stream},
};

/// What a connection is for at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// It waits for a client.
    Idle,
    /// It is a client's.
    Lent,
    /// It has to prove that there is a server behind it.
    Checked,
    /// It is cleaned of what its last client has left.
    Reset,
    /// Nobody gets it before the server has dealt with a cancel request.
    BeingCanceled,
    /// It is one client's until it is closed, as for replication.
    Apart,
}

/// What is known of one connection.
#[derive(Debug)]
pub struct Vitals {
    /// The server's process.
    pub pid: i32,
    /// The server, and where it is.
    pub address: Address,
    /// The other end of the socket, as long as there was one.
    pub peer: Option<PeerAddress>,
    /// This end.
    pub local: Option<PeerAddress>,
    /// How it is encrypted, if it is.
    pub cipher: Option<Cipher>,
    /// When it was opened.
    pub opened: Instant,
    /// What it was opened for.
    pub target: Arc<Target>,
    duty: AtomicU8,
    /// The process id that its last client was told.
    client: AtomicI32,
    prepared: AtomicU32,
    /// Cancel requests that are on their way to it.
    cancels: AtomicU32,
    /// When it was used last, in seconds after it was opened.
    used: AtomicU32,
}

impl Vitals {
    pub(super) fn new(
        stream: &Stream,
        pid: i32,
        address: Address,
        target: Arc<Target>,
        now: Instant,
    ) -> Self {
        Self {
            pid,
            address,
            peer: stream.socket().peer().ok(),
            local: stream.socket().local().ok(),
            cipher: stream.cipher(),
            opened: now,
            target,
            duty: AtomicU8::new(Duty::Idle as u8),
            client: AtomicI32::new(0),
            prepared: AtomicU32::new(0),
            cancels: AtomicU32::new(0),
            used: AtomicU32::new(0),
        }
    }

    /// What it is for.
    pub fn duty(&self) -> Duty {
        let number = usize::from(self.duty.load(Ordering::Relaxed));
        Duty::ALL.get(number).copied().unwrap_or(Duty::Idle)
    }

    /// Notes what it is for from now on.
    pub fn set_duty(&self, duty: Duty) {
        self.duty.store(duty as u8, Ordering::Relaxed);
    }

    /// The process id that the client was told whose it is, or was last; 0 before the first.
    pub fn client(&self) -> i32 {
        self.client.load(Ordering::Relaxed)
    }

    /// Notes the process id that the client was told whose it is from now on.
    pub fn set_client(&self, pid: i32) {
        self.client.store(pid, Ordering::Relaxed);
    }

    /// Whether the server's name stands for another address by now.
    pub fn has_moved(&self) -> bool {
        self.address.has_moved()
    }

    /// How many cancel requests are on their way to it.
    pub fn cancels(&self) -> u32 {
        self.cancels.load(Ordering::Relaxed)
    }

    /// Counts a cancel request for as long as the value lives.
    pub fn count_cancel(self: &Arc<Self>) -> CountedCancel {
        self.cancels.fetch_add(1, Ordering::Relaxed);
        CountedCancel(self.clone())
    }

    /// How many prepared statements the server had when the connection was lent last.
    pub fn prepared(&self) -> u32 {
        self.prepared.load(Ordering::Relaxed)
    }

    pub(super) fn set_prepared(&self, count: usize) {
        self.prepared
            .store(u32::try_from(count).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// When it came back from a client last.
    pub fn used(&self) -> Instant {
        self.opened + Duration::from_secs(self.used.load(Ordering::Relaxed).into())
    }

    pub(super) fn set_used(&self, now: Instant) {
        let seconds = now.saturating_duration_since(self.opened).as_secs();
        self.used
            .store(u32::try_from(seconds).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

/// A cancel request that is on its way to a connection's server.
#[derive(Debug)]
pub struct CountedCancel(Arc<Vitals>);

impl Drop for CountedCancel {
    fn drop(&mut self) {
        self.0.cancels.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Duty {
    const ALL: [Self; 6] = [
        Self::Idle,
        Self::Lent,
        Self::Checked,
        Self::Reset,
        Self::BeingCanceled,
        Self::Apart,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{net::Socket, server::fuzzing};

    #[test]
    fn what_is_noted_is_shown() {
        let socket = Socket::memory(tokio::io::duplex(1).0);
        let connection = fuzzing::connection(socket, Arc::new(fuzzing::target()));
        let vitals = connection.vitals();
        for duty in Duty::ALL {
            vitals.set_duty(duty);
            assert_eq!(vitals.duty(), duty);
        }
        vitals.set_client(7);
        vitals.set_used(vitals.opened + Duration::from_millis(2_500));
        assert_eq!(vitals.client(), 7);
        assert_eq!(vitals.used(), vitals.opened + Duration::from_secs(2));
    }
}
