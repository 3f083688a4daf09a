//! The harness: a PostgreSQL, a pgweir, a fake server, a link between two of them, a client that sends exact bytes.
//!
//! Each noun ends with its value, chooses its own ports and shares nothing, so that tests run in parallel.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::panic,
    reason = "every test program uses a part of the harness, and what fails in it fails the test"
)]

pub mod api_server;
pub mod browser;
mod census;
pub mod cluster;
pub mod collector;
mod fake_server;
mod fleet;
pub mod frames;
pub mod ledger;
mod link;
mod namespaces;
mod places;
mod pooler;
mod pooler_builder;
mod raw_client;
mod rig;
mod samples;
mod slapd;
mod stage;
mod tls_client;
mod try_client;
mod twins;

use std::{
    net::{Shutdown, TcpListener},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use pgweir::cli::demo::postgres::PostgresBuilder;
pub use pgweir::cli::demo::{
    authority::{Authority, Certificate, Leaf},
    postgres::{Postgres, Stop},
};
use socket2::SockRef;

pub use self::{
    census::Census,
    fake_server::{FakeConnection, FakeServer},
    fleet::fleet,
    frames::Frame,
    ledger::{Ledger, Load, Outcome, Verdict},
    link::Link,
    namespaces::{Namespaces, in_thread, name_hosts},
    pooler::Pooler,
    pooler_builder::PoolerBuilder,
    raw_client::{RawClient, tags},
    rig::{Network, Rig, Watch},
    samples::sum_of_samples,
    slapd::Slapd,
    stage::{Stage, read_ready, sqlstates, stage, statuses, values},
    tls_client::{TlsStream, tls, tls_trusting},
    try_client::{Trouble, TryClient},
    twins::{Twins, comparable, postgres_for_twins, stage_for_twins},
};

/// How long a test waits for what must happen. Generous: it is only ever used up by a failure.
pub const LIMIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// A PostgreSQL with a role `app` (password `secret`) that owns the database `app`.
pub fn postgres() -> Postgres {
    postgres_with(|builder| builder)
}

/// As [`postgres`], with options.
pub fn postgres_with(options: impl FnOnce(PostgresBuilder) -> PostgresBuilder) -> Postgres {
    let postgres = options(postgres_builder()).start().expect("PostgreSQL starts");
    postgres
        .psql("CREATE ROLE app LOGIN PASSWORD 'secret'")
        .expect("role app is made");
    postgres
        .psql("CREATE DATABASE app OWNER app")
        .expect("database app is made");
    postgres
}

fn postgres_builder() -> PostgresBuilder {
    Postgres::builder()
        .checkout(env!("CARGO_MANIFEST_DIR"))
        .template_cache(Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres-templates"))
}

/// Waits until `condition` holds; fails the test with `what` if it does not within [`LIMIT`].
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "not within {} s: {what}",
            LIMIT.as_secs()
        );
        thread::sleep(POLL);
    }
}

/// Makes the kernel refuse connections from now on, and wakes the thread that accepts. Closing would do neither
/// for as long as a process that another test is just starting has a copy of the descriptor.
fn stop_listening(listener: &TcpListener) {
    // Fails only if it is not listening any more.
    let _ = SockRef::from(listener).shutdown(Shutdown::Both);
}
