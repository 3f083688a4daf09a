//! The data workers: threads with a runtime each, between which clients are dealt out.

use std::{
    io,
    num::NonZeroUsize,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
    thread::{self, JoinHandle},
};

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::{guests::Places, metrics::Runtimes};
use crate::{
    config::Scheduling,
    fault::chain,
    lifecycle,
    session::{self, Arrival, Passage, Welcomed, Worker},
};

/// A client for a worker.
pub(super) enum Client {
    /// One that takes server connections from a pool, and has not been told yet whether it may.
    Arrived(Box<Arrival<Places>>),
    /// One that has.
    Welcomed(Box<Welcomed<Places>>),
    /// One with a server connection of its own.
    Passage(Box<Passage<Places>>),
}

/// The data workers.
#[derive(Debug)]
pub(super) struct Workers {
    inboxes: Vec<mpsc::UnboundedSender<Client>>,
    threads: Vec<JoinHandle<()>>,
    next: AtomicUsize,
}

/// How many workers `auto` means: half of the CPUs that this process may use (its affinity and cgroup quota
/// counted), at least one. The other half is for log-ins, and for the kernel's share of every query.
pub(super) fn automatic() -> NonZeroUsize {
    let cpus = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    NonZeroUsize::new(cpus.get() / 2).unwrap_or(NonZeroUsize::MIN)
}

/// How many threads the control runtime has: the CPUs that the workers leave, at least one.
pub(super) fn control_threads(workers: NonZeroUsize) -> usize {
    let cpus = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    cpus.get().saturating_sub(workers.get()).max(1)
}

impl Workers {
    /// Starts so many workers.
    ///
    /// # Errors
    /// A runtime or thread could not be made.
    pub(super) fn start(
        count: NonZeroUsize,
        scheduling: Scheduling,
        runtimes: &Runtimes,
    ) -> io::Result<Self> {
        let (mut inboxes, mut threads) = (Vec::new(), Vec::new());
        for number in 0..count.get() {
            let (inbox, clients) = mpsc::unbounded_channel();
            let (thread, runtimes) = (thread::Builder::new().name(name(number)), runtimes.clone());
            threads.push(thread.spawn(move || {
                if scheduling == Scheduling::Batch
                    && let Err(error) = lifecycle::batch_this_thread()
                {
                    tracing::debug!(
                        number,
                        error = chain(&error),
                        "worker is not scheduled as a batch"
                    );
                }
                if let Err(error) = work(number, clients, &runtimes) {
                    tracing::error!(number, %error, "worker cannot start");
                }
            })?);
            inboxes.push(inbox);
        }
        Ok(Self {
            inboxes,
            threads,
            next: AtomicUsize::new(0),
        })
    }

    /// Gives a client to the next worker.
    pub(super) fn deal(&self, client: Client) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.inboxes.len().max(1);
        if let Some(inbox) = self.inboxes.get(next) {
            // A worker that is gone drops the client, which closes its connection.
            let _ = inbox.send(client);
        }
    }

    /// Waits until every client is gone. No more may be dealt.
    pub(super) fn join(self) {
        drop(self.inboxes);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

fn name(number: usize) -> String {
    format!("worker-{number}")
}

fn work(number: usize, mut clients: mpsc::UnboundedReceiver<Client>, runtimes: &Runtimes) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(Default::default())?;
    runtimes.add(name(number), runtime.handle().clone());
    runtime.block_on(async move {
        let worker = Rc::new(Worker::new(number));
        let sessions = TaskTracker::new();
        while let Some(client) = clients.recv().await {
            match client {
                Client::Arrived(arrival) => sessions.spawn_local(session::serve(arrival, worker.clone())),
                Client::Welcomed(client) => sessions.spawn_local(session::go_on(client, worker.clone())),
                Client::Passage(passage) => sessions.spawn_local(session::pass(passage, worker.clone())),
            };
        }
        sessions.close();
        sessions.wait().await;
    });
    Ok(())
}
