//! What the demo tells pgweir and the person: configuration, users file, command lines, facts. Text only.

use std::{fmt::Write, num::NonZeroU32, path::Path};

/// The pgbench line's duration when nobody asked for another.
const SHOWN_SECONDS: u32 = 10;

/// The facts of a running demo that its texts are made of.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) directory: &'a Path,
    pub(super) postgres_port: u16,
    pub(super) port: u16,
    pub(super) http_port: u16,
    pub(super) pool_size: NonZeroU32,
    pub(super) clients: NonZeroU32,
    /// Password of the role `app`.
    pub(super) password: &'a str,
}

impl Facts<'_> {
    /// `pgweir.toml`. Beside it are server.crt, server.key and users.txt.
    pub(super) fn config(&self) -> String {
        format!(
            r#"# Made by `pgweir demo`.
[listen]
address = "127.0.0.1:{port}"
max_client_conn = {max_client_conn}
tls = {{ mode = "require", cert_file = "server.crt", key_file = "server.key" }}

[auth]
auth_type = "scram-sha-256"
users_file = "users.txt"
stats_users = "app"

[pool]
mode = "transaction"
default_pool_size = {pool_size}

[databases."*"]
hosts = ["127.0.0.1:{postgres_port}"]

# The server is on this machine and has no certificate.
[server_tls]
mode = "disable"

[http]
address = "127.0.0.1:{http_port}"

[shutdown]
drain_delay = "0s"
drain_timeout = "2s"
"#,
            port = self.port,
            max_client_conn = self.clients.get().max(900).saturating_add(100),
            pool_size = self.pool_size,
            postgres_port = self.postgres_port,
            http_port = self.http_port,
        )
    }

    /// A URL of pgweir for `database`, verified against the demo's CA.
    pub(super) fn url(&self, database: &str) -> String {
        let authority = self.directory.join("ca.crt");
        let server = self.server_url(database);
        format!("{server}?sslmode=verify-full&sslrootcert={}", authority.display())
    }

    fn server_url(&self, database: &str) -> String {
        format!(
            "postgresql://app:{}@localhost:{}/{database}",
            self.password, self.port
        )
    }

    /// The options of pgbench before its URL.
    pub(super) fn pgbench_options(&self, seconds: Option<u32>) -> Vec<String> {
        let seconds = seconds.unwrap_or(SHOWN_SECONDS);
        let threads = self.clients.get().min(2);
        format!("-n -S -c {} -j {threads} -T {seconds}", self.clients)
            .split(' ')
            .map(str::to_owned)
            .collect()
    }

    /// What a person sees; `psql` and `pgbench` are how their shell runs these.
    pub(super) fn announcement(&self, psql: &str, pgbench: &str) -> String {
        let options = self.pgbench_options(None).join(" ");
        let url = self.url("app");
        format!(
            "\npgweir is ready on localhost:{port} (TLS, SCRAM, transaction pooling, pool of {pool_size}), \
             in front of PostgreSQL on 127.0.0.1:{postgres_port}.\n\n\
             {psql} '{url}'\n\n\
             {pgbench} {options} '{url}'\n\n\
             http://127.0.0.1:{http_port}/metrics\n\
             log and configuration: {directory}\n",
            port = self.port,
            pool_size = self.pool_size,
            postgres_port = self.postgres_port,
            http_port = self.http_port,
            directory = self.directory.display(),
        )
    }

    /// The facts for scripts: lines that a shell can source and anything else can split at the first `=`.
    /// So no value has a quote or an `&`: URLs ask for TLS, and a script that verifies the server adds
    /// `&sslmode=verify-full&sslrootcert=$PGWEIR_CA`.
    pub(super) fn env_file(&self, pgweir_pid: u32) -> String {
        let pairs = [
            (
                "PGWEIR_URL",
                format!("{}?sslmode=require", self.server_url("app")),
            ),
            (
                "PGWEIR_ADMIN_URL",
                format!("{}?sslmode=require", self.server_url("pgweir")),
            ),
            ("PGWEIR_HTTP", format!("http://127.0.0.1:{}", self.http_port)),
            ("PGWEIR_CA", self.directory.join("ca.crt").display().to_string()),
            (
                "POSTGRES_URL",
                format!(
                    "postgresql://app:{}@127.0.0.1:{}/app",
                    self.password, self.postgres_port
                ),
            ),
            ("PGWEIR_PID", pgweir_pid.to_string()),
        ];
        let mut text = String::new();
        for (key, value) in pairs {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key}={value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts<'static> {
        Facts {
            directory: Path::new("/tmp/demo"),
            postgres_port: 20_001,
            port: 6432,
            http_port: 9127,
            pool_size: NonZeroU32::new(20).unwrap(),
            clients: NonZeroU32::new(64).unwrap(),
            password: "secret",
        }
    }

    #[test]
    fn the_configuration_has_what_was_chosen() {
        let config = facts().config();
        for line in [
            "address = \"127.0.0.1:6432\"",
            "default_pool_size = 20",
            "hosts = [\"127.0.0.1:20001\"]",
            "address = \"127.0.0.1:9127\"",
            "max_client_conn = 1000",
        ] {
            assert!(config.lines().any(|found| found == line), "{line}");
        }
        assert!(config.contains("tls = { mode = \"require\", "));
    }

    #[test]
    fn the_lines_verify_the_server() {
        let text = facts().announcement("psql", "pgbench");
        let url =
            "'postgresql://app:secret@localhost:6432/app?sslmode=verify-full&sslrootcert=/tmp/demo/ca.crt'";
        assert!(text.contains(&format!("\npsql {url}\n")));
        assert!(text.contains(&format!("\npgbench -n -S -c 64 -j 2 -T 10 {url}\n")));
    }

    #[test]
    fn pgbench_never_has_more_threads_than_clients() {
        let one = Facts {
            clients: NonZeroU32::MIN,
            ..facts()
        };
        assert_eq!(one.pgbench_options(Some(3)).join(" "), "-n -S -c 1 -j 1 -T 3");
    }

    #[test]
    fn the_facts_for_scripts_are_complete() {
        let text = facts().env_file(42);
        let keys: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
        let expected = [
            "PGWEIR_URL",
            "PGWEIR_ADMIN_URL",
            "PGWEIR_HTTP",
            "PGWEIR_CA",
            "POSTGRES_URL",
            "PGWEIR_PID",
        ];
        assert_eq!(keys, expected);
        assert!(text.ends_with("PGWEIR_PID=42\n"));
        assert!(
            !text.contains(['&', '\'', '"', ' ', ';']),
            "a shell reads it as it is"
        );
    }
}
