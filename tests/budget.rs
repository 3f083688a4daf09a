//! Replicas that share one budget of server connections, by PostgreSQL's own account.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::sys::signal::Signal;
use support::{Census, LIMIT, Pooler, PoolerBuilder, Postgres, RawClient, eventually, fleet, frames, tags};

const BUDGET: usize = 12;

/// Clients of one pooler that never rest, of two users.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    fn begin(pooler: &Pooler) -> Self {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let client = |number: usize| {
            let (stop, served, address) = (stop.clone(), served.clone(), pooler.address().to_owned());
            thread::spawn(move || {
                let user = if number.is_multiple_of(2) { "app" } else { "other" };
                let mut client = RawClient::log_in(&address, user, "secret", "app");
                while !stop.load(Ordering::SeqCst) {
                    for sql in ["BEGIN", "SELECT pg_sleep(0.003)", "COMMIT"] {
                        ask(&mut client, sql)?;
                    }
                    served.fetch_add(1, Ordering::SeqCst);
                }
                Ok(())
            })
        };
        Self {
            clients: (0..2 * BUDGET).map(client).collect(),
            stop,
            served,
        }
    }

    /// Waits until everybody may have been served since.
    fn goes_on(&self) {
        let before = self.served.load(Ordering::SeqCst);
        eventually("clients are served", || {
            self.served.load(Ordering::SeqCst) > before + 4 * BUDGET
        });
    }

    /// What went wrong, first for one and then for all.
    fn end(self) -> Result<(), String> {
        self.stop.store(true, Ordering::SeqCst);
        self.clients
            .into_iter()
            .try_for_each(|client| client.join().unwrap())
    }
}

fn ask(client: &mut RawClient, sql: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    client.try_send(frames::query(sql)).map_err(failed)?;
    loop {
        let message = client.try_read().map_err(failed)?;
        match message.tag {
            b'E' => return Err(format!("{message:?}")),
            b'Z' => return Ok(()),
            _ => {}
        }
    }
}

fn setup(builder: PoolerBuilder) -> PoolerBuilder {
    builder
        .user("other", "secret")
        .set("pool.default_pool_size", BUDGET.to_string())
        .set("pool.server_connection_budget", BUDGET.to_string())
        .set("pool.query_wait_timeout", "'60s'")
        .set("shutdown.drain_timeout", "'2s'")
}

fn postgres() -> Postgres {
    let postgres = Census::postgres();
    postgres
        .psql("CREATE ROLE other LOGIN PASSWORD 'secret'")
        .unwrap();
    postgres
}

fn wait_for_parts(what: &str, poolers: &[&Pooler]) {
    let part = BUDGET / poolers.len();
    eventually(what, || {
        let allowance = |pooler: &&Pooler| pooler.metric("pgweir_server_connection_allowance");
        poolers
            .iter()
            .map(allowance)
            .all(|allowance| allowance == part as f64)
    });
}

fn list(poolers: &[&Pooler]) -> String {
    format!(
        "{:?}",
        poolers
            .iter()
            .map(|pooler| pooler.http_address())
            .collect::<Vec<_>>()
    )
}

/// One comes, one is killed, one is stopped: PostgreSQL never has more than the budget, and who is left has all of it.
#[test]
fn replicas_that_come_and_go_never_pass_the_budget() {
    let postgres = postgres();
    let census = Census::begin(&postgres);
    let [mut killed, mut stopped, mut third] =
        <[Pooler; 3]>::try_from(fleet(&postgres.address(), 3, &[], setup))
            .ok()
            .unwrap();
    let mut loads: Vec<_> = [&killed, &stopped, &third].map(Load::begin).into();
    wait_for_parts("three have a third each", &[&killed, &stopped, &third]);
    eventually("all of it is used", || census.now() == BUDGET);

    // The others have not been told of it. They are told by it.
    let others = [&killed, &stopped, &third].map(|pooler| pooler.http_address().to_owned());
    let others: Vec<_> = others.iter().map(String::as_str).collect();
    let mut fourth = fleet(&postgres.address(), 1, &others, setup).remove(0);
    loads.push(Load::begin(&fourth));
    wait_for_parts("four have a fourth each", &[&killed, &stopped, &third, &fourth]);
    loads.iter().for_each(Load::goes_on);

    killed.signal(Signal::SIGKILL);
    killed.wait();
    assert!(loads.remove(0).end().is_err(), "its clients have noticed");
    let left = list(&[&stopped, &third, &fourth]);
    for pooler in [&mut stopped, &mut third, &mut fourth] {
        pooler.reconfigure(|builder| builder.set("fleet.replicas", left.clone()));
        pooler.reload();
    }
    wait_for_parts("three have a third each again", &[&stopped, &third, &fourth]);
    loads.iter().for_each(Load::goes_on);

    stopped.terminate();
    stopped.wait();
    assert!(loads.remove(0).end().is_err(), "its clients were sent away");
    wait_for_parts("two have a half each", &[&third, &fourth]);
    eventually("all of it is used again", || census.now() == BUDGET);
    for load in loads {
        load.goes_on();
        load.end().unwrap();
    }
    assert_eq!(census.most(), BUDGET, "in {} samples", census.samples());
}

/// A replica takes no more than what is left, however long transactions of another last, and cuts none.
#[test]
fn a_newcomer_waits_for_transactions_of_others() {
    let postgres = postgres();
    let mut first = fleet(&postgres.address(), 1, &[], setup).remove(0);
    wait_for_parts("it is alone", &[&first]);
    let begin = || {
        let mut client = RawClient::log_in(first.address(), "app", "secret", "app");
        assert_eq!(tags(&client.query("BEGIN")), "CZ");
        client
    };
    let mut busy: Vec<_> = (0..BUDGET).map(|_| begin()).collect();
    let census = Census::begin(&postgres);
    let second = fleet(&postgres.address(), 1, &[first.http_address()], |builder| {
        setup(builder).set("pool.query_wait_timeout", "'300ms'")
    })
    .remove(0);
    eventually("the first one is to have half of it", || {
        first.metric("pgweir_server_connection_allowance") == 6.0
    });
    assert_eq!(second.metric("pgweir_server_connection_allowance"), 0.0);
    let mut client = RawClient::connect(second.address());
    client.send(frames::startup(3 << 16, &[("user", "app"), ("database", "app")]));
    let answer = client.read_to_end();
    let detail = answer.last().and_then(|error| error.field(b'D')).unwrap();
    let limit = "server_connection_budget = 12, of which this replica may have 0 now";
    assert!(detail.contains(limit), "{detail}");
    for client in &mut busy {
        assert_eq!(client.value("SELECT 'still there'"), "still there");
    }
    busy.truncate(8);
    for client in &mut busy {
        assert_eq!(tags(&client.query("COMMIT")), "CZ");
    }
    wait_for_parts("both have a half", &[&first, &second]);
    let mut client = RawClient::log_in(second.address(), "app", "secret", "app");
    assert_eq!(client.value("SELECT 1"), "1");
    assert_eq!(census.most(), BUDGET);
    // All of it is one's again when the other has said goodbye.
    drop(client);
    first.terminate();
    first.wait();
    wait_for_parts("the second one is alone", &[&second]);
}

/// Nobody but a replica has anything to say there.
#[test]
fn only_replicas_may_ask() {
    let postgres = postgres();
    let pooler = fleet(&postgres.address(), 1, &[], setup).remove(0);
    let post = |headers: &str, body: &str| {
        let mut stream = TcpStream::connect(pooler.http_address()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let length = body.len();
        let head = format!("POST /fleet/budget HTTP/1.1\r\nHost: pgweir\r\nContent-Length: {length}\r\n");
        stream
            .write_all(format!("{head}{headers}\r\n{body}").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let of_ours = "X-Pgweir-Fan-Out: 1\r\n";
    assert!(post("", "a 1 0 0 stays\n").starts_with("HTTP/1.1 400 "));
    assert!(post(of_ours, "nonsense").starts_with("HTTP/1.1 400 "));
    wait_for_parts("it is alone", &[&pooler]);
    let answer = post(of_ours, "a 1 0 0 stays\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let words: Vec<_> = answer
        .lines()
        .skip_while(|line| !line.is_empty())
        .skip(1)
        .collect();
    let own: Vec<_> = words[0].split(' ').collect();
    assert_eq!(
        own[2..],
        ["6", "1", "stays"],
        "half of it is the other's now: {answer}"
    );
    assert_eq!(words[1], "a 1 0", "{answer}");
}
