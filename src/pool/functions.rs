//! What the functions of a pool's database may do to a session that calls them. The database is asked, so that a call of
//! one that takes a lock, say, is known for what it is.

use std::{
    borrow::Cow,
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;

use super::{LeaseError, Leasing, Pool};
use crate::{
    fault::chain,
    server::{
        Home, SettleError,
        hints::{Hints, Reading, Scanner},
        stateful::{self, Stateful},
        statements::Statement,
    },
    types::PoolMode,
};

/// What a function may do that nobody has looked at, but for statements of SQL PREPARE.
const ANYTHING: Hints = Hints::ASKABLE.without(Hints::PREPARED);
/// How long the answer may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long after one that failed the next attempt is made.
const PAUSE: Duration = Duration::from_secs(1);
/// After so many failures in a row nothing is suspected of a function that is not known.
const MOST_FAILURES: u32 = 3;

/// What is known of the functions of a database.
#[derive(Debug)]
pub(super) struct Functions {
    /// Knows those that may change their session. Absent if there are none.
    scanner: ArcSwapOption<Scanner>,
    /// How often functions have been defined, as far as anybody has noticed, and how often when they were last looked
    /// at. If there is a difference, any call may be of one that nobody has looked at.
    defined: AtomicU32,
    seen: AtomicU32,
    asking: AtomicBool,
    failures: AtomicU32,
    asked: Mutex<Option<Instant>>,
}

impl Functions {
    pub(super) fn new() -> Self {
        Self {
            scanner: ArcSwapOption::empty(),
            defined: AtomicU32::new(1),
            seen: AtomicU32::new(0),
            asking: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            asked: Mutex::default(),
        }
    }
}

impl Pool {
    /// What the text of a request may do to its session.
    pub fn read(&self, text: &[u8]) -> Reading {
        let functions = self.functions.scanner.load();
        let scanner = functions.as_deref().unwrap_or(self.statements.scanner());
        let mut reading = scanner.read(text);
        if self.has_unknown_functions() {
            // A name alone may call one: of a view, or of a table with a rule or a trigger.
            reading.hints.insert(ANYTHING);
        }
        reading
    }

    /// Whether a piece of a text may do anything, without regard to what.
    pub fn may_matter(&self, piece: &[u8]) -> bool {
        let functions = self.functions.scanner.load();
        functions
            .as_deref()
            .unwrap_or(self.statements.scanner())
            .may_matter(piece)
    }

    /// As [`Pool::read`], of an interned statement, which was looked at without regard to the functions of one database.
    pub fn read_statement<'s>(&self, statement: &'s Statement) -> Cow<'s, Reading> {
        let quick = self.functions.scanner.load().is_none() && !self.has_unknown_functions();
        if quick {
            return Cow::Borrowed(statement.reading());
        }
        let text = statement.body().split(|&byte| byte == 0).next();
        Cow::Owned(self.read(text.unwrap_or_default()))
    }

    fn has_unknown_functions(&self) -> bool {
        let Functions { defined, seen, .. } = &self.functions;
        defined.load(Ordering::Acquire) != seen.load(Ordering::Acquire) && self.scans_functions()
    }

    fn scans_functions(&self) -> bool {
        let settings = &self.plan.load().settings;
        !settings.function_scan_interval.is_zero() && settings.mode != PoolMode::Session
    }

    /// Notes that functions may have been made or changed.
    pub fn note_definitions(self: &Arc<Self>) {
        self.functions.defined.fetch_add(1, Ordering::AcqRel);
        self.functions.failures.store(0, Ordering::Relaxed);
        self.scan_functions();
    }

    /// Looks again if it was long ago: whoever makes functions may do so without the pooler.
    pub(super) fn scan_functions_if_due(self: &Arc<Self>, now: Instant) {
        if self.counts().servers() == 0 {
            return;
        }
        let interval = self.plan.load().settings.function_scan_interval;
        let asked = *self
            .functions
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if asked.is_none_or(|asked| now.saturating_duration_since(asked) >= interval) {
            self.scan_functions();
        }
    }

    /// Asks, in the background, as one of the pool's clients.
    fn scan_functions(self: &Arc<Self>) {
        if !self.scans_functions() || self.functions.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        *self
            .functions
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let (pool, mut first) = (self.clone(), true);
        self.tasks.spawn("functions", async move {
            // Again at once if others were made meanwhile, and after a pause if there was no answer.
            while pool.has_unknown_functions() || first {
                first = false;
                if !pool.ask_for_functions().await {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            pool.functions.asking.store(false, Ordering::Release);
            if pool.has_unknown_functions() {
                pool.scan_functions();
            }
        });
    }

    /// Asks once. Whether there was an answer.
    async fn ask_for_functions(self: &Arc<Self>) -> bool {
        let defined = self.functions.defined.load(Ordering::Acquire);
        let failure = match tokio::time::timeout(LIMIT, self.fetch_functions()).await {
            Ok(Ok(scanner)) => {
                self.functions.scanner.store(scanner.map(Arc::new));
                self.functions.seen.store(defined, Ordering::Release);
                self.functions.failures.store(0, Ordering::Relaxed);
                return true;
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => "timeout".to_owned(),
        };
        let failures = self.functions.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if failures >= MOST_FAILURES {
            self.functions.seen.store(defined, Ordering::Release);
        }
        if failures == MOST_FAILURES {
            tracing::warn!(
                db = %self.key.database, user = %self.key.user, error = failure,
                "cannot look at the functions of a database: what they do to a session is not noticed"
            );
        }
        false
    }

    async fn fetch_functions(self: &Arc<Self>) -> Result<Option<Scanner>, ScanError> {
        let mut lease = match self.lease(Home::Control, Instant::now(), || None) {
            Leasing::Ready(lease) => lease,
            Leasing::Queued(mut waiting) => poll_fn(|cx| waiting.poll(cx)).await?.lease,
        };
        lease.rehome(Home::Control).map_err(SettleError::Io)?;
        // Who had it last may have set a timeout, or a role.
        if let Some(fresh) = self.fresh_parameters()
            && let Some(difference) = lease.parameters().difference(&fresh)
        {
            lease.change(&difference).await?;
        }
        let (mut found, mut broken) = (Stateful::default(), false);
        lease
            .ask(stateful::SQL, |row| broken |= found.row(row).is_err())
            .await?;
        if broken {
            return Err(ScanError::TooMuch);
        }
        let functions = found.finish();
        let named = functions.iter().map(|(name, effect)| (&**name, effect.clone()));
        Ok((!functions.is_empty()).then(|| Scanner::with_functions(named)))
    }
}

/// Why functions could not be looked at.
#[derive(Debug, thiserror::Error)]
enum ScanError {
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Settle(#[from] SettleError),
    #[error("the answer is not understood, or there are too many functions")]
    TooMuch,
}
