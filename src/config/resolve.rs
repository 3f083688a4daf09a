//! Which settings hold for one database and one user: user beats database beats `[pool]`.
//!
//! It knows no pool, only settings.

use std::{collections::BTreeSet, num::NonZeroUsize, sync::Arc, time::Duration};

use super::{
    RESERVED_NAMES,
    settings::{Database, SessionState, Settings, Timeouts},
};
use crate::types::PoolMode;

/// What one pool goes by; each field means what its setting means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// `pool_mode`
    pub mode: PoolMode,
    /// `pool_size`
    pub size: NonZeroUsize,
    /// `min_pool_size`, never more than `size`.
    pub min_size: usize,
    /// `reserve_pool_size`
    pub reserve_size: usize,
    /// `reserve_pool_timeout`; zero never opens a reserve.
    pub reserve_timeout: Duration,
    /// `max_db_connections`, of the pool's database.
    pub max_db_connections: Option<NonZeroUsize>,
    /// `max_user_connections`, of the pool's user.
    pub max_user_connections: Option<NonZeroUsize>,
    /// `query_wait_timeout`
    pub query_wait_timeout: Duration,
    /// `query_wait_notify`
    pub query_wait_notify: Duration,
    /// `query_timeout` and its like.
    pub timeouts: Timeouts<Duration>,
    /// `server_connect_timeout`
    pub server_connect_timeout: Duration,
    /// `server_login_retry`
    pub server_login_retry: Duration,
    /// `primary_check_interval`
    pub primary_check_interval: Duration,
    /// `log_min_duration_statement`
    pub log_min_duration_statement: Option<Duration>,
    /// `server_check_delay`
    pub server_check_delay: Duration,
    /// `server_check_query`
    pub server_check_query: Option<Arc<str>>,
    /// `server_idle_timeout`
    pub server_idle_timeout: Duration,
    /// `server_lifetime`
    pub server_lifetime: Duration,
    /// `server_reset_query`
    pub server_reset_query: Arc<str>,
    /// `server_reset_query_always`
    pub server_reset_query_always: bool,
    /// `server_round_robin`
    pub server_round_robin: bool,
    /// `max_prepared_statements`; zero passes named statements on untouched.
    pub max_prepared_statements: usize,
    /// `session_state`
    pub session_state: SessionState,
    /// `max_pin_duration`; zero is no limit.
    pub max_pin_duration: Duration,
    /// `function_scan_interval`; zero is never.
    pub function_scan_interval: Duration,
    /// `allow_replication`
    pub allow_replication: bool,
}

impl Settings {
    /// The database that clients call `name`: the one of that name, otherwise `*`.
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.get(name).or_else(|| self.databases.get("*"))
    }

    /// All names that clients may give a database, the admin console's among them; `None` where any will do.
    pub fn database_names(&self) -> Option<BTreeSet<Box<str>>> {
        let names = self.databases.keys().map(String::as_str);
        let names = names.chain(RESERVED_NAMES).map(Box::from);
        (!self.databases.contains_key("*")).then(|| names.collect())
    }

    /// What the pool of `user` in `database` goes by.
    pub fn pool_settings(&self, database: &Database, user: &str) -> PoolSettings {
        let pool = &self.pool;
        let user = self.users.get(user);
        let size = user
            .and_then(|user| user.pool_size)
            .or(database.pool_size)
            .unwrap_or(pool.default_pool_size);
        let timeouts = user.map(|user| user.timeouts).unwrap_or_default();
        let min_size = database.min_pool_size.unwrap_or(pool.min_pool_size);
        PoolSettings {
            mode: user
                .and_then(|user| user.pool_mode)
                .or(database.pool_mode)
                .unwrap_or(pool.mode),
            size,
            min_size: min_size.min(size.get()),
            reserve_size: user
                .and_then(|user| user.reserve_pool_size)
                .or(database.reserve_pool_size)
                .unwrap_or(pool.reserve_pool_size),
            reserve_timeout: pool.reserve_pool_timeout,
            max_db_connections: database.max_db_connections.unwrap_or(pool.max_db_connections),
            max_user_connections: user
                .and_then(|user| user.max_user_connections)
                .unwrap_or(pool.max_user_connections),
            query_wait_timeout: pool.query_wait_timeout,
            query_wait_notify: pool.query_wait_notify,
            timeouts: timeouts
                .or(database.timeouts)
                .or(pool.timeouts.map(Some))
                .map(Option::unwrap_or_default),
            server_connect_timeout: pool.server_connect_timeout,
            server_login_retry: pool.server_login_retry,
            primary_check_interval: pool.primary_check_interval,
            log_min_duration_statement: pool.log_min_duration_statement,
            server_check_delay: pool.server_check_delay,
            server_check_query: pool.server_check_query.as_deref().map(Arc::from),
            server_idle_timeout: pool.server_idle_timeout,
            server_lifetime: database.server_lifetime.unwrap_or(pool.server_lifetime),
            server_reset_query_always: pool.server_reset_query_always,
            server_round_robin: pool.server_round_robin,
            server_reset_query: pool.server_reset_query.as_str().into(),
            max_prepared_statements: user
                .and_then(|user| user.max_prepared_statements)
                .or(database.max_prepared_statements)
                .unwrap_or(pool.max_prepared_statements),
            session_state: database.session_state.unwrap_or(pool.session_state),
            function_scan_interval: pool.function_scan_interval,
            max_pin_duration: user
                .and_then(|user| user.max_pin_duration)
                .or(database.max_pin_duration)
                .unwrap_or(pool.max_pin_duration),
            allow_replication: user
                .and_then(|user| user.allow_replication)
                .or(database.allow_replication)
                .unwrap_or(pool.allow_replication),
        }
    }
}

/// Where and as whom the secrets of a database's users are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookUp<'a> {
    /// The role that asks.
    pub user: &'a str,
    /// What it asks; `$1` is the user who logs in.
    pub query: &'a str,
    /// Where it is asked, as clients name it.
    pub database: &'a str,
    /// Whether an `auth_database` says so. Otherwise the client has chosen it.
    pub is_chosen: bool,
}

impl Settings {
    /// How the users of the database that clients call `name` are looked up; `None` where they are not. The admin
    /// console, and a database that there is not, have no server of their own to ask, only an `auth_database` that is
    /// named.
    pub fn look_up<'a>(&'a self, name: &'a str) -> Option<LookUp<'a>> {
        let general = &self.auth.look_up;
        let known = (!RESERVED_NAMES.contains(&name))
            .then(|| self.database(name))
            .flatten();
        let own = known.map(|database| &database.auth);
        let database = own
            .and_then(|own| own.database.as_deref())
            .unwrap_or(&general.database);
        if own.is_none() && database.is_empty() {
            return None;
        }
        Some(LookUp {
            user: own
                .and_then(|own| own.user.as_deref())
                .or(general.user.as_deref())?,
            query: own.and_then(|own| own.query.as_deref()).unwrap_or(&general.query),
            database: if database.is_empty() { name } else { database },
            is_chosen: !database.is_empty(),
        })
    }

    /// Whether what is found about `user` lets them in to the database that clients call `name`. What is found in a
    /// database is whatever its owner wants: about a role that the pooler logs in as without any secret of the client's,
    /// only an `auth_database` is believed.
    pub fn believes_look_up(&self, name: &str, user: &str) -> bool {
        let look_up = self.look_up(name);
        look_up
            .is_none_or(|look_up| look_up.is_chosen || !(self.has_server_tls(user) || self.looks_up_as(user)))
    }

    /// The roles with server certificates of their own whose users are looked up where the client chooses.
    pub fn unbelieved_roles(&self) -> Vec<&str> {
        let mut names = self.databases.keys().map(String::as_str);
        let is_open = names.any(|name| self.look_up(name).is_some_and(|look_up| !look_up.is_chosen));
        let roles = self.users.keys().map(String::as_str);
        roles
            .filter(|role| is_open && self.has_server_tls(role))
            .collect()
    }

    fn has_server_tls(&self, role: &str) -> bool {
        self.users.get(role).is_some_and(|user| user.server_tls.is_some())
    }

    fn looks_up_as(&self, role: &str) -> bool {
        let own = self.databases.values().map(|database| &database.auth.user);
        own.chain([&self.auth.look_up.user])
            .any(|user| user.as_deref() == Some(role))
    }

    /// Whether users of any database are looked up.
    pub fn looks_up_users(&self) -> bool {
        let mut databases = self.databases.values();
        self.auth.look_up.user.is_some() || databases.any(|database| database.auth.user.is_some())
    }

    /// Whether users are looked up in a database because an `auth_database` says so.
    pub fn chooses_auth_database(&self, name: &str) -> bool {
        let own = self.databases.values();
        let mut own = own.filter_map(|database| database.auth.database.as_deref());
        self.auth.look_up.database == name || own.any(|chosen| chosen == name)
    }

    /// Whether a role may ask a query, for users of whichever database.
    pub fn may_look_up(&self, user: &str, query: &str) -> bool {
        let names = self.databases.keys().map(String::as_str).chain(RESERVED_NAMES);
        let mut look_ups = names.filter_map(|name| self.look_up(name));
        look_ups.any(|look_up| look_up.user == user && look_up.query == query)
    }
}

impl Settings {
    /// `max_db_client_connections` of the database that clients call `name`.
    pub fn max_db_clients(&self, name: &str) -> Option<NonZeroUsize> {
        self.database(name)
            .and_then(|database| database.max_db_client_connections)
            .unwrap_or(self.pool.max_db_client_connections)
    }

    /// `max_user_client_connections` of a user.
    pub fn max_user_clients(&self, name: &str) -> Option<NonZeroUsize> {
        self.users
            .get(name)
            .and_then(|user| user.max_user_client_connections)
            .unwrap_or(self.pool.max_user_client_connections)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    const TEXT: &str = r#"
        [auth]
        auth_type = "trust"
        [pool]
        min_pool_size = 8
        server_reset_query = "RESET ALL"
        server_lifetime = "2h"
        transaction_timeout = "30s"
        idle_transaction_timeout = "30s"
        [databases."*"]
        hosts = "any"
        [databases.app]
        hosts = "app"
        pool_size = 10
        pool_mode = "session"
        min_pool_size = 6
        query_timeout = "10s"
        transaction_timeout = "20s"
        idle_transaction_timeout = "0"
        server_lifetime = "5m"
        max_prepared_statements = 0
        session_state = "reject"
        max_pin_duration = "10m"
        allow_replication = true
        [users.few]
        pool_size = 5
        max_prepared_statements = 7
        max_pin_duration = "0"
        allow_replication = false
        query_timeout = "0"
        client_idle_timeout = "1s"
        [users.fast]
        pool_mode = "statement"
    "#;

    fn resolved(database: &str, user: &str) -> (PoolMode, usize, usize) {
        let settings = parse(TEXT, Path::new("")).unwrap();
        let pool = settings.pool_settings(settings.database(database).unwrap(), user);
        (pool.mode, pool.size.get(), pool.min_size)
    }

    #[test]
    fn the_exact_name_beats_the_wildcard() {
        let mut settings = parse(TEXT, Path::new("")).unwrap();
        assert_eq!(settings.database("app"), settings.databases.get("app"));
        assert_eq!(settings.database("other"), settings.databases.get("*"));
        assert_eq!(settings.database_names(), None);
        settings.databases.remove("*");
        let names = ["app", "pgbouncer", "pgweir"].map(Box::from);
        assert_eq!(settings.database_names(), Some(names.into()));
        assert_eq!(settings.database("other"), None);
    }

    #[test]
    fn user_beats_database_beats_pool() {
        assert_eq!(resolved("other", "anyone"), (PoolMode::Transaction, 20, 8));
        assert_eq!(resolved("app", "anyone"), (PoolMode::Session, 10, 6));
        assert_eq!(resolved("app", "fast"), (PoolMode::Statement, 10, 6));
        assert_eq!(resolved("app", "few"), (PoolMode::Session, 5, 5));
        assert_eq!(resolved("other", "few"), (PoolMode::Transaction, 5, 5));
    }

    #[test]
    fn each_timeout_is_resolved_by_itself_and_zero_is_a_value() {
        let settings = parse(TEXT, Path::new("")).unwrap();
        let resolved = |database: &str, user: &str| {
            let pool = settings.pool_settings(settings.database(database).unwrap(), user);
            let Timeouts {
                query,
                transaction,
                idle_transaction,
                client_idle,
            } = pool.timeouts.map(|timeout| timeout.as_secs());
            [query, transaction, idle_transaction, client_idle]
        };
        assert_eq!(resolved("other", "anyone"), [0, 30, 30, 0]);
        assert_eq!(resolved("app", "anyone"), [10, 20, 0, 0]);
        assert_eq!(resolved("app", "few"), [0, 20, 0, 1]);
        assert_eq!(resolved("other", "few"), [0, 30, 30, 1]);
    }

    #[test]
    fn what_a_session_may_keep_is_resolved_setting_by_setting() {
        let settings = parse(TEXT, Path::new("")).unwrap();
        let resolved = |database: &str, user: &str| {
            let pool = settings.pool_settings(settings.database(database).unwrap(), user);
            let seconds = pool.max_pin_duration.as_secs();
            (
                pool.max_prepared_statements,
                pool.session_state,
                seconds,
                pool.allow_replication,
            )
        };
        assert_eq!(resolved("other", "anyone"), (200, SessionState::Pin, 0, false));
        assert_eq!(resolved("app", "anyone"), (0, SessionState::Reject, 600, true));
        assert_eq!(resolved("app", "few"), (7, SessionState::Reject, 0, false));
    }

    #[test]
    fn the_rest_comes_from_the_pool_section() {
        let settings = parse(TEXT, Path::new("")).unwrap();
        let app = settings.pool_settings(settings.database("app").unwrap(), "anyone");
        assert_eq!(app.server_lifetime, Duration::from_secs(300));
        let pool = settings.pool_settings(settings.database("other").unwrap(), "anyone");
        assert_eq!(&*pool.server_reset_query, "RESET ALL");
        assert_eq!(pool.server_lifetime, Duration::from_secs(7200));
        assert_eq!(pool.query_wait_timeout, Duration::from_secs(120));
        assert_eq!(pool.query_wait_notify, Duration::from_secs(5));
    }

    const LOOK_UPS: &str = r#"
        [auth]
        auth_user = "asker"
        [databases."*"]
        hosts = "any"
        [databases.app]
        hosts = "app"
        auth_user = "other"
        auth_query = "SELECT a, b FROM f($1)"
        auth_database = "users"
        [databases.own]
        hosts = "app"
        auth_database = ""
    "#;

    #[test]
    fn users_are_looked_up_in_their_own_database_unless_another_is_named() {
        let looked_up = |text: &str, name: &str| {
            let settings = parse(text, Path::new("")).unwrap();
            let look_up = settings.look_up(name)?;
            let is_default = look_up.query.contains("rolvaliduntil");
            Some((look_up.user.to_owned(), look_up.database.to_owned(), is_default))
        };
        let expected =
            |user: &str, database: &str, default| Some((user.to_owned(), database.to_owned(), default));
        assert_eq!(looked_up(LOOK_UPS, "any"), expected("asker", "any", true));
        assert_eq!(looked_up(LOOK_UPS, "app"), expected("other", "users", false));
        assert_eq!(looked_up(LOOK_UPS, "pgweir"), None);
        let central = LOOK_UPS.replacen("asker\"", "asker\"\nauth_database = \"central\"", 1);
        assert_eq!(looked_up(&central, "any"), expected("asker", "central", true));
        assert_eq!(looked_up(&central, "own"), expected("asker", "own", true));
        assert_eq!(
            looked_up(&central, "pgbouncer"),
            expected("asker", "central", true)
        );
        assert_eq!(looked_up(TEXT, "app"), None);
    }

    /// Whoever owns a database makes the function that is asked in it, and has it say what they like.
    #[test]
    fn what_a_client_s_database_says_of_a_role_that_the_pooler_can_log_in_as_is_not_believed() {
        let text = LOOK_UPS.to_owned() + "[users.postgres.server_tls]\nmode = \"require\"\n";
        let settings = parse(&text, Path::new("")).unwrap();
        let believed = |name: &str, user: &str| settings.believes_look_up(name, user);
        for role in ["postgres", "asker", "other"] {
            assert!(!believed("any", role) && !believed("own", role), "{role}");
            assert!(believed("app", role), "{role}: in a database that is chosen");
        }
        assert!(believed("any", "somebody"));
        assert_eq!(settings.unbelieved_roles(), ["postgres"]);
        let central = text.replacen("asker\"", "asker\"\nauth_database = \"central\"", 1);
        let central = parse(&central.replace("auth_database = \"\"", ""), Path::new("")).unwrap();
        assert!(central.believes_look_up("any", "postgres") && central.unbelieved_roles().is_empty());
    }

    #[test]
    fn a_role_may_look_up_as_long_as_some_database_says_so() {
        let settings = parse(LOOK_UPS, Path::new("")).unwrap();
        assert!(settings.looks_up_users());
        assert!(settings.chooses_auth_database("users") && !settings.chooses_auth_database("app"));
        assert!(settings.may_look_up("other", "SELECT a, b FROM f($1)"));
        assert!(!settings.may_look_up("asker", "SELECT a, b FROM f($1)"));
        assert!(!parse(TEXT, Path::new("")).unwrap().looks_up_users());
    }
}
