//! Who is let in: every method with every kind of secret, from clients and to servers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use support::{Authority, Pooler, PoolerBuilder, Postgres, eventually, postgres_with};
use tokio_postgres::{Config, NoTls};

const PASSWORD: &str = "sécret \" words";
const METHODS: [&str; 4] = ["trust", "password", "md5", "scram-sha-256"];

/// An ErrorResponse as a driver sees it.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    code: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

/// Logs in with a driver and asks who it is.
fn log_in(address: &str, user: &str, password: &str) -> Result<String, Refused> {
    let (host, port) = address.split_once(':').unwrap();
    let mut config = Config::new();
    config
        .host(host)
        .port(port.parse().unwrap())
        .user(user)
        .password(password)
        .dbname("app");
    let session = async {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::select! {
            row = client.query_one("SELECT session_user::text", &[]) => row.map(|row| row.get(0)),
            end = connection => Err(end.unwrap_err()),
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(session).map_err(|error| {
        let Some(error) = error.as_db_error() else {
            panic!("{user} got no answer: {error:?}");
        };
        Refused {
            code: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        }
    })
}

#[track_caller]
fn assert_wrong_password(outcome: Result<String, Refused>, user: &str) {
    let expected = Refused {
        code: "28P01".to_owned(),
        message: format!("password authentication failed for user \"{user}\""),
        detail: None,
        hint: None,
    };
    assert_eq!(outcome.unwrap_err(), expected);
}

/// Makes roles that log in with [`PASSWORD`], stored as `password_encryption` says.
fn make_roles(pg: &Postgres, password_encryption: &str, roles: &[&str]) {
    let mut sql = format!("SET password_encryption = '{password_encryption}';");
    for role in roles {
        sql.push_str(&format!("CREATE ROLE \"{role}\" LOGIN PASSWORD '{PASSWORD}';"));
    }
    pg.psql(&sql).unwrap();
}

/// What the server has stored for a role.
fn stored(pg: &Postgres, role: &str) -> String {
    pg.psql(&format!(
        "SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'"
    ))
    .unwrap()
}

fn md5_hash(pg: &Postgres, role: &str) -> String {
    pg.psql(&format!("SELECT 'md5' || md5('{PASSWORD}{role}')"))
        .unwrap()
}

fn in_front_of(address: &str, method: &str) -> PoolerBuilder {
    Pooler::builder(address)
        .set("auth.auth_type", format!("'{method}'"))
        .set("auth.allow_plaintext_password", "true")
}

// --- clients ---

#[test]
fn every_method_takes_the_right_password_for_every_kind_of_secret() {
    let pg = postgres_with(|builder| builder.hba(&["host all all all trust"]));
    make_roles(&pg, "scram-sha-256", &["plain", "hashed", "verified", "unlisted"]);
    for method in METHODS {
        let pooler = in_front_of(&pg.address(), method)
            .user("plain", PASSWORD)
            .user("hashed", &md5_hash(&pg, "hashed"))
            .user("verified", &stored(&pg, "verified"))
            .user("empty", "")
            .start();
        for user in ["plain", "hashed", "verified"] {
            let right = log_in(pooler.address(), user, PASSWORD);
            // An md5 hash proves nothing in SCRAM.
            if (method, user) == ("scram-sha-256", "hashed") {
                assert_wrong_password(right, user);
                continue;
            }
            assert_eq!(right, Ok(user.to_owned()), "{method}");
            for wrong in ["wrong", "sécret", ""] {
                let wrong = log_in(pooler.address(), user, wrong);
                match method {
                    "trust" => assert_eq!(wrong, Ok(user.to_owned())),
                    _ => assert_wrong_password(wrong, user),
                }
            }
        }
        for nobody in ["unlisted", "empty"] {
            for password in [PASSWORD, ""] {
                let outcome = log_in(pooler.address(), nobody, password);
                match method {
                    // "empty" is let in here, and turned away by the server: it has no such role.
                    "trust" => assert_eq!(outcome.unwrap_err().code, "28000"),
                    _ => assert_wrong_password(outcome, nobody),
                }
            }
        }
    }
}

#[test]
fn a_password_in_clear_needs_tls_or_leave_to_do_without() {
    let pg = postgres_with(|builder| builder.hba(&["host all all all trust"]));
    let authority = Authority::new("CA").unwrap();
    let pooler = Pooler::builder(&pg.address())
        .set("auth.auth_type", "'password'")
        .client_tls("prefer", &authority.server(&["localhost"]).unwrap())
        .start();
    let refused = log_in(pooler.address(), "app", "secret").unwrap_err();
    assert_eq!(refused.code, "28000");
    assert!(refused.hint.unwrap().contains("allow_plaintext_password"));
    let psql = |password: &str| {
        let mut command = pg.programs().command("psql");
        command.env("PGPASSWORD", password);
        let target = format!(
            "host=127.0.0.1 port={} user=app dbname=app sslmode=require",
            pooler.port()
        );
        command.args(["-XAtc", "SELECT 1", &target]).output().unwrap()
    };
    assert_eq!(psql("secret").stdout, b"1\n");
    assert!(String::from_utf8_lossy(&psql("wrong").stderr).contains("password authentication failed"));
    let allowing = in_front_of(&pg.address(), "password").start();
    assert_eq!(log_in(allowing.address(), "app", "secret"), Ok("app".to_owned()));
}

// --- servers ---

/// What the users file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Md5,
    Verifier,
}

/// Whether a client of `method` can reach a server that asks `role` for its password in the way of its name.
fn reaches(method: &str, kind: Kind, role: &str) -> bool {
    if role == "trusted" || kind == Kind::Plain {
        return true;
    }
    match (role, kind) {
        // The password itself was in the client's answer.
        _ if method == "password" => true,
        ("md5", Kind::Md5) => true,
        // The client's proof is passed through. `md5` asks for SCRAM where there is a verifier.
        ("scram", Kind::Verifier) => method != "trust",
        _ => false,
    }
}

#[test]
fn servers_are_logged_in_to_with_what_is_known() {
    let pg = postgres_with(|builder| {
        builder.hba(&[
            "host all trusted all trust",
            "host all clear all password",
            "host all md5 all md5",
            "host all scram all scram-sha-256",
        ])
    });
    make_roles(&pg, "md5", &["md5"]);
    make_roles(&pg, "scram-sha-256", &["trusted", "clear", "scram", "other"]);
    let roles = ["trusted", "clear", "md5", "scram"];
    let verifier = |role: &str| match role {
        "md5" => stored(&pg, "other"),
        _ => stored(&pg, role),
    };
    for method in METHODS {
        for kind in [Kind::Plain, Kind::Md5, Kind::Verifier] {
            let secret = |role: &str| match kind {
                Kind::Plain => PASSWORD.to_owned(),
                Kind::Md5 => md5_hash(&pg, role),
                Kind::Verifier => verifier(role),
            };
            let pooler = roles
                .iter()
                .fold(in_front_of(&pg.address(), method), |builder, role| {
                    builder.user(role, &secret(role))
                })
                .start();
            for role in roles {
                let outcome = log_in(pooler.address(), role, PASSWORD);
                let case = format!("{method} {kind:?} {role}");
                if (method, kind) == ("scram-sha-256", Kind::Md5) {
                    assert_wrong_password(outcome, role);
                } else if reaches(method, kind, role) {
                    assert_eq!(outcome, Ok(role.to_owned()), "{case}");
                } else {
                    let refused = outcome.expect_err(&case);
                    assert_eq!(refused.code, "28000", "{case}");
                    assert_eq!(refused.message, "pgweir cannot log in to the PostgreSQL server");
                    let detail = refused.detail.unwrap();
                    assert!(
                        detail.contains(&format!("for user \"{role}\"")),
                        "{case}: {detail}"
                    );
                    assert!(detail.starts_with("the server asks for "), "{case}: {detail}");
                    assert!(refused.hint.is_some(), "{case}");
                }
            }
        }
    }
    assert!(
        !pg.log().contains("password authentication failed"),
        "{}",
        pg.log()
    );
}

/// Ends every server connection of `app`, and waits until the pooler knows.
fn end_server_connections(pg: &Postgres, pooler: &Pooler) {
    let terminate = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'";
    assert_eq!(pg.psql(terminate).unwrap(), "t");
    eventually("the pooler has no server connection", || {
        pooler.metric(r#"pgweir_servers{user="app"}"#) == 0.0
    });
}

#[test]
fn a_verifier_alone_serves_every_later_server_connection_too() {
    let pg = postgres_with(|builder| builder);
    let pooler = in_front_of(&pg.address(), "scram-sha-256")
        .user("app", &stored(&pg, "app"))
        .start();
    // No client has proved anything yet.
    assert_wrong_password(log_in(pooler.address(), "app", "wrong"), "app");
    assert_eq!(log_in(pooler.address(), "app", "secret"), Ok("app".to_owned()));
    for _ in 0..2 {
        end_server_connections(&pg, &pooler);
        assert_eq!(log_in(pooler.address(), "app", "secret"), Ok("app".to_owned()));
    }
}

#[test]
fn a_changed_verifier_is_said_and_a_new_users_file_mends_it() {
    let pg = postgres_with(|builder| builder);
    let old = stored(&pg, "app");
    let mut pooler = in_front_of(&pg.address(), "scram-sha-256")
        .user("app", &old)
        .start();
    assert_eq!(log_in(pooler.address(), "app", "secret"), Ok("app".to_owned()));
    pg.psql("ALTER ROLE app PASSWORD 'changed'").unwrap();
    end_server_connections(&pg, &pooler);
    let refused = log_in(pooler.address(), "app", "secret").unwrap_err();
    assert_eq!(refused.code, "28000");
    assert!(refused.detail.unwrap().contains("different secret"));
    assert!(refused.hint.unwrap().contains("pg_authid"));

    let position = pooler.log_position();
    pooler.reconfigure(|builder| builder.user("app", &stored(&pg, "app")));
    pooler.reload();
    pooler.wait_for_log(position, "configuration reloaded");
    assert_wrong_password(log_in(pooler.address(), "app", "secret"), "app");
    assert_eq!(log_in(pooler.address(), "app", "changed"), Ok("app".to_owned()));
}

#[test]
fn a_wrong_password_at_the_server_is_told_in_its_words_once_per_client() {
    let pg = postgres_with(|builder| {
        builder.hba(&["host all clear all password", "host all all all scram-sha-256"])
    });
    make_roles(&pg, "scram-sha-256", &["clear"]);
    let attempts = || pg.log().matches("FATAL:  password authentication failed").count();
    for mode in ["disable", "allow", "prefer"] {
        for user in ["app", "clear"] {
            let before = attempts();
            let pooler = in_front_of(&pg.address(), "scram-sha-256")
                .user(user, "stale")
                .set("server_tls.mode", format!("'{mode}'"))
                .start();
            for _ in 0..3 {
                assert_wrong_password(log_in(pooler.address(), user, "stale"), user);
            }
            // Nothing is under way any more: whoever tries again by itself stays in this state.
            eventually("nothing is being connected", || {
                pooler.metric(&format!("pgweir_servers{{user=\"{user}\",state=\"connecting\"}}")) == 0.0
            });
            assert_eq!(pooler.metric("pgweir_server_connect_failures_total"), 3.0);
            assert_eq!(attempts() - before, 3, "{mode} {user}");
            // Put right on the server, it works at once: the refusal is not remembered.
            pg.psql(&format!("ALTER ROLE {user} PASSWORD 'stale'")).unwrap();
            assert_eq!(log_in(pooler.address(), user, "stale"), Ok(user.to_owned()));
            pg.psql(&format!("ALTER ROLE {user} PASSWORD 'other'")).unwrap();
        }
    }
}

#[test]
fn a_user_who_cannot_log_in_does_not_hold_up_others() {
    let pg = postgres_with(|builder| builder);
    make_roles(&pg, "scram-sha-256", &["stale"]);
    let pooler = in_front_of(&pg.address(), "trust")
        .user("stale", "wrong")
        .set("pool.min_pool_size", "1")
        .start();
    for _ in 0..3 {
        assert_wrong_password(log_in(pooler.address(), "stale", ""), "stale");
        assert_eq!(log_in(pooler.address(), "app", ""), Ok("app".to_owned()));
    }
}
