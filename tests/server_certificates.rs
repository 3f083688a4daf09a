//! Roles that log in to servers with a certificate of their own, and what certificates say of themselves.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use support::{
    Authority, Certificate, Leaf, Pooler, PoolerBuilder, Postgres, RawClient, frames, postgres_with,
};

/// As CloudNativePG has it: `streaming_replica`, `postgres` and the like only with a certificate of their name.
fn demanding(authority: &Authority) -> Postgres {
    let pg = postgres_with(|builder| {
        builder
            .mutual_tls(
                &authority.server(&["localhost"]).unwrap(),
                authority.certificate_pem(),
            )
            .hba(&[
                "hostssl all alice,postgres,shared all cert",
                "hostssl all app all scram-sha-256",
            ])
    });
    pg.psql("CREATE ROLE alice LOGIN REPLICATION; CREATE ROLE shared LOGIN;")
        .unwrap();
    pg
}

fn shows(builder: PoolerBuilder, section: &str, name: &str, certificate: &Certificate) -> PoolerBuilder {
    builder
        .file(&format!("{name}.crt"), &certificate.certificate_pem)
        .file(&format!("{name}.key"), &certificate.key_pem)
        .set(&format!("{section}.cert_file"), format!("'{name}.crt'"))
        .set(&format!("{section}.key_file"), format!("'{name}.key'"))
}

fn client(authority: &Authority, name: &str) -> Certificate {
    authority.client(name).unwrap()
}

/// In front of `pg`: `alice` and `postgres` have their own certificate, and the others that of `shared`.
fn builder(pg: &Postgres, authority: &Authority) -> PoolerBuilder {
    let host = format!("localhost:{}", pg.port());
    let builder = ["alice", "postgres", "shared"]
        .iter()
        .fold(Pooler::builder(&host), |builder, user| {
            builder.user(user, "unused")
        })
        .file("ca.crt", authority.certificate_pem())
        .set("server_tls.mode", "'verify-full'")
        .set("server_tls.ca_file", "'ca.crt'");
    let builder = shows(builder, "server_tls", "shared", &client(authority, "shared"));
    ["alice", "postgres"].iter().fold(builder, |builder, role| {
        shows(
            builder,
            &format!("users.{role}.server_tls"),
            role,
            &client(authority, role),
        )
    })
}

fn session_user(pooler: &Pooler, user: &str, database: &str) -> String {
    RawClient::log_in(pooler.address(), user, "", database).value("SELECT session_user")
}

#[test]
fn roles_log_in_with_their_own_certificate_and_the_others_with_the_shared_one() {
    let authority = Authority::new("CA").unwrap();
    let pg = demanding(&authority);
    let host = format!("['localhost:{}']", pg.port());
    let builder = builder(&pg, &authority)
        .set("databases.forced.hosts", &host)
        .set("databases.forced.dbname", "'app'")
        .set("databases.forced.user", "'alice'");
    let pooler = builder.start();
    for user in ["alice", "postgres", "shared", "app"] {
        assert_eq!(session_user(&pooler, user, "app"), user);
    }
    // It is the role at the server that counts, not who the client is.
    assert_eq!(session_user(&pooler, "shared", "forced"), "alice");
    assert_eq!(session_user(&pooler, "app", "forced"), "alice");
}

#[test]
fn replication_and_cancel_requests_go_the_same_way() {
    let authority = Authority::new("CA").unwrap();
    let pg = demanding(&authority);
    let pooler = builder(&pg, &authority)
        .set("pool.allow_replication", "true")
        .start();
    let mut walsender = RawClient::connect(pooler.address());
    let startup = [
        ("user", "alice"),
        ("database", "app"),
        ("replication", "database"),
    ];
    walsender.send(frames::startup(frames::PROTOCOL_3_0, &startup));
    walsender.read_until(b'Z');
    walsender.send(frames::query("IDENTIFY_SYSTEM"));
    let answer = walsender.read_until(b'Z');
    assert!(answer.iter().any(|frame| frame.tag == b'D'), "{answer:?}");

    let mut sleeper = RawClient::connect(pooler.address());
    sleeper.send(frames::startup(frames::PROTOCOL_3_0, &startup[..2]));
    let key = sleeper
        .read_until_ready()
        .into_iter()
        .find(|frame| frame.tag == b'K')
        .unwrap();
    let (pid, secret) = key.body.split_first_chunk().unwrap();
    sleeper.send(frames::query("SELECT pg_sleep(60)"));
    support::eventually("alice sleeps", || {
        let sleeping =
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND usename = 'alice'";
        pg.psql(sleeping).unwrap() == "1"
    });
    let mut canceling = RawClient::connect(pooler.address());
    canceling.send(frames::cancel(i32::from_be_bytes(*pid), secret));
    let error = sleeper.read_until(b'E').pop().unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("57014"), "{error:?}");
}

#[test]
fn a_new_certificate_for_one_role_leaves_the_connections_of_others_alone() {
    let authority = Authority::new("CA").unwrap();
    let pg = demanding(&authority);
    let mut pooler = builder(&pg, &authority)
        .set("pool.default_pool_size", "1")
        .start();
    let pid = |pooler: &Pooler, user: &str| {
        RawClient::log_in(pooler.address(), user, "", "app").value("SELECT pg_backend_pid()")
    };
    let before = ["alice", "postgres", "shared"].map(|user| pid(&pooler, user));
    let position = pooler.log_position();
    // In a file of another name: what is renewed in place goes gently, by and by.
    let other = client(&authority, "alice");
    pooler.reconfigure(|builder| shows(builder, "users.alice.server_tls", "other", &other));
    pooler.reload();
    pooler.wait_for_log(position, "configuration reloaded");
    let after = ["alice", "postgres", "shared"].map(|user| pid(&pooler, user));
    assert_ne!(before[0], after[0], "alice shows the new one");
    assert_eq!(before[1..], after[1..]);
}

#[test]
fn all_that_is_wrong_with_them_is_said_at_once_and_no_mistake_twice() {
    let authority = Authority::new("CA").unwrap();
    let server = "localhost:5432";
    let broken = Pooler::builder(server)
        .file("ca.crt", "nothing")
        .file("some.crt", "nothing")
        .file("some.key", "nothing")
        .set("server_tls.mode", "'verify-ca'")
        .set("server_tls.ca_file", "'ca.crt'")
        .set("users.alice.server_tls.server_name", "'db.example'")
        .set("users.bob.server_tls.ca_file", "'good.crt'")
        .set("users.bob.server_tls.cert_file", "'some.crt'")
        .set("users.bob.server_tls.key_file", "'some.key'")
        .file("good.crt", authority.certificate_pem());
    let (_, said, status) = Pooler::run_command(&broken, &["check", "--config", "CONFIG"]);
    assert!(!status.success());
    assert_eq!(said.matches("cannot be used").count(), 2, "{said}");
    assert!(
        said.contains("server_tls cannot be used: no ca certificate in"),
        "{said}"
    );
    assert!(
        said.contains("users.bob.server_tls cannot be used: no certificate in"),
        "{said}"
    );

    let contradictory = Pooler::builder(server)
        .set("users.alice.server_tls.mode", "'verify-full'")
        .set("users.bob.server_tls.cert_file", "'ca.crt'")
        .set("users.carol.server_tls.crl_file", "'ca.crt'")
        .file("ca.crt", authority.certificate_pem());
    let (_, said, _) = Pooler::run_command(&contradictory, &["check", "--config", "CONFIG"]);
    for words in [
        "users.alice.server_tls.mode: needs ca_file",
        "users.bob.server_tls.cert_file: needs key_file",
        "users.carol.server_tls.crl_file: needs ca_file",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

// --- how long they are good for ---

/// Seconds since 1970.
fn now() -> f64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}

#[test]
fn how_long_certificates_are_good_for_is_a_metric_and_an_expired_one_a_warning() {
    let authority = Authority::new("CA").unwrap();
    let old = authority.issue(&Leaf::server(&["localhost"]).expired()).unwrap();
    let builder = Pooler::builder("localhost:5432").client_tls("require", &old);
    let builder = shows(
        builder,
        "users.alice.server_tls",
        "alice",
        &client(&authority, "alice"),
    )
    .file("ca.crt", authority.certificate_pem())
    .set("server_tls.mode", "'verify-ca'")
    .set("server_tls.ca_file", "'ca.crt'");
    let warning = "listen.tls.cert_file: the certificate CN=localhost has expired 60 minutes ago";
    let (said, warned, status) = Pooler::run_command(&builder, &["check", "--config", "CONFIG"]);
    assert!(status.success() && said.contains(": ok"), "{said}");
    assert!(warned.contains(warning), "{warned}");
    assert_eq!(warned.lines().count(), 1, "{warned}");

    let mut pooler = builder.start();
    assert!(pooler.logs().contains(warning));
    let left = |pooler: &Pooler, setting: &str, subject: &str| {
        let labels = format!(r#"setting="{setting}",subject="{subject}""#);
        pooler.metric(&format!("pgweir_tls_certificate_not_after_seconds{{{labels}}}")) - now()
    };
    let month = 29.0 * 86_400.0..31.0 * 86_400.0;
    assert!((-3700.0..-3500.0).contains(&left(&pooler, "listen.tls.cert_file", "CN=localhost")));
    assert!(month.contains(&left(&pooler, "server_tls.ca_file", "CN=CA")));
    assert!(month.contains(&left(&pooler, "users.alice.server_tls.cert_file", "CN=alice")));

    let position = pooler.log_position();
    let renewed = authority.server(&["localhost"]).unwrap();
    pooler.reconfigure(|builder| {
        builder
            .client_tls("require", &renewed)
            .without("users.alice.server_tls")
    });
    pooler.reload();
    pooler.wait_for_log(position, "configuration reloaded");
    assert!(month.contains(&left(&pooler, "listen.tls.cert_file", "CN=localhost")));
    assert!(!pooler.metrics().contains("alice"), "nothing names it any more");
}
