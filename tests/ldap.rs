//! The method `ldap`: OpenLDAP says whether a password is the user's, and PostgreSQL gets the same one.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    io::Write,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use support::{Authority, Pooler, PoolerBuilder, Postgres, RawClient, Slapd, frames, postgres_with, tags};

const PASSWORD: &str = "pässword";
const PEOPLE: &[(&str, &str)] = &[("alice", PASSWORD), ("bob", "bobs"), ("twin", "1"), ("twin", "2")];
const SUFFIX: &str = "dc=example,dc=net";

/// A PostgreSQL that wants a password of its own, in which alice has the same one as in the directory.
fn postgres() -> Postgres {
    let pg = postgres_with(|builder| builder.hba(&["local all all trust", "host all all all scram-sha-256"]));
    pg.psql(&format!("CREATE ROLE alice LOGIN PASSWORD '{PASSWORD}'"))
        .unwrap();
    pg
}

/// A pgweir in front of nothing, or of a server, with this line for everybody.
fn with_options(server: &str, options: &str) -> PoolerBuilder {
    Pooler::builder(server)
        .set("auth.auth_type", "'hba'")
        .set("auth.hba_file", "'hba.conf'")
        .set("auth.allow_plaintext_password", "true")
        .set("auth.stats_users", "['alice', 'bob', 'twin', 'ghost']")
        .file("hba.conf", format!("host all all all ldap {options}\n"))
}

fn simple(port: u16) -> String {
    format!("ldapserver=127.0.0.1 ldapport={port} ldapprefix=\"uid=\" ldapsuffix=\",ou=people,{SUFFIX}\"")
}

fn searching(port: u16) -> String {
    format!(
        "ldapserver=127.0.0.1 ldapport={port} ldapbasedn=\"{SUFFIX}\" ldapbinddn=\"cn=reader,{SUFFIX}\" \
         ldapbindpasswd=reader ldapsearchattribute=uid"
    )
}

/// What becomes of a log-in: `in`, or SQLSTATE and message.
fn log_in(pooler: &Pooler, user: &str, database: &str, password: &str) -> String {
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", user), ("database", database)],
    ));
    loop {
        let message = client.read();
        match (message.tag, message.body.get(..4)) {
            (b'R', Some([0, 0, 0, 3])) => client.send(frames::frame(b'p', frames::text(password))),
            (b'R', Some([0, 0, 0, 0])) | (b'S' | b'K' | b'N', _) => {}
            (b'Z', _) => return "in".to_owned(),
            (b'E', _) => {
                let field = |code| message.field(code).unwrap();
                return format!("{} {}", field(b'C'), field(b'M'));
            }
            _ => panic!("unexpected while logging in: {message:?}"),
        }
    }
}

fn refused(user: &str) -> String {
    format!("28000 LDAP authentication failed for user \"{user}\"")
}

const UNAVAILABLE: &str = "08006 the LDAP server that knows the password could not be asked";

#[test]
fn the_password_of_the_directory_serves_the_server_too() {
    let authority = Authority::new("CA").unwrap();
    let Some(slapd) = Slapd::start(PEOPLE, &authority) else {
        return;
    };
    let pg = postgres();
    for options in [simple(slapd.port), searching(slapd.port)] {
        let pooler = with_options(&pg.address(), &options).start();
        let mut client = RawClient::connect(pooler.address());
        client.authenticate(&[("user", "alice"), ("database", "app")], PASSWORD);
        assert_eq!(client.value("SELECT current_user"), "alice");
        assert_eq!(tags(&client.query("SELECT 1")), "TDCZ");
        assert!(!pooler.logs().contains(PASSWORD));
    }
}

#[test]
fn whoever_is_not_the_user_stays_out() {
    let authority = Authority::new("CA").unwrap();
    let Some(slapd) = Slapd::start(PEOPLE, &authority) else {
        return;
    };
    for (options, unknown) in [
        (simple(slapd.port), "invalidCredentials"),
        (searching(slapd.port), "LDAP user does not exist"),
    ] {
        let pooler = with_options("127.0.0.1:1", &options)
            .set("auth.max_auth_failures", "0")
            .start();
        assert_eq!(log_in(&pooler, "alice", "pgweir", PASSWORD), "in");
        assert_eq!(log_in(&pooler, "bob", "pgweir", "bobs"), "in");
        for (user, password, reason) in [
            ("alice", "wrong", "invalidCredentials"),
            ("alice", "", "the password is empty"),
            ("alice", "bobs", "invalidCredentials"),
            ("ghost", PASSWORD, unknown),
            ("ghost", "", "the password is empty"),
            ("*", PASSWORD, ""),
            ("alice)(uid=*", PASSWORD, ""),
            ("alice,ou=people", PASSWORD, ""),
            ("al\\69ce", PASSWORD, "invalid character"),
            ("bob,ou=people,dc=example,dc=net\0", "bobs", ""),
        ] {
            let user = user.trim_end_matches('\0');
            let position = pooler.log_position();
            assert_eq!(
                log_in(&pooler, user, "pgweir", password),
                refused(user),
                "{options}"
            );
            let line = pooler.wait_for_log(position, "log-in failed");
            assert!(line.contains(reason), "{line}");
        }
    }
}

#[test]
fn a_search_finds_one_or_none() {
    let authority = Authority::new("CA").unwrap();
    let Some(slapd) = Slapd::start(PEOPLE, &authority) else {
        return;
    };
    let pooler = with_options("127.0.0.1:1", &searching(slapd.port)).start();
    for password in ["1", "2"] {
        let position = pooler.log_position();
        assert_eq!(log_in(&pooler, "twin", "pgweir", password), refused("twin"));
        pooler.wait_for_log(position, "LDAP user is not unique");
    }
    // Who may not search is not the client's fault.
    let wrong = searching(slapd.port).replace("ldapbindpasswd=reader", "ldapbindpasswd=wrong");
    let pooler = with_options("127.0.0.1:1", &wrong).start();
    let position = pooler.log_position();
    assert_eq!(log_in(&pooler, "alice", "pgweir", PASSWORD), UNAVAILABLE);
    let line = pooler.wait_for_log(position, "log-in failed");
    assert!(line.contains("bind for the search failed: result 49"), "{line}");
    assert!(pooler.logs().lines().all(|line| !line.contains("ldapbindpasswd")));
    let url = format!(
        "ldapurl=\"ldap://127.0.0.1:{}/{SUFFIX}?cn?sub\" ldapbinddn=\"cn=reader,{SUFFIX}\" ldapbindpasswd=reader",
        slapd.port
    );
    let pooler = with_options("127.0.0.1:1", &url).start();
    assert_eq!(log_in(&pooler, "bob", "pgweir", "bobs"), "in");
}

#[test]
fn a_certificate_is_verified() {
    let (authority, other) = (Authority::new("CA").unwrap(), Authority::new("other").unwrap());
    let Some(slapd) = Slapd::start(PEOPLE, &authority) else {
        return;
    };
    let ldaps = format!("ldapscheme=ldaps {}", simple(slapd.tls_port));
    let start_tls = format!("ldaptls=1 {}", searching(slapd.port));
    for options in [&ldaps, &start_tls] {
        let named = options.replace("ldapserver=127.0.0.1", "ldapserver=localhost");
        for (options, ca, expected) in [
            (&named, &authority, "in"),
            (&named, &other, UNAVAILABLE),
            (options, &authority, UNAVAILABLE),
        ] {
            let pooler = with_options("127.0.0.1:1", options)
                .set("auth.ldap_ca_file", "'ldap.crt'")
                .file("ldap.crt", ca.certificate_pem())
                .start();
            let position = pooler.log_position();
            assert_eq!(
                log_in(&pooler, "alice", "pgweir", PASSWORD),
                expected,
                "{options}"
            );
            if expected != "in" {
                let line = pooler.wait_for_log(position, "log-in failed");
                assert!(line.contains("certificate"), "{line}");
            }
        }
    }
}

/// Needs no slapd: there is none, or something else.
#[test]
fn a_directory_that_is_away_is_nobodys_wrong_password() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let talks = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let (silent_port, talking_port) = (port(&silent), port(&talks));
    thread::spawn(move || {
        // Sequences within each other, more than any stack has place for, if they were looked into.
        let mut nested = Vec::new();
        for _ in 0..10_000 {
            let length = u32::try_from(nested.len()).unwrap();
            nested.extend(length.to_le_bytes());
            nested.extend([0x84, 0x30]);
        }
        nested.reverse();
        while let Ok((mut stream, _)) = talks.accept() {
            // The pooler may have hung up before the end.
            drop(stream.write_all(&nested));
        }
    });
    for (port, reason) in [
        (1, "refused"),
        (silent_port, "no answer in time"),
        (talking_port, "malformed LDAP message"),
    ] {
        let pooler = with_options("127.0.0.1:1", &simple(port))
            .set("auth.max_auth_failures", "1")
            .start();
        let began = Instant::now();
        let position = pooler.log_position();
        for _ in 0..2 {
            assert_eq!(log_in(&pooler, "alice", "pgweir", PASSWORD), UNAVAILABLE);
            if port == silent_port {
                break;
            }
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let line = pooler.wait_for_log(position, "log-in failed");
        assert!(line.contains(reason), "{line}");
        let failures = support::sum_of_samples(&pooler.metrics(), "pgweir_auth_failures_total");
        assert!(failures.abs() < f64::EPSILON, "nobody has guessed");
    }
}

#[test]
fn another_server_is_asked_when_the_first_is_away() {
    let authority = Authority::new("CA").unwrap();
    let Some(mut slapd) = Slapd::start(PEOPLE, &authority) else {
        return;
    };
    let options = simple(slapd.port).replace("=127.0.0.1 ", "=\"127.0.0.1:1 127.0.0.1\" ");
    let pooler = with_options("127.0.0.1:1", &options).start();
    assert_eq!(log_in(&pooler, "bob", "pgweir", "bobs"), "in");
    slapd.stop();
    assert_eq!(log_in(&pooler, "bob", "pgweir", "bobs"), UNAVAILABLE);
}

#[test]
fn a_password_does_not_go_over_the_wire_in_clear_unasked() {
    let pooler = with_options("127.0.0.1:1", &simple(1))
        .set("auth.allow_plaintext_password", "false")
        .start();
    let said = log_in(&pooler, "alice", "pgweir", PASSWORD);
    assert_eq!(said, "28000 password authentication without TLS is not allowed");
}
