//! The data workers: threads with a runtime each, between which clients are dealt out.

use std::{
    io,
    num::NonZeroUsize,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime::{Handle, LocalRuntime},
    time::sleep,
};
use tokio_util::task::TaskTracker;

use super::{guests::Places, inbox::Inbox, metrics::Runtimes};
use crate::{
    config::Scheduling,
    fault::chain,
    lifecycle::{self, Tasks},
    session::{self, Arrival, Passage, Welcomed, Worker},
};

/// A client for a worker.
#[derive(Debug)]
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
    desks: Vec<Desk>,
    tasks: Tasks,
    next: AtomicUsize,
}

/// Where clients are given to one worker.
#[derive(Debug)]
struct Desk {
    inbox: Arc<Inbox<Client>>,
    runtime: Handle,
    thread: JoinHandle<()>,
}

/// How long a worker that is not woken may leave a client alone: one that says nothing, or when it has so much to do that
/// it does not sleep.
const PATIENCE: Duration = Duration::from_millis(10);

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
        tasks: &Tasks,
    ) -> io::Result<Self> {
        let desks = (0..count.get()).map(|number| {
            let desk = Desk::open(number, scheduling)?;
            runtimes.add(name(number), desk.runtime.clone());
            Ok(desk)
        });
        Ok(Self {
            desks: desks.collect::<io::Result<_>>()?,
            tasks: tasks.clone(),
            next: AtomicUsize::new(0),
        })
    }

    /// Gives a client to the next worker.
    pub(super) fn deal(&self, client: Client) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.desks.len().max(1);
        if let Some(desk) = self.desks.get(next) {
            desk.give(client, &self.tasks);
        }
    }

    /// Waits until every client is gone. No more may be dealt.
    pub(super) fn join(self) {
        for desk in &self.desks {
            desk.inbox.close();
        }
        for desk in self.desks {
            if desk.thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

impl Desk {
    fn open(number: usize, scheduling: Scheduling) -> io::Result<Self> {
        let (inbox, (told, answer)) = (Arc::new(Inbox::default()), mpsc::sync_channel(1));
        let (thread, clients) = (thread::Builder::new().name(name(number)), inbox.clone());
        let thread = thread.spawn(move || {
            let _end = Abandon(clients.clone());
            if scheduling == Scheduling::Batch
                && let Err(error) = lifecycle::batch_this_thread()
            {
                tracing::debug!(
                    number,
                    error = chain(&error),
                    "worker is not scheduled as a batch"
                );
            }
            // Who starts the worker waits for the answer.
            match runtime(&clients) {
                Ok(runtime) => {
                    let _ = told.send(Ok(runtime.handle().clone()));
                    runtime.block_on(work(number, clients));
                }
                Err(error) => {
                    let _ = told.send(Err(error));
                }
            }
        })?;
        let runtime = answer.recv().map_err(io::Error::other)??;
        Ok(Self {
            inbox,
            runtime,
            thread,
        })
    }

    fn give(&self, client: Client, tasks: &Tasks) {
        match client {
            Client::Welcomed(mut welcomed) if welcomed.is_quiet() => {
                let remind = self.inbox.put_quietly(|| {
                    self.take_in(&mut welcomed)?;
                    Some(Client::Welcomed(welcomed))
                });
                if remind {
                    let inbox = self.inbox.clone();
                    tasks.spawn("reminder", async move {
                        sleep(PATIENCE).await;
                        inbox.remind();
                    });
                }
            }
            Client::Welcomed(mut welcomed) => {
                if self.take_in(&mut welcomed).is_some() {
                    self.inbox.put(Client::Welcomed(welcomed));
                }
            }
            client => self.inbox.put(client),
        }
    }

    /// Has the worker's reactor hear the client. `None` has been logged.
    fn take_in(&self, welcomed: &mut Welcomed<Places>) -> Option<()> {
        let _inside = self.runtime.enter();
        welcomed.move_in()
    }
}

/// Ends an inbox when the thread does that takes clients out of it, also when that panics.
struct Abandon(Arc<Inbox<Client>>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn name(number: usize) -> String {
    format!("worker-{number}")
}

fn runtime(inbox: &Arc<Inbox<Client>>) -> io::Result<LocalRuntime> {
    let (before, after) = (inbox.clone(), inbox.clone());
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || before.look())
        .on_thread_unpark(move || after.look())
        .build_local(Default::default())
}

async fn work(number: usize, inbox: Arc<Inbox<Client>>) {
    let (sessions, end) = (TaskTracker::new(), inbox.clone());
    let spawned = sessions.clone();
    // Not the future that the runtime was entered with: a task wakes without a system call.
    let reception = tokio::task::spawn_local(async move {
        let worker = Rc::new(Worker::new(number));
        while let Some(clients) = inbox.take().await {
            for client in clients {
                match client {
                    Client::Arrived(arrival) => spawned.spawn_local(session::serve(arrival, worker.clone())),
                    Client::Welcomed(client) => spawned.spawn_local(session::go_on(client, worker.clone())),
                    Client::Passage(passage) => spawned.spawn_local(session::pass(passage, worker.clone())),
                };
            }
        }
    });
    if let Err(error) = reception.await {
        tracing::error!(number, %error, "worker takes no more clients");
    }
    end.abandon();
    sessions.close();
    sessions.wait().await;
}
