//! A PostgreSQL as CloudNativePG sets one up for a team with a CA of its own, and the files that its pooler mounts.
//!
//! RSA 4096 CA; the server's certificate is RSA 2048 with an empty subject; roles that HBA lets in with a certificate of
//! their own name only; a role for the pooler, and a function that looks up secrets for it.

use std::process::Output;

use super::{Authority, Certificate, Leaf, Pooler, PoolerBuilder, Postgres, postgres_with};

/// Keys that cannot be made here. They guard nothing.
const CA_KEY: &str = include_str!("rsa4096.pkcs8.pem");
const LEAF_KEY: &str = include_str!("../../src/tls/tests/rsa2048.pkcs8.pem");

/// The password of the roles that have one.
pub const PASSWORD: &str = "sécret \" words";

/// The database and everything that stands in its cluster's secrets.
pub struct Cluster {
    pub postgres: Postgres,
    pub ca: Authority,
    pub pooler_client: Certificate,
    pub pooler_server: Certificate,
}

impl Cluster {
    /// The cluster; `user_search` is made in this database, and only there.
    pub fn start(search_in: &str) -> Self {
        let ca = Authority::with_key("myca", CA_KEY).expect("a key of RSA 4096");
        let names = ["mypg-yc-rw", "mypg-yc-rw.mypg.svc", "localhost", "127.0.0.1"];
        let server = ca
            .issue_with_key(&Leaf::server(&names).empty_subject(), LEAF_KEY)
            .expect("a certificate");
        let postgres = postgres_with(|builder| {
            builder
                .mutual_tls(&server, ca.certificate_pem())
                .setting("ssl_min_protocol_version", "TLSv1.3")
                .hba(&[
                    "hostssl postgres,replication streaming_replica all cert",
                    "hostssl all cnpg_pooler_pgbouncer all cert",
                    "hostssl all postgres,myappuser,streaming_replica all cert",
                    "hostnossl all postgres,myappuser,streaming_replica all reject",
                    "host all all all scram-sha-256",
                ])
        });
        let cluster = Self {
            pooler_client: ca
                .issue_with_key(&Leaf::client("cnpg_pooler_pgbouncer"), LEAF_KEY)
                .expect("a certificate"),
            pooler_server: ca
                .issue(&Leaf::server(&["mypg-yc-pooler", "localhost", "127.0.0.1"]).empty_subject())
                .expect("a certificate"),
            postgres,
            ca,
        };
        cluster.make_roles(search_in);
        cluster
    }

    fn make_roles(&self, search_in: &str) {
        let sql = |database: &str, sql: &str| {
            self.postgres.psql_in(database, sql).expect("SQL is carried out");
        };
        sql(
            "postgres",
            &format!(
                "CREATE ROLE myappuser LOGIN; CREATE ROLE myappuser2 LOGIN PASSWORD '{PASSWORD}'; \
                 CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE streaming_replica LOGIN REPLICATION; \
                 CREATE ROLE cnpg_pooler_pgbouncer LOGIN"
            ),
        );
        sql("postgres", "CREATE DATABASE myappdb OWNER myappuser");
        sql(
            "postgres",
            "ALTER DATABASE myappdb SET search_path TO myapp, public",
        );
        sql(
            search_in,
            "CREATE FUNCTION public.user_search(uname text) RETURNS TABLE (usename name, passwd text) \
             LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS \
             'SELECT usename, passwd FROM pg_catalog.pg_shadow WHERE usename = $1'",
        );
        sql(
            search_in,
            "REVOKE ALL ON FUNCTION public.user_search(text) FROM public",
        );
        sql(
            search_in,
            "GRANT EXECUTE ON FUNCTION public.user_search(text) TO cnpg_pooler_pgbouncer",
        );
    }

    /// A pooler with the secrets mounted and no password anywhere.
    pub fn pooler(&self) -> PoolerBuilder {
        Pooler::builder(&format!("localhost:{}", self.postgres.port()))
            .without("auth")
            .set("auth.auth_user", "'cnpg_pooler_pgbouncer'")
            .set(
                "auth.auth_query",
                "'SELECT usename, passwd FROM public.user_search($1)'",
            )
            .client_tls("prefer", &self.pooler_server)
            .file("ca.crt", self.ca.certificate_pem())
            .file("client.crt", &self.pooler_client.certificate_pem)
            .file("client.key", &self.pooler_client.key_pem)
            .set("server_tls.mode", "'verify-full'")
            .set("server_tls.ca_file", "'ca.crt'")
            .set("server_tls.cert_file", "'client.crt'")
            .set("server_tls.key_file", "'client.key'")
    }

    /// As [`Cluster::pooler`], with client certificates: the roles that the server wants a certificate of have one in
    /// the pooler, and show one to it.
    pub fn pooler_with_certificates(&self, roles: &[&str]) -> PoolerBuilder {
        let roles_list = roles.join(",");
        let hba = format!(
            "hostssl all {roles_list} all cert\nhostnossl all {roles_list} all reject\nhost all all all scram-sha-256\n"
        );
        let builder = self.pooler().file("hba.conf", hba).set("auth.hba_file", "'hba.conf'").set(
            "listen.tls",
            "{ mode = 'require', cert_file = 'server.crt', key_file = 'server.key', client_ca_file = 'ca.crt' }",
        );
        roles.iter().fold(builder, |builder, role| {
            let Certificate {
                certificate_pem,
                key_pem,
            } = self.ca.client(role).expect("a certificate");
            builder
                .file(&format!("{role}.crt"), certificate_pem)
                .file(&format!("{role}.key"), key_pem)
                .set(
                    &format!("users.{role}.server_tls"),
                    format!("{{ cert_file = '{role}.crt', key_file = '{role}.key' }}"),
                )
        })
    }

    /// Runs psql as a user, against a pooler, with more of a connection string.
    pub fn psql(&self, pooler: &Pooler, user: &str, more: &str, sql: &str) -> Output {
        let target = format!(
            "host=localhost hostaddr=127.0.0.1 port={} user={user} dbname=myappdb sslmode=verify-full sslrootcert={} {more}",
            pooler.port(),
            pooler.file("ca.crt").display(),
        );
        let mut command = self.postgres.programs().command("psql");
        command.env("HOME", "/nonexistent").env("PGPASSWORD", PASSWORD);
        command.args(["-XAtc", sql, &target]).output().expect("psql runs")
    }

    /// The options of a connection string that show this role's certificate, which the pooler's directory has.
    pub fn certificate_of(pooler: &Pooler, role: &str) -> String {
        format!(
            "sslcert={} sslkey={}",
            pooler.file(&format!("{role}.crt")).display(),
            pooler.file(&format!("{role}.key")).display()
        )
    }
}
