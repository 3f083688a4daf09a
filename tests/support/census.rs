//! Counting server connections by PostgreSQL's own account, all the time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{Postgres, RawClient, postgres_with};

/// Who counts. It is no superuser, and sees everybody all the same.
const ROLE: &str = "census";
const PAUSE: Duration = Duration::from_millis(1);

/// Counts all client backends but those of the superuser and its own, again and again, until it is dropped.
pub struct Census {
    counted: Arc<Counted>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counted {
    now: AtomicUsize,
    most: AtomicUsize,
    samples: AtomicUsize,
    stop: AtomicBool,
}

impl Census {
    /// A PostgreSQL that lets it in.
    pub fn postgres() -> Postgres {
        let own = format!("host postgres {ROLE} all trust");
        postgres_with(|builder| builder.hba(&[&own, "host all all all scram-sha-256"]))
    }

    /// Begins to count.
    pub fn begin(postgres: &Postgres) -> Self {
        let role = format!("CREATE ROLE {ROLE} LOGIN IN ROLE pg_monitor");
        postgres.psql(&role).expect("the role is made");
        let mut client = RawClient::log_in(&postgres.address(), ROLE, "", "postgres");
        let counted = Arc::new(Counted::default());
        let counting = counted.clone();
        let thread = thread::spawn(move || {
            let sql = format!(
                "SELECT count(*) FROM pg_stat_activity \
                 WHERE backend_type = 'client backend' AND usename NOT IN ('postgres', '{ROLE}')"
            );
            while !counting.stop.load(Ordering::SeqCst) {
                let now = client.value(&sql).parse().expect("a count is a number");
                counting.now.store(now, Ordering::SeqCst);
                counting.most.fetch_max(now, Ordering::SeqCst);
                counting.samples.fetch_add(1, Ordering::SeqCst);
                thread::sleep(PAUSE);
            }
        });
        Self {
            counted,
            thread: Some(thread),
        }
    }

    /// How many there are.
    pub fn now(&self) -> usize {
        self.counted.now.load(Ordering::SeqCst)
    }

    /// The most that there were at once.
    pub fn most(&self) -> usize {
        self.counted.most.load(Ordering::SeqCst)
    }

    /// How often it has counted.
    pub fn samples(&self) -> usize {
        self.counted.samples.load(Ordering::SeqCst)
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        self.counted.stop.store(true, Ordering::SeqCst);
        // A census that failed says so in its own words; what the test was about to say stays.
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            panic!("the census has failed");
        }
    }
}
