//! What is handed to a data worker from another thread, which need not wake it.
//!
//! A client that has just been told that it may ask says nothing for a moment, and what it says then wakes the worker
//! by itself. To wake it before would be for nothing.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use tokio::sync::Notify;

/// An inbox. One worker takes out what anybody puts in.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    queue: Mutex<Queue<T>>,
    /// Somebody has begun to put something in since the worker last looked.
    occupied: AtomicBool,
    /// Somebody will call [`Inbox::remind`].
    reminded: AtomicBool,
    bell: Notify,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: Vec<T>,
    closed: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        Self {
            queue: Mutex::new(Queue {
                waiting: Vec::new(),
                closed: false,
            }),
            occupied: AtomicBool::new(false),
            reminded: AtomicBool::new(false),
            bell: Notify::new(),
        }
    }
}

impl<T> Inbox<T> {
    /// Puts something in, and wakes the worker. After the end it is dropped.
    pub(super) fn put(&self, one: T) {
        let mut queue = self.lock();
        if !queue.closed {
            queue.waiting.push(one);
            drop(queue);
            self.bell.notify_one();
        }
    }

    /// Puts in what `make` makes, which also sees to it that something will wake the worker sooner or later. Says
    /// whether somebody has to call [`Inbox::remind`] after a while: nothing may happen to wake the worker, or it may be
    /// so busy that it does not go to sleep.
    pub(super) fn put_quietly(&self, make: impl FnOnce() -> Option<T>) -> bool {
        let mut queue = self.lock();
        if queue.closed {
            return false;
        }
        // Before `make`: whoever is woken by what it does finds that there is something, and waits for the lock.
        self.occupied.store(true, SeqCst);
        let Some(one) = make() else {
            return false;
        };
        queue.waiting.push(one);
        drop(queue);
        !self.reminded.swap(true, SeqCst)
    }

    /// Tells the worker of what it has not been told of yet.
    pub(super) fn remind(&self) {
        self.reminded.store(false, SeqCst);
        if self.occupied.load(SeqCst) {
            self.bell.notify_one();
        }
    }

    /// Nothing more will be put in.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.bell.notify_one();
    }

    /// The worker is gone: what it has left is dropped.
    pub(super) fn abandon(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let left = std::mem::take(&mut queue.waiting);
        drop(queue);
        drop(left);
    }

    /// The worker is about to sleep, or has been woken by whatever it was.
    pub(super) fn look(&self) {
        if self.occupied.load(SeqCst) {
            self.bell.notify_one();
        }
    }

    /// What has been put in, oldest first, as soon as there is something; `None` after the end. Cancel-safe.
    pub(super) async fn take(&self) -> Option<Vec<T>> {
        loop {
            {
                let mut queue = self.lock();
                self.occupied.store(false, SeqCst);
                if !queue.waiting.is_empty() {
                    return Some(std::mem::take(&mut queue.waiting));
                }
                if queue.closed {
                    return None;
                }
            }
            self.bell.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Put,
        PutQuietly,
        Look,
        Remind,
        Take,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        use Step::{Look, Put, PutQuietly, Remind, Take};
        prop::collection::vec(
            prop::sample::select(vec![Put, PutQuietly, Look, Remind, Take]),
            0..60,
        )
    }

    fn take(inbox: &Inbox<u32>) -> Option<Vec<u32>> {
        match pin!(inbox.take()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(taken) => taken,
            Poll::Pending => Some(Vec::new()),
        }
    }

    proptest! {
        /// Whatever happens in between, everything comes out once and in order; and what the worker was not told of it
        /// is told of when it looks, or by the one reminder that was asked for.
        #[test]
        fn nothing_is_lost_doubled_or_forgotten(steps in steps()) {
            let inbox = Inbox::default();
            let (mut given, mut taken, mut reminders) = (0, Vec::new(), 0);
            for step in steps {
                match step {
                    Step::Put => {
                        inbox.put(given);
                        given += 1;
                    }
                    Step::PutQuietly => {
                        reminders += u32::from(inbox.put_quietly(|| Some(given)));
                        given += 1;
                    }
                    Step::Look => inbox.look(),
                    Step::Remind => {
                        reminders = 0;
                        inbox.remind();
                    }
                    Step::Take => taken.extend(take(&inbox).unwrap()),
                }
                prop_assert!(reminders <= 1);
                let told = pin!(inbox.bell.notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
                if told {
                    inbox.bell.notify_one();
                }
                let waits = !inbox.lock().waiting.is_empty();
                prop_assert!(!waits || told || (inbox.occupied.load(SeqCst) && reminders == 1));
            }
            inbox.close();
            taken.extend(take(&inbox).unwrap_or_default());
            prop_assert_eq!(taken, (0..given).collect::<Vec<_>>());
            prop_assert_eq!(take(&inbox), None);
        }
    }

    /// Nobody would ever serve it, and its client would wait.
    #[test]
    fn what_a_worker_has_left_is_dropped_and_so_is_what_comes_later() {
        let (inbox, client) = (Inbox::default(), std::sync::Arc::new(()));
        inbox.put(client.clone());
        inbox.abandon();
        inbox.put(client.clone());
        assert!(!inbox.put_quietly(|| Some(client.clone())));
        assert_eq!(std::sync::Arc::strong_count(&client), 1);
    }

    #[test]
    fn what_could_not_be_made_is_not_put_in() {
        let inbox = Inbox::<u32>::default();
        assert!(!inbox.put_quietly(|| None));
        assert_eq!(take(&inbox), Some(Vec::new()));
    }

    #[tokio::test]
    async fn what_is_put_in_from_another_thread_arrives() {
        let inbox = std::sync::Arc::new(Inbox::default());
        let others = inbox.clone();
        let thread = std::thread::spawn(move || {
            (0..1_000).for_each(|one| others.put(one));
            others.close();
        });
        let mut taken = Vec::new();
        while let Some(more) = inbox.take().await {
            taken.extend(more);
        }
        thread.join().unwrap();
        assert_eq!(taken, (0..1_000).collect::<Vec<_>>());
    }
}
