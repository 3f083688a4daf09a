//! From the first byte to the first ReadyForQuery: encryption requests, lengths, protocol versions, startup
//! parameters, limits.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use support::{
    Authority, FakeServer, Frame, Pooler, RawClient, eventually,
    frames::{self, GSSENC_REQUEST, PROTOCOL_3_0, PROTOCOL_3_2, SSL_REQUEST},
    postgres_with, tags,
};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
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

/// TLS on a connected socket, with these application protocols; the handshake is done by the first use.
fn tls(
    stream: TcpStream,
    authority: &Authority,
    protocols: &[&[u8]],
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    let pem = authority.certificate_pem().as_bytes();
    roots.add(CertificateDer::from_pem_slice(pem).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
}

#[track_caller]
fn assert_served<S: Read + Write>(client: &mut RawClient<S>) {
    client.authenticate(&APP, "");
    assert_eq!(client.value("SELECT 'served'"), "served");
}

/// Sends each byte in a packet of its own.
fn send_bytewise<S: Read + Write>(client: &mut RawClient<S>, bytes: &[u8]) {
    for byte in bytes {
        client.send([*byte]);
    }
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

// --- encryption requests ---

#[test]
fn both_encryption_requests_are_declined_in_either_order() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    for order in [[SSL_REQUEST, GSSENC_REQUEST], [GSSENC_REQUEST, SSL_REQUEST]] {
        let mut client = RawClient::connect(pooler.address());
        for code in order {
            client.send(frames::request(code));
            assert_eq!(client.read_byte(), b'N', "{order:?}");
        }
        assert_served(&mut client);
    }
}

#[test]
fn gssenc_is_declined_before_tls_and_refused_inside_it() {
    let (server, authority) = (server(), Authority::new("CA").unwrap());
    let pooler = with_tls(&server, &authority);
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::request(GSSENC_REQUEST));
    assert_eq!(client.read_byte(), b'N');
    client.send(frames::request(SSL_REQUEST));
    assert_eq!(client.read_byte(), b'S');
    let mut client = RawClient::over(tls(client.into_stream(), &authority, &[]));
    assert_served(&mut client);

    let mut client = RawClient::connect(pooler.address());
    client.send(frames::request(SSL_REQUEST));
    assert_eq!(client.read_byte(), b'S');
    let mut client = RawClient::over(tls(client.into_stream(), &authority, &[]));
    client.send(frames::request(GSSENC_REQUEST));
    assert_eq!(refusal(&client.read_to_end()).0, "08P01");
}

#[test]
fn an_encryption_request_is_answered_once() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    for code in [SSL_REQUEST, GSSENC_REQUEST] {
        let mut client = RawClient::connect(pooler.address());
        client.send(frames::request(code));
        assert_eq!(client.read_byte(), b'N');
        client.send(frames::request(code));
        assert_eq!(refusal(&client.read_to_end()).0, "08P01", "{code}");
    }
}

#[test]
fn a_startup_may_come_byte_by_byte() {
    let (server, authority) = (server(), Authority::new("CA").unwrap());
    let pooler = with_tls(&server, &authority);
    let mut client = RawClient::connect(pooler.address());
    send_bytewise(&mut client, &frames::request(GSSENC_REQUEST));
    assert_eq!(client.read_byte(), b'N');
    send_bytewise(&mut client, &frames::request(SSL_REQUEST));
    assert_eq!(client.read_byte(), b'S');
    let mut client = RawClient::over(tls(client.into_stream(), &authority, &[]));
    send_bytewise(&mut client, &frames::startup(PROTOCOL_3_0, &APP));
    assert!(tags(&client.read_until_ready()).ends_with("KZ"));
    send_bytewise(&mut client, &frames::query("SELECT 'served'"));
    assert_eq!(tags(&client.read_until_ready()), "DCZ");
}

#[test]
fn plaintext_behind_an_ssl_request_is_refused() {
    let (server, authority) = (server(), Authority::new("CA").unwrap());
    let pooler = with_tls(&server, &authority);
    let behind: [&[u8]; 3] = [
        &frames::startup(PROTOCOL_3_0, &APP),
        // The beginning of a TLS record: a client that does not wait for the answer.
        &[0x16, 3, 1, 0, 5],
        b"x",
    ];
    for behind in behind {
        let packet = [&frames::request(SSL_REQUEST), behind].concat();
        assert_eq!(refusal(&answer_to(&pooler, &packet)).0, "08P01", "{behind:?}");
    }
    // One GSSENCRequest in front changes nothing.
    let packet = [
        frames::request(GSSENC_REQUEST),
        frames::request(SSL_REQUEST),
        b"x".to_vec(),
    ]
    .concat();
    let mut client = RawClient::connect(pooler.address());
    client.send(packet);
    assert_eq!(client.read_byte(), b'N');
    assert_eq!(refusal(&client.read_to_end()).0, "08P01");
    assert_eq!(server.accepted(), 0);
}

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

// --- lengths ---

/// A line of `/proc/PID/status`, in kB.
fn memory(pooler: &Pooler, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pooler.pid())).unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    value
        .trim_start_matches(':')
        .trim()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn impossible_startup_lengths_are_refused_without_memory_for_them() {
    let server = server();
    let mut pooler = Pooler::builder(&server.address()).start();
    assert_served(&mut RawClient::connect(pooler.address()));
    let before = memory(&pooler, "VmPeak");
    for length in [0, 1, 4, 7, 10_001, i32::MAX, i32::MIN, -1] {
        let (code, message) = refusal(&answer_to(&pooler, &length.to_be_bytes()));
        assert_eq!(
            (code.as_str(), message.as_str()),
            ("08P01", "invalid length of startup packet"),
            "{length}"
        );
    }
    // The largest lengths are 2 and 4 GiB.
    let grown = memory(&pooler, "VmPeak") - before;
    assert!(grown < 1 << 20, "{grown} kB more");
    assert!(pooler.is_running());
    assert_served(&mut RawClient::connect(pooler.address()));
}

#[test]
fn the_longest_startup_is_served() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    let fixed = frames::startup(PROTOCOL_3_0, &[APP[0], APP[1], ("application_name", "")]).len();
    let name = "x".repeat(10_000 - fixed);
    let packet = frames::startup(PROTOCOL_3_0, &[APP[0], APP[1], ("application_name", &name)]);
    assert_eq!(packet.len(), 10_000);
    let mut client = RawClient::connect(pooler.address());
    client.send(packet);
    client.read_until_ready();
}

#[test]
fn a_startup_without_its_end_is_refused() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    let version = PROTOCOL_3_0.to_be_bytes();
    for body in [&b"user\0app"[..], b"user\0app\0", b"user\0app\0\0more", b"user\0"] {
        let packet = frames::untagged([&version, body].concat());
        assert_eq!(refusal(&answer_to(&pooler, &packet)).0, "08P01", "{body:?}");
    }
}

#[test]
fn long_passwords_are_read_and_endless_ones_are_not() {
    let server = server();
    let token = "t".repeat(60_000);
    let mut pooler = Pooler::builder(&server.address())
        .set("auth.auth_type", "'password'")
        .set("auth.allow_plaintext_password", "true")
        .user("app", &token)
        .start();
    let mut client = RawClient::log_in(pooler.address(), "app", &token, "app");
    assert_eq!(client.value("SELECT 'served'"), "served");
    let before = memory(&pooler, "VmPeak");
    for length in [100_000, i32::MAX, 3, -1] {
        let mut client = RawClient::connect(pooler.address());
        client.send(frames::startup(PROTOCOL_3_0, &APP));
        assert_eq!(client.read().body, 3_i32.to_be_bytes());
        client.send([&b"p"[..], &length.to_be_bytes()].concat());
        assert_eq!(refusal(&client.read_to_end()).0, "08P01", "{length}");
    }
    let grown = memory(&pooler, "VmPeak") - before;
    assert!(grown < 1 << 20, "{grown} kB more");
    assert!(pooler.is_running());
}

// --- protocol versions ---

/// The version and the names of a NegotiateProtocolVersion.
fn negotiated(message: &Frame) -> (i32, Vec<String>) {
    assert_eq!(message.tag, b'v', "{message:?}");
    let (version, rest) = message.body.split_first_chunk().unwrap();
    let (count, rest) = rest.split_first_chunk().unwrap();
    let names = Frame {
        tag: b'v',
        body: rest.to_vec(),
    }
    .strings();
    let names: Vec<_> = names.into_iter().filter(|name| !name.is_empty()).collect();
    assert_eq!(usize::try_from(i32::from_be_bytes(*count)).unwrap(), names.len());
    (i32::from_be_bytes(*version), names)
}

/// The messages up to ReadyForQuery after a startup of this version, and the length of the cancel key.
fn start(pooler: &Pooler, version: i32, parameters: &[(&str, &str)]) -> (Vec<Frame>, usize) {
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(version, parameters));
    let messages = client.read_until_ready();
    assert_eq!(client.value("SELECT 'served'"), "served");
    (messages, client.key.unwrap().len() - 4)
}

#[test]
fn known_versions_need_no_negotiation_and_differ_in_the_cancel_key() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    for (version, key_length) in [(PROTOCOL_3_0, 4), (PROTOCOL_3_2, 32)] {
        let (messages, length) = start(&pooler, version, &APP);
        assert_eq!((messages[0].tag, length), (b'R', key_length), "{version:#x}");
        assert!(!tags(&messages).contains('v'));
    }
}

#[test]
fn newer_versions_and_unknown_options_are_negotiated_once_before_the_log_in() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    let options = [APP[0], ("_pq_.one", "1"), APP[1], ("_pq_.two", "on")];
    let both = ["_pq_.one".to_owned(), "_pq_.two".to_owned()];
    let newest = (3 << 16) | 9999;
    for (asked, parameters, spoken, unknown, key_length) in [
        (newest, &APP[..], PROTOCOL_3_2, &[][..], 32),
        (newest, &options, PROTOCOL_3_2, &both, 32),
        (PROTOCOL_3_2, &options, PROTOCOL_3_2, &both, 32),
        // libpq gives up when it is offered more than it asked for.
        (PROTOCOL_3_0, &options, PROTOCOL_3_0, &both, 4),
    ] {
        let (messages, length) = start(&pooler, asked, parameters);
        assert_eq!(negotiated(&messages[0]), (spoken, unknown.to_vec()), "{asked:#x}");
        assert_eq!(tags(&messages).matches('v').count(), 1);
        assert_eq!(messages[1].tag, b'R');
        assert_eq!(length, key_length, "{asked:#x}");
    }
}

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

// --- time, and those who do not stay ---

#[test]
fn whoever_does_not_log_in_in_time_is_cut_off() {
    let server = server();
    let authority = Authority::new("CA").unwrap();
    let pooler = Pooler::builder(&server.address())
        .set("listen.client_login_timeout", "'300ms'")
        .set("auth.auth_type", "'password'")
        .set("auth.allow_plaintext_password", "true")
        .client_tls("prefer", &authority.server(&["localhost"]).unwrap())
        .start();
    let mut logged_in = RawClient::log_in(pooler.address(), "app", "secret", "app");
    let begin = Instant::now();
    let silent = RawClient::connect(pooler.address());
    let mut half = RawClient::connect(pooler.address());
    half.send([0, 0]);
    let mut handshake = RawClient::connect(pooler.address());
    handshake.send(frames::request(SSL_REQUEST));
    assert_eq!(handshake.read_byte(), b'S');
    let mut password = RawClient::connect(pooler.address());
    password.send(frames::startup(PROTOCOL_3_0, &APP));
    assert_eq!(password.read().tag, b'R');
    for mut client in [silent, half, handshake, password] {
        client.read_to_end();
    }
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert_eq!(logged_in.value("SELECT 'served'"), "served");
}

#[test]
fn probes_that_connect_and_leave_make_no_noise() {
    let server = server();
    let authority = Authority::new("CA").unwrap();
    let pooler = with_tls(&server, &authority);
    let position = pooler.log_position();
    drop(RawClient::connect(pooler.address()));
    let mut half = RawClient::connect(pooler.address());
    half.send([0, 0, 0]);
    drop(half);
    for code in [SSL_REQUEST, GSSENC_REQUEST] {
        let mut asked = RawClient::connect(pooler.address());
        asked.send(frames::request(code));
        asked.read_byte();
        drop(asked);
    }
    let reset = TcpStream::connect(pooler.address()).unwrap();
    socket2::SockRef::from(&reset)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(reset);
    let left = || {
        pooler
            .logs()
            .lines()
            .skip(position)
            .filter(|line| line.contains("left before log-in"))
            .count()
    };
    eventually("each departure is noted", || left() == 5);
    for line in pooler.logs().lines().skip(position) {
        assert!(line.contains(r#""level":"DEBUG""#), "{line}");
    }
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    assert_served(&mut RawClient::connect(pooler.address()));
    let open = std::fs::read_dir(format!("/proc/{}/fd", pooler.pid()))
        .unwrap()
        .count();
    let limited = Command::new("prlimit")
        .args([
            "--pid",
            &pooler.pid().to_string(),
            &format!("--nofile={}:", open + 8),
        ])
        .status()
        .unwrap();
    assert!(limited.success());
    let crowd: Vec<_> = (0..40).map(|_| RawClient::connect(pooler.address())).collect();
    pooler.wait_for_log(0, "cannot accept connections");
    drop(crowd);
    // Those of the crowd that wait in the kernel's queue come first.
    assert_served(&mut RawClient::connect(pooler.address()));
    let lines = pooler.logs().matches("cannot accept connections").count();
    assert!(lines <= 2, "{lines} lines");
}

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
        assert_eq!(refusal(&answer_to(&pooler, &packet)).0, "0A000");
    }
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

#[test]
fn names_are_utf8() {
    let pg = postgres_with(|builder| builder.hba(&["host all all all trust"]));
    pg.psql("CREATE ROLE \"jörg ✓\" LOGIN").unwrap();
    pg.psql("CREATE DATABASE \"база данных\" OWNER \"jörg ✓\"")
        .unwrap();
    let pooler = Pooler::builder(&pg.address()).user("jörg ✓", "secret").start();
    let mut client = RawClient::log_in(pooler.address(), "jörg ✓", "", "база данных");
    let sql = "SELECT current_user || ' in ' || current_database()";
    assert_eq!(client.value(sql), "jörg ✓ in база данных");
    // Bytes that are no text are refused, not guessed at.
    let packet = [&PROTOCOL_3_0.to_be_bytes()[..], b"user\0j\xf6rg\0\0"].concat();
    assert_eq!(refusal(&answer_to(&pooler, &frames::untagged(packet))).0, "08P01");
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
