//! The leak hunt: many clients with different settings, statements, roles, temporary tables, locks and aborts share two
//! server connections, and each looks again and again whether it sees exactly what it has made itself.
//!
//! `PGWEIR_TEST_SEED` repeats a run (as far as threads let it), `PGWEIR_TEST_SECONDS` makes it longer.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod hunter;
mod model;
mod step;
#[path = "../support/mod.rs"]
mod support;

use std::{
    hash::{BuildHasher, RandomState},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use hunter::Hunter;
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use step::Kinds;
use support::{Pooler, Postgres, eventually, postgres_for_twins};

const CLIENTS: usize = 12;
const POOL: &str = "2";

/// A PostgreSQL with what the clients talk about: roles, schemas, and functions that hide what they do.
fn world() -> Postgres {
    let postgres = postgres_for_twins();
    postgres
        .psql("CREATE ROLE reader; CREATE ROLE writer; GRANT reader, writer TO app")
        .unwrap();
    for database in ["app", "direct"] {
        postgres.psql_in(database, WORLD).unwrap();
    }
    postgres
}

const WORLD: &str = "
    CREATE SCHEMA one; CREATE SCHEMA two;
    CREATE TABLE public.t AS SELECT 'public'::text AS a;
    CREATE TABLE one.t AS SELECT 'one'::text AS a;
    CREATE TABLE two.t AS SELECT 'two'::text AS a;
    GRANT USAGE ON SCHEMA one, two TO PUBLIC;
    GRANT SELECT ON public.t, one.t, two.t TO PUBLIC;
    CREATE FUNCTION public.put(text, text) RETURNS text LANGUAGE sql AS 'SELECT set_config($1, $2, false)';
    CREATE FUNCTION public.hold(bigint) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock($1)';
";

fn from_environment<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn seed() -> u64 {
    let seed = from_environment("PGWEIR_TEST_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("PGWEIR_TEST_SEED={seed}");
    seed
}

fn time(usual: u64) -> Duration {
    Duration::from_secs(from_environment("PGWEIR_TEST_SECONDS").unwrap_or(usual))
}

/// What the clients expect is what PostgreSQL does: without that the hunt would be about nothing. Shrinks.
#[test]
fn the_model_is_postgresql_s() {
    let (postgres, seed) = (world(), seed());
    let address = postgres.address();
    let until = Instant::now() + time(4);
    let config = Config {
        failure_persistence: None,
        max_shrink_time: 30_000,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed.to_le_bytes(); 4].concat());
    let mut runner = TestRunner::new_with_rng(config, rng);
    let choices = proptest::collection::vec(any::<u64>(), 1..120);
    let mut conversations = 0;
    while Instant::now() < until {
        let tree = choices.new_tree(&mut runner).unwrap();
        let result = runner.run_one(tree, |choices| {
            let mut hunter = Hunter::new(&address, "direct", 0, Kinds::ALL);
            let done = choices.iter().try_for_each(|&choice| hunter.step(choice));
            done.and_then(|()| hunter.check()).map_err(TestCaseError::fail)
        });
        if let Err(error) = result {
            panic!("PGWEIR_TEST_SEED={seed}: {error}");
        }
        conversations += 1;
    }
    println!("{conversations} conversations");
}

/// Clients with these kinds of state on two server connections.
fn hunt(kinds: Kinds, seconds: u64) {
    let (postgres, seed) = (world(), seed());
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", POOL)
        .set("pool.function_scan_interval", "'5m'")
        .set("pool.query_wait_timeout", "'120s'")
        .start();
    let until = Instant::now() + time(seconds);
    let servers =
        || postgres.psql("SELECT state, wait_event, query FROM pg_stat_activity WHERE datname = 'app'");
    let steps: u64 = thread::scope(|scope| {
        let servers = &servers;
        let hunters = (0..CLIENTS).map(|client| {
            let address = pooler.address();
            scope.spawn(move || {
                let mut hunter = Hunter::new(address, "app", client, kinds);
                let mut choices = step::Random::new(seed, client as u64);
                while Instant::now() < until {
                    if let Err(error) = hunter.step(choices.next()) {
                        panic!(
                            "PGWEIR_TEST_SEED={seed}, client {client}: {error}\n{:?}",
                            servers()
                        );
                    }
                }
                hunter.steps()
            })
        });
        let hunters: Vec<_> = hunters.collect();
        hunters.into_iter().map(|hunter| hunter.join().unwrap()).sum()
    });
    println!("{steps} steps");
    assert!(steps > 500, "only {steps} steps: somebody waits in vain");
    eventually("everybody has left", || pooler.metric("pgweir_clients") == 0.0);
    pooler.assert_all_places(POOL.parse().unwrap());
}

#[test]
fn prepared_statements_and_reported_settings_do_not_leak() {
    hunt(Kinds::STATEMENTS, 4);
}

#[test]
fn settings_and_roles_do_not_leak() {
    hunt(Kinds::SETTINGS, 6);
}

#[test]
fn nothing_leaks_from_sessions_that_hold_their_server_connection() {
    hunt(Kinds::HELD, 8);
}

#[test]
fn nothing_leaks_from_functions() {
    hunt(Kinds::ALL, 6);
}
