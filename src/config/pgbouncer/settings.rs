//! Every setting that a `[pgbouncer]` section may have, as of PgBouncer 1.25 (and what its next version adds), and what
//! becomes of it.
//!
//! What it is called here is in `keys`; how a value is read, in `kinds`.

use super::{
    kinds::Kind,
    remark::Weight::{self, Note, Warning},
};

/// One setting of PgBouncer's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) name: &'static str,
    /// PgBouncer's; `None` where it is not set.
    pub(super) default: Option<&'static str>,
    pub(super) rule: Rule,
}

/// What becomes of a setting.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    /// The same here.
    Same(Kind),
    /// It is seen together with others.
    Elsewhere,
    /// There is none here. How much that matters where it is not as by default, and what to know.
    Nothing(Weight, &'static str),
}

const CIPHERS: &str = "cipher suites are not chosen: TLS is rustls', which has those of TLS 1.3 and, for TLS 1.2, those \
    with ECDHE and AEAD";
const CURVES: &str = "key exchanges are not chosen: TLS is rustls', with X25519, P-256 and P-384";
const STANDARD_ERROR: &str =
    "the log goes to standard error, for systemd, the container's runtime or a shell to keep";
const NO_SERVICE_NAME: &str = "nothing is called by it here";
const UNUSED_POOLS: &str = "pools that nobody uses are dropped by themselves";
const LOG_LEVEL: &str = "failed log-ins and sessions that ended badly are logged at log.level \"info\", every session at \
    \"debug\"";
const BUFFERS: &str = "buffers are pgweir's own affair";

pub(super) const PEERS: &str = "one pgweir uses every core, so that a machine needs no more than one; those of \
    several machines pass cancel requests on to each other where [fleet] names them by their HTTP servers";

/// All of them, by name.
#[rustfmt::skip] // One line per setting.
pub(super) const SETTINGS: &[Known] = &[
    same("admin_users", "", Kind::Names),
    none("application_name_add_host", "0", Warning,
        "application_name stays as the client has set it; SHOW CLIENTS and SHOW SERVERS show who is linked to whom"),
    unset("auth_dbname", Rule::Same(Kind::Name)),
    unset("auth_file", Rule::Elsewhere),
    elsewhere("auth_hba_file", ""),
    unset("auth_ident_file", Rule::Elsewhere),
    unset("auth_ldap_options", Rule::Elsewhere),
    elsewhere("auth_query", "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid WHERE rolname=$1 AND rolcanlogin"),
    elsewhere("auth_type", "md5"),
    unset("auth_user", Rule::Same(Kind::Name)),
    none("autodb_idle_timeout", "3600", Note, UNUSED_POOLS),
    none("cancel_wait_timeout", "10", Note, "a cancel request waits for nothing: it has a connection of its own at once"),
    same("client_idle_timeout", "0", Kind::Seconds),
    same("client_login_timeout", "60", Kind::Seconds),
    unset("client_tls13_ciphers", Rule::Nothing(Warning, CIPHERS)),
    same("client_tls_ca_file", "", Kind::File),
    same("client_tls_cert_file", "", Kind::File),
    none("client_tls_ciphers", "default", Warning, CIPHERS),
    none("client_tls_dheparams", "auto", Note, "there is no DHE here, only ECDHE"),
    none("client_tls_ecdhcurve", "auto", Warning, CURVES),
    same("client_tls_key_file", "", Kind::File),
    elsewhere("client_tls_protocols", "secure"),
    elsewhere("client_tls_sslmode", "disable"),
    unset("conffile", Rule::Nothing(Warning, "the file on the command line is the one that is read again")),
    same("default_pool_size", "20", Kind::Number),
    none("disable_pqexec", "0", Warning, "the simple query protocol is always open"),
    same("dns_max_ttl", "15", Kind::DnsTtl),
    none("dns_nxdomain_ttl", "15", Note, "that a name was not found is not remembered"),
    none("dns_zone_check_period", "0", Note, "names are looked up again every dns_max_ttl"),
    same("idle_transaction_timeout", "0", Kind::Seconds),
    none("ignore_startup_parameters", "", Note,
        "every startup parameter is taken, and kept for its client as a SET would be; those named here are no longer ignored"),
    none("job_name", "pgbouncer", Note, NO_SERVICE_NAME),
    elsewhere("listen_addr", ""),
    same("listen_backlog", "128", Kind::Number),
    elsewhere("listen_port", "6432"),
    none("log_connections", "1", Note, LOG_LEVEL),
    none("log_disconnections", "1", Note, LOG_LEVEL),
    none("log_pooler_errors", "1", Note, LOG_LEVEL),
    none("log_stats", "1", Note, "averages are in SHOW STATS, and everything is in /metrics if there is an [http] section"),
    none("logfile", "", Warning, STANDARD_ERROR),
    none("login_notify_message", "", Warning, "clients are sent no such message"),
    same("max_client_conn", "100", Kind::Number),
    same("max_db_client_connections", "0", Kind::Number),
    same("max_db_connections", "0", Kind::Number),
    same("max_packet_size", "2147483647", Kind::Bytes),
    same("max_prepared_statements", "200", Kind::Number),
    same("max_user_client_connections", "0", Kind::Number),
    same("max_user_connections", "0", Kind::Number),
    elsewhere("min_pool_size", "0"),
    none("peer_id", "0", Warning, PEERS),
    none("pidfile", "", Warning, "pgweir stays in the foreground and writes no such file: systemd or the container's runtime knows its pid"),
    none("pkt_buf", "4096", Note, BUFFERS),
    none("pool_idle_timeout", "0", Note, UNUSED_POOLS),
    same("pool_mode", "session", Kind::Word),
    same("query_timeout", "0", Kind::Seconds),
    same("query_wait_notify", "5", Kind::WholeSeconds),
    same("query_wait_timeout", "120", Kind::Seconds),
    same("reserve_pool_size", "0", Kind::Number),
    same("reserve_pool_timeout", "5", Kind::Seconds),
    none("resolv_conf", "", Warning, "names are looked up as the system does, with /etc/resolv.conf"),
    none("sbuf_loopcnt", "5", Note, BUFFERS),
    none("scram_iterations", "4096", Warning,
        "verifiers that are made of passwords in clear have 4096 iterations; one that is written in auth_file keeps its own"),
    same("server_check_delay", "30", Kind::Seconds),
    same("server_check_query", "<empty>", Kind::Text),
    same("server_connect_timeout", "15", Kind::ConnectTimeout),
    none("server_fast_close", "0", Warning, "a session keeps its server connection until its client leaves"),
    same("server_idle_timeout", "600", Kind::Seconds),
    same("server_lifetime", "3600", Kind::Lifetime),
    none("server_login_retry", "15", Note,
        "clients are never refused because an earlier attempt failed: they wait, and pgweir tries again after 200ms at most \
         (pool.server_login_retry)"),
    same("server_reset_query", "DISCARD ALL", Kind::Text),
    same("server_reset_query_always", "0", Kind::Flag),
    same("server_round_robin", "0", Kind::Flag),
    unset("server_tls13_ciphers", Rule::Nothing(Warning, CIPHERS)),
    same("server_tls_ca_file", "", Kind::File),
    same("server_tls_cert_file", "", Kind::File),
    none("server_tls_ciphers", "default", Warning, CIPHERS),
    same("server_tls_key_file", "", Kind::File),
    elsewhere("server_tls_protocols", "secure"),
    elsewhere("server_tls_sslmode", "prefer"),
    unset("service_name", Rule::Nothing(Note, NO_SERVICE_NAME)),
    none("so_reuseport", "0", Warning,
        "one pgweir uses every core (process.workers); a second one on the same port is not started"),
    same("stats_period", "60", Kind::WholeSeconds),
    same("stats_users", "", Kind::Names),
    none("suspend_timeout", "10", Note, "there is no restart with -R here, for which it is"),
    none("syslog", "0", Warning, STANDARD_ERROR),
    none("syslog_facility", "daemon", Note, STANDARD_ERROR),
    none("syslog_ident", "pgbouncer", Note, STANDARD_ERROR),
    none("tcp_defer_accept", "1", Note, "a connection that says nothing costs little, and makes way when many come"),
    same("tcp_keepalive", "1", Kind::Flag),
    same("tcp_keepcnt", "0", Kind::NotZero),
    same("tcp_keepidle", "0", Kind::SecondsNotZero),
    same("tcp_keepintvl", "0", Kind::SecondsNotZero),
    same("tcp_socket_buffer", "0", Kind::Bytes),
    same("tcp_user_timeout", "0", Kind::Milliseconds),
    none("track_extra_parameters", "IntervalStyle", Note, "every setting of a session follows its client, those that servers do not report as well"),
    same("transaction_timeout", "0", Kind::Seconds),
    elsewhere("unix_socket_dir", "/tmp"),
    same("unix_socket_group", "", Kind::Name),
    same("unix_socket_mode", "0777", Kind::Mode),
    unset("user", Rule::Nothing(Warning, "pgweir stays the user that it is started as: use systemd's User=, or the container's")),
    unset("verbose", Rule::Same(Kind::Verbosity)),
];

const fn same(name: &'static str, default: &'static str, kind: Kind) -> Known {
    Known {
        name,
        default: Some(default),
        rule: Rule::Same(kind),
    }
}

const fn elsewhere(name: &'static str, default: &'static str) -> Known {
    Known {
        name,
        default: Some(default),
        rule: Rule::Elsewhere,
    }
}

const fn none(name: &'static str, default: &'static str, weight: Weight, text: &'static str) -> Known {
    Known {
        name,
        default: Some(default),
        rule: Rule::Nothing(weight, text),
    }
}

const fn unset(name: &'static str, rule: Rule) -> Known {
    Known {
        name,
        default: None,
        rule,
    }
}

/// The setting of this name.
pub(super) fn find(name: &str) -> Option<&'static Known> {
    SETTINGS.iter().find(|known| known.name == name)
}
