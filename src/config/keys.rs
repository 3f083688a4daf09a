//! Every section and key that a configuration file may have, and what PgBouncer calls it.
//!
//! It knows no value, type or default; those are in `check`.

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The section; `NAME` stands for a name that the user chooses.
    pub section: &'static str,
    /// The key in it.
    pub name: &'static str,
    /// What a `pgbouncer.ini` calls the same thing; empty when it has none.
    pub pgbouncer: &'static [&'static str],
}

impl Key {
    /// `section.name`
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }
}

/// All settings, in the order of the documentation.
#[rustfmt::skip] // One line per setting.
pub const KEYS: &[Key] = &[
    key("listen", "address", &["listen_addr", "listen_port", "unix_socket_dir"]),
    key("listen", "unix_socket_mode", &["unix_socket_mode"]),
    key("listen", "unix_socket_group", &["unix_socket_group"]),
    key("listen", "listen_backlog", &["listen_backlog"]),
    key("listen", "max_client_conn", &["max_client_conn"]),
    key("listen", "max_unauthenticated_clients", &[]),
    key("listen", "client_login_timeout", &["client_login_timeout"]),
    key("listen", "max_packet_size", &["max_packet_size"]),
    key("listen.tls", "mode", &["client_tls_sslmode"]),
    key("listen.tls", "cert_file", &["client_tls_cert_file"]),
    key("listen.tls", "key_file", &["client_tls_key_file"]),
    key("listen.tls", "client_ca_file", &["client_tls_ca_file"]),
    key("listen.tls", "crl_file", &[]),
    key("listen.tls", "protocols", &["client_tls_protocols"]),
    key("auth", "auth_type", &["auth_type"]),
    key("auth", "hba_file", &["auth_hba_file"]),
    key("auth", "ident_file", &["auth_ident_file"]),
    key("auth", "ldap_ca_file", &[]),
    key("auth", "users_file", &["auth_file"]),
    key("auth", "allow_plaintext_password", &[]),
    key("auth", "max_auth_failures", &[]),
    key("auth", "auth_failure_block", &[]),
    key("auth", "trusted_networks", &[]),
    key("auth", "admin_users", &["admin_users"]),
    key("auth", "stats_users", &["stats_users"]),
    key("auth", "auth_user", &["auth_user"]),
    key("auth", "auth_query", &["auth_query"]),
    key("auth", "auth_database", &["auth_dbname"]),
    key("auth", "auth_query_ttl", &[]),
    key("auth", "auth_query_negative_ttl", &[]),
    key("pool", "mode", &["pool_mode"]),
    key("pool", "default_pool_size", &["default_pool_size"]),
    key("pool", "min_pool_size", &["min_pool_size"]),
    key("pool", "reserve_pool_size", &["reserve_pool_size"]),
    key("pool", "reserve_pool_timeout", &["reserve_pool_timeout"]),
    key("pool", "max_db_connections", &["max_db_connections"]),
    key("pool", "max_user_connections", &["max_user_connections"]),
    key("pool", "server_connection_budget", &[]),
    key("pool", "max_db_client_connections", &["max_db_client_connections"]),
    key("pool", "max_user_client_connections", &["max_user_client_connections"]),
    key("pool", "query_wait_timeout", &["query_wait_timeout"]),
    key("pool", "query_wait_notify", &["query_wait_notify"]),
    key("pool", "query_timeout", &["query_timeout"]),
    key("pool", "transaction_timeout", &["transaction_timeout"]),
    key("pool", "idle_transaction_timeout", &["idle_transaction_timeout"]),
    key("pool", "client_idle_timeout", &["client_idle_timeout"]),
    key("pool", "hold_timeout", &[]),
    key("pool", "server_connect_timeout", &["server_connect_timeout"]),
    key("pool", "dns_max_ttl", &["dns_max_ttl"]),
    key("pool", "max_server_logins", &[]),
    key("pool", "server_login_retry", &["server_login_retry"]),
    key("pool", "primary_check_interval", &[]),
    key("pool", "log_min_duration_statement", &[]),
    key("pool", "server_check_delay", &["server_check_delay"]),
    key("pool", "server_check_query", &["server_check_query"]),
    key("pool", "server_idle_timeout", &["server_idle_timeout"]),
    key("pool", "server_lifetime", &["server_lifetime"]),
    key("pool", "server_reset_query", &["server_reset_query"]),
    key("pool", "server_reset_query_always", &["server_reset_query_always"]),
    key("pool", "server_round_robin", &["server_round_robin"]),
    key("pool", "max_prepared_statements", &["max_prepared_statements"]),
    key("pool", "prepared_statement_cache_size", &[]),
    key("pool", "session_state", &[]),
    key("pool", "max_pin_duration", &[]),
    key("pool", "function_scan_interval", &[]),
    key("pool", "allow_replication", &[]),
    key("databases.NAME", "hosts", &["host", "port"]),
    key("databases.NAME", "cluster", &[]),
    key("databases.NAME", "role", &[]),
    key("databases.NAME", "fall_back_to_primary", &[]),
    key("databases.NAME", "replica_cluster", &[]),
    key("databases.NAME", "dbname", &["dbname"]),
    key("databases.NAME", "user", &["user"]),
    key("databases.NAME", "password_file", &["password"]),
    key("databases.NAME", "auth_user", &["auth_user"]),
    key("databases.NAME", "auth_query", &["auth_query"]),
    key("databases.NAME", "auth_database", &["auth_dbname"]),
    key("databases.NAME", "pool_size", &["pool_size"]),
    key("databases.NAME", "min_pool_size", &["min_pool_size"]),
    key("databases.NAME", "reserve_pool_size", &["reserve_pool_size"]),
    key("databases.NAME", "max_db_connections", &["max_db_connections"]),
    key("databases.NAME", "max_db_client_connections", &["max_db_client_connections"]),
    key("databases.NAME", "pool_mode", &["pool_mode"]),
    key("databases.NAME", "query_timeout", &[]),
    key("databases.NAME", "transaction_timeout", &[]),
    key("databases.NAME", "idle_transaction_timeout", &[]),
    key("databases.NAME", "client_idle_timeout", &[]),
    key("databases.NAME", "load_balance_hosts", &["load_balance_hosts"]),
    key("databases.NAME", "server_lifetime", &["server_lifetime"]),
    key("databases.NAME", "connect_query", &["connect_query"]),
    key("databases.NAME", "application_name", &["application_name"]),
    key("databases.NAME", "client_encoding", &["client_encoding"]),
    key("databases.NAME", "datestyle", &["datestyle"]),
    key("databases.NAME", "timezone", &["timezone"]),
    key("databases.NAME", "max_prepared_statements", &[]),
    key("databases.NAME", "session_state", &[]),
    key("databases.NAME", "max_pin_duration", &[]),
    key("databases.NAME", "allow_replication", &[]),
    key("users.NAME", "pool_size", &["pool_size"]),
    key("users.NAME", "reserve_pool_size", &["reserve_pool_size"]),
    key("users.NAME", "max_user_connections", &["max_user_connections"]),
    key("users.NAME", "max_user_client_connections", &["max_user_client_connections"]),
    key("users.NAME", "pool_mode", &["pool_mode"]),
    key("users.NAME", "query_timeout", &["query_timeout"]),
    key("users.NAME", "transaction_timeout", &["transaction_timeout"]),
    key("users.NAME", "idle_transaction_timeout", &["idle_transaction_timeout"]),
    key("users.NAME", "client_idle_timeout", &["client_idle_timeout"]),
    key("users.NAME", "max_prepared_statements", &[]),
    key("users.NAME", "max_pin_duration", &[]),
    key("users.NAME", "allow_replication", &[]),
    key("server_tls", "mode", &["server_tls_sslmode"]),
    key("server_tls", "ca_file", &["server_tls_ca_file"]),
    key("server_tls", "cert_file", &["server_tls_cert_file"]),
    key("server_tls", "key_file", &["server_tls_key_file"]),
    key("server_tls", "crl_file", &[]),
    key("server_tls", "server_name", &[]),
    key("server_tls", "protocols", &["server_tls_protocols"]),
    key("users.NAME.server_tls", "mode", &[]),
    key("users.NAME.server_tls", "ca_file", &[]),
    key("users.NAME.server_tls", "cert_file", &[]),
    key("users.NAME.server_tls", "key_file", &[]),
    key("users.NAME.server_tls", "crl_file", &[]),
    key("users.NAME.server_tls", "server_name", &[]),
    key("users.NAME.server_tls", "protocols", &[]),
    key("kubernetes", "namespace", &[]),
    key("kubernetes", "api_server", &[]),
    key("kubernetes", "ca_file", &[]),
    key("kubernetes", "token_file", &[]),
    key("kubernetes", "zone", &[]),
    key("http", "address", &[]),
    key("http.auth", "user", &[]),
    key("http.auth", "password_file", &[]),
    key("http.auth", "token_file", &[]),
    key("metrics", "max_series", &[]),
    key("metrics", "compatibility", &[]),
    key("fleet", "service", &[]),
    key("fleet", "replicas", &[]),
    key("fleet", "timeout", &[]),
    key("traces", "endpoint", &[]),
    key("traces", "ca_file", &[]),
    key("traces", "token_file", &[]),
    key("traces", "sample_rate", &[]),
    key("traces", "query_text", &[]),
    key("traces", "service_name", &[]),
    key("traces", "timeout", &[]),
    key("tcp", "tcp_keepalive", &["tcp_keepalive"]),
    key("tcp", "tcp_keepidle", &["tcp_keepidle"]),
    key("tcp", "tcp_keepintvl", &["tcp_keepintvl"]),
    key("tcp", "tcp_keepcnt", &["tcp_keepcnt"]),
    key("tcp", "tcp_user_timeout", &["tcp_user_timeout"]),
    key("tcp", "tcp_socket_buffer", &["tcp_socket_buffer"]),
    key("log", "format", &[]),
    key("log", "level", &["verbose"]),
    key("shutdown", "drain_delay", &[]),
    key("shutdown", "drain_timeout", &[]),
    key("process", "workers", &[]),
    key("process", "scheduling", &[]),
    key("process", "file_check_interval", &[]),
    key("process", "stats_period", &["stats_period"]),
];

const fn key(section: &'static str, name: &'static str, pgbouncer: &'static [&'static str]) -> Key {
    Key {
        section,
        name,
        pgbouncer,
    }
}

/// The keys of one section.
pub(super) fn in_section(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

/// The sections inside `section`, by the last part of their names; the sections of the file for `""`.
pub(super) fn subsections(section: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(move |key| {
        let inside = match section {
            "" => key.section,
            _ => key.section.strip_prefix(section)?.strip_prefix('.')?,
        };
        inside.split('.').next()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_key_is_listed_twice() {
        let paths: BTreeSet<_> = KEYS.iter().map(Key::path).collect();
        assert_eq!(paths.len(), KEYS.len());
    }

    #[test]
    fn sections_nest() {
        assert!(subsections("").any(|name| name == "server_tls"));
        assert!(subsections("").any(|name| name == "databases"));
        assert_eq!(
            subsections("listen").collect::<BTreeSet<_>>(),
            BTreeSet::from(["tls"])
        );
        assert_eq!(subsections("pool").count(), 0);
    }
}
