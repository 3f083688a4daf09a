//! The same settings, as pgweir and as PgBouncer want them written. Text only.

/// What a pooler is to do. The certificate `server.crt`, its key and `users.txt` lie beside the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) port: u16,
    pub(crate) postgres_port: u16,
    pub(crate) pool: u32,
    pub(crate) tls: bool,
    /// `process.workers` of pgweir, as TOML.
    pub(crate) workers: &'a str,
}

/// More than any workload has.
const CLIENTS: u32 = 12_000;
const BACKLOG: u32 = 1024;

/// `userlist.txt` of PgBouncer, and pgweir's users file.
pub(crate) fn users(role: &str) -> String {
    format!("\"{role}\" \"\"\n")
}

impl Setup<'_> {
    /// `pgweir.toml`, with settings only that every version knows.
    pub(crate) fn pgweir(&self) -> String {
        let tls = match self.tls {
            true => r#"{ mode = "require", cert_file = "server.crt", key_file = "server.key" }"#,
            false => r#"{ mode = "disable" }"#,
        };
        format!(
            r#"[listen]
address = "127.0.0.1:{port}"
max_client_conn = {CLIENTS}
listen_backlog = {BACKLOG}
tls = {tls}

[auth]
auth_type = "trust"

[pool]
mode = "transaction"
default_pool_size = {pool}

[databases."*"]
hosts = ["127.0.0.1:{postgres_port}"]

[server_tls]
mode = "disable"

[log]
level = "warn"

[process]
workers = {workers}
"#,
            port = self.port,
            pool = self.pool,
            postgres_port = self.postgres_port,
            workers = self.workers,
        )
    }

    /// `pgbouncer.ini`. It logs each client and statistics unless it is told not to; pgweir does neither here.
    pub(crate) fn pgbouncer(&self) -> String {
        let tls = match self.tls {
            true => "require\nclient_tls_cert_file = server.crt\nclient_tls_key_file = server.key",
            false => "disable",
        };
        format!(
            "[databases]\n\
             * = host=127.0.0.1 port={postgres_port}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             listen_backlog = {BACKLOG}\n\
             unix_socket_dir =\n\
             max_client_conn = {CLIENTS}\n\
             auth_type = trust\n\
             auth_file = users.txt\n\
             pool_mode = transaction\n\
             default_pool_size = {pool}\n\
             server_tls_sslmode = disable\n\
             log_connections = 0\n\
             log_disconnections = 0\n\
             log_stats = 0\n\
             client_tls_sslmode = {tls}\n",
            port = self.port,
            pool = self.pool,
            postgres_port = self.postgres_port,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETUP: Setup<'_> = Setup {
        port: 1111,
        postgres_port: 2222,
        pool: 33,
        tls: true,
        workers: "\"auto\"",
    };

    #[test]
    fn both_have_what_was_asked_for() {
        let (ours, theirs) = (SETUP.pgweir(), SETUP.pgbouncer());
        for number in ["1111", "2222", "33"] {
            assert!(ours.contains(number) && theirs.contains(number), "{number}");
        }
        assert!(ours.contains("mode = \"require\"") && theirs.contains("client_tls_sslmode = require\n"));
        assert!(ours.contains("workers = \"auto\"\n"));
    }

    #[test]
    fn without_tls_no_certificate_is_named() {
        let plain = Setup { tls: false, ..SETUP };
        assert!(!plain.pgweir().contains("server.crt") && !plain.pgbouncer().contains("server.crt"));
    }
}
