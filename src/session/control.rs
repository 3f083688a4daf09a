//! What others may ask of a session: orders, left where the session's task finds them.

use std::{
    future::poll_fn,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
};

use tokio::sync::oneshot;

use super::cancel::CancelTarget;

/// What a session is asked to do.
#[derive(Debug)]
pub enum Order {
    /// Cancel what the client is waiting for. If a server is working on it, the session answers with what a
    /// CancelRequest needs, and keeps the server connection from other clients until the target is dropped.
    Cancel(oneshot::Sender<CancelTarget>),
    /// See whether something is overdue.
    LookAtClock,
    /// See whether the server that works for the client is one that may not be used any more.
    LookAtServer,
    /// End as soon as no transaction is open.
    Drain,
    /// End now.
    Kill,
}

/// What keeps somebody from going on who does nothing that a server could be asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// The client wants no answer any more.
    Cancel,
    /// It is to end.
    End,
}

/// A session's letter box.
#[derive(Debug, Default)]
pub struct Control {
    /// Whether there is anything in `letters`; the only thing that the session looks at on every poll.
    pending: AtomicBool,
    letters: Mutex<Letters>,
}

#[derive(Debug, Default)]
struct Letters {
    orders: Vec<Order>,
    waker: Option<Waker>,
    /// The session is gone; nobody will look.
    closed: bool,
}

impl Control {
    /// Leaves an order and wakes the session. After the session's end the order is dropped, which answers
    /// whoever waits for one.
    pub fn give(&self, order: Order) {
        let waker = {
            let mut letters = self.lock();
            if letters.closed {
                return;
            }
            letters.orders.push(order);
            // Under the lock: whoever listens after this sees it, and whoever listened before is woken.
            self.pending.store(true, Ordering::Release);
            letters.waker.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Says whom to wake. A task's waker does not change, so once is enough.
    pub(super) fn listen(&self, waker: &Waker) {
        self.lock().waker = Some(waker.clone());
    }

    /// Waits for an order to end, for those who do nothing that could be cancelled.
    pub async fn ordered_to_end(&self) {
        poll_fn(|cx| {
            self.listen(cx.waker());
            let end = self
                .take()
                .iter()
                .any(|order| matches!(order, Order::Drain | Order::Kill));
            if end { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Waits for an interruption, for those who do nothing that a server could be asked to stop. Cancel-safe.
    pub async fn interrupted(&self) -> Interruption {
        poll_fn(|cx| {
            self.listen(cx.waker());
            let orders = self.take();
            if orders
                .iter()
                .any(|order| matches!(order, Order::Drain | Order::Kill))
            {
                return Poll::Ready(Interruption::End);
            }
            // Dropping it answers whoever has sent it.
            if orders.iter().any(|order| matches!(order, Order::Cancel(_))) {
                return Poll::Ready(Interruption::Cancel);
            }
            Poll::Pending
        })
        .await
    }

    /// Whether an order has come. Cheap, and almost always all there is to do.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed)
    }

    /// Takes the orders that have come.
    pub(super) fn take(&self) -> Vec<Order> {
        if self.is_pending() && self.pending.swap(false, Ordering::Acquire) {
            std::mem::take(&mut self.lock().orders)
        } else {
            Vec::new()
        }
    }

    /// Drops what has not been taken, and all that comes later.
    pub(super) fn close(&self) {
        let orders = {
            let mut letters = self.lock();
            letters.closed = true;
            letters.waker = None;
            std::mem::take(&mut letters.orders)
        };
        drop(orders);
    }

    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
