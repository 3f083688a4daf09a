//! Limits that several pools share, and the reserve of one.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use support::{Census, Pooler, PoolerBuilder, Postgres, RawClient, eventually, frames, postgres, tags};

const PROTOCOL_3: i32 = 3 << 16;

struct Stage {
    pooler: Pooler,
    postgres: Postgres,
}

/// PostgreSQL with the roles `app` and `other`, and a pgweir in front.
fn stage(change: impl FnOnce(PoolerBuilder) -> PoolerBuilder) -> Stage {
    stage_on(postgres(), change)
}

fn stage_on(postgres: Postgres, change: impl FnOnce(PoolerBuilder) -> PoolerBuilder) -> Stage {
    postgres
        .psql("CREATE ROLE other LOGIN PASSWORD 'secret'")
        .unwrap();
    let builder = Pooler::builder(&postgres.address()).user("other", "secret");
    Stage {
        pooler: change(builder).start(),
        postgres,
    }
}

impl Stage {
    fn client(&self, user: &str) -> RawClient {
        RawClient::log_in(self.pooler.address(), user, "secret", "app")
    }

    /// Server connections of a role by PostgreSQL's own account; of all roles for `%`.
    fn backends(&self, role: &str) -> usize {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND usename <> 'postgres' AND usename LIKE '{role}'"
        );
        self.postgres.psql(&sql).unwrap().parse().unwrap()
    }

    fn waits(&self, clients: u32) {
        eventually("clients wait", || {
            self.pooler.metric("pgweir_waiting_clients") == f64::from(clients)
        });
    }
}

/// A client that holds a server connection.
fn busy(stage: &Stage, user: &str) -> RawClient {
    let mut client = stage.client(user);
    assert_eq!(tags(&client.query("BEGIN")), "CZ");
    client
}

#[test]
fn the_reserve_opens_for_those_who_have_waited_long_and_closes_again() {
    let stage = stage(|builder| {
        builder
            .set("pool.default_pool_size", "1")
            .set("pool.reserve_pool_size", "1")
            .set("pool.reserve_pool_timeout", "'300ms'")
    });
    let mut first = busy(&stage, "app");
    let asked = Instant::now();
    let mut second = busy(&stage, "app");
    assert!(
        asked.elapsed() >= Duration::from_millis(300),
        "{:?}",
        asked.elapsed()
    );
    let mut third = stage.client("app");
    third.send(frames::query("SELECT 'third'"));
    stage.waits(1);
    assert_eq!(stage.backends("app"), 2);
    second.query("COMMIT");
    assert_eq!(tags(&third.read_until_ready()), "TDCZ");
    eventually("the reserve is closed", || stage.backends("app") == 1);
    first.query("COMMIT");
    stage.pooler.assert_all_places(1);
}

#[test]
fn an_idle_connection_of_another_user_makes_room_in_a_full_database() {
    let stage = stage(|builder| {
        builder
            .set("pool.default_pool_size", "5")
            .set("pool.max_db_connections", "2")
    });
    for mut client in [busy(&stage, "app"), busy(&stage, "app")] {
        client.query("COMMIT");
    }
    stage.pooler.wait_until_quiet();
    assert_eq!(stage.backends("app"), 2);
    let mut other = busy(&stage, "other");
    eventually("there are two in all", || stage.backends("%") == 2);
    assert_eq!(stage.backends("other"), 1);
    other.query("COMMIT");
    // And the other way round, for a user who has none left.
    let mut clients = [busy(&stage, "app"), busy(&stage, "app")];
    eventually("app has them all", || {
        stage.backends("app") == 2 && stage.backends("%") == 2
    });
    for client in &mut clients {
        client.query("COMMIT");
    }
    stage.pooler.assert_all_places(2);
}

#[test]
fn a_busy_user_gives_way_to_one_who_has_none() {
    let stage = stage(|builder| {
        builder
            .set("pool.default_pool_size", "2")
            .set("pool.max_db_connections", "2")
            .set("pool.query_wait_timeout", "'20s'")
    });
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = stage.client("app");
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(tags(&client.query("SELECT pg_sleep(0.01)")), "TDCZ");
                }
            });
        }
        eventually("the database is full", || stage.backends("app") == 2);
        // Nothing of app's is ever idle.
        let mut other = stage.client("other");
        let answer = other.query("SELECT 1");
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(tags(&answer), "TDCZ", "{answer:?}");
    });
    eventually("no more than allowed", || stage.backends("%") <= 2);
    stage.pooler.wait_until_quiet();
}

#[test]
fn the_error_names_the_limit_that_was_reached() {
    let stage = stage(|builder| {
        builder
            .set("pool.default_pool_size", "5")
            .set("users.app.max_user_connections", "1")
            .set("pool.query_wait_timeout", "'300ms'")
    });
    let mut first = busy(&stage, "app");
    let mut second = stage.client("app");
    let answer = second.query("SELECT 1");
    assert_eq!(tags(&answer), "EZ");
    let field = |code| answer[0].field(code).unwrap();
    assert_eq!(field(b'C'), "53300");
    assert!(field(b'D').contains("max_user_connections = 1"), "{answer:?}");
    assert!(field(b'H').contains("max_user_connections"), "{answer:?}");
    let mut other = busy(&stage, "other");
    other.query("COMMIT");
    first.query("COMMIT");
    assert_eq!(tags(&second.query("SELECT 1")), "TDCZ");
}

/// Two databases and two users, four pools, and a budget that is less than one for each: everybody comes to his turn, and
/// PostgreSQL never sees more.
#[test]
fn a_budget_bounds_all_pools_together_and_everybody_is_served() {
    let stage = stage_on(Census::postgres(), |builder| {
        builder
            .set("pool.default_pool_size", "5")
            .set("pool.min_pool_size", "2")
            .set("pool.server_connection_budget", "3")
            .set("pool.query_wait_timeout", "'20s'")
    });
    stage.postgres.psql("CREATE DATABASE second").unwrap();
    let census = Census::begin(&stage.postgres);
    let pools = ["app", "other"].map(|user| ["app", "second"].map(|database| (user, database)));
    std::thread::scope(|scope| {
        for (user, database) in pools.into_iter().flatten() {
            for client in 0..3 {
                let stage = &stage;
                scope.spawn(move || {
                    let mut raw = RawClient::log_in(stage.pooler.address(), user, "secret", database);
                    for query in 0..40 {
                        let answer = raw.query("SELECT pg_sleep(0.002)");
                        assert_eq!(
                            tags(&answer),
                            "TDCZ",
                            "{user} {database} {client} {query}: {answer:?}"
                        );
                    }
                });
            }
        }
    });
    assert!(census.samples() > 10, "{}", census.samples());
    assert_eq!(census.most(), 3);
    let text = stage.pooler.metrics();
    assert!(text.contains("pgweir_server_connection_budget 3\n"), "{text}");
    assert!(text.contains("pgweir_server_connection_allowance 3\n"), "{text}");
}

#[test]
fn a_budget_that_becomes_smaller_takes_idle_connections_at_once_and_cuts_no_transaction() {
    let mut stage = stage(|builder| {
        builder
            .set("pool.default_pool_size", "5")
            .set("pool.server_connection_budget", "6")
    });
    let mut held: Vec<_> = (0..3).map(|_| busy(&stage, "app")).collect();
    let mut idle: Vec<_> = (0..3).map(|_| busy(&stage, "other")).collect();
    for client in &mut idle {
        client.query("COMMIT");
    }
    eventually("six are there", || stage.backends("%") == 6);
    let count = |stage: &Stage| stage.pooler.metric("pgweir_server_connections");
    stage
        .pooler
        .reconfigure(|builder| builder.set("pool.server_connection_budget", "2"));
    stage.pooler.reload();
    eventually("those that are idle are closed", || stage.backends("%") == 3);
    assert_eq!(stage.backends("app"), 3);
    for client in &mut held {
        assert_eq!(client.value("SELECT 'still there'"), "still there");
    }
    held.pop().unwrap().query("COMMIT");
    eventually("one that comes back is closed", || stage.backends("%") == 2);
    // There is room for nobody else until somebody ends.
    let mut waiting = stage.client("other");
    waiting.send(frames::query("SELECT 'served'"));
    stage.waits(1);
    held.pop().unwrap().query("COMMIT");
    assert_eq!(tags(&waiting.read_until_ready()), "TDCZ");
    eventually("there are two", || count(&stage) <= 2.0);
    stage
        .pooler
        .reconfigure(|builder| builder.set("pool.server_connection_budget", "0"));
    stage.pooler.reload();
    eventually("there is no budget any more", || {
        !stage
            .pooler
            .metrics()
            .contains("pgweir_server_connection_budget ")
    });
    let many: Vec<_> = (0..4).map(|_| busy(&stage, "other")).collect();
    drop(many);
}

/// A server process that takes its time to end has its place until then: nobody else may count on it.
#[test]
fn a_place_is_free_when_the_server_has_given_it_back() {
    let stage = stage_on(Census::postgres(), |builder| {
        builder.set("pool.server_connection_budget", "1")
    });
    let mut second = stage.client("other");
    let mut first = stage.client("app");
    let pid = first.value("SELECT pg_backend_pid()").parse().unwrap();
    let pid = nix::unistd::Pid::from_raw(pid);
    stage.pooler.wait_until_quiet();
    let census = Census::begin(&stage.postgres);
    kill(pid, Signal::SIGSTOP).unwrap();
    second.send(frames::query("SELECT 1"));
    stage.waits(1);
    let begun = census.samples();
    eventually("it is looked for a while", || census.samples() > begun + 50);
    assert_eq!(stage.pooler.metric("pgweir_waiting_clients"), 1.0);
    kill(pid, Signal::SIGCONT).unwrap();
    assert_eq!(tags(&second.read_until_ready()), "TDCZ");
    assert_eq!(census.most(), 1);
}

#[test]
fn the_error_names_the_budget() {
    let stage = stage(|builder| {
        builder
            .set("pool.default_pool_size", "5")
            .set("pool.server_connection_budget", "1")
            .set("pool.query_wait_timeout", "'300ms'")
    });
    let mut second = stage.client("other");
    let mut first = busy(&stage, "app");
    let answer = second.query("SELECT 1");
    assert_eq!(tags(&answer), "EZ");
    let field = |code| answer[0].field(code).unwrap();
    assert_eq!(field(b'C'), "53300");
    assert!(
        field(b'D').contains("server_connection_budget = 1 for all pools"),
        "{answer:?}"
    );
    assert!(
        field(b'H').contains("raise server_connection_budget"),
        "{answer:?}"
    );
    first.query("COMMIT");
}

#[test]
fn clients_beyond_the_limit_of_their_user_are_refused_once_and_others_are_not() {
    let stage = stage(|builder| builder.set("users.app.max_user_client_connections", "1"));
    let mut first = stage.client("app");
    let mut refused = RawClient::connect(stage.pooler.address());
    refused.send(frames::startup(
        PROTOCOL_3,
        &[("user", "app"), ("database", "app")],
    ));
    let answer = refused.read_to_end();
    assert_eq!(tags(&answer), "RE", "{answer:?}");
    assert_eq!(answer[1].field(b'C').as_deref(), Some("53300"));
    assert_eq!(tags(&stage.client("other").query("SELECT 1")), "TDCZ");
    assert_eq!(tags(&first.query("SELECT 1")), "TDCZ");
    drop(first);
    eventually("the place is free again", || {
        let mut client = RawClient::connect(stage.pooler.address());
        client.send(frames::startup(
            PROTOCOL_3,
            &[("user", "app"), ("database", "app")],
        ));
        client.read_until(b'R');
        client.read().tag == b'S'
    });
}
