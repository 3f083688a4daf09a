//! One client: it wants to do one thing after the other, and tries each until it is done.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{ACCOUNTS, Commit, Failure, NUMBERS, Shared, Stage};
use crate::support::{Trouble, TryClient, rig::ROLE};

/// Between two attempts, of which the first has failed.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Client {
    index: u32,
    shared: Arc<Shared>,
    connection: Option<TryClient>,
    next: u64,
    random: u64,
}

impl Client {
    pub(super) fn new(index: u32, shared: Arc<Shared>) -> Self {
        Self {
            index,
            shared,
            connection: None,
            next: u64::from(index) * NUMBERS,
            // Not 0, from which the sequence would not move.
            random: u64::from(index) + 0x9e37_79b9,
        }
    }

    pub(super) fn run(mut self) {
        while !self.shared.is_over() {
            self.do_one_thing();
            let rest = self.up_to_twice(self.shared.load.rest);
            thread::sleep(rest);
        }
    }

    fn do_one_thing(&mut self) {
        let wanted = Instant::now();
        while !self.shared.is_over() {
            let number = self.next;
            self.next += 1;
            match self.attempt(number) {
                Ok(()) => {
                    let answered = Instant::now();
                    self.shared.journal().commits.push(Commit {
                        number,
                        wanted,
                        answered,
                    });
                    return;
                }
                Err((stage, trouble)) => {
                    self.take_note(stage, trouble);
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    fn attempt(&mut self, number: u64) -> Result<(), (Stage, Trouble)> {
        if self.connection.is_none() {
            self.log_in().map_err(|trouble| (Stage::LogIn, trouble))?;
        }
        let is_single = self.index >= self.shared.load.transferring;
        let (from, to, rest) = (
            self.account(),
            self.account(),
            self.up_to_twice(self.shared.load.rest_within),
        );
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let write = format!("INSERT INTO journal VALUES ({number})");
        if is_single {
            return run(connection, Stage::Single, &write);
        }
        run(connection, Stage::Between, "BEGIN")?;
        // In this order for everybody, or they would lock each other out.
        let (low, high) = (from.min(to), from.max(to));
        let change =
            |id: u32, by: i32| format!("UPDATE accounts SET balance = balance + {by} WHERE id = {id}");
        run(connection, Stage::Open, &change(low, -1))?;
        run(connection, Stage::Open, &format!("{}; {write}", change(high, 1)))?;
        thread::sleep(rest);
        run(connection, Stage::Open, "COMMIT")
    }

    fn log_in(&mut self) -> Result<(), Trouble> {
        let connection = TryClient::log_in(self.shared.address, ROLE, ROLE, self.shared.load.patience)?;
        let plug = connection.plug()?;
        let mut plugs = self.shared.plugs();
        plugs[usize::try_from(self.index).expect("a small number")] = Some(plug);
        self.connection = Some(connection);
        Ok(())
    }

    fn take_note(&mut self, stage: Stage, trouble: Trouble) {
        // What comes of being torn away is nobody's fault.
        if self.shared.is_over() {
            return;
        }
        let is_lost = trouble.is_fatal && self.connection.take().is_some();
        if let Some(connection) = &mut self.connection {
            // An error leaves a transaction open.
            if stage == Stage::Open && connection.query("ROLLBACK").is_err() {
                self.connection = None;
            }
        }
        let mut journal = self.shared.journal();
        journal.lost += usize::from(is_lost);
        journal.errors.push(Failure {
            at: Instant::now(),
            stage,
            trouble,
        });
    }

    fn account(&mut self) -> u32 {
        let account = self.random() % u64::from(ACCOUNTS);
        u32::try_from(account).expect("a small number") + 1
    }

    fn up_to_twice(&mut self, duration: Duration) -> Duration {
        let percent = u32::try_from(self.random() % 200).expect("a small number");
        duration * percent / 100
    }

    /// Marsaglia's xorshift: the same numbers in every run.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 16
    }
}

fn run(connection: &mut TryClient, stage: Stage, sql: &str) -> Result<(), (Stage, Trouble)> {
    match connection.query(sql) {
        Ok(_) => Ok(()),
        Err(trouble) => Err((stage, trouble)),
    }
}
