//! Random pipelines of many clients over two server connections, each answer compared with what PostgreSQL's
//! documentation promises. `PGWEIR_TEST_SEED` repeats a run.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    hash::{BuildHasher, RandomState},
    thread,
};

use support::{Frame, Pooler, RawClient, frames, postgres};

const CLIENTS: u64 = 16;
const ROUNDS: usize = 30;
const REQUESTS: u64 = 12;
const POOL: usize = 2;
const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York"];

/// `xorshift64*`: the same numbers from the same seed, everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn index(&mut self, limit: usize) -> usize {
        usize::try_from(self.below(limit as u64)).unwrap()
    }
}

/// What PostgreSQL thinks of the session's transaction.
#[derive(Clone, Copy, PartialEq)]
enum Status {
    Idle,
    Open,
    Failed,
}

/// A client's requests and the answers that must come, built together.
struct Script {
    random: Random,
    name: u64,
    made: u64,
    status: Status,
    zone: &'static str,
    bytes: Vec<u8>,
    /// Type bytes, and values for rows, SQLSTATEs for errors, the status for ReadyForQuery.
    expected: Vec<String>,
}

impl Script {
    fn new(seed: u64, name: u64) -> Self {
        let mut random = Random(seed.wrapping_add(name).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            random.below(2);
        }
        Self {
            random,
            name,
            made: 0,
            status: Status::Idle,
            zone: ZONES[0],
            bytes: Vec::new(),
            expected: Vec::new(),
        }
    }

    fn token(&mut self) -> String {
        self.made += 1;
        format!("{}-{}", self.name, self.made)
    }

    fn expect(&mut self, what: &[&str]) {
        self.expected.extend(what.iter().map(|&what| what.to_owned()));
    }

    fn expect_ready(&mut self) {
        self.expect(&[match self.status {
            Status::Idle => "Z I",
            Status::Open => "Z T",
            Status::Failed => "Z E",
        }]);
    }

    /// The error that ends what was asked for.
    fn expect_failure(&mut self, sqlstate: &str) {
        let sqlstate = if self.status == Status::Failed {
            "25P02"
        } else {
            sqlstate
        };
        self.expect(&[&format!("E {sqlstate}")]);
        if self.status == Status::Open {
            self.status = Status::Failed;
        }
    }

    /// One or more requests that belong together, up to ReadyForQuery.
    fn request(&mut self) {
        match self.random.below(16) {
            0..=2 => self.simple(),
            3..=7 => self.batch(),
            8 => self.empty(),
            9 => self.failing(),
            10 => self.transaction_control(),
            11 => self.copy_out(),
            12 => self.copy_in(),
            13 => self.function_call(),
            14 => self.set_zone(),
            _ => self.show_zone(),
        }
    }

    fn simple(&mut self) {
        let (one, two) = (self.token(), self.token());
        self.bytes
            .extend(frames::query(&format!("SELECT '{one}'; SELECT '{two}'")));
        if self.status == Status::Failed {
            self.expect_failure("");
        } else {
            for token in [one, two] {
                self.expect(&["T", &format!("D {token}"), "C SELECT 1"]);
            }
        }
        self.expect_ready();
    }

    fn empty(&mut self) {
        self.bytes.extend(frames::query(""));
        self.expect(&["I"]);
        self.expect_ready();
    }

    fn failing(&mut self) {
        self.bytes.extend(frames::query("SELECT 1/0"));
        // A constant is folded while planning, before any row description is sent.
        self.expect_failure("22012");
        self.expect_ready();
    }

    /// Several statements of the extended protocol, one of which may fail; sometimes a Query ends it.
    fn batch(&mut self) {
        let count = 1 + self.random.below(4);
        let failing = self.random.below(3 * count);
        let mut skipping = false;
        for index in 0..count {
            let token = self.token();
            let fails = index == failing;
            let sql = if fails {
                "SELECT 1/$1::int"
            } else {
                "SELECT $1::text"
            };
            let value = if fails { "0" } else { &token };
            self.bytes.extend(frames::parse("", sql));
            if self.random.below(4) == 0 {
                self.bytes.extend(frames::flush());
            }
            self.bytes.extend(frames::bind("", "", &[Some(value)]));
            self.bytes.extend(frames::execute(""));
            if skipping {
                continue;
            }
            if self.status == Status::Failed {
                self.expect_failure("");
                skipping = true;
            } else if fails {
                // The plan folds it, and the plan is made by Bind.
                self.expect(&["1"]);
                self.expect_failure("22012");
                skipping = true;
            } else {
                self.expect(&["1", "2", &format!("D {token}"), "C SELECT 1"]);
            }
        }
        if self.random.below(5) == 0 {
            // Between the batch and its Sync.
            let token = self.token();
            self.bytes.extend(frames::query(&format!("SELECT '{token}'")));
            if !skipping {
                self.expect(&["T", &format!("D {token}"), "C SELECT 1"]);
                self.expect_ready();
            }
        }
        self.bytes.extend(frames::sync());
        self.expect_ready();
    }

    fn transaction_control(&mut self) {
        let (sql, tag) = match (self.status, self.random.below(2)) {
            (Status::Idle, _) => ("BEGIN", "C BEGIN"),
            (Status::Open, 0) => ("COMMIT", "C COMMIT"),
            (Status::Failed, 0) => ("COMMIT", "C ROLLBACK"),
            _ => ("ROLLBACK", "C ROLLBACK"),
        };
        self.bytes.extend(frames::query(sql));
        self.status = if self.status == Status::Idle {
            Status::Open
        } else {
            Status::Idle
        };
        self.expect(&[tag]);
        self.expect_ready();
    }

    fn copy_out(&mut self) {
        let token = self.token();
        let sql = format!("COPY (SELECT '{token}' FROM generate_series(1, 2)) TO STDOUT");
        self.bytes.extend(frames::query(&sql));
        if self.status == Status::Failed {
            self.expect_failure("");
        } else {
            let data = format!("d {token}");
            self.expect(&["H", &data, &data, "c", "C COPY 2"]);
        }
        self.expect_ready();
    }

    /// COPY FROM STDIN without waiting for the server's word, by either protocol, with good data or bad.
    fn copy_in(&mut self) {
        let (extended, bad) = (self.random.below(2) == 0, self.random.below(3) == 0);
        let sql = "COPY numbers FROM STDIN";
        let early_sync = extended && self.random.below(2) == 0;
        if extended {
            let pieces = [
                frames::parse("", sql),
                frames::bind("", "", &[]),
                frames::execute(""),
            ];
            self.bytes.extend(pieces.concat());
        } else {
            self.bytes.extend(frames::query(sql));
        }
        if early_sync {
            self.bytes.extend(frames::sync());
        }
        let first = if bad { "one\n" } else { "1\n" };
        for data in [first, "2\n3\n"] {
            self.bytes.extend(frames::frame(b'd', data));
        }
        self.bytes.extend(frames::frame(b'c', []));
        if extended {
            self.bytes.extend(frames::sync());
        }
        if self.status == Status::Failed {
            self.expect_failure("");
            if early_sync {
                // There was no COPY to ignore it.
                self.expect_ready();
            }
        } else {
            if extended {
                self.expect(&["1", "2"]);
            }
            self.expect(&["G"]);
            if bad {
                self.expect_failure("22P02");
            } else {
                self.expect(&["C COPY 3"]);
            }
        }
        self.expect_ready();
    }

    fn function_call(&mut self) {
        const INT4PL: i32 = 177;
        let mut body = INT4PL.to_be_bytes().to_vec();
        body.extend([0, 0, 0, 2, 0, 0, 0, 1, b'2', 0, 0, 0, 1, b'3', 0, 0]);
        self.bytes.extend(frames::frame(b'F', body));
        if self.status == Status::Failed {
            self.expect_failure("");
        } else {
            self.expect(&["V"]);
        }
        self.expect_ready();
    }

    /// Only between transactions, so that no rollback undoes it.
    fn set_zone(&mut self) {
        if self.status != Status::Idle {
            return self.show_zone();
        }
        self.zone = ZONES[self.random.index(ZONES.len())];
        self.bytes
            .extend(frames::query(&format!("SET TimeZone TO '{}'", self.zone)));
        self.expect(&["C SET"]);
        self.expect_ready();
    }

    fn show_zone(&mut self) {
        self.bytes.extend(frames::query("SHOW TimeZone"));
        if self.status == Status::Failed {
            self.expect_failure("");
        } else {
            self.expect(&["T", &format!("D {}", self.zone), "C SHOW"]);
        }
        self.expect_ready();
    }

    /// Sends what was made, in random pieces, and compares what comes.
    fn play(&mut self, client: &mut RawClient) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = (1 + self.random.index(400)).min(rest.len());
            let (piece, after) = rest.split_at(length);
            client.send(piece);
            rest = after;
        }
        let expected = std::mem::take(&mut self.expected);
        for (index, expected_one) in expected.iter().enumerate() {
            let message = loop {
                let message = client.read();
                if message.tag != b'S' {
                    break message;
                }
            };
            assert_eq!(
                &summary(&message),
                expected_one,
                "client {}, answer {index} of {expected:?}",
                self.name
            );
        }
    }
}

fn summary(message: &Frame) -> String {
    let tag = char::from(message.tag);
    match message.tag {
        b'D' => format!("D {}", message.columns()[0].as_deref().unwrap()),
        b'C' => format!("C {}", message.strings()[0]),
        b'E' => format!("E {}", message.field(b'C').unwrap()),
        b'd' => format!("d {}", String::from_utf8_lossy(&message.body).trim_end()),
        b'Z' => format!("Z {}", char::from(message.body[0])),
        _ => tag.to_string(),
    }
}

#[test]
fn every_answer_reaches_the_client_that_asked_and_is_the_right_one() {
    let seed = match std::env::var("PGWEIR_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => RandomState::new().hash_one("seed"),
    };
    println!("PGWEIR_TEST_SEED={seed}");
    let postgres = postgres();
    postgres
        .psql_in("app", "SET ROLE app; CREATE TABLE numbers (number int)")
        .unwrap();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", POOL.to_string())
        .set("process.workers", "2")
        .start();
    thread::scope(|scope| {
        for name in 0..CLIENTS {
            let address = pooler.address();
            scope.spawn(move || {
                let mut client = RawClient::log_in(address, "app", "secret", "app");
                let mut script = Script::new(seed, name);
                client.query(&format!("SET TimeZone TO '{}'", script.zone));
                for _ in 0..ROUNDS {
                    for _ in 0..1 + script.random.below(REQUESTS) {
                        script.request();
                    }
                    script.play(&mut client);
                }
                while script.status != Status::Idle {
                    script.transaction_control();
                    script.play(&mut client);
                }
            });
        }
    });
    pooler.assert_all_places(POOL);
    let connects = pooler.metric("pgweir_server_connects_total");
    assert!(
        (connects - 2.0).abs() < f64::EPSILON,
        "no server connection had to be closed: {connects}"
    );
}
