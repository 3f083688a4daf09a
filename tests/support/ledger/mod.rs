//! Clients that move money, and a journal of what they were told, outside of the database.
//!
//! Each transfer has a number of its own, which is written into a table in the same transaction; when its COMMIT is
//! answered the number goes into the journal. Whatever happens to servers and poolers, afterwards every number of the
//! journal is in the table, none is there twice, and the sum of all balances is what it was.

mod client;
mod outcome;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use self::client::Client;
pub use self::outcome::{Outcome, Verdict};
use super::{LIMIT, Rig, Trouble, eventually, rig::ROLE, try_client::Plug};

const ACCOUNTS: u32 = 1000;
const BALANCE: u32 = 1000;
/// Numbers of one client; the next client's begin behind them.
const NUMBERS: u64 = 1_000_000;

/// Who does what, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Clients whose transfers are transactions of several statements.
    pub transferring: u32,
    /// Clients that write a number with a single statement, without a transaction block.
    pub autocommit: u32,
    /// How long a client rests between two transactions: up to twice as long, at random.
    pub rest: Duration,
    /// How long a transfer rests before its COMMIT, likewise.
    pub rest_within: Duration,
    /// How long a client waits for an answer.
    pub patience: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            transferring: 24,
            autocommit: 8,
            rest: Duration::from_millis(40),
            rest_within: Duration::from_millis(5),
            patience: Duration::from_secs(200),
        }
    }
}

/// In what a client was when it was in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Logging in, anew.
    LogIn,
    /// It had asked for the first thing in a transaction and nothing of it was answered; or it was idle before.
    Between,
    /// Its transaction was open: its first statement had been answered.
    Open,
    /// A single statement outside of a transaction block was not answered.
    Single,
}

/// The clients, at work.
pub struct Ledger {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the clients have in common.
struct Shared {
    address: SocketAddr,
    load: Load,
    started: Instant,
    stop: AtomicBool,
    journal: Mutex<Journal>,
    /// By client: how to wake one that waits for an answer.
    plugs: Mutex<Vec<Option<Plug>>>,
}

/// What clients were told.
#[derive(Debug, Default)]
struct Journal {
    commits: Vec<Commit>,
    errors: Vec<Failure>,
    /// Connections that ended before their client wanted it.
    lost: usize,
}

#[derive(Debug, Clone, Copy)]
struct Commit {
    number: u64,
    /// When its client first wanted to do it, which may have taken several attempts under other numbers.
    wanted: Instant,
    answered: Instant,
}

#[derive(Debug, Clone)]
struct Failure {
    at: Instant,
    stage: Stage,
    trouble: Trouble,
}

impl Ledger {
    /// Makes the tables on a primary.
    pub fn prepare(rig: &Rig, primary: usize) {
        let sql = format!(
            "SET ROLE {ROLE}; \
             CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL); \
             INSERT INTO accounts SELECT id, {BALANCE} FROM generate_series(1, {ACCOUNTS}) AS id; \
             CREATE TABLE journal (number bigint NOT NULL); \
             CREATE INDEX ON journal (number)"
        );
        rig.sql_in_database(primary, &sql);
    }

    /// Starts clients of a pooler, and waits until all have committed something.
    pub fn start(address: SocketAddr, load: Load) -> Self {
        let clients = load.transferring + load.autocommit;
        let shared = Arc::new(Shared {
            address,
            load,
            started: Instant::now(),
            stop: AtomicBool::new(false),
            journal: Mutex::default(),
            plugs: Mutex::new((0..clients).map(|_| None).collect()),
        });
        let threads = (0..clients)
            .map(|index| {
                let client = Client::new(index, Arc::clone(&shared));
                thread::spawn(move || client.run())
            })
            .collect();
        let ledger = Self { shared, threads };
        ledger.wait_for_everybody();
        ledger
    }

    /// Waits until every client has committed something from now on.
    #[track_caller]
    pub fn wait_for_everybody(&self) {
        let since = Instant::now();
        eventually("every client has committed something", || {
            self.has_everybody(since)
        });
    }

    /// As [`Ledger::wait_for_everybody`], for `limit` at most; whether they have.
    pub fn is_everybody_back(&self, limit: Duration) -> bool {
        let since = Instant::now();
        while !self.has_everybody(since) {
            if since.elapsed() >= limit {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }

    fn has_everybody(&self, since: Instant) -> bool {
        let journal = self.shared.journal();
        let mut clients: Vec<u64> = journal
            .since(since)
            .map(|commit| commit.number / NUMBERS)
            .collect();
        drop(journal);
        clients.sort_unstable();
        clients.dedup();
        clients.len() == self.threads.len()
    }

    /// When a transaction was first committed after `since`, if one is within `limit`.
    pub fn first_commit(&self, since: Instant, limit: Duration) -> Option<Instant> {
        let deadline = Instant::now() + limit;
        loop {
            let first = self
                .shared
                .journal()
                .since(since)
                .map(|commit| commit.answered)
                .min();
            if first.is_some() || Instant::now() >= deadline {
                return first;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// When the load began.
    pub fn started(&self) -> Instant {
        self.shared.started
    }

    /// How many transactions have been committed so far.
    pub fn commits(&self) -> usize {
        self.shared.journal().commits.len()
    }

    /// Ends the load: clients finish what they do, or are torn away from it after `grace`.
    pub fn finish(mut self, grace: Duration) -> Outcome {
        self.shared.stop.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + grace;
        while self.threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let stuck = self.threads.iter().filter(|thread| !thread.is_finished()).count();
        self.tear();
        let journal = std::mem::take(&mut *self.shared.journal());
        Outcome::new(journal, self.shared.started, stuck)
    }

    fn tear(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + LIMIT;
        // One may just be logging in, and has its plug only afterwards.
        while self.threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
            self.shared.plugs().iter().flatten().for_each(Plug::pull);
            thread::sleep(Duration::from_millis(10));
        }
        for thread in self.threads.drain(..).filter(JoinHandle::is_finished) {
            let _ = thread.join();
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.tear();
    }
}

impl Shared {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plugs(&self) -> MutexGuard<'_, Vec<Option<Plug>>> {
        self.plugs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

impl Journal {
    /// In the order of their answers, as good as.
    fn since(&self, since: Instant) -> impl Iterator<Item = &Commit> {
        self.commits
            .iter()
            .rev()
            // Clients write one after the other what they were told at the same time.
            .take_while(move |commit| commit.answered + Duration::from_millis(200) >= since)
            .filter(move |commit| commit.answered >= since)
    }
}
