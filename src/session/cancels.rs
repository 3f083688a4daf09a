//! The cancels that are meant for one exchange. Nearly every exchange ends without any, so that none takes room.

use tokio::sync::oneshot;

use super::cancel::{CancelTarget, Pending};

/// Who wants what a server does for a client cancelled.
#[derive(Debug, Default)]
pub(super) struct Cancels(Option<Box<Lists>>);

#[derive(Debug, Default)]
struct Lists {
    /// They are on their way to the server.
    pending: Vec<Pending>,
    /// Who has asked while the server works for the pooler and not for the client.
    early: Vec<oneshot::Sender<CancelTarget>>,
}

impl Cancels {
    /// Whether none is on its way to the server.
    pub(super) fn is_settled(&self) -> bool {
        self.0.as_ref().is_none_or(|lists| lists.pending.is_empty())
    }

    /// One is on its way.
    pub(super) fn add(&mut self, pending: Pending) {
        self.lists().pending.push(pending);
    }

    /// Keeps one for later.
    pub(super) fn defer(&mut self, reply: oneshot::Sender<CancelTarget>) {
        self.lists().early.push(reply);
    }

    /// Whether there are any for later.
    pub(super) fn has_deferred(&self) -> bool {
        self.0.as_ref().is_some_and(|lists| !lists.early.is_empty())
    }

    /// Those that were kept for later.
    pub(super) fn take_deferred(&mut self) -> Vec<oneshot::Sender<CancelTarget>> {
        self.0
            .as_mut()
            .map(|lists| std::mem::take(&mut lists.early))
            .unwrap_or_default()
    }

    /// Those that are on their way. Whoever has asked too early is told that there is nothing to cancel.
    pub(super) fn into_pending(self) -> Vec<Pending> {
        self.0.map(|lists| lists.pending).unwrap_or_default()
    }

    fn lists(&mut self) -> &mut Lists {
        self.0.get_or_insert_default()
    }
}
