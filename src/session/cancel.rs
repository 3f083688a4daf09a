//! Carrying a cancel request to the server that works for a session.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::control::{Control, Order};
use crate::{
    fault::chain,
    server::{self, Address, Connection, CountedCancel, Target, state::CloseReason},
    types::BackendKey,
};

/// The server connection that a cancel is meant for. Its session does not let another client have it before
/// this value is dropped.
#[derive(Debug)]
pub struct CancelTarget {
    target: Arc<Target>,
    address: Address,
    key: BackendKey,
    _counted: CountedCancel,
    done: oneshot::Sender<Outcome>,
}

/// What became of a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The server has dealt with it.
    Delivered,
    /// It may still take effect, at any time.
    Unknown,
}

/// A cancel under way, on the session's side.
#[derive(Debug)]
pub(super) struct Pending(oneshot::Receiver<Outcome>);

impl CancelTarget {
    /// A target for what `connection` is doing now, and the session's end of it. `target` says how the server is reached
    /// now, which may be with other certificates than when the connection was opened.
    pub(super) fn new(connection: &Connection, target: Arc<Target>) -> (Self, Pending) {
        let (done, pending) = oneshot::channel();
        let target = Self {
            target,
            address: connection.address().clone(),
            key: connection.key().clone(),
            _counted: connection.vitals().count_cancel(),
            done,
        };
        (target, Pending(pending))
    }

    /// Sends the cancel and tells the session what became of it.
    pub(super) async fn deliver(self) {
        let outcome = match server::cancel::cancel(&self.target, &self.address, &self.key).await {
            Ok(()) => Outcome::Delivered,
            Err(error) => {
                self.target
                    .span(&self.address.endpoint)
                    .in_scope(|| tracing::warn!(error = chain(&error), "cannot deliver a cancel request"));
                Outcome::Unknown
            }
        };
        // The session may have ended meanwhile.
        let _ = self.done.send(outcome);
    }
}

impl Pending {
    /// Waits for the end of the cancel, and says why the connection must be closed, if it must.
    pub(super) async fn settle(self) -> Option<CloseReason> {
        match self.0.await {
            Ok(Outcome::Delivered) => None,
            Ok(Outcome::Unknown) | Err(_) => Some(CloseReason::CancelUnknown),
        }
    }

    /// The same without waiting; `Err` gives it back when it is not over.
    pub(super) fn try_settle(mut self) -> Result<Option<CloseReason>, Self> {
        match self.0.try_recv() {
            Ok(Outcome::Delivered) => Ok(None),
            Err(oneshot::error::TryRecvError::Empty) => Err(self),
            _ => Ok(Some(CloseReason::CancelUnknown)),
        }
    }
}

/// Cancels what a session is waiting for. The session is told before this returns, so that what its client asks next
/// is not meant; what is returned is ready when a server that had to be asked has dealt with it.
pub fn send(control: &Control) -> impl Future<Output = ()> + use<> {
    let (sender, receiver) = oneshot::channel();
    control.give(Order::Cancel(sender));
    async {
        // No answer: nothing was running, or the session has answered its client itself.
        if let Ok(target) = receiver.await {
            target.deliver().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `SELECT pg_cancel_backend(pid)` was answered with true before the session knew of it: when nothing ran, the next
    /// query was canceled.
    #[test]
    fn a_session_knows_of_it_before_who_asked_goes_on() {
        let control = Control::default();
        let sent = send(&control);
        assert!(matches!(control.take()[..], [Order::Cancel(_)]));
        drop(sent);
    }
}
