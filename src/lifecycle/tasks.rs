//! Owned tasks: everything that runs in the background is started here, named, counted and ended here.
//!
//! It does not know what the tasks do. Nothing else in the program calls `tokio::spawn`.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

/// How long an aborted task may take to reach its next await point before it is left to the runtime.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// The owner of a set of tasks on one runtime. Clones own the same set.
///
/// It may be used from any thread: the tasks run on the runtime whose handle it was made with.
#[derive(Clone)]
pub struct Tasks {
    runtime: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
    live: Arc<Live>,
}

impl Tasks {
    /// An owner of no task yet.
    pub fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            live: Arc::default(),
        }
    }

    /// Starts a task. A panic in it is logged with its name and ends only that task.
    ///
    /// `name` says what kind of task it is; many may share one.
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the owner that the ban points to"
    )]
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let place = Live::enter(&self.live, name);
        let id = place.id;
        let task = Supervised {
            name,
            future: Box::pin(future),
            _place: place,
        };
        let handle = self.runtime.spawn(self.tracker.track_future(task));
        self.live.started(id, handle.abort_handle());
    }

    /// The same, but takes the first step here and now: what can be done without waiting needs no task. Must be called
    /// inside a runtime. The step should be short; `tokio::task::yield_now` ends it.
    pub fn step_and_spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut future = Box::pin(future);
        // Whatever it waits for it asks for again when the task begins.
        let mut cx = Context::from_waker(Waker::noop());
        if step(name, &mut future, &mut cx).is_pending() {
            self.spawn(name, future);
        }
    }

    /// A token that is cancelled when [`Tasks::shutdown`] begins. Cancelling it oneself stops nobody else.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// How many tasks have not ended.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether every task has ended.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Asks all tasks to stop, waits for them, and after `deadline` drops those that are left, whose names
    /// are logged. Returns how many those were.
    ///
    /// Cancel-safe: a dropped shutdown has asked, and a second one waits again.
    pub async fn shutdown(&self, deadline: Duration) -> usize {
        let until = Instant::now() + deadline;
        self.stop.cancel();
        self.tracker.close();
        if timeout_at(until, self.tracker.wait()).await.is_ok() {
            return 0;
        }
        let aborted = self.live.abort_all();
        for (task, count) in &aborted {
            warn!(task, count, "task did not stop in time and was dropped");
        }
        if timeout(ABORT_GRACE, self.tracker.wait()).await.is_err() {
            error!(
                tasks = self.tracker.len(),
                "tasks are blocked and cannot be dropped"
            );
        }
        aborted.values().sum()
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("len", &self.len())
            .field("stopping", &self.stop.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// The tasks that have not ended, so that the last ones can be named and aborted. Locked when a task
/// starts and when it ends, never while it runs.
#[derive(Default)]
struct Live(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    next: u64,
    aborting: bool,
    tasks: BTreeMap<u64, Entry>,
}

struct Entry {
    name: &'static str,
    /// Absent between the entry and the start: the lock is not held while the runtime starts the task,
    /// because a runtime that is ending drops it there and then.
    handle: Option<AbortHandle>,
}

impl Live {
    fn enter(live: &Arc<Self>, name: &'static str) -> Place {
        let mut entries = live.lock();
        let id = entries.next;
        entries.next += 1;
        entries.tasks.insert(id, Entry { name, handle: None });
        drop(entries);
        Place {
            id,
            live: Arc::clone(live),
        }
    }

    fn started(&self, id: u64, handle: AbortHandle) {
        let mut entries = self.lock();
        if entries.aborting {
            handle.abort();
        }
        if let Some(entry) = entries.tasks.get_mut(&id) {
            entry.handle = Some(handle);
        }
    }

    /// Aborts every task, also those that start later, and returns how many there were by name.
    fn abort_all(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        let mut handles = Vec::new();
        let mut entries = self.lock();
        entries.aborting = true;
        for entry in entries.tasks.values() {
            *counts.entry(entry.name).or_default() += 1;
            handles.extend(entry.handle.clone());
        }
        drop(entries);
        // An abort may drop the task on this thread, which takes the lock.
        for handle in handles {
            handle.abort();
        }
        counts
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // No step under the lock leaves the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's entry in [`Live`], gone when the task is.
struct Place {
    id: u64,
    live: Arc<Live>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.live.lock().tasks.remove(&self.id);
    }
}

/// A task with its name, whose panics end in the log.
struct Supervised<F> {
    name: &'static str,
    future: Pin<Box<F>>,
    _place: Place,
}

impl<F: Future<Output = ()>> Future for Supervised<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let name = self.name;
        step(name, &mut self.future, cx)
    }
}

/// Polls a task. One that panics is done.
fn step<F: Future<Output = ()>>(name: &str, future: &mut Pin<Box<F>>, cx: &mut Context<'_>) -> Poll<()> {
    // The future is never polled again after a panic, so nobody sees what it left half done.
    catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))).unwrap_or_else(|payload| {
        error!(task = name, panic = panic_text(payload.as_ref()), "task panicked");
        Poll::Ready(())
    })
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn shutdown_asks_waits_and_counts_to_zero() {
        let tasks = Tasks::new(Handle::current());
        let (done, ended) = oneshot::channel();
        let stop = tasks.stop_token();
        tasks.spawn("polite", async move {
            stop.cancelled().await;
            done.send(()).unwrap();
        });
        assert_eq!(tasks.len(), 1);
        assert_eq!(tasks.shutdown(LONG).await, 0);
        ended.await.unwrap();
        assert!(tasks.is_empty());
        assert!(tasks.live.lock().tasks.is_empty());
    }

    #[tokio::test]
    async fn what_need_not_wait_is_done_without_a_task_and_the_rest_goes_on_in_one() {
        let tasks = Tasks::new(Handle::current());
        let (go, may) = oneshot::channel::<()>();
        let (done, ended) = oneshot::channel();
        let steps = Arc::new(Mutex::new(0));
        let count = steps.clone();
        tasks.step_and_spawn("quick", async move { *count.lock().unwrap() += 1 });
        assert_eq!((*steps.lock().unwrap(), tasks.len()), (1, 0));
        tasks.step_and_spawn("slow", async move {
            may.await.unwrap();
            done.send(()).unwrap();
        });
        assert_eq!(tasks.len(), 1);
        go.send(()).unwrap();
        ended.await.unwrap();
        tasks.step_and_spawn("broken", async { panic!("at once") });
        assert_eq!(tasks.shutdown(LONG).await, 0);
    }

    #[tokio::test]
    async fn what_outlives_the_deadline_is_dropped() {
        let tasks = Tasks::new(Handle::current());
        let (held, dropped) = oneshot::channel::<()>();
        tasks.spawn("stubborn", async move {
            let _held = held;
            pending::<()>().await;
        });
        assert_eq!(tasks.shutdown(Duration::ZERO).await, 1);
        dropped.await.unwrap_err();
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn a_task_that_starts_after_the_deadline_is_dropped_too() {
        let tasks = Tasks::new(Handle::current());
        tasks.spawn("stubborn", pending());
        tasks.shutdown(Duration::ZERO).await;
        tasks.spawn("late", pending());
        assert_eq!(tasks.shutdown(LONG).await, 0);
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_only() {
        let tasks = Tasks::new(Handle::current());
        let (sender, receiver) = oneshot::channel();
        tasks.spawn("broken", async { panic!("on purpose") });
        tasks.spawn("healthy", async move { sender.send(7).unwrap() });
        assert_eq!(receiver.await.unwrap(), 7);
        assert_eq!(tasks.shutdown(LONG).await, 0);
        assert!(tasks.live.lock().tasks.is_empty());
    }

    #[tokio::test]
    async fn one_token_does_not_stop_the_others() {
        let tasks = Tasks::new(Handle::current());
        tasks.stop_token().cancel();
        assert!(!tasks.stop_token().is_cancelled());
        tasks.shutdown(LONG).await;
        assert!(tasks.stop_token().is_cancelled());
    }

    #[test]
    fn any_thread_may_start_a_task() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let tasks = Tasks::new(runtime.handle().clone());
        let (sender, receiver) = oneshot::channel();
        let elsewhere = tasks.clone();
        std::thread::spawn(move || elsewhere.spawn("remote", async move { sender.send(7).unwrap() }))
            .join()
            .unwrap();
        assert_eq!(runtime.block_on(receiver).unwrap(), 7);
        assert_eq!(runtime.block_on(tasks.shutdown(LONG)), 0);
    }

    #[test]
    fn a_runtime_that_is_gone_drops_the_task_without_a_deadlock() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let tasks = Tasks::new(runtime.handle().clone());
        drop(runtime);
        tasks.spawn("orphan", pending());
        assert!(tasks.is_empty());
        assert!(tasks.live.lock().tasks.is_empty());
    }

    #[test]
    fn panics_are_told_in_their_own_words() {
        assert_eq!(panic_text(&"fixed"), "fixed");
        assert_eq!(panic_text(&"made".to_owned()), "made");
        assert_eq!(panic_text(&7), "no text");
    }
}
