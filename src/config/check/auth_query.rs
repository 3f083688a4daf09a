//! `auth_user` and what goes with it, in `[auth]` and in `[databases.NAME]`.
//!
//! It asks no server.

use std::{collections::BTreeMap, time::Duration};

use crate::config::{
    reader::Table,
    settings::{AuthQuery, Database, DatabaseAuth},
};

/// As PgBouncer's: a role that may not log in does not exist, and an expired password is none. Everything has its
/// schema, so that no search_path bends it.
const DEFAULT_QUERY: &str = "SELECT r.rolname, CASE WHEN r.rolvaliduntil IS NULL OR \
    r.rolvaliduntil OPERATOR(pg_catalog.>) pg_catalog.now() THEN r.rolpassword END FROM pg_catalog.pg_authid AS r \
    WHERE r.rolname OPERATOR(pg_catalog.=) $1::pg_catalog.text AND r.rolcanlogin";
const DEFAULT_TTL: Duration = Duration::from_secs(30);
const DEFAULT_NEGATIVE_TTL: Duration = Duration::from_secs(2);

pub(super) fn auth_query(table: &Table<'_>, databases: &BTreeMap<String, Database>) -> AuthQuery {
    let auth = AuthQuery {
        user: table.nonempty_string("auth_user"),
        query: query(table).unwrap_or_else(|| DEFAULT_QUERY.to_owned()),
        database: table.string("auth_database").unwrap_or_default(),
        ttl: table.duration("auth_query_ttl").unwrap_or(DEFAULT_TTL),
        negative_ttl: table
            .duration("auth_query_negative_ttl")
            .unwrap_or(DEFAULT_NEGATIVE_TTL),
    };
    let is_asked = table.has("auth_user") || databases.values().any(|database| database.auth.user.is_some());
    if auth.query != DEFAULT_QUERY && !is_asked && table.is_sound(&["auth_query"]) {
        let hint = "set auth_user to the role that asks it";
        table.missing(
            "auth_query",
            "is never asked, because there is no auth_user",
            hint,
        );
    }
    if table.report().is_sound(&["databases"]) {
        check_place(table, &auth.database, |name| databases.contains_key(name));
    }
    auth
}

/// The same of one database; `names` are all that there are.
pub(super) fn of_database(table: &Table<'_>, names: &[String]) -> DatabaseAuth {
    let auth = DatabaseAuth {
        user: table.nonempty_string("auth_user"),
        query: query(table),
        database: table.string("auth_database"),
    };
    let place = auth.database.as_deref().unwrap_or_default();
    check_place(table, place, |name| names.iter().any(|known| known == name));
    auth
}

fn check_place(table: &Table<'_>, name: &str, is_known: impl Fn(&str) -> bool) {
    if !name.is_empty() && !is_known(name) && !is_known("*") {
        let hint = format!("add [databases.{name:?}] with its hosts");
        table.missing("auth_database", format!("there is no database {name:?}"), &hint);
    }
}

fn query(table: &Table<'_>) -> Option<String> {
    let query = table.nonempty_string("auth_query")?;
    if !query.contains("$1") {
        let hint = "such as \"SELECT usename, passwd FROM public.user_search($1)\"";
        table.problem(
            "auth_query",
            "has no $1, which stands for the user",
            Some(hint.to_owned()),
        );
    }
    Some(query)
}
