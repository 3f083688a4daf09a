//! From the first byte to the first ReadyForQuery: direct TLS, protocol versions, startup parameters, limits. What
//! strangers do on purpose is in `hard_cases`.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
};

use support::{
    Authority, FakeServer, Frame, Pooler, RawClient, eventually,
    frames::{self, PROTOCOL_3_0},
    postgres_with, tags, tls,
};

const APP: [(&str, &str); 2] = [("user", "app"), ("database", "app")];

/// A server that lets everyone in and answers every query with one row.
fn server() -> FakeServer {
    FakeServer::answering(|_| {
        [
            frames::data_row(&["served"]),
            frames::command_complete("SELECT 1"),
            frames::ready_for_query(b'I'),
        ]
        .concat()
    })
}

fn with_tls(server: &FakeServer, authority: &Authority) -> Pooler {
    Pooler::builder(&server.address())
        .client_tls("prefer", &authority.server(&["localhost"]).unwrap())
        .start()
}

#[track_caller]
fn assert_served<S: Read + Write>(client: &mut RawClient<S>) {
    client.authenticate(&APP, "");
    assert_eq!(client.value("SELECT 'served'"), "served");
}

/// Sends `packet` on a new connection; what comes back until the connection is closed.
fn answer_to(pooler: &Pooler, packet: &[u8]) -> Vec<Frame> {
    let mut client = RawClient::connect(pooler.address());
    client.send(packet);
    client.read_to_end()
}

/// The SQLSTATE and message of the error that is all there is.
#[track_caller]
fn refusal(messages: &[Frame]) -> (String, String) {
    let error = messages.last().expect("something is answered");
    assert_eq!(error.tag, b'E', "{messages:?}");
    assert_eq!(error.field(b'V').unwrap(), "FATAL", "{error:?}");
    (error.field(b'C').unwrap(), error.field(b'M').unwrap())
}

// --- direct TLS ---

#[test]
fn direct_tls_needs_the_application_protocol() {
    let (server, authority) = (server(), Authority::new("CA").unwrap());
    let pooler = with_tls(&server, &authority);
    let connect = |protocols| {
        RawClient::over(tls(
            TcpStream::connect(pooler.address()).unwrap(),
            &authority,
            protocols,
        ))
    };
    assert_served(&mut connect(&[b"postgresql"]));
    assert_served(&mut connect(&[b"h2", b"postgresql"]));
    let other = [b"h2".as_slice()];
    for protocols in [&[][..], &other] {
        let mut client = connect(protocols);
        // Nobody has agreed that these bytes are PostgreSQL's, so nothing is said to them.
        let sent = client.try_send(frames::startup(PROTOCOL_3_0, &APP));
        let answer = sent.and_then(|()| client.try_read());
        assert!(answer.is_err(), "{protocols:?}: {answer:?}");
    }
    pooler.wait_for_log(0, "without ALPN");
    assert_served(&mut connect(&[b"postgresql"]));
}

#[test]
fn direct_tls_where_there_is_none_closes_the_connection() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    let authority = Authority::new("CA").unwrap();
    let stream = TcpStream::connect(pooler.address()).unwrap();
    let mut client = RawClient::over(tls(stream, &authority, &[b"postgresql"]));
    assert!(client.try_send(frames::startup(PROTOCOL_3_0, &APP)).is_err());
    assert_served(&mut RawClient::connect(pooler.address()));
}

// --- protocol versions ---

#[test]
fn other_major_versions_are_refused_in_words() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    for (version, number) in [
        (2 << 16, "2.0"),
        (4 << 16, "4.0"),
        (0, "0.0"),
        (1234 << 16 | 5600, "1234.5600"),
    ] {
        let (code, message) = refusal(&answer_to(&pooler, &frames::startup(version, &APP)));
        assert_eq!(code, "0A000", "{message}");
        assert!(
            message.starts_with(&format!("unsupported frontend protocol {number}: ")),
            "{message}"
        );
    }
}

// --- how many ---

#[test]
fn max_client_conn_is_said_and_a_place_is_free_again() {
    let server = server();
    let pooler = Pooler::builder(&server.address())
        .set("listen.max_client_conn", "2")
        .start();
    // Whoever has not said who it is takes no place.
    let silent = RawClient::connect(pooler.address());
    let first = RawClient::log_in(pooler.address(), "app", "", "app");
    let mut second = RawClient::log_in(pooler.address(), "app", "", "app");
    let refused = || answer_to(&pooler, &frames::startup(PROTOCOL_3_0, &APP));
    let (code, message) = refusal(&refused());
    assert_eq!(code, "53300");
    assert!(message.contains("max_client_conn"), "{message}");
    assert_eq!(second.value("SELECT 'served'"), "served");
    drop(first);
    let mut third = None;
    eventually("a place is free", || {
        let mut client = RawClient::connect(pooler.address());
        client.send(frames::startup(PROTOCOL_3_0, &APP));
        let let_in = client.read().tag == b'R';
        third = let_in.then_some(client);
        let_in
    });
    let mut third = third.unwrap();
    third.read_until_ready();
    assert_eq!(third.value("SELECT 'served'"), "served");
    assert_eq!(refusal(&refused()).0, "53300");
    drop(silent);
}

// --- who and where ---

#[test]
fn a_user_is_needed_and_the_database_is_the_users_by_default() {
    let pg = postgres_with(|builder| builder.hba(&["host all all all trust"]));
    let pooler = Pooler::builder(&pg.address()).start();
    for parameters in [
        &[][..],
        &[("database", "app")],
        &[("user", ""), ("database", "app")],
    ] {
        let (code, message) = refusal(&answer_to(&pooler, &frames::startup(PROTOCOL_3_0, parameters)));
        assert_eq!(code, "28000");
        assert_eq!(message, "no PostgreSQL user name specified in startup packet");
    }
    let mut client = RawClient::connect(pooler.address());
    client.authenticate(&[("user", "app")], "");
    assert_eq!(client.value("SELECT current_database()"), "app");
}

#[test]
fn replication_is_refused_unless_it_is_off() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    for value in ["database", "true"] {
        let packet = frames::startup(PROTOCOL_3_0, &[APP[0], APP[1], ("replication", value)]);
        let (sqlstate, message) = refusal(&answer_to(&pooler, &packet));
        assert_eq!(sqlstate, "42501", "{message}");
    }
    let packet = frames::startup(PROTOCOL_3_0, &[APP[0], APP[1], ("replication", "perhaps")]);
    assert_eq!(refusal(&answer_to(&pooler, &packet)).0, "22023");
    let mut client = RawClient::connect(pooler.address());
    client.authenticate(&[APP[0], APP[1], ("replication", "false")], "");
}

#[test]
fn an_unknown_database_is_3d000_with_and_without_a_wildcard() {
    let pg = postgres_with(|builder| builder.hba(&["host all all all trust"]));
    let unknown = frames::startup(PROTOCOL_3_0, &[("user", "app"), ("database", "nowhere")]);
    let expected = (
        "3D000".to_owned(),
        "database \"nowhere\" does not exist".to_owned(),
    );

    let mut direct = RawClient::connect(&pg.address());
    direct.send(&unknown);
    assert_eq!(refusal(&direct.read_to_end()), expected);

    let wildcard = Pooler::builder(&pg.address()).start();
    for _ in 0..2 {
        assert_eq!(refusal(&answer_to(&wildcard, &unknown)), expected);
    }
    // A refusal is not remembered against the database.
    pg.psql("CREATE DATABASE nowhere").unwrap();
    let mut client = RawClient::log_in(wildcard.address(), "app", "", "nowhere");
    assert_eq!(client.value("SELECT current_database()"), "nowhere");

    let named = Pooler::builder(&pg.address())
        .without(r#"databases."*""#)
        .set("databases.app.hosts", format!("'{}'", pg.address()))
        .start();
    assert_eq!(refusal(&answer_to(&named, &unknown)), expected);
    assert_served_by(&named, "app");
}

#[track_caller]
fn assert_served_by(pooler: &Pooler, database: &str) {
    let mut client = RawClient::log_in(pooler.address(), "app", "", database);
    assert_eq!(client.value("SELECT current_database()"), database);
}

// --- startup parameters ---

/// What an address reports after a log-in with these parameters.
fn reported(address: &str, parameters: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut client = RawClient::connect(address);
    client.authenticate(&[&APP, parameters].concat(), "");
    client.parameters.into_iter().collect()
}

#[test]
fn reported_parameters_are_those_of_a_direct_connection() {
    let pg = postgres_with(|builder| builder.hba(&["host all all all trust"]));
    pg.psql("ALTER ROLE app SET IntervalStyle = 'sql_standard'")
        .unwrap();
    let pooler = Pooler::builder(&pg.address())
        .set("pool.default_pool_size", "1")
        .start();
    let sets: [&[(&str, &str)]; 9] = [
        &[],
        &[
            ("client_encoding", "latin-1"),
            ("TimeZone", "europe/berlin"),
            ("DateStyle", "german"),
        ],
        &[("client_encoding", "'utf-8'")],
        &[
            ("timezone", "<+03>-3"),
            ("datestyle", "iso, dmy"),
            ("intervalstyle", "ISO_8601"),
        ],
        &[("application_name", "psql"), ("standard_conforming_strings", "0")],
        &[("application_name", "tést \\ 'x'"), ("TimeZone", "utc")],
        &[
            ("default_transaction_read_only", "true"),
            ("extra_float_digits", "2"),
        ],
        &[(
            "options",
            "-c datestyle=sql,ymd --timezone=PST8PDT -c application_name=from\\ options",
        )],
        &[
            ("client_encoding", "SQL_ASCII"),
            ("application_name", "x"),
            ("options", "-c client_encoding=win1252"),
        ],
    ];
    for parameters in sets {
        let direct = reported(&pg.address(), parameters);
        assert!(direct.len() >= 12, "{direct:?}");
        for log_in in ["first", "second"] {
            assert_eq!(
                reported(pooler.address(), parameters),
                direct,
                "{log_in} {parameters:?}"
            );
        }
    }
    // Who comes after all of them has none of it.
    assert_eq!(reported(pooler.address(), &[]), reported(&pg.address(), &[]));
}

#[test]
fn any_startup_parameter_is_the_sessions() {
    let pg = postgres_with(|builder| builder.hba(&["host all all all trust"]));
    let pooler = Pooler::builder(&pg.address())
        .set("pool.default_pool_size", "1")
        .start();
    let parameters = [
        ("search_path", "\"A b\", public"),
        ("extra_float_digits", "3"),
        ("statement_timeout", "5s"),
        ("geqo_threshold", "7"),
        ("my.own", "it's \\ \"mine\" ✓"),
        (
            "options",
            "-c work_mem=2MB --lock-timeout=250 -cidle_in_transaction_session_timeout=1min",
        ),
    ];
    let shown = |client: &mut RawClient| {
        let names = [
            "search_path",
            "extra_float_digits",
            "statement_timeout",
            "geqo_threshold",
            "my.own",
            "work_mem",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
        ];
        names.map(|name| client.value(&format!("SHOW {name}")))
    };
    let connect = |address: &str, parameters: &[(&str, &str)]| {
        let mut client = RawClient::connect(address);
        client.authenticate(&[&APP, parameters].concat(), "");
        client
    };
    let direct = shown(&mut connect(&pg.address(), &parameters));
    let mut other = connect(pooler.address(), &[]);
    let before = other.value("SHOW statement_timeout");
    let mut client = connect(pooler.address(), &parameters);
    for _ in 0..2 {
        assert_eq!(shown(&mut client), direct);
        assert_eq!(
            other.value("SHOW statement_timeout"),
            before,
            "over the same server connection"
        );
    }
}

#[test]
fn a_bad_value_is_refused_in_postgresqls_words() {
    let pg = postgres_with(|builder| builder.hba(&["host all all all trust"]));
    let pooler = Pooler::builder(&pg.address())
        .set("pool.default_pool_size", "1")
        .start();
    for (name, value) in [
        ("statement_timeout", "soon"),
        ("nosuch", "1"),
        ("client_encoding", "klingon"),
        ("TimeZone", "Mars/Olympus"),
        ("DateStyle", "upside, down"),
        ("extra_float_digits", "99"),
        ("options", "-c work_mem=lots"),
        ("log_statement", "all"),
        ("search_path", "\"unfinished"),
    ] {
        let packet = frames::startup(PROTOCOL_3_0, &[APP[0], APP[1], (name, value)]);
        let mut direct = RawClient::connect(&pg.address());
        direct.send(&packet);
        let expected = direct.read_to_end().pop().unwrap();
        let messages = answer_to(&pooler, &packet);
        let code_and_text = refusal(&messages);
        assert_eq!(Some(code_and_text.0), expected.field(b'C'), "{name}");
        assert_eq!(Some(code_and_text.1), expected.field(b'M'), "{name}");
        let hint = messages.last().unwrap().field(b'H');
        assert_eq!(hint, expected.field(b'H'), "{name}");
        assert!(!tags(&messages).contains('Z'), "{name}");
    }
    assert_served_by(&pooler, "app");
}

#[test]
fn a_switch_that_is_no_setting_is_named() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    let packet = frames::startup(PROTOCOL_3_0, &[APP[0], APP[1], ("options", "-c a=b -P")]);
    let (code, message) = refusal(&answer_to(&pooler, &packet));
    assert_eq!(code, "22023");
    assert!(message.ends_with("-P"), "{message}");
}
