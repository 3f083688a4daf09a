//! Cases 1 to 8, 10, 12 and 13: what a stranger, or a server that is a stranger still, says before a log-in is done.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Authority, FakeConnection, FakeServer, Frame, Pooler, PoolerBuilder, Postgres, RawClient, eventually,
    frames::{self, GSSENC_REQUEST, PROTOCOL_3_0, PROTOCOL_3_2, SSL_REQUEST},
    postgres_with, sqlstates, stage, tags, tls,
};

const APP: [(&str, &str); 2] = [("user", "app"), ("database", "app")];

fn good() -> Vec<u8> {
    [
        frames::data_row(&["served"]),
        frames::command_complete("SELECT 1"),
        frames::ready_for_query(b'I'),
    ]
    .concat()
}

/// A server that lets everyone in and answers every query with one row.
fn server() -> FakeServer {
    FakeServer::answering(|_| good())
}

/// A PostgreSQL that lets everyone in, and a pool of one server connection in front of it.
fn trusting() -> (Postgres, Pooler) {
    let postgres = postgres_with(|builder| builder.hba(&["host all all all trust"]));
    let pooler = in_front_of(&postgres.address());
    (postgres, pooler)
}

fn in_front_of(address: &str) -> Pooler {
    Pooler::builder(address)
        .set("pool.default_pool_size", "1")
        .start()
}

fn asking(address: &str, method: &str) -> PoolerBuilder {
    Pooler::builder(address)
        .set("auth.auth_type", format!("'{method}'"))
        .set("auth.allow_plaintext_password", "true")
}

fn with_tls(server: &FakeServer, authority: &Authority) -> Pooler {
    Pooler::builder(&server.address())
        .client_tls("prefer", &authority.server(&["localhost"]).unwrap())
        .start()
}

fn log_in(pooler: &Pooler) -> RawClient {
    RawClient::log_in(pooler.address(), "app", "secret", "app")
}

/// A client with these settings beside user and database.
fn client_with(address: &str, settings: &[(&str, &str)]) -> RawClient {
    let mut client = RawClient::connect(address);
    client.authenticate(&[&APP, settings].concat(), "");
    client
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
fn answer_to(address: &str, packet: &[u8]) -> Vec<Frame> {
    let mut client = RawClient::connect(address);
    client.send(packet);
    client.read_to_end()
}

/// The SQLSTATE and message of the error that is the last word.
#[track_caller]
fn refusal(messages: &[Frame]) -> (String, String) {
    let error = messages.last().expect("something is answered");
    assert_eq!(error.tag, b'E', "{messages:?}");
    assert_eq!(error.field(b'V').unwrap(), "FATAL", "{error:?}");
    (error.field(b'C').unwrap(), error.field(b'M').unwrap())
}

// --- 1: plaintext behind an encryption request ---

/// Bytes that came in clear behind SSLRequest stayed in the read buffer and were taken for the first bytes inside TLS:
/// whoever sits in the middle could put words into an encrypted session.
#[test]
fn case_01_plaintext_behind_an_ssl_request_is_refused() {
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
        assert_eq!(
            refusal(&answer_to(pooler.address(), &packet)).0,
            "08P01",
            "{behind:?}"
        );
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

/// The same with the plaintext after the answer: it is fed to TLS, which it is not.
#[test]
fn case_01_plaintext_instead_of_a_handshake_is_not_looked_at() {
    let (server, authority) = (server(), Authority::new("CA").unwrap());
    let pooler = with_tls(&server, &authority);
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::request(SSL_REQUEST));
    assert_eq!(client.read_byte(), b'S');
    client.send(frames::startup(PROTOCOL_3_0, &APP));
    let mut answer = Vec::new();
    // A reset is as good as an alert.
    let _ = client.into_stream().read_to_end(&mut answer);
    assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
    assert_eq!(server.accepted(), 0);
}

// --- 2: GSSENCRequest ---

/// A client with a Kerberos ticket asks for GSSAPI encryption first. Poolers closed the connection, or answered what
/// they could not do.
#[test]
fn case_02_gssenc_is_declined_and_the_connection_goes_on() {
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

/// The same, and then TLS on the same connection.
#[test]
fn case_02_gssenc_is_declined_and_tls_follows() {
    let (server, authority) = (server(), Authority::new("CA").unwrap());
    let pooler = with_tls(&server, &authority);
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::request(GSSENC_REQUEST));
    assert_eq!(client.read_byte(), b'N');
    client.send(frames::request(SSL_REQUEST));
    assert_eq!(client.read_byte(), b'S');
    let mut client = RawClient::over(tls(client.into_stream(), &authority, &[]));
    assert_served(&mut client);
}

// --- 3: each request once, in any pieces ---

/// Answering SSLRequest for as long as it is asked keeps a connection open for ever without a log-in.
#[test]
fn case_03_an_encryption_request_is_answered_once() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    for code in [SSL_REQUEST, GSSENC_REQUEST] {
        let mut client = RawClient::connect(pooler.address());
        client.send(frames::request(code));
        assert_eq!(client.read_byte(), b'N');
        client.send(frames::request(code));
        assert_eq!(refusal(&client.read_to_end()).0, "08P01", "{code}");
    }
    // Inside TLS there is nothing more to ask for.
    let authority = Authority::new("CA").unwrap();
    let pooler = with_tls(&server, &authority);
    for code in [SSL_REQUEST, GSSENC_REQUEST] {
        let mut client = RawClient::connect(pooler.address());
        client.send(frames::request(SSL_REQUEST));
        assert_eq!(client.read_byte(), b'S');
        let mut client = RawClient::over(tls(client.into_stream(), &authority, &[]));
        client.send(frames::request(code));
        assert_eq!(refusal(&client.read_to_end()).0, "08P01", "{code}");
    }
}

/// A request that did not come in one packet was not recognised.
#[test]
fn case_03_requests_may_come_byte_by_byte() {
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

// --- 4: lengths ---

/// A length below its own size, or with its sign bit set, was subtracted from, cast and allocated.
#[test]
fn case_04_impossible_startup_lengths_are_refused_without_memory_for_them() {
    let server = server();
    let mut pooler = Pooler::builder(&server.address()).start();
    assert_served(&mut RawClient::connect(pooler.address()));
    let before = pooler.peak_address_space();
    for length in (0..8).chain([10_001, i32::MAX, i32::MIN, -1]) {
        let (code, message) = refusal(&answer_to(pooler.address(), &length.to_be_bytes()));
        assert_eq!(
            (code.as_str(), message.as_str()),
            ("08P01", "invalid length of startup packet"),
            "{length}"
        );
    }
    // The largest lengths are 2 and 4 GiB.
    let grown = pooler.peak_address_space() - before;
    assert!(grown < 1 << 30, "{grown} bytes more");
    assert!(pooler.is_running());
    assert_served(&mut RawClient::connect(pooler.address()));
}

/// The limit is PostgreSQL's, and inclusive.
#[test]
fn case_04_the_longest_startup_is_served() {
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

/// Strings that run to the end of the packet, and bytes behind the end of the list.
#[test]
fn case_04_a_startup_without_its_end_is_refused() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    let version = PROTOCOL_3_0.to_be_bytes();
    for body in [&b"user\0app"[..], b"user\0app\0", b"user\0app\0\0more", b"user\0"] {
        let packet = frames::untagged([&version, body].concat());
        assert_eq!(
            refusal(&answer_to(pooler.address(), &packet)).0,
            "08P01",
            "{body:?}"
        );
    }
}

/// The length of a cancel request's secret is the packet's, so it has to be checked like one.
#[test]
fn case_04_encryption_and_cancel_requests_have_their_lengths() {
    let server = server();
    let mut pooler = in_front_of(&server.address());
    let code = |code: i32, length: usize| [&code.to_be_bytes()[..], &vec![1; length]].concat();
    for body in [
        code(SSL_REQUEST, 1),
        code(GSSENC_REQUEST, 9_000),
        code(frames::CANCEL_REQUEST, 0),
        code(frames::CANCEL_REQUEST, 4),
        code(frames::CANCEL_REQUEST, 7),
        code(frames::CANCEL_REQUEST, 4 + 257),
        code(frames::CANCEL_REQUEST, 9_000),
    ] {
        let answer = answer_to(pooler.address(), &frames::untagged(&body));
        assert_eq!(refusal(&answer).0, "08P01", "{}", body.len());
    }
    // These are well-formed, and nobody's.
    for length in [8, 4 + 256] {
        let packet = frames::untagged(code(frames::CANCEL_REQUEST, length));
        assert!(answer_to(pooler.address(), &packet).is_empty());
    }
    assert!(pooler.is_running());
    assert_served(&mut RawClient::connect(pooler.address()));
}

// --- 5: partial and oversized log-ins ---

/// A log-in message in two packets was an error, or the second half was waited for that had come already; a query in
/// the same packet as the password was lost.
#[test]
fn case_05_a_log_in_may_come_in_any_two_pieces() {
    let server = server();
    let pooler = asking(&server.address(), "password").start();
    let whole = [
        frames::startup(PROTOCOL_3_0, &APP),
        frames::frame(b'p', frames::text("secret")),
        frames::query("SELECT 'served'"),
        frames::terminate(),
    ]
    .concat();
    for length in 1..whole.len() {
        let (first, rest) = whole.split_at(length);
        let mut client = RawClient::connect(pooler.address());
        client.send(first);
        client.send(rest);
        let messages = tags(&client.read_to_end());
        assert!(
            messages.starts_with("RR") && messages.ends_with("KZDCZ"),
            "{length}: {messages}"
        );
    }
    pooler.wait_until_quiet();
}

/// Tokens are passwords of up to 64 kB; a length beyond that is refused before anything is read for it.
#[test]
fn case_05_long_passwords_are_read_and_endless_ones_are_not() {
    let server = server();
    let token = "t".repeat(60_000);
    let mut pooler = Pooler::builder(&server.address())
        .set("auth.auth_type", "'password'")
        .set("auth.allow_plaintext_password", "true")
        .user("app", &token)
        .start();
    let mut client = RawClient::log_in(pooler.address(), "app", &token, "app");
    assert_eq!(client.value("SELECT 'served'"), "served");
    let before = pooler.peak_address_space();
    for length in [100_000, i32::MAX, 3, -1] {
        let mut client = RawClient::connect(pooler.address());
        client.send(frames::startup(PROTOCOL_3_0, &APP));
        assert_eq!(client.read().body, 3_i32.to_be_bytes());
        client.send([&b"p"[..], &length.to_be_bytes()].concat());
        assert_eq!(refusal(&client.read_to_end()).0, "08P01", "{length}");
    }
    let grown = pooler.peak_address_space() - before;
    assert!(grown < 1 << 30, "{grown} bytes more");
    assert!(pooler.is_running());
}

/// A client that stopped in the middle of its log-in was waited for without end, at any of its stages.
#[test]
fn case_05_whoever_does_not_log_in_in_time_is_cut_off() {
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

// --- 6: protocol versions and cancel keys ---

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

/// A client of 3.2 may be given a long cancel key; one of 3.0 has room for four bytes.
#[test]
fn case_06_known_versions_need_no_negotiation_and_differ_in_the_cancel_key() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    for (version, key_length) in [(PROTOCOL_3_0, 4), (PROTOCOL_3_2, 32)] {
        let (messages, length) = start(&pooler, version, &APP);
        assert_eq!((messages[0].tag, length), (b'R', key_length), "{version:#x}");
        assert!(!tags(&messages).contains('v'));
    }
}

/// NegotiateProtocolVersion came twice, after the log-in, with the wrong version or without the options' names.
#[test]
fn case_06_newer_versions_and_unknown_options_are_negotiated_once_before_the_log_in() {
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

/// A long cancel key has to be right to its last byte, and a part of it is not a key.
#[test]
fn case_06_a_long_cancel_key_counts_as_a_whole() {
    let stage = stage(1);
    let mut holder = stage.client();
    holder.query("BEGIN");
    let mut client = RawClient::connect(stage.pooler.address());
    client.send(frames::startup(PROTOCOL_3_2, &APP));
    client.read_until_ready();
    client.send(frames::query("SELECT 1"));
    stage.waits(1);
    let key = client.key.clone().unwrap();
    let (pid, secret) = key.split_first_chunk().unwrap();
    assert_eq!(secret.len(), 32);
    let pid = i32::from_be_bytes(*pid);
    let mut wrong = secret.to_vec();
    wrong[31] ^= 1;
    let longer = [secret, &[0]].concat();
    for secret in [&secret[..4], &secret[..31], &wrong, &longer] {
        // Closed when it has been dealt with.
        assert!(answer_to(stage.pooler.address(), &frames::cancel(pid, secret)).is_empty());
        stage.waits(1);
    }
    answer_to(stage.pooler.address(), &frames::cancel(pid, secret));
    assert_eq!(sqlstates(&client.read_until_ready()), ["57014"]);
    holder.query("COMMIT");
    stage.is_whole(&mut client);
}

// --- 7: startup strings are bytes ---

/// Each byte of a startup string was taken for a Latin-1 character: names beyond ASCII were garbled, and the server
/// knew no such user.
#[test]
fn case_07_names_are_utf8() {
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
    assert_eq!(
        refusal(&answer_to(pooler.address(), &frames::untagged(packet))).0,
        "08P01"
    );
}

/// The same of values, in every encoding that the session itself may use.
#[test]
fn case_07_values_arrive_as_they_do_without_a_pooler() {
    let (postgres, pooler) = trusting();
    let name = "naïve ✓ \\ 'quoted'";
    for encoding in ["UTF8", "LATIN1", "SJIS"] {
        let settings = [
            ("client_encoding", encoding),
            ("my.own", name),
            ("search_path", "\"ö x\", public"),
        ];
        // Read back in ASCII, whatever the session's encoding.
        let read = |address: &str| {
            let mut client = client_with(address, &settings);
            ["my.own", "search_path"].map(|name| {
                client.value(&format!(
                    "SELECT encode(convert_to(current_setting('{name}'), 'UTF8'), 'hex')"
                ))
            })
        };
        let direct = read(&postgres.address());
        for round in 0..2 {
            assert_eq!(read(pooler.address()), direct, "{encoding}, round {round}");
            assert_eq!(log_in(&pooler).value("SHOW client_encoding"), "UTF8");
        }
    }
}

// --- 8: untrusted startup parameters ---

/// A search_path in the startup packet reached the connection that asked for passwords, before the client had proved
/// who it is, and with it functions of the client's own. Here a hostile one must stay with the client that sent it:
/// neither the pooler's own statements nor another client may run with it.
#[test]
fn case_08_a_hostile_search_path_stays_with_its_client() {
    let (postgres, pooler) = trusting();
    postgres
        .psql_in(
            "app",
            "CREATE SCHEMA evil AUTHORIZATION app; SET ROLE app; CREATE TABLE evil.stolen (what text);
            CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS
                $$ INSERT INTO evil.stolen VALUES ($1); SELECT $2 $$;
            CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS $$ SELECT 'hijacked' $$",
        )
        .unwrap();
    let path = "evil, pg_catalog";
    // The very first client of the pool, so that nothing of it may become what others begin with.
    let mut hostile = client_with(pooler.address(), &[("search_path", path), ("my.own", "naïve")]);
    let mut options = client_with(
        pooler.address(),
        &[("options", "-c search_path=evil,\\ pg_catalog")],
    );
    let mut plain = log_in(&pooler);
    let mut own = client_with(
        pooler.address(),
        &[("search_path", "public"), ("work_mem", "5MB")],
    );
    for _ in 0..3 {
        for hostile in [&mut hostile, &mut options] {
            assert_eq!(hostile.value("SELECT lower('A')"), "hijacked");
        }
        assert_eq!(plain.value("SELECT lower('A')"), "a");
        assert_eq!(plain.value("SHOW search_path"), "\"$user\", public");
        assert_eq!(own.value("SHOW search_path"), "public");
        assert_eq!(hostile.value("SHOW search_path"), path);
    }
    // Nor does a transaction that fails with it leave it behind.
    hostile.query("BEGIN");
    hostile.query("SELECT 1/0");
    drop(hostile);
    assert_eq!(plain.value("SELECT lower('A')"), "a");
    assert_eq!(log_in(&pooler).value("SELECT lower('A')"), "a");
    assert_eq!(plain.value("SELECT count(*) FROM evil.stolen"), "0");
}

/// Names come from the packet as values do. Where strings are read in the old way, in which a backslash means
/// something, a name could end its literal.
#[test]
fn case_08_neither_names_nor_values_are_read_as_sql() {
    let (postgres, pooler) = trusting();
    postgres
        .psql("ALTER ROLE app SET standard_conforming_strings = off")
        .unwrap();
    let attack = ",false); CREATE TABLE pwned (); --";
    for (name, value) in [
        ("x.\\", attack),
        ("x.\\'", attack),
        // Cut down to a name that is allowed.
        (
            "x.\\",
            "::char(1)||$$.own$$,$$v$$,false); CREATE TABLE pwned (); --",
        ),
        ("x.y', 'z', false); CREATE TABLE pwned (); --", ""),
        ("\"", attack),
        ("work_mem", "\\'); CREATE TABLE pwned (); --"),
        ("x.own", "\\', false); CREATE TABLE pwned (); --"),
        ("x.own", "'; CREATE TABLE pwned (); --"),
    ] {
        let packet = frames::startup(PROTOCOL_3_0, &[APP[0], APP[1], (name, value)]);
        let mut client = RawClient::connect(pooler.address());
        client.send([packet, frames::query("SHOW x.own"), frames::terminate()].concat());
        client.read_to_end();
        let mut next = log_in(&pooler);
        assert_eq!(
            next.value("SELECT to_regclass('pwned') IS NULL"),
            "t",
            "{name}: {value}"
        );
    }
}

/// What a client may not become by SET, it does not become by its startup packet either.
#[test]
fn case_08_nobody_becomes_someone_else_by_a_startup_parameter() {
    let (postgres, pooler) = trusting();
    postgres.psql("CREATE ROLE friend; GRANT friend TO app").unwrap();
    for (name, value) in [
        ("role", "postgres"),
        ("session_authorization", "postgres"),
        ("is_superuser", "on"),
    ] {
        let packet = frames::startup(PROTOCOL_3_0, &[APP[0], APP[1], (name, value)]);
        let direct = answer_to(&postgres.address(), &packet);
        let pooled = answer_to(pooler.address(), &packet);
        assert_eq!(refusal(&pooled).0, refusal(&direct).0, "{name}");
        assert_eq!(
            log_in(&pooler).value("SELECT current_user || session_user"),
            "appapp"
        );
    }
    let mut friend = client_with(pooler.address(), &[("role", "friend")]);
    let mut plain = log_in(&pooler);
    for _ in 0..2 {
        assert_eq!(friend.value("SELECT current_user"), "friend");
        assert_eq!(plain.value("SELECT current_user"), "app");
    }
}

// --- 10: SCRAM with a hostile peer ---

fn scram_first() -> Vec<u8> {
    let message = "n,,n=,r=rOprNGfwEbeRWgbNEkqO";
    let length = i32::try_from(message.len()).unwrap().to_be_bytes();
    frames::frame(
        b'p',
        [b"SCRAM-SHA-256\0", &length[..], message.as_bytes()].concat(),
    )
}

/// A log-in that fails, as an onlooker without a secret sees it: the messages, the name taken out.
fn transcript(pooler: &Pooler, user: &str) -> Vec<String> {
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(
        PROTOCOL_3_0,
        &[("user", user), ("database", "app")],
    ));
    let mut seen = Vec::new();
    loop {
        let message = client.read();
        let fields = [b'S', b'V', b'C', b'M', b'D', b'H'].map(|field| message.field(field));
        seen.push(match message.tag {
            b'E' => format!("{fields:?}").replace(user, "USER"),
            _ => format!(
                "{}[{}] {:?}",
                char::from(message.tag),
                message.body.len(),
                &message.body[..4]
            ),
        });
        match message.body.get(..4) {
            _ if message.tag == b'E' => break,
            Some([0, 0, 0, 3 | 5]) => client.send(frames::frame(b'p', frames::text("md5wrong"))),
            Some([0, 0, 0, 10]) => client.send(scram_first()),
            Some([0, 0, 0, 11]) => {
                let first = String::from_utf8(message.body[4..].to_vec()).unwrap();
                // The length of the salt and the iterations tell no more than the length of the message.
                seen.push(first.rsplit(',').next().unwrap().to_owned());
                let nonce = first.split(',').next().unwrap();
                let proof = format!("{}=", "A".repeat(43));
                client.send(frames::frame(b'p', format!("c=biws,{nonce},p={proof}")));
            }
            _ => panic!("unexpected: {message:?}"),
        }
    }
    assert!(client.read_to_end().is_empty());
    seen
}

/// Whoever has no password must not learn from the answers which users there are.
#[test]
fn case_10_an_unknown_user_looks_like_a_wrong_password() {
    let server = FakeServer::answering(|_| Vec::new());
    let verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUjjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let all = [
        ("plain", "secret"),
        ("hashed", "md55f4dcc3b5aa765d61d8327deb882cf99"),
        ("verified", verifier),
    ];
    for (method, listed, known) in [
        ("password", &all[..], &["plain", "hashed", "verified"][..]),
        // Where nobody has a verifier, and where somebody has.
        ("md5", &all[..2], &["plain", "hashed"]),
        ("md5", &all, &["verified"]),
        ("scram-sha-256", &all, &["plain", "hashed", "verified"]),
    ] {
        let pooler = listed
            .iter()
            .fold(asking(&server.address(), method), |builder, (user, secret)| {
                builder.user(user, secret)
            })
            .start();
        let unknown = transcript(&pooler, "nobody");
        assert!(
            unknown.len() >= 2 && unknown.last().unwrap().contains("28P01"),
            "{unknown:?}"
        );
        for user in known {
            assert_eq!(transcript(&pooler, user), unknown, "{method} {user}");
        }
    }
    assert_eq!(server.accepted(), 0, "nobody was let in");
}

/// The salt that a SCRAM log-in is shown.
fn salt(pooler: &Pooler, user: &str) -> String {
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(PROTOCOL_3_0, &[("user", user)]));
    client.read();
    client.send(scram_first());
    let first = String::from_utf8(client.read().body[4..].to_vec()).unwrap();
    first.split(',').nth(1).unwrap().to_owned()
}

/// A salt that is new every time gives away that there is no such user.
#[test]
fn case_10_an_unknown_user_has_one_salt_as_real_users_have() {
    let server = FakeServer::answering(|_| Vec::new());
    let pooler = asking(&server.address(), "scram-sha-256").start();
    assert_eq!(salt(&pooler, "nobody"), salt(&pooler, "nobody"));
    assert_ne!(salt(&pooler, "nobody"), salt(&pooler, "noone"));
    assert_eq!(salt(&pooler, "app"), salt(&pooler, "app"));
}

/// Whether a driver can log in.
fn logs_in(driver: &tokio_postgres::Config) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(driver.connect(tokio_postgres::NoTls)).is_ok()
}

/// Lengths and nonces in a SASL message were copied into fixed buffers, or read past their end.
#[test]
fn case_10_broken_answers_are_refused_and_the_next_client_is_served() {
    let pg = postgres_with(|builder| builder.hba(&["host all all all trust"]));
    let mut pooler = asking(&pg.address(), "scram-sha-256").start();
    let sasl = |mechanism: &str, length: i32, data: &str| {
        let length = length.to_be_bytes();
        [mechanism.as_bytes(), b"\0", &length[..], data.as_bytes()].concat()
    };
    let long = format!("n,,n=,r={}", "r".repeat(5000));
    let answers = [
        Vec::new(),
        b"no mechanism".to_vec(),
        sasl("SCRAM-SHA-256-PLUS", 8, "p=tls-un"),
        sasl("SCRAM-SHA-256", i32::MAX, "n,,n=,r=x"),
        sasl("SCRAM-SHA-256", -2, "n,,n=,r=x"),
        sasl("SCRAM-SHA-256", 0, ""),
        sasl("SCRAM-SHA-256", 6, "n,,r=x"),
        sasl("SCRAM-SHA-256", 8, "n,,n=,r="),
        sasl("SCRAM-SHA-256", i32::try_from(long.len()).unwrap(), &long),
        sasl("SCRAM-SHA-256", 13, "n,,n=,m=1,r=x"),
        vec![b'x'; 60_000],
    ];
    for answer in answers {
        let mut client = RawClient::connect(pooler.address());
        client.send(frames::startup(PROTOCOL_3_0, &[("user", "app")]));
        assert_eq!(client.read().tag, b'R');
        client.send(frames::frame(b'p', &answer));
        let messages = client.read_to_end();
        let shown = answer[..answer.len().min(40)].escape_ascii();
        assert_eq!(tags(&messages), "E", "{shown}");
        assert_eq!(messages[0].field(b'C').as_deref(), Some("08P01"), "{shown}");
    }
    // A query is no answer.
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(PROTOCOL_3_0, &[("user", "app")]));
    client.send(frames::query("SELECT 1"));
    assert_eq!(tags(&client.read_to_end()), "RE");
    assert!(pooler.is_running());
    let mut driver = tokio_postgres::Config::new();
    driver
        .host("127.0.0.1")
        .port(pooler.port())
        .user("app")
        .password("secret");
    assert!(logs_in(&driver));
}

/// A server that asks for SCRAM and then does as `script` says with the client's nonce.
fn scram_server(
    script: impl Fn(&mut FakeConnection, &str) -> std::io::Result<()> + Send + Sync + 'static,
) -> FakeServer {
    FakeServer::start(move |connection| {
        connection.read_startup()?;
        connection.send(frames::frame(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"))?;
        let first = connection.expect(b'p')?;
        let text = String::from_utf8_lossy(&first.body).into_owned();
        let nonce = text.rsplit_once("r=").unwrap().1.to_owned();
        script(connection, &nonce)?;
        // Whatever it is taken for, it must not be a server.
        connection.send(greeting())?;
        connection.read_to_end().map(drop)
    })
}

/// AuthenticationOk, a key and ReadyForQuery.
fn greeting() -> Vec<u8> {
    [
        frames::frame(b'R', [0; 4]),
        frames::frame(b'K', [0, 0, 0, 1, 0, 0, 0, 2]),
        frames::ready_for_query(b'I'),
    ]
    .concat()
}

fn sasl_continue(text: &str) -> Vec<u8> {
    frames::frame(b'R', [&[0, 0, 0, 11], text.as_bytes()].concat())
}

fn first_answer(nonce: &str) -> Vec<u8> {
    sasl_continue(&format!("r={nonce}more,s=W22ZaJ0SNY7soEsUjjb6gQ==,i=4096"))
}

/// The error that a client of a pooler in front of this server gets.
fn refused_by(server: &FakeServer) -> Frame {
    let pooler = Pooler::builder(&server.address())
        .user("app", "hunter2")
        .set("pool.query_wait_timeout", "'500ms'")
        .start();
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(
        PROTOCOL_3_0,
        &[("user", "app"), ("database", "app")],
    ));
    let error = client.read_until(b'E').pop().unwrap();
    assert_eq!(error.field(b'V').as_deref(), Some("FATAL"), "{error:?}");
    assert!(client.read_to_end().is_empty());
    assert!(!pooler.logs().contains("hunter2"));
    error
}

/// The server is a peer like others: a nonce that is not ours, a signature that it cannot make, iterations without end.
#[test]
fn case_10_a_server_that_cheats_in_scram_is_no_server() {
    let cheats = [
        scram_server(|_, _| Ok(())),
        scram_server(|connection, _| connection.send(first_answer("not-the-clients-nonce"))),
        scram_server(|connection, nonce| {
            connection.send(sasl_continue(&format!(
                "r={nonce},s=W22ZaJ0SNY7soEsUjjb6gQ==,i=4096"
            )))
        }),
        scram_server(|connection, nonce| {
            connection.send(sasl_continue(&format!("r={nonce}more,s=W22Z,i=2000000000")))
        }),
        scram_server(|connection, nonce| connection.send(sasl_continue(&format!("r={nonce}more,s=,i=4096")))),
        scram_server(|connection, nonce| {
            let endless = "x".repeat(5000);
            connection.send(sasl_continue(&format!("r={nonce}{endless},s=W22Z,i=4096")))
        }),
        // It lets everybody in without knowing the password.
        scram_server(|connection, nonce| {
            connection.send(first_answer(nonce))?;
            connection.expect(b'p').map(drop)
        }),
        scram_server(|connection, nonce| {
            connection.send(first_answer(nonce))?;
            connection.expect(b'p')?;
            let signature = format!("v={}=", "A".repeat(43));
            connection.send(frames::frame(
                b'R',
                [&[0, 0, 0, 12], signature.as_bytes()].concat(),
            ))
        }),
    ];
    for (index, server) in cheats.iter().enumerate() {
        let error = refused_by(server);
        let message = error.field(b'M').unwrap();
        assert_eq!(
            message, "pgweir cannot log in to the PostgreSQL server",
            "{index}: {error:?}"
        );
        assert_eq!(server.accepted(), 1, "{index}: not tried again");
    }
}

// --- 12: errors without fields, notices during the log-in ---

/// An ErrorResponse without its fields was a null pointer; other messages out of place were waited on.
#[test]
fn case_12_what_is_no_log_in_ends_it() {
    let says = |bytes: Vec<u8>| {
        FakeServer::start(move |connection| {
            connection.read_startup()?;
            connection.send(&bytes)?;
            connection.read_to_end().map(drop)
        })
    };
    let oddities = [
        // Methods that are not spoken, and SASL without SCRAM-SHA-256.
        frames::frame(b'R', [0, 0, 0, 7]),
        frames::frame(b'R', [0, 0, 0, 99]),
        frames::frame(b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0"),
        // Truncated and endless messages.
        frames::frame(b'R', [0, 0]),
        frames::frame(b'R', [0, 0, 0, 5, 1]),
        vec![b'R', 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0],
        vec![b'R', 0, 0, 0, 2],
        frames::frame(b'S', b"no end"),
        // A result before the log-in, and an error without a single field.
        frames::data_row(&["surprise"]),
        frames::ready_for_query(b'I'),
        frames::frame(b'E', [0]),
        frames::frame(b'E', []),
        // Fields without a value, without an end, and none that is known.
        frames::frame(b'E', b"S"),
        frames::frame(b'E', b"SFATAL\0C"),
        frames::frame(b'E', b"C1\0Mtoo short a code\0"),
        frames::frame(b'E', b"?what\0\0"),
        // An answer to a protocol version that nobody asked for.
        frames::frame(b'v', [0, 3, 0, 0, 0, 0, 0, 0]),
    ];
    for bytes in oddities {
        let shown = bytes.escape_ascii().to_string();
        let server = says(bytes);
        let code = refused_by(&server).field(b'C').unwrap();
        assert!(
            ["08006", "28000", "53300"].contains(&code.as_str()),
            "{shown}: {code}"
        );
    }
}

/// The same when a session has begun.
#[test]
fn case_12_an_error_without_fields_is_an_error_like_others() {
    let empty = || frames::frame(b'E', [0]);
    let server = FakeServer::answering(move |sql| match sql {
        "bad" => [empty(), frames::ready_for_query(b'I')].concat(),
        "worse" => [frames::frame(b'E', []), frames::ready_for_query(b'I')].concat(),
        _ => good(),
    });
    let pooler = in_front_of(&server.address());
    let mut client = log_in(&pooler);
    for sql in ["bad", "worse"] {
        assert_eq!(tags(&client.query(sql)), "EZ");
        client.send(frames::extended(sql, &[]));
        assert_eq!(tags(&client.read_until_ready()), "EZ");
        assert_eq!(tags(&client.query("good")), "DCZ");
    }
    drop(client);
    pooler.wait_until_quiet();
}

/// A server that refuses without saying why is tried again.
#[test]
fn case_12_an_error_without_fields_at_log_in_does_no_harm() {
    let server = FakeServer::start(|connection| match connection.index {
        0 => {
            connection.read_startup()?;
            connection.send(frames::frame(b'E', [0]))
        }
        1 => {
            connection.read_startup()?;
            connection.send(frames::frame(b'E', []))
        }
        _ => {
            connection.log_in()?;
            while connection.read()?.tag == b'Q' {
                connection.send(good())?;
            }
            Ok(())
        }
    });
    let pooler = in_front_of(&server.address());
    assert_eq!(tags(&log_in(&pooler).query("SELECT 1")), "DCZ");
    assert_eq!(server.accepted(), 3);
}

/// What is not a PostgreSQL server at all.
#[test]
fn case_12_nonsense_at_log_in_is_refused_without_harm() {
    let nonsense: [fn() -> Vec<u8>; 6] = [
        || b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        || [&b"R"[..], &i32::MAX.to_be_bytes()].concat(),
        || frames::ready_for_query(b'I'),
        || frames::frame(b'R', [0, 0, 0, 99]),
        || frames::frame(b'R', []),
        || [frames::frame(b'R', [0; 4]), frames::frame(b'K', [1])].concat(),
    ];
    for greeting in nonsense {
        let server = FakeServer::start(move |connection| {
            connection.read_startup()?;
            connection.send(greeting())?;
            connection.read_to_end().map(drop)
        });
        let mut pooler = Pooler::builder(&server.address())
            .set("pool.query_wait_timeout", "'300ms'")
            .set("pool.server_connect_timeout", "'200ms'")
            .start();
        let (code, message) = refusal(&answer_to(pooler.address(), &frames::startup(PROTOCOL_3_0, &APP)));
        assert!(!code.is_empty() && !message.contains("HTTP"), "{code}: {message}");
        eventually("nothing is left", || pooler.metric("pgweir_servers") == 0.0);
        assert!(pooler.is_running() && !pooler.logs().contains("panicked"));
    }
}

/// NoticeResponse or ParameterStatus in the middle of authentication was taken for an error.
#[test]
fn case_12_notices_and_parameters_may_come_before_the_log_in_is_done() {
    let server = FakeServer::start(|connection| {
        connection.read_startup()?;
        let mut notice = frames::error_response("WARNING", "01000", "the certificate expires soon");
        notice[0] = b'N';
        let early = [notice.clone(), frames::parameter_status("early", "1")].concat();
        connection.send_bytewise([early.clone(), frames::frame(b'R', [0, 0, 0, 3])].concat())?;
        assert_eq!(connection.expect(b'p')?.strings(), ["secret"]);
        // One that does not report its role would be asked for it.
        let role = frames::parameter_status("in_hot_standby", "off");
        connection.send([early, frames::frame(b'N', [0]), role, greeting()].concat())?;
        connection.expect(b'Q')?;
        connection.send(
            [
                frames::command_complete("SELECT 0"),
                frames::ready_for_query(b'I'),
            ]
            .concat(),
        )?;
        connection.read_to_end().map(drop)
    });
    let pooler = Pooler::builder(&server.address()).start();
    let mut client = RawClient::log_in(pooler.address(), "app", "", "app");
    assert_eq!(frames::parameter(&client.parameters, "early"), Some("1"));
    assert_eq!(tags(&client.query("SELECT")), "CZ");
}

// --- 13: accepting ---

/// Without a descriptor accept fails at once, and the connection stays in the queue: a loop that just tries again
/// takes a whole core and fills the log.
#[test]
fn case_13_running_out_of_descriptors_is_survived_without_spinning() {
    let server = server();
    let pooler = Pooler::builder(&server.address()).start();
    let mut early = log_in(&pooler);
    assert_eq!(early.value("SELECT 'served'"), "served");
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
    // Whoever is there already is served, and nothing turns in circles. A loop would take all of this time.
    let (window, before) = (Duration::from_millis(600), pooler.cpu_time());
    thread::sleep(window);
    let used = pooler.cpu_time() - before;
    assert!(used < window / 4, "{used:?} of CPU time in {window:?}");
    assert_eq!(early.value("SELECT 'served'"), "served");
    drop(crowd);
    // Those of the crowd that wait in the kernel's queue come first.
    assert_served(&mut RawClient::connect(pooler.address()));
    let lines = pooler.logs().matches("cannot accept connections").count();
    assert!(lines <= 2, "{lines} lines");
}

/// Health checks that connect and leave were logged as errors, several a second.
#[test]
fn case_13_probes_that_connect_and_leave_make_no_noise() {
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
    // A load balancer's: it says that it has nothing to say, and reads.
    let half = TcpStream::connect(pooler.address()).unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    assert!(matches!((&half).read(&mut [0]), Ok(0)));
    eventually("each departure is noted", || left() == 6);
    for line in pooler.logs().lines().skip(position) {
        assert!(line.contains(r#""level":"DEBUG""#), "{line}");
    }
}
