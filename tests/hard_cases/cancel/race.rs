//! Ten thousand cancels at moments that have nothing to do with the queries'.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use super::{assert_canceled, request_of};
use crate::{
    checks::knock,
    support::{Frame, LIMIT, Pooler, RawClient, frames, postgres},
};

const CANCELS: usize = 10_000;
const CANCELING: usize = 16;
const PLACES: usize = 16;
/// Clients that are cancelled again and again, and clients that never are.
const TARGETS: usize = 14;
const BYSTANDERS: usize = 4;

/// One client's cancels, as those see it who send them.
struct Target {
    request: Vec<u8>,
    /// Sent, or about to be.
    begun: AtomicUsize,
    /// Dealt with: the connection that carried it has been closed.
    over: AtomicUsize,
}

/// What a client has met.
#[derive(Debug, Default)]
struct Tally {
    answers: usize,
    /// Errors by the server, which names its source file, and by the pooler, for queries in the queue.
    by_server: usize,
    by_pooler: usize,
}

/// A client that asks all the time. Every answer is checked: it is this question's, or it is a cancel that was
/// under way while the question was open.
struct Asking<'a> {
    client: RawClient,
    number: usize,
    /// None for a client that nobody cancels.
    target: Option<&'a Target>,
    tally: Tally,
}

impl Asking<'_> {
    fn run(mut self, go_on: impl Fn() -> bool) -> Tally {
        let mut chance = Chance(self.number as u64 + 1);
        while go_on() {
            let serial = self.tally.answers;
            let name = format!("{} {serial}", self.number);
            // From shorter than a cancel takes to longer.
            let milliseconds = chance.below(40);
            let sql = format!("SELECT '{name}', pg_sleep({milliseconds} / 1000.0)");
            match chance.below(3) {
                0 => drop(self.ask(&frames::query(&sql), Some(&name))),
                1 => drop(self.ask(&frames::extended(&sql, &[]), Some(&name))),
                _ => self.transaction(&sql, &name),
            }
        }
        self.tally
    }

    fn transaction(&mut self, sql: &str, name: &str) {
        let mut status = self.ask(&frames::query("BEGIN"), None);
        for _ in 0..2 {
            if status == b'T' {
                status = self.ask(&frames::query(sql), Some(name));
            }
        }
        while status != b'I' {
            status = self.ask(&frames::query("COMMIT"), None);
        }
    }

    /// Asks and checks; the transaction status afterwards.
    fn ask(&mut self, request: &[u8], name: Option<&str>) -> u8 {
        let over = self.target.map_or(0, |target| target.over.load(Ordering::SeqCst));
        self.client.send(request);
        let messages = self.client.read_until_ready();
        let begun = self
            .target
            .map_or(0, |target| target.begun.load(Ordering::SeqCst));
        self.tally.answers += 1;
        if let Some(error) = messages.iter().find(|message| message.tag == b'E') {
            assert_canceled(&messages);
            assert!(
                begun > over,
                "client {} has been cancelled by nobody",
                self.number
            );
            match error.field(b'F') {
                Some(_) => self.tally.by_server += 1,
                None => self.tally.by_pooler += 1,
            }
        } else if let Some(name) = name {
            assert_eq!(first_column(&messages).as_deref(), Some(name), "{messages:?}");
        }
        messages.last().map_or(0, |ready| ready.body[0])
    }
}

fn first_column(messages: &[Frame]) -> Option<String> {
    let row = messages.iter().find(|message| message.tag == b'D')?;
    row.columns().swap_remove(0)
}

/// Sends its share of the cancels, each to any of the targets, as fast as they are dealt with.
fn cancel_all(pooler: &Pooler, targets: &[Target], left: &AtomicUsize, seed: u64) {
    let mut chance = Chance(seed);
    let one_less = |left: usize| left.checked_sub(1);
    while left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
        .is_ok()
    {
        let target = &targets[chance.below(targets.len())];
        thread::sleep(Duration::from_micros(chance.below(500) as u64));
        target.begun.fetch_add(1, Ordering::SeqCst);
        let mut stream = TcpStream::connect(pooler.address()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(&target.request).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        target.over.fetch_add(1, Ordering::SeqCst);
    }
}

/// Knuth's linear congruential generator: the same moments in every run, as far as the machine allows.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

#[test]
fn case_35_ten_thousand_racing_cancels_hit_nobody_else() {
    // Poolers that send a cancel and return at once let it hit the next client (pgbouncer #717, pgdog #1505). Every
    // client has a setting of its own, so that cancels also meet what the pooler itself asks the server.
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", PLACES.to_string())
        .set("log.level", "'info,pgweir::session::run=warn'")
        .start();
    let mut clients: Vec<_> = (0..TARGETS + BYSTANDERS)
        .map(|number| {
            let mut client = knock(&pooler, &[("application_name", &format!("client {number}"))]);
            client.read_until_ready();
            client
        })
        .collect();
    let bystanders = clients.split_off(TARGETS);
    let target = |client: &RawClient| Target {
        request: request_of(client),
        begun: AtomicUsize::new(0),
        over: AtomicUsize::new(0),
    };
    let targets: Vec<_> = clients.iter().map(target).collect();
    let (left, canceling) = (AtomicUsize::new(CANCELS), AtomicUsize::new(CANCELING));
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let (pooler, targets, left, canceling) = (&pooler, &targets, &left, &canceling);
        let victims = clients.into_iter().zip(targets.iter().map(Some));
        let others = bystanders.into_iter().map(|client| (client, None));
        let asking: Vec<_> = (victims.chain(others).enumerate())
            .map(|(number, (client, target))| {
                let tally = Tally::default();
                let asking = Asking {
                    client,
                    number,
                    target,
                    tally,
                };
                scope.spawn(move || asking.run(|| canceling.load(Ordering::SeqCst) > 0))
            })
            .collect();
        for seed in 0..CANCELING {
            scope.spawn(move || {
                // Also when an assertion fails: the clients have to end.
                let _done = Done(canceling);
                cancel_all(pooler, targets, left, seed as u64);
            });
        }
        asking.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let (victims, others) = tallies.split_at(TARGETS);
    let sum = |count: fn(&Tally) -> usize| victims.iter().map(count).sum::<usize>();
    let (answers, by_server, by_pooler) = (
        sum(|tally| tally.answers),
        sum(|tally| tally.by_server),
        sum(|tally| tally.by_pooler),
    );
    println!(
        "{CANCELS} cancels: {by_server} by the server and {by_pooler} in the queue, of {answers} queries"
    );
    assert!(
        by_server > CANCELS / 50 && by_pooler > 0,
        "the cancels have targets"
    );
    assert!(by_server + by_pooler <= CANCELS, "a cancel cancels once");
    for tally in others {
        assert!(
            tally.answers > 100 && tally.by_server + tally.by_pooler == 0,
            "{tally:?}"
        );
    }
    pooler.assert_all_places(PLACES);
}

struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
