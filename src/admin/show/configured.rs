//! SHOW DATABASES, SHOW USERS and SHOW CONFIG.

use std::collections::{BTreeSet, HashMap};

use super::{int, maybe, text, text_column};
use crate::{
    admin::{
        console::Console,
        premises::{DatabaseView, SettingView, UserView},
    },
    session::ClientView,
    wire::rows::{Column, Row},
};

pub(super) const DATABASES: &[Column] = &[
    text_column("name"),
    text_column("host"),
    int("port"),
    text_column("database"),
    text_column("force_user"),
    int("pool_size"),
    int("min_pool_size"),
    int("reserve_pool_size"),
    int("server_lifetime"),
    text_column("pool_mode"),
    text_column("load_balance_hosts"),
    int("max_connections"),
    int("current_connections"),
    int("max_client_connections"),
    int("current_client_connections"),
    int("paused"),
    int("disabled"),
    // As PgBouncer called reserve_pool_size before 1.24.
    int("reserve_pool"),
];

pub(super) const USERS: &[Column] = &[
    text_column("name"),
    text_column("pool_size"),
    text_column("reserve_pool_size"),
    text_column("pool_mode"),
    int("max_user_connections"),
    int("current_connections"),
    int("max_user_client_connections"),
    int("current_client_connections"),
];

pub(super) const CONFIG: &[Column] = &[
    text_column("key"),
    text_column("value"),
    text_column("default"),
    text_column("changeable"),
];

pub(super) fn databases(console: &Console) -> Vec<Row> {
    let clients = console.table.clients();
    let by_database = count(&clients, |client| client.identity.database.as_str());
    let pools = console.pools.all();
    let mut used: BTreeSet<_> = by_database.keys().copied().collect();
    used.extend(pools.iter().map(|pool| pool.key().database.as_str()));
    let used: Vec<_> = used.into_iter().collect();
    let row = |database: &DatabaseView| {
        let servers = console.pools.of(Some(&database.name));
        let servers = servers.iter().map(|pool| pool.counts().servers());
        let clients = by_database.get(&*database.name).copied().unwrap_or_default();
        database_row(database, servers.sum(), clients, console)
    };
    let mut rows: Vec<_> = console.premises.databases(&used).iter().map(row).collect();
    let own = DatabaseView {
        name: "pgbouncer".to_owned(),
        dbname: "pgbouncer".to_owned(),
        force_user: Some("pgbouncer".to_owned()),
        pool_mode: Some("statement"),
        ..DatabaseView::default()
    };
    let visitors = super::super::DATABASES.map(|name| by_database.get(name).copied().unwrap_or_default());
    rows.push(database_row(&own, 0, visitors.iter().sum(), console));
    rows
}

fn database_row(database: &DatabaseView, servers: usize, clients: usize, console: &Console) -> Row {
    let pools = &console.pools;
    vec![
        text(&database.name),
        maybe(database.host.as_ref()),
        text(database.port),
        text(&database.dbname),
        maybe(database.force_user.as_ref()),
        text(database.pool_size),
        text(database.min_pool_size),
        text(database.reserve_pool_size),
        text(database.server_lifetime.as_secs()),
        maybe(database.pool_mode),
        maybe(database.load_balance_hosts),
        text(database.max_connections),
        text(servers),
        text(database.max_client_connections),
        text(clients),
        text(u8::from(pools.is_paused(&database.name))),
        text(u8::from(pools.is_disabled(&database.name))),
        text(database.reserve_pool_size),
    ]
}

pub(super) fn users(console: &Console) -> Vec<Row> {
    let clients = console.table.clients();
    let by_user = count(&clients, |client| client.identity.user.as_str());
    let pools = console.pools.all();
    let mut servers = HashMap::<_, usize>::new();
    for pool in &pools {
        *servers.entry(pool.key().user.as_str()).or_default() += pool.counts().servers();
    }
    let used: BTreeSet<_> = by_user.keys().chain(servers.keys()).copied().collect();
    let used: Vec<_> = used.into_iter().collect();
    let row = |user: &UserView| {
        vec![
            text(&user.name),
            // PgBouncer has an empty text for what is not set.
            text(maybe(user.pool_size).unwrap_or_default()),
            text(maybe(user.reserve_pool_size).unwrap_or_default()),
            maybe(user.pool_mode),
            text(user.max_connections),
            text(servers.get(&*user.name).copied().unwrap_or_default()),
            text(user.max_client_connections),
            text(by_user.get(&*user.name).copied().unwrap_or_default()),
        ]
    };
    console.premises.users(&used).iter().map(row).collect()
}

fn count<'a>(clients: &'a [ClientView], key: impl Fn(&'a ClientView) -> &'a str) -> HashMap<&'a str, usize> {
    let mut counts = HashMap::new();
    for client in clients {
        *counts.entry(key(client)).or_default() += 1;
    }
    counts
}

/// Settings go by PgBouncer's names where it has them, so that what reads its SHOW CONFIG finds them, and by ours.
pub(super) fn config(settings: &[SettingView]) -> Vec<Row> {
    let row = |setting: &SettingView| {
        let row = |key: &str| {
            vec![
                text(key),
                setting.value.clone(),
                setting.default.clone(),
                text(if setting.changeable { "yes" } else { "no" }),
            ]
        };
        setting
            .pgbouncer
            .into_iter()
            .chain([setting.key.as_str()])
            .map(row)
            .collect::<Vec<_>>()
    };
    settings.iter().flat_map(row).collect()
}

/// The setting of this name.
pub(super) fn find<'a>(name: &str, settings: &'a [SettingView]) -> Option<&'a SettingView> {
    let is_named = |setting: &&SettingView| setting.key == name || setting.pgbouncer == Some(name);
    settings.iter().find(is_named)
}
