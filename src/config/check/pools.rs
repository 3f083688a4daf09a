//! `[pool]`, `[databases.NAME]` and `[users.NAME]`: how many server connections, for whom, where to.
//!
//! It connects to nothing; which setting wins for a pool is in `resolve`.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use super::{auth_query, servers, tls};
use crate::config::{
    Fleet, RESERVED_NAMES,
    reader::Table,
    settings::{Database, Pool, ServerPassword, ServerTls, Timeouts, User},
};

/// What PostgreSQL's `max_connections` can be at most.
const MOST_SERVER_CONNECTIONS: i64 = 262_143;
/// More than a machine has ports and file descriptors for.
const MOST_CONNECTIONS: i64 = 10_000_000;
const DEFAULT_POOL_SIZE: NonZeroUsize = NonZeroUsize::new(20).expect("20 is not zero");
/// Enough to fill a pool of 150 in a tenth of a second, and no burden for a server that has just started.
const DEFAULT_SERVER_LOGINS: NonZeroUsize = NonZeroUsize::new(8).expect("8 is not zero");
/// As long as nobody notices; a server that is back is found at once.
const DEFAULT_LOGIN_RETRY: Duration = Duration::from_millis(200);
const DEFAULT_RESET_QUERY: &str = "DISCARD ALL";
/// As PgBouncer.
const DEFAULT_PREPARED_STATEMENTS: usize = 200;
/// A server keeps each of them on each of its connections, parsed and planned: this many take gigabytes.
const MOST_PREPARED_STATEMENTS: i64 = 1_000_000;
const DEFAULT_STATEMENT_CACHE: usize = 64 << 20;
const LARGEST_STATEMENT_CACHE: u64 = 1 << 40;
/// Settings that server connections of a database are opened with.
const STARTUP: [&str; 4] = ["application_name", "client_encoding", "datestyle", "timezone"];

pub(super) fn pool(table: &Table<'_>) -> Pool {
    let seconds = |key, default| table.duration(key).unwrap_or(Duration::from_secs(default));
    let pool = Pool {
        mode: table.word("mode").unwrap_or_default(),
        default_pool_size: size(table, "default_pool_size").unwrap_or(DEFAULT_POOL_SIZE),
        min_pool_size: spare(table, "min_pool_size").unwrap_or(0),
        reserve_pool_size: spare(table, "reserve_pool_size").unwrap_or(0),
        reserve_pool_timeout: seconds("reserve_pool_timeout", 5),
        max_db_connections: most(table, "max_db_connections").flatten(),
        max_user_connections: most(table, "max_user_connections").flatten(),
        server_connection_budget: most(table, "server_connection_budget").flatten(),
        max_db_client_connections: most(table, "max_db_client_connections").flatten(),
        max_user_client_connections: most(table, "max_user_client_connections").flatten(),
        query_wait_timeout: seconds("query_wait_timeout", 120),
        query_wait_notify: seconds("query_wait_notify", 5),
        timeouts: timeouts(table).map(Option::unwrap_or_default),
        hold_timeout: seconds("hold_timeout", 90),
        server_connect_timeout: seconds("server_connect_timeout", 15),
        dns_max_ttl: seconds("dns_max_ttl", 15),
        max_server_logins: size(table, "max_server_logins").unwrap_or(DEFAULT_SERVER_LOGINS),
        server_login_retry: table
            .duration("server_login_retry")
            .unwrap_or(DEFAULT_LOGIN_RETRY),
        primary_check_interval: seconds("primary_check_interval", 2),
        log_min_duration_statement: table.duration("log_min_duration_statement"),
        server_check_delay: seconds("server_check_delay", 30),
        server_check_query: check_query(table),
        server_idle_timeout: seconds("server_idle_timeout", 600),
        server_lifetime: seconds("server_lifetime", 3600),
        server_reset_query: table
            .string("server_reset_query")
            .unwrap_or_else(|| DEFAULT_RESET_QUERY.to_owned()),
        server_reset_query_always: table.flag("server_reset_query_always").unwrap_or(false),
        server_round_robin: table.flag("server_round_robin").unwrap_or(false),
        max_prepared_statements: statements(table).unwrap_or(DEFAULT_PREPARED_STATEMENTS),
        prepared_statement_cache_size: table
            .size("prepared_statement_cache_size", 0..=LARGEST_STATEMENT_CACHE)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .unwrap_or(DEFAULT_STATEMENT_CACHE),
        session_state: table.word("session_state").unwrap_or_default(),
        max_pin_duration: table.duration("max_pin_duration").unwrap_or_default(),
        function_scan_interval: table
            .duration("function_scan_interval")
            .unwrap_or(Duration::from_secs(300)),
        allow_replication: table.flag("allow_replication").unwrap_or(false),
    };
    if pool.server_connect_timeout.is_zero() {
        let hint = "without a limit, a server that does not answer would hold its clients forever";
        table.problem(
            "server_connect_timeout",
            "must not be zero",
            Some(hint.to_owned()),
        );
    }
    if pool.server_login_retry.is_zero() {
        let hint = "without a pause, a server that is down would be asked all the time";
        table.problem("server_login_retry", "must not be zero", Some(hint.to_owned()));
    }
    let sound = table.is_sound(&["default_pool_size", "min_pool_size"]);
    if sound && pool.min_pool_size > pool.default_pool_size.get() {
        min_above_size(table, "default_pool_size", pool.default_pool_size);
    }
    pool
}

/// A budget of which not every replica would have a part.
pub(super) fn budget(table: &Table<'_>, pool: &Pool, fleet: Option<&Fleet>) {
    let listed = fleet.map_or(0, |fleet| fleet.replicas.len());
    if let Some(budget) = pool.server_connection_budget
        && budget.get() < listed
    {
        let message = format!("is less than one for each of the {listed} addresses in fleet.replicas");
        let hint = "each replica has an equal part of it".to_owned();
        table.problem("server_connection_budget", message, Some(hint));
    }
}

pub(super) fn databases(root: &Table<'_>, pool: &Pool) -> BTreeMap<String, Database> {
    let tables = root.named_tables("databases", "databases.NAME");
    let names: Vec<_> = tables.iter().map(|(name, _)| name.clone()).collect();
    let databases: BTreeMap<_, _> = tables
        .into_iter()
        .map(|(name, table)| {
            let database = database(&name, &table, pool, &names);
            (name, database)
        })
        .collect();
    if databases.is_empty() && root.is_sound(&["databases"]) {
        let hint = "such as [databases.\"*\"] and in it hosts = \"127.0.0.1:5432\"";
        root.missing("databases", "at least one database is required", hint);
    }
    databases
}

pub(super) fn users(root: &Table<'_>, server_tls: &ServerTls) -> BTreeMap<String, User> {
    let tables = root.named_tables("users", "users.NAME").into_iter();
    tables
        .map(|(name, table)| {
            let user = User {
                pool_size: size(&table, "pool_size"),
                reserve_pool_size: spare(&table, "reserve_pool_size"),
                max_user_connections: most(&table, "max_user_connections"),
                max_user_client_connections: most(&table, "max_user_client_connections"),
                pool_mode: table.word("pool_mode"),
                timeouts: timeouts(&table),
                max_prepared_statements: statements(&table),
                max_pin_duration: table.duration("max_pin_duration"),
                allow_replication: table.flag("allow_replication"),
                server_tls: tls::server_of_user(
                    &table.table("server_tls", "users.NAME.server_tls"),
                    server_tls,
                ),
            };
            check_name(&name, &table, "a user");
            (name, user)
        })
        .collect()
}

fn database(name: &str, table: &Table<'_>, pool: &Pool, names: &[String]) -> Database {
    check_name(name, table, "a database");
    if RESERVED_NAMES.contains(&name) {
        let hint = "give it another name here and the real one as dbname";
        table.problem_here("the name belongs to the admin console", Some(hint.to_owned()));
    }
    let role = table.word("role").unwrap_or_default();
    let (fall_back_to_primary, replica_cluster) = servers::primary(table, role);
    let database = Database {
        servers: servers::servers(table),
        role,
        fall_back_to_primary,
        replica_cluster,
        dbname: table.nonempty_string("dbname"),
        user: table.nonempty_string("user"),
        password: password(table),
        auth: auth_query::of_database(table, names),
        pool_size: size(table, "pool_size"),
        min_pool_size: spare(table, "min_pool_size"),
        reserve_pool_size: spare(table, "reserve_pool_size"),
        max_db_connections: most(table, "max_db_connections"),
        max_db_client_connections: most(table, "max_db_client_connections"),
        pool_mode: table.word("pool_mode"),
        timeouts: timeouts(table),
        load_balance_hosts: table.word("load_balance_hosts").unwrap_or_default(),
        server_lifetime: table.duration("server_lifetime"),
        connect_query: table.nonempty_string("connect_query"),
        startup: startup(table),
        max_prepared_statements: statements(table),
        session_state: table.word("session_state"),
        max_pin_duration: table.duration("max_pin_duration"),
        allow_replication: table.flag("allow_replication"),
    };
    let (size_key, size) = match database.pool_size {
        Some(size) => ("pool_size", size),
        None => ("pool.default_pool_size", pool.default_pool_size),
    };
    let sound = table.is_sound(&["pool_size", "min_pool_size"])
        && table.report().is_sound(&["pool.default_pool_size"]);
    if sound && database.min_pool_size.is_some_and(|least| least > size.get()) {
        min_above_size(table, size_key, size);
    }
    database
}

/// A client's own role logs in with what the client has shown.
fn password(table: &Table<'_>) -> Option<ServerPassword> {
    let file = table.file("password_file")?;
    if !table.has("user") {
        let hint = "set user to the role whose password it is, or leave it out";
        table.problem("password_file", "needs user", Some(hint.to_owned()));
    }
    Some(ServerPassword::File(file))
}

fn startup(table: &Table<'_>) -> Vec<(String, String)> {
    let value = |name: &str| Some((name.to_owned(), table.string(name)?));
    STARTUP.into_iter().filter_map(value).collect()
}

fn timeouts(table: &Table<'_>) -> Timeouts<Option<Duration>> {
    Timeouts {
        query: table.duration("query_timeout"),
        transaction: table.duration("transaction_timeout"),
        idle_transaction: table.duration("idle_transaction_timeout"),
        client_idle: table.duration("client_idle_timeout"),
    }
}

/// PgBouncer's word for the empty query; an empty text is no query at all.
fn check_query(table: &Table<'_>) -> Option<String> {
    match table.string("server_check_query").as_deref() {
        None | Some("<empty>") => Some(String::new()),
        Some("") => None,
        Some(query) => Some(query.to_owned()),
    }
}

fn size(table: &Table<'_>, key: &str) -> Option<NonZeroUsize> {
    table.count(key, MOST_SERVER_CONNECTIONS)
}

fn spare(table: &Table<'_>, key: &str) -> Option<usize> {
    table.number(key, 0..=MOST_SERVER_CONNECTIONS)
}

fn statements(table: &Table<'_>) -> Option<usize> {
    table.number("max_prepared_statements", 0..=MOST_PREPARED_STATEMENTS)
}

/// A limit that is off when it is zero.
fn most(table: &Table<'_>, key: &str) -> Option<Option<NonZeroUsize>> {
    table.number(key, 0..=MOST_CONNECTIONS).map(NonZeroUsize::new)
}

fn min_above_size(table: &Table<'_>, size_key: &str, size: NonZeroUsize) {
    let message = format!("must not be more than {size_key}, which is {size}");
    table.problem("min_pool_size", message, None);
}

/// The wire protocol ends names with a zero character and has no empty ones.
fn check_name(name: &str, table: &Table<'_>, what: &str) {
    if name.is_empty() || name.contains('\0') {
        table.problem_here(format!("no name of {what}"), None);
    }
}
