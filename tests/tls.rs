//! TLS on both sides: which connections are encrypted, which are refused, and whose certificate is believed.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{fs, path::Path};

use support::{
    Authority, Certificate, Leaf, Pooler, PoolerBuilder, Postgres, RawClient, frames, postgres_with,
};
use tempfile::TempDir;

/// The version as `pg_stat_ssl` writes it.
const TLS_1_3: &str = "TLSv1.3";

// --- clients ---

/// What clients have on disk: CAs and certificates by name.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn ca(&self, name: &str, authority: &Authority) -> String {
        let file = self.0.path().join(name);
        fs::write(&file, authority.certificate_pem()).unwrap();
        format!("sslrootcert={}", file.display())
    }

    fn identity(&self, name: &str, certificate: &Certificate) -> String {
        certificate.write_to(self.0.path(), name).unwrap();
        let directory = self.0.path().display();
        format!("sslcert={directory}/{name}.crt sslkey={directory}/{name}.key")
    }
}

fn trusting() -> Postgres {
    postgres_with(|builder| builder.hba(&["host all all all trust"]))
}

/// psql's session through the pooler: the TLS version that it got, `None` without TLS; or what psql said.
fn psql(pg: &Postgres, pooler: &Pooler, host: &str, how: &str) -> Result<Option<String>, String> {
    let position = pooler.log_position();
    let port = pooler.port();
    let target = format!("host={host} hostaddr=127.0.0.1 port={port} user=app dbname=app {how}");
    let mut command = pg.programs().command("psql");
    // No certificates from somebody's home.
    command.env("HOME", Path::new("/nonexistent"));
    let output = command.args(["-XAtc", "SELECT 1", &target]).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let line = pooler.wait_for_log(position, "client logged in");
    let version = line
        .split_once(r#""tls":""#)
        .map(|(_, rest)| rest.split('"').next().unwrap());
    Ok(version.map(str::to_owned))
}

#[track_caller]
fn assert_tls(session: Result<Option<String>, String>) {
    assert_eq!(session.unwrap().as_deref(), Some(TLS_1_3));
}

#[track_caller]
fn assert_plain(session: Result<Option<String>, String>) {
    assert_eq!(session.unwrap(), None);
}

#[track_caller]
fn assert_refused(session: Result<Option<String>, String>, words: &str) {
    let said = session.unwrap_err();
    assert!(said.contains(words), "{said}");
}

#[test]
fn without_client_tls_it_is_declined() {
    let pg = trusting();
    let pooler = Pooler::builder(&pg.address()).start();
    for how in ["disable", "allow", "prefer"] {
        assert_plain(psql(&pg, &pooler, "localhost", &format!("sslmode={how}")));
    }
    let refused = psql(&pg, &pooler, "localhost", "sslmode=require");
    assert_refused(refused, "server does not support SSL");
}

#[test]
fn allow_and_prefer_leave_it_to_the_client() {
    let (pg, authority) = (trusting(), Authority::new("CA").unwrap());
    for mode in ["allow", "prefer"] {
        let pooler = Pooler::builder(&pg.address())
            .client_tls(mode, &authority.server(&["localhost"]).unwrap())
            .start();
        for how in ["disable", "allow"] {
            assert_plain(psql(&pg, &pooler, "localhost", &format!("sslmode={how}")));
        }
        for how in ["prefer", "require"] {
            assert_tls(psql(&pg, &pooler, "localhost", &format!("sslmode={how}")));
        }
    }
}

#[test]
fn require_turns_plain_connections_away_and_shows_the_right_certificate() {
    let (pg, files) = (trusting(), Files::new());
    let (authority, other) = (Authority::new("CA").unwrap(), Authority::new("CA").unwrap());
    let (ca, wrong_ca) = (files.ca("ca", &authority), files.ca("other", &other));
    let pooler = Pooler::builder(&pg.address())
        .client_tls("require", &authority.server(&["localhost"]).unwrap())
        .start();
    let session = |host: &str, how: &str| psql(&pg, &pooler, host, how);
    assert_refused(session("localhost", "sslmode=disable"), "connection requires TLS");
    // libpq's `allow` comes back with TLS once it is refused without.
    for how in ["allow", "prefer", "require"] {
        assert_tls(session("localhost", &format!("sslmode={how}")));
    }
    assert_tls(session("elsewhere", &format!("sslmode=verify-ca {ca}")));
    assert_tls(session("localhost", &format!("sslmode=verify-full {ca}")));
    let refused = session("elsewhere", &format!("sslmode=verify-full {ca}"));
    assert_refused(refused, "does not match host name \"elsewhere\"");
    let refused = session("localhost", &format!("sslmode=verify-ca {wrong_ca}"));
    assert_refused(refused, "certificate verify failed");

    let mut plain = RawClient::connect(pooler.address());
    plain.send(frames::startup(frames::PROTOCOL_3_0, &[("user", "app")]));
    let error = plain.read();
    assert_eq!(error.field(b'C').as_deref(), Some("28000"), "{error:?}");
}

#[test]
fn the_verify_modes_insist_on_a_client_certificate() {
    let (pg, files) = (trusting(), Files::new());
    let (authority, other) = (Authority::new("CA").unwrap(), Authority::new("CA").unwrap());
    let issuing = authority.intermediate("issuing CA").unwrap();
    let right = files.identity("right", &authority.client("app").unwrap());
    let chained = files.identity("chained", &issuing.client("app").unwrap());
    let foreign = files.identity("foreign", &other.client("app").unwrap());
    let expired = authority.issue(&Leaf::client("app").expired()).unwrap();
    let expired = files.identity("expired", &expired);
    let server = files.identity("server", &authority.server(&["app"]).unwrap());
    let ca = files.ca("ca", &authority);
    for mode in ["verify-ca", "verify-full"] {
        let tls = "cert_file = 'server.crt', key_file = 'server.key', client_ca_file = 'ca.crt'";
        let pooler = Pooler::builder(&pg.address())
            .client_tls(mode, &authority.server(&["localhost"]).unwrap())
            .file("ca.crt", authority.certificate_pem())
            .set("listen.tls", format!("{{ mode = '{mode}', {tls} }}"))
            .start();
        let session = |how: &str| psql(&pg, &pooler, "localhost", how);
        assert_tls(session(&format!("sslmode=verify-full {ca} {right}")));
        assert_tls(session(&format!("sslmode=require {chained}")));
        assert!(session("sslmode=require").is_err());
        for refused in [&foreign, &expired, &server] {
            assert!(
                session(&format!("sslmode=require {refused}")).is_err(),
                "{refused}"
            );
        }
        assert_refused(session("sslmode=disable"), "connection requires TLS");
        assert_tls(session(&format!("sslmode=verify-ca {ca} {right}")));
    }
}

#[test]
fn a_client_certificate_that_is_shown_must_be_good_in_every_mode() {
    let (pg, files, authority) = (trusting(), Files::new(), Authority::new("CA").unwrap());
    let right = files.identity("right", &authority.client("app").unwrap());
    let other = Authority::new("CA").unwrap();
    let foreign = files.identity("foreign", &other.client("app").unwrap());
    let tls =
        "{ mode = 'require', cert_file = 'server.crt', key_file = 'server.key', client_ca_file = 'ca.crt' }";
    let pooler = Pooler::builder(&pg.address())
        .client_tls("require", &authority.server(&["localhost"]).unwrap())
        .file("ca.crt", authority.certificate_pem())
        .set("listen.tls", tls)
        .start();
    let session = |how: &str| psql(&pg, &pooler, "localhost", how);
    assert_tls(session("sslmode=require"));
    assert_tls(session(&format!("sslmode=require {right}")));
    assert!(session(&format!("sslmode=require {foreign}")).is_err());
}

#[test]
fn unusual_server_certificates_satisfy_verify_full() {
    let (pg, files, authority) = (trusting(), Files::new(), Authority::new("root CA").unwrap());
    let ca = files.ca("ca", &authority);
    let issuing = authority
        .intermediate("middle CA")
        .unwrap()
        .intermediate("issuing CA")
        .unwrap();
    let certificates = [
        // As cert-manager makes them for a Service.
        (
            "pooler",
            authority
                .issue(&Leaf::server(&["pooler"]).empty_subject())
                .unwrap(),
        ),
        (
            "pooler.app.svc",
            issuing.server(&["pooler", "pooler.app.svc"]).unwrap(),
        ),
        ("a.example.org", authority.server(&["*.example.org"]).unwrap()),
        ("127.0.0.1", authority.server(&["127.0.0.1"]).unwrap()),
    ];
    for (host, certificate) in certificates {
        let pooler = Pooler::builder(&pg.address())
            .client_tls("require", &certificate)
            .start();
        assert_tls(psql(&pg, &pooler, host, &format!("sslmode=verify-full {ca}")));
    }
}

#[test]
fn tls_1_2_is_spoken_unless_it_is_switched_off() {
    let (pg, authority) = (trusting(), Authority::new("CA").unwrap());
    let certificate = authority.server(&["localhost"]).unwrap();
    let only = |version: &str| {
        format!("sslmode=require ssl_min_protocol_version={version} ssl_max_protocol_version={version}")
    };
    let both = Pooler::builder(&pg.address())
        .client_tls("require", &certificate)
        .start();
    for version in ["TLSv1.2", "TLSv1.3"] {
        let session = psql(&pg, &both, "localhost", &only(version));
        assert_eq!(session, Ok(Some(version.to_owned())));
    }
    let tls =
        "{ mode = 'require', cert_file = 'server.crt', key_file = 'server.key', protocols = 'tlsv1.3' }";
    let newest = Pooler::builder(&pg.address())
        .client_tls("require", &certificate)
        .set("listen.tls", tls)
        .start();
    assert_refused(
        psql(&pg, &newest, "localhost", &only("TLSv1.2")),
        "protocol version",
    );
    assert_tls(psql(&pg, &newest, "localhost", &only("TLSv1.3")));
}

#[test]
fn a_reload_brings_a_new_certificate_to_new_clients_only() {
    let (pg, files) = (trusting(), Files::new());
    let (old, new) = (
        Authority::new("old CA").unwrap(),
        Authority::new("new CA").unwrap(),
    );
    let (old_ca, new_ca) = (files.ca("old", &old), files.ca("new", &new));
    let mut pooler = Pooler::builder(&pg.address())
        .client_tls("prefer", &old.server(&["localhost"]).unwrap())
        .start();
    let mut stays = RawClient::log_in(pooler.address(), "app", "", "app");
    assert_tls(psql(
        &pg,
        &pooler,
        "localhost",
        &format!("sslmode=verify-full {old_ca}"),
    ));
    let position = pooler.log_position();
    pooler.reconfigure(|builder| builder.client_tls("require", &new.server(&["localhost"]).unwrap()));
    pooler.reload();
    pooler.wait_for_log(position, "configuration reloaded");
    assert_tls(psql(
        &pg,
        &pooler,
        "localhost",
        &format!("sslmode=verify-full {new_ca}"),
    ));
    assert!(
        psql(
            &pg,
            &pooler,
            "localhost",
            &format!("sslmode=verify-full {old_ca}")
        )
        .is_err()
    );
    assert!(psql(&pg, &pooler, "localhost", "sslmode=disable").is_err());
    assert_eq!(stays.value("SELECT 1"), "1");
}

// --- servers ---

/// How a server connection is encrypted: the version in `pg_stat_ssl`, `None` without TLS; or what the client
/// is told: SQLSTATE and message.
fn server_tls(pooler: &Pooler, user: &str) -> Result<Option<String>, (String, String)> {
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", user), ("database", "app")],
    ));
    loop {
        let message = client.read();
        match message.tag {
            b'E' => return Err((message.field(b'C').unwrap(), message.field(b'M').unwrap())),
            b'Z' => break,
            _ => {}
        }
    }
    let version = client.value("SELECT coalesce(version, '') FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    Ok(Some(version).filter(|version| !version.is_empty()))
}

fn towards(host: &str, mode: &str) -> PoolerBuilder {
    let builder = Pooler::builder(host).set("server_tls.mode", format!("'{mode}'"));
    ["flexible", "encrypted", "clear", "certified"]
        .iter()
        .fold(builder, |builder, user| builder.user(user, "secret"))
}

fn trusts(builder: PoolerBuilder, authority: &Authority) -> PoolerBuilder {
    builder
        .file("ca.crt", authority.certificate_pem())
        .set("server_tls.ca_file", "'ca.crt'")
}

/// A PostgreSQL with TLS for `localhost` and `db.example`, and a role for each kind of rule.
fn encrypted(authority: &Authority, certificate: &Certificate) -> Postgres {
    let pg = postgres_with(|builder| {
        builder
            .mutual_tls(certificate, authority.certificate_pem())
            .setting("listen_addresses", "localhost")
            .hba(&[
                "host all flexible all trust",
                "hostssl all encrypted all trust",
                "hostnossl all clear all trust",
                "hostssl all certified all cert",
            ])
    });
    for role in ["flexible", "encrypted", "clear", "certified"] {
        pg.psql(&format!("CREATE ROLE {role} LOGIN")).unwrap();
    }
    pg
}

#[test]
fn each_server_mode_encrypts_as_much_as_it_says() {
    let authority = Authority::new("CA").unwrap();
    let pg = encrypted(
        &authority,
        &authority.server(&["localhost", "db.example"]).unwrap(),
    );
    let host = format!("localhost:{}", pg.port());
    let (yes, no) = (Some(TLS_1_3.to_owned()), None);
    // Over TLS if there is a choice, where only TLS is let in, where only clear text is.
    let (none, refused) = (Some(no.clone()), None);
    let expected = [
        ("disable", no.clone(), refused.clone(), none.clone()),
        ("allow", no, Some(yes.clone()), none.clone()),
        ("prefer", yes.clone(), Some(yes.clone()), none),
        ("require", yes.clone(), Some(yes.clone()), refused.clone()),
        ("verify-ca", yes.clone(), Some(yes.clone()), refused.clone()),
        ("verify-full", yes.clone(), Some(yes), refused),
    ];
    for (mode, flexible, only_tls, only_clear) in expected {
        let pooler = trusts(towards(&host, mode), &authority).start();
        assert_eq!(server_tls(&pooler, "flexible"), Ok(flexible), "{mode}");
        for (user, expected) in [("encrypted", only_tls), ("clear", only_clear)] {
            let got = server_tls(&pooler, user);
            match expected {
                Some(version) => assert_eq!(got, Ok(version), "{mode} {user}"),
                None => {
                    // In PostgreSQL's own words.
                    let (code, message) = got.unwrap_err();
                    assert_eq!(code, "28000", "{mode} {user}");
                    assert!(message.starts_with("no pg_hba.conf entry for host"), "{message}");
                }
            }
        }
    }
}

#[test]
fn a_server_without_tls_is_used_only_where_that_is_allowed() {
    let pg = trusting();
    for mode in ["disable", "allow", "prefer"] {
        let pooler = towards(&pg.address(), mode).start();
        assert_eq!(server_tls(&pooler, "app"), Ok(None), "{mode}");
    }
    let authority = Authority::new("CA").unwrap();
    for mode in ["require", "verify-ca", "verify-full"] {
        let pooler = trusts(towards(&pg.address(), mode), &authority).start();
        let (code, message) = server_tls(&pooler, "app").unwrap_err();
        assert_eq!(code, "08006", "{mode}");
        assert!(message.contains("TLS"), "{mode}: {message}");
    }
}

#[test]
fn whose_certificate_is_believed() {
    let (authority, other) = (Authority::new("CA").unwrap(), Authority::new("CA").unwrap());
    let issuing = authority.intermediate("issuing CA").unwrap();
    let certificate = issuing
        .issue(&Leaf::server(&["db", "db.example"]).empty_subject())
        .unwrap();
    let pg = encrypted(&authority, &certificate);
    let host = format!("localhost:{}", pg.port());
    let outcome = |builder: PoolerBuilder| server_tls(&builder.start(), "flexible");
    let good = Ok(Some(TLS_1_3.to_owned()));
    let named =
        |builder: PoolerBuilder, name: &str| builder.set("server_tls.server_name", format!("'{name}'"));

    // Below verify-ca anyone will do, even where a CA is named.
    assert_eq!(outcome(trusts(towards(&host, "require"), &other)), good);
    assert_eq!(outcome(trusts(towards(&host, "verify-ca"), &authority)), good);
    for name in ["db", "db.example"] {
        let builder = trusts(towards(&host, "verify-full"), &authority);
        assert_eq!(outcome(named(builder, name)), good, "{name}");
    }
    let refused = [
        trusts(towards(&host, "verify-full"), &authority),
        named(trusts(towards(&host, "verify-full"), &authority), "example"),
        trusts(towards(&host, "verify-ca"), &other),
        named(trusts(towards(&host, "verify-full"), &other), "db"),
    ];
    for builder in refused {
        let text = format!("{builder:?}");
        let (code, message) = outcome(builder).expect_err(&text);
        assert_eq!(code, "08006", "{text}");
        assert_eq!(message, "cannot agree on TLS with the PostgreSQL server");
    }
}

#[test]
fn the_reason_for_not_believing_a_server_is_told() {
    let (authority, other) = (Authority::new("CA").unwrap(), Authority::new("CA").unwrap());
    let pg = encrypted(&authority, &authority.server(&["db.example"]).unwrap());
    let host = format!("localhost:{}", pg.port());
    for (ca, words) in [
        (&authority, "certificate is for db.example, not for \"localhost\""),
        (&other, "not signed by a ca in server_tls.ca_file"),
    ] {
        let pooler = trusts(towards(&host, "verify-full"), ca).start();
        let mut client = RawClient::connect(pooler.address());
        client.send(frames::startup(
            frames::PROTOCOL_3_0,
            &[("user", "flexible"), ("database", "app")],
        ));
        let error = client.read_until(b'E').pop().unwrap();
        assert!(error.field(b'D').unwrap().contains(words), "{error:?}");
        assert!(error.field(b'H').unwrap().contains("server_tls"), "{error:?}");
    }
}

#[test]
fn a_client_certificate_logs_in_where_the_server_wants_one() {
    let authority = Authority::new("CA").unwrap();
    let pg = encrypted(&authority, &authority.server(&["localhost"]).unwrap());
    let host = format!("localhost:{}", pg.port());
    let shows = |builder: PoolerBuilder, certificate: &Certificate| {
        builder
            .file("client.crt", &certificate.certificate_pem)
            .file("client.key", &certificate.key_pem)
            .set("server_tls.cert_file", "'client.crt'")
            .set("server_tls.key_file", "'client.key'")
    };
    let issuing = authority.intermediate("issuing CA").unwrap();
    for certificate in [
        authority.client("certified").unwrap(),
        issuing.client("certified").unwrap(),
    ] {
        for mode in ["prefer", "verify-full"] {
            let pooler = shows(trusts(towards(&host, mode), &authority), &certificate).start();
            assert_eq!(
                server_tls(&pooler, "certified"),
                Ok(Some(TLS_1_3.to_owned())),
                "{mode}"
            );
        }
    }
    // Nobody else's, and not none, in the server's own words.
    let somebody = shows(towards(&host, "require"), &authority.client("somebody").unwrap()).start();
    let (code, message) = server_tls(&somebody, "certified").unwrap_err();
    assert_eq!(code, "28000");
    assert_eq!(
        message,
        "certificate authentication failed for user \"certified\""
    );
    for mode in ["allow", "prefer", "require"] {
        let (code, message) = server_tls(&towards(&host, mode).start(), "certified").unwrap_err();
        assert_eq!(code, "28000", "{mode}");
        assert_eq!(
            message, "connection requires a valid client certificate",
            "{mode}"
        );
    }
}

#[test]
fn tls_1_2_is_spoken_to_servers_unless_it_is_switched_off() {
    let authority = Authority::new("CA").unwrap();
    let certificate = authority.server(&["localhost"]).unwrap();
    let pg = postgres_with(|builder| {
        builder
            .tls(&certificate)
            .setting("ssl_max_protocol_version", "TLSv1.2")
            .hba(&["hostssl all all all trust"])
    });
    let pooler = towards(&pg.address(), "require").start();
    assert_eq!(server_tls(&pooler, "app"), Ok(Some("TLSv1.2".to_owned())));
    let newest = towards(&pg.address(), "require")
        .set("server_tls.protocols", "'tlsv1.3'")
        .start();
    assert_eq!(server_tls(&newest, "app").unwrap_err().0, "08006");
}
