//! Who gets from a client through pgweir to a server: each way to log in to pgweir, each kind of secret, where it is kept,
//! and each way to log in to PostgreSQL. `./dev versions` runs it on each release of PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::process::Command;

use support::{Authority, Pooler, PoolerBuilder, Postgres, postgres_with};

const PASSWORD: &str = "sécret \" words";
/// The methods of pgweir; each has a database of its name.
const METHODS: [&str; 5] = ["trust", "password", "md5", "scram", "cert"];
/// What is known of a user's secret.
const KINDS: [&str; 3] = ["plain", "md5", "scram"];
/// The methods of PostgreSQL.
const SERVERS: [&str; 5] = ["trust", "password", "md5", "scram", "cert"];

/// The role whose secret is known as `kind` and whom the server asks by `server`.
fn role(kind: &str, server: &str) -> String {
    format!("{kind}_at_{server}")
}

/// Who gets in where, and how far. Nothing but this table says what is expected.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Through,
    /// pgweir does not let the client in.
    RefusedByPooler,
    /// pgweir has nothing to log in to the server with.
    NothingForServer,
}

fn expected(method: &str, kind: &str, server: &str) -> Outcome {
    // SCRAM cannot be done with an md5 hash.
    if (method, kind) == ("scram", "md5") {
        return Outcome::RefusedByPooler;
    }
    let has_password = kind == "plain" || method == "password";
    // The client's own proof, given against the very verifier that the server has.
    let has_proof = kind == "scram" && matches!(method, "md5" | "scram");
    let through = match server {
        "trust" | "cert" => true,
        "md5" => has_password || kind == "md5",
        "scram" => has_password || has_proof,
        _ => has_password,
    };
    if through {
        Outcome::Through
    } else {
        Outcome::NothingForServer
    }
}

struct Stage {
    pg: Postgres,
    ca: Authority,
}

impl Stage {
    fn start() -> Self {
        let ca = Authority::new("ca").unwrap();
        let server = ca.server(&["localhost", "127.0.0.1"]).unwrap();
        let at = |server: &str| KINDS.map(|kind| role(kind, server)).join(",");
        let lines = [
            format!("hostssl all {} all trust", at("trust")),
            format!("hostssl all {} all password", at("password")),
            format!("hostssl all {} all md5", at("md5")),
            format!("hostssl all {} all scram-sha-256", at("scram")),
            format!("hostssl all {} all cert", at("cert")),
            "hostssl all asker all cert".to_owned(),
        ];
        let pg = postgres_with(|builder| {
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            builder.mutual_tls(&server, ca.certificate_pem()).hba(&lines)
        });
        let stage = Self { pg, ca };
        stage.make_roles();
        stage
    }

    fn make_roles(&self) {
        let mut sql = String::from("CREATE ROLE asker LOGIN;");
        for server in SERVERS {
            let stored = if server == "md5" { "md5" } else { "scram-sha-256" };
            sql.push_str(&format!("SET password_encryption = '{stored}';"));
            for kind in KINDS {
                let role = role(kind, server);
                sql.push_str(&format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}';"));
            }
        }
        self.pg.psql(&sql).unwrap();
        // What auth_query finds need not be what the server has, as this table shows.
        let rows: Vec<_> = self
            .secrets()
            .into_iter()
            .map(|(role, secret)| format!("('{role}', $secret${secret}$secret$)"))
            .collect();
        let rows = rows.join(",");
        let sql = format!(
            "CREATE TABLE secrets (name text, secret text); INSERT INTO secrets VALUES {rows}; \
             GRANT SELECT ON secrets TO asker"
        );
        self.pg.psql_in("app", &sql).unwrap();
    }

    /// Each role, and its secret in the form of its kind.
    fn secrets(&self) -> Vec<(String, String)> {
        let mut secrets = Vec::new();
        for server in SERVERS {
            for kind in KINDS {
                let role = role(kind, server);
                // Only the verifier that the server has can serve there.
                let sql = match kind {
                    "plain" => None,
                    "md5" => Some(format!("SELECT 'md5' || md5('{PASSWORD}{role}')")),
                    _ if server == "md5" => {
                        Some("SELECT rolpassword FROM pg_authid WHERE rolname = 'plain_at_scram'".to_owned())
                    }
                    _ => Some(format!(
                        "SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'"
                    )),
                };
                let secret = sql.map_or_else(|| PASSWORD.to_owned(), |sql| self.pg.psql(&sql).unwrap());
                secrets.push((role, secret));
            }
        }
        secrets
    }

    fn pooler(&self) -> PoolerBuilder {
        let hba: String = METHODS
            .iter()
            .map(|&database| {
                let method = match database {
                    "scram" => "scram-sha-256",
                    "cert" => "cert map=anybody",
                    other => other,
                };
                format!("hostssl {database} all all {method}\n")
            })
            .collect();
        let asker = self.ca.client("asker").unwrap();
        let server = self.ca.server(&["localhost"]).unwrap();
        let mut builder = Pooler::builder(&format!("localhost:{}", self.pg.port()))
            .without("auth")
            .without(r#"databases."*""#)
            .file("hba.conf", hba)
            .file("ident.conf", "anybody tester all\n")
            .file("ca.crt", self.ca.certificate_pem())
            .file("asker.crt", &asker.certificate_pem)
            .file("asker.key", &asker.key_pem)
            .set("auth.hba_file", "'hba.conf'")
            .set("auth.ident_file", "'ident.conf'")
            .set("auth.max_auth_failures", "0")
            .client_tls("require", &server)
            .set(
                "listen.tls",
                "{ mode = 'require', cert_file = 'server.crt', key_file = 'server.key', client_ca_file = 'ca.crt' }",
            )
            .set("server_tls.mode", "'verify-full'")
            .set("server_tls.ca_file", "'ca.crt'")
            .set("server_tls.cert_file", "'asker.crt'")
            .set("server_tls.key_file", "'asker.key'");
        for database in METHODS {
            let section = format!("databases.{database}");
            builder = builder
                .set(
                    &format!("{section}.hosts"),
                    format!("['localhost:{}']", self.pg.port()),
                )
                .set(&format!("{section}.dbname"), "'app'");
        }
        for kind in KINDS {
            let role = role(kind, "cert");
            let own = self.ca.client(&role).unwrap();
            builder = builder
                .file(&format!("{role}.crt"), &own.certificate_pem)
                .file(&format!("{role}.key"), &own.key_pem)
                .set(
                    &format!("users.{role}.server_tls"),
                    format!("{{ cert_file = '{role}.crt', key_file = '{role}.key' }}"),
                );
        }
        builder
    }

    fn log_in(&self, pooler: &Pooler, client: &Client<'_>) -> Result<String, String> {
        let Client {
            method,
            user,
            password,
        } = client;
        let file = |name: &str| pooler.file(name).display().to_string();
        let mut target = format!(
            "host=localhost hostaddr=127.0.0.1 port={} user={user} dbname={method} sslmode=verify-full sslrootcert={}",
            pooler.port(),
            file("ca.crt")
        );
        if *method == "cert" {
            target.push_str(&format!(
                " sslcert={} sslkey={}",
                file("tester.crt"),
                file("tester.key")
            ));
        }
        let mut command: Command = self.pg.programs().command("psql");
        command.env("HOME", "/nonexistent").env("PGPASSWORD", password);
        let output = command
            .args(["-XAtc", "SELECT session_user", &target])
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }
}

struct Client<'a> {
    method: &'a str,
    user: &'a str,
    password: &'a str,
}

fn outcome(said: Result<String, String>, user: &str) -> Outcome {
    match said {
        Ok(who) => {
            assert_eq!(who, user);
            Outcome::Through
        }
        Err(error) if error.contains(&format!("password authentication failed for user \"{user}\"")) => {
            Outcome::RefusedByPooler
        }
        Err(error) if error.contains("pgweir cannot log in to the PostgreSQL server") => {
            Outcome::NothingForServer
        }
        Err(error) => panic!("{user}: {error}"),
    }
}

/// Every cell of the matrix, with the right password and with a wrong one.
fn run(stage: &Stage, builder: PoolerBuilder) {
    let tester = stage.ca.client("tester").unwrap();
    let pooler = builder
        .file("tester.crt", &tester.certificate_pem)
        .file("tester.key", &tester.key_pem)
        .start();
    let mut wrong = Vec::new();
    for method in METHODS {
        for kind in KINDS {
            for server in SERVERS {
                let user = &role(kind, server);
                let log_in = |password: &str| {
                    let client = Client {
                        method,
                        user,
                        password,
                    };
                    outcome(stage.log_in(&pooler, &client), user)
                };
                let (expected, case) = (
                    expected(method, kind, server),
                    format!("{method}, {kind}, {server}"),
                );
                // Each first: what one log-in has taught must not serve another.
                if !matches!(method, "trust" | "cert") {
                    let outcome = log_in("wrong");
                    if outcome != Outcome::RefusedByPooler {
                        wrong.push(format!("{case}: {outcome:?} with a wrong password"));
                    }
                }
                let outcome = log_in(PASSWORD);
                if outcome != expected {
                    wrong.push(format!("{case}: {outcome:?}, not {expected:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn secrets_in_the_users_file() {
    let stage = Stage::start();
    let mut builder = stage.pooler().set("auth.users_file", "'users.txt'");
    for (role, secret) in stage.secrets() {
        builder = builder.user(&role, &secret);
    }
    run(&stage, builder);
    let log = stage.pg.log();
    assert!(!log.contains("password authentication failed"), "{log}");
}

#[test]
fn secrets_that_are_looked_up() {
    let stage = Stage::start();
    let builder = stage
        .pooler()
        .set("auth.auth_user", "'asker'")
        .set(
            "auth.auth_query",
            "'SELECT name, secret FROM public.secrets WHERE name = $1'",
        )
        // What a client's own database says of roles with certificates of their own is not believed.
        .set("auth.auth_database", format!("'{}'", METHODS[0]));
    run(&stage, builder);
    let log = stage.pg.log();
    assert!(!log.contains("password authentication failed"), "{log}");
}
