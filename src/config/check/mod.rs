//! Sections to settings: every default, every range, every contradiction.
//!
//! It notes problems and goes on; whatever it returns then is not to be used.

mod auth_query;
mod clients;
mod observation;
mod operations;
mod pools;
mod servers;
mod tcp;
mod tls;
mod traces;

use toml::de::DeTable;

use super::{
    reader::{Report, Table},
    settings::Settings,
};

/// The settings that `document` describes; stand-ins where `report` has problems.
pub(super) fn settings(report: &Report<'_>, document: &DeTable<'_>) -> Settings {
    let root = Table::root(report, document);
    let listen = clients::listen(&root.table("listen", "listen"));
    let pool_table = root.table("pool", "pool");
    let pool = pools::pool(&pool_table);
    let databases = pools::databases(&root, &pool);
    let auth_table = root.table("auth", "auth");
    let look_up = auth_query::auth_query(&auth_table, &databases);
    let http = observation::http(&root.table("http", "http"), &listen.addresses);
    let fleet = observation::fleet(&root.table("fleet", "fleet"), http.as_ref());
    pools::budget(&pool_table, &pool, fleet.as_ref());
    let server_tls = tls::server(&root.table("server_tls", "server_tls"));
    Settings {
        auth: clients::auth(&auth_table, &listen, look_up, &databases),
        databases,
        users: pools::users(&root, &server_tls),
        pool,
        server_tls,
        metrics: observation::metrics(&root.table("metrics", "metrics")),
        fleet,
        traces: traces::traces(&root.table("traces", "traces")),
        http,
        kubernetes: servers::kubernetes(&root.table("kubernetes", "kubernetes")),
        tcp: tcp::tcp(&root.table("tcp", "tcp")),
        log: operations::log(&root.table("log", "log")),
        shutdown: operations::shutdown(&root.table("shutdown", "shutdown")),
        process: operations::process(&root.table("process", "process")),
        listen,
    }
}
