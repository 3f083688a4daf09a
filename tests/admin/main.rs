//! The admin console, as psql, drivers and exporters use it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod columns;
mod commands;
mod extended;
mod pgbouncer;
mod settings;
mod shutdown;
mod table;
mod views;

use support::{Pooler, PoolerBuilder, Postgres, RawClient};

/// A pgweir whose `app` is an administrator and whose `eve` may only look.
fn builder(postgres: &Postgres) -> PoolerBuilder {
    Pooler::builder(&postgres.address())
        .user("eve", "eve")
        .user("mallory", "mallory")
        .set("auth.admin_users", "'app'")
        .set("auth.stats_users", "'eve'")
}

fn client(pooler: &Pooler) -> RawClient {
    RawClient::log_in(pooler.address(), "app", "secret", "app")
}

fn console(pooler: &Pooler) -> RawClient {
    RawClient::log_in(pooler.address(), "app", "secret", "pgbouncer")
}
