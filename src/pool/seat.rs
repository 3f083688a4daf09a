//! Where a waiting client's connection is put, and the request that can be sent before the client knows.
//!
//! A connection that comes back while clients wait goes straight to the next one: its request is written
//! before the previous client has its reply, and it is not woken until there is something to read.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;

use super::{error::LeaseError, lease::Lease};
use crate::server::{Connection, Home, parameters::Parameters};

/// A request that may be sent for a client as soon as there is a connection: whole messages, all of them known.
#[derive(Debug)]
pub struct Request {
    /// The messages.
    pub bytes: Bytes,
    /// The settings that it is to be carried out with.
    pub parameters: Parameters,
    /// The reactor that is to hear of the answer.
    pub home: Home,
    /// Whose it is, and who sends it.
    pub guest: Arc<dyn Guest>,
}

/// Who asks for something.
pub trait Guest: std::fmt::Debug + Send + Sync {
    /// Sends its request, which is with the server from now on although it has not been woken.
    fn send(&self, connection: &mut Connection, cx: &mut Context<'_>, request: &Request) -> Sent;
}

/// How far a request was sent.
#[derive(Debug)]
pub struct Sent {
    /// So much of it was taken.
    pub taken: usize,
    /// What remains, and whatever the client says next, depends on the answer.
    pub waits: bool,
    /// What the socket said.
    pub written: Poll<io::Result<()>>,
}

/// A connection for a client that has waited.
#[derive(Debug)]
pub struct Granted {
    /// The connection.
    pub lease: Lease,
    /// Since when it is the client's.
    pub since: Instant,
    /// Whether the client's request is with the server.
    pub begun: Begun,
}

/// Whether a client's request was sent before it knew.
#[derive(Debug)]
pub enum Begun {
    /// It is still to be sent.
    No,
    /// It was sent, as far as the server took it.
    Yes {
        /// What was not.
        rest: Bytes,
        /// That, and whatever the client says next, is to be sent when what was sent has been answered.
        waits: bool,
    },
    /// It was to be sent, but the connection has broken.
    Failed(io::Error),
}

/// One waiting client's seat, shared by the client and its pool.
#[derive(Debug)]
pub(super) struct Seat {
    since: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    request: Option<Request>,
    waker: Option<Waker>,
    outcome: Option<Result<Granted, LeaseError>>,
    /// Nobody sits here any more.
    left: bool,
}

impl Seat {
    pub(super) fn new(since: Instant, request: Option<Request>) -> Self {
        Self {
            since,
            inner: Mutex::new(Inner {
                request,
                waker: None,
                outcome: None,
                left: false,
            }),
        }
    }

    /// Gives the client a connection, and sends its request if that is possible. Whoever has left gives the
    /// connection back.
    pub(super) fn grant(&self, mut lease: Lease, now: Instant) -> Result<(), Box<Lease>> {
        let mut inner = self.lock();
        if inner.left {
            return Err(Box::new(lease));
        }
        let waited = now.saturating_duration_since(self.since);
        lease.metrics().wait.observe(waited);
        lease.note_wait(self.since);
        let waker = inner.waker.clone();
        let early = waker.as_ref().and_then(|waker| {
            let request = inner.request.take_if(|request| request.suits(&lease))?;
            Some(request.send(&mut lease, &mut Context::from_waker(waker)))
        });
        let (begun, wake) = early.unwrap_or((Begun::No, true));
        inner.outcome = Some(Ok(Granted {
            lease,
            since: now,
            begun,
        }));
        drop(inner);
        if let Some(waker) = waker.filter(|_| wake) {
            waker.wake();
        }
        Ok(())
    }

    /// Tells the client that there is none.
    pub(super) fn refuse(&self, error: LeaseError) {
        let mut inner = self.lock();
        inner.outcome = Some(Err(error));
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Result<Granted, LeaseError>> {
        let mut inner = self.lock();
        if let Some(outcome) = inner.outcome.take() {
            return Poll::Ready(outcome);
        }
        if !inner
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            inner.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Since when its client has waited.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn is_settled(&self) -> bool {
        self.lock().outcome.is_some()
    }

    /// Takes back a request that was not sent.
    pub(super) fn take_request(&self) -> Option<Bytes> {
        self.lock().request.take().map(|request| request.bytes)
    }

    /// Leaves the seat, with what may have come in the last moment.
    pub(super) fn leave(&self) -> Option<Result<Granted, LeaseError>> {
        let mut inner = self.lock();
        inner.left = true;
        inner.outcome.take()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Request {
    /// Whether it can be sent to this connection as it is.
    fn suits(&self, lease: &Lease) -> bool {
        lease.home() == self.home && lease.parameters().difference(&self.parameters).is_none()
    }

    /// Sends it, and has the client hear of the answer. Says whether it must be woken at once.
    fn send(self, lease: &mut Lease, cx: &mut Context<'_>) -> (Begun, bool) {
        lease.share_parameters(&self.parameters);
        let Sent {
            taken,
            waits,
            written,
        } = self.guest.send(lease, cx, &self);
        let rest = self.bytes.slice(taken..);
        match written {
            Poll::Ready(Ok(())) => {
                // Then the server may have been sent nothing that it answers.
                let wake = waits || lease.stream().get_ref().poll_read_ready(cx).is_ready();
                (Begun::Yes { rest, waits }, wake)
            }
            Poll::Ready(Err(error)) => (Begun::Failed(error), true),
            Poll::Pending => (Begun::Yes { rest, waits }, true),
        }
    }
}
