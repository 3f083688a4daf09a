//! Those who guess are slowed and then refused, and connections that never log in keep nobody out.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    sync::Barrier,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};
use support::{
    Authority, FakeServer, Frame, LIMIT, Pooler, PoolerBuilder, RawClient, eventually, frames, tls,
};

/// A server that lets everyone in and has nothing to say.
fn server() -> FakeServer {
    FakeServer::answering(|_| {
        [
            frames::command_complete("SELECT 0"),
            frames::ready_for_query(b'I'),
        ]
        .concat()
    })
}

fn asking_for_passwords(server: &FakeServer) -> PoolerBuilder {
    Pooler::builder(&server.address())
        .set("auth.auth_type", "'password'")
        .set("auth.allow_plaintext_password", "true")
        .user("other", "secret")
}

/// Connects from an address of this machine's own network.
fn connect_from(source: &str, pooler: &Pooler) -> RawClient {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    socket.bind(&source.into()).unwrap();
    let target: SocketAddr = pooler.address().parse().unwrap();
    socket.connect(&target.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    RawClient::over(stream)
}

fn say_who(client: &mut RawClient, user: &str) {
    client.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", user), ("database", "app")],
    ));
}

fn say_password(client: &mut RawClient, password: &str) {
    client.send(frames::frame(b'p', frames::text(password)));
}

/// What becomes of a log-in: "ok", or the SQLSTATE and the message.
fn attempt(pooler: &Pooler, source: &str, user: &str, password: &str) -> (String, String) {
    let mut client = connect_from(source, pooler);
    say_who(&mut client, user);
    let mut message = client.read();
    if message.tag == b'R' && message.body != [0; 4] {
        say_password(&mut client, password);
        message = client.read();
    }
    outcome(&message)
}

fn outcome(message: &Frame) -> (String, String) {
    match message.tag {
        b'R' => ("ok".to_owned(), String::new()),
        _ => (message.field(b'C').unwrap(), message.field(b'M').unwrap()),
    }
}

fn state(pooler: &Pooler, source: &str, user: &str, password: &str) -> String {
    attempt(pooler, source, user, password).0
}

const HERE: &str = "127.0.0.1";
const ELSEWHERE: &str = "127.0.0.2";

#[test]
fn a_guesser_is_slowed_and_then_refused_whether_the_user_exists_or_not() {
    let server = server();
    let pooler = asking_for_passwords(&server)
        .set("auth.max_auth_failures", "4")
        .set("auth.auth_failure_block", "'2s'")
        .start();
    for user in ["app", "nobody"] {
        let start = Instant::now();
        for _ in 0..4 {
            assert_eq!(state(&pooler, HERE, user, "wrong"), "28P01");
        }
        let delays = Duration::from_millis(100 + 200 + 400);
        assert!(start.elapsed() >= delays, "{:?}", start.elapsed());
        let (state, message) = attempt(&pooler, HERE, user, "secret");
        assert_eq!(state, "28000");
        let words =
            format!("too many failed log-ins of user \"{user}\" from this address, refused for another 2s");
        assert_eq!(message, words);
    }
    // Nobody else notices.
    assert_eq!(state(&pooler, HERE, "other", "secret"), "ok");
    assert_eq!(state(&pooler, ELSEWHERE, "app", "secret"), "ok");
    // And it ends.
    eventually("the block ends", || state(&pooler, HERE, "app", "secret") == "ok");
    let logs = pooler.logs();
    assert_eq!(
        logs.matches("is refused from this address").count(),
        2,
        "once for each user"
    );
    assert_eq!(
        pooler.metric(r#"pgweir_auth_failures_total{reason="wrong_password"}"#),
        4.0
    );
    assert_eq!(
        pooler.metric(r#"pgweir_auth_failures_total{reason="unknown_user"}"#),
        4.0
    );
    assert!(pooler.metric("pgweir_auth_refused_total") >= 2.0);
}

#[test]
fn a_success_begins_anew_and_the_address_is_refused_for_many_users() {
    let server = server();
    let pooler = asking_for_passwords(&server)
        .set("auth.max_auth_failures", "2")
        .set("auth.auth_failure_block", "'1h'")
        .start();
    for _ in 0..9 {
        assert_eq!(state(&pooler, HERE, "app", "wrong"), "28P01");
        assert_eq!(state(&pooler, HERE, "app", "secret"), "ok");
    }
    for number in 0..11 {
        let (state, _) = attempt(&pooler, HERE, &format!("user{number}"), "wrong");
        assert_eq!(state, "28P01", "{number}");
    }
    let (state_here, message) = attempt(&pooler, HERE, "app", "secret");
    assert_eq!(state_here, "28000");
    assert!(message.starts_with("too many failed log-ins from this address, refused for another 3"));
    assert_eq!(state(&pooler, ELSEWHERE, "app", "secret"), "ok");
}

#[test]
fn attempts_side_by_side_are_no_more_guesses() {
    let server = server();
    let pooler = asking_for_passwords(&server)
        .set("auth.max_auth_failures", "3")
        .start();
    let mut clients: Vec<_> = (0..60).map(|_| connect_from(HERE, &pooler)).collect();
    for client in &mut clients {
        say_who(client, "app");
        assert_eq!(client.read().tag, b'R');
    }
    for client in &mut clients {
        say_password(client, "wrong");
    }
    let states: Vec<_> = clients
        .iter_mut()
        .map(|client| outcome(&client.read()).0)
        .collect();
    let guesses = states.iter().filter(|state| *state == "28P01").count();
    // Two threads may judge at the same moment.
    assert!((3..=3 + 8).contains(&guesses), "{guesses}");
    assert!(states.iter().all(|state| state == "28P01" || state == "28000"));
}

#[test]
fn trusted_networks_are_left_alone_and_the_settings_can_change() {
    let server = server();
    let mut pooler = asking_for_passwords(&server)
        .set("auth.max_auth_failures", "1")
        .set("auth.trusted_networks", "['127.0.0.2/31', '::1']")
        .start();
    for _ in 0..20 {
        assert_eq!(state(&pooler, ELSEWHERE, "app", "wrong"), "28P01");
    }
    assert_eq!(state(&pooler, HERE, "app", "wrong"), "28P01");
    assert_eq!(state(&pooler, HERE, "app", "secret"), "28000");
    pooler.reconfigure(|builder| builder.set("auth.max_auth_failures", "0"));
    pooler.reload();
    pooler.wait_for_log(0, "configuration reloaded");
    assert_eq!(state(&pooler, HERE, "app", "wrong"), "28P01");
    assert_eq!(state(&pooler, HERE, "app", "secret"), "ok");
}

#[test]
fn what_is_wrong_with_the_settings_is_said() {
    let builder = Pooler::builder("127.0.0.1:1")
        .set("auth.max_auth_failures", "-1")
        .set(
            "auth.trusted_networks",
            "['10.0.0.0/33', 'localhost', '10.0.0.0/8']",
        )
        .set("listen.max_unauthenticated_clients", "0");
    let (_, errors, status) = Pooler::run_command(&builder, &["check", "--config", "CONFIG"]);
    assert!(!status.success());
    for words in [
        "max_auth_failures",
        "\"10.0.0.0/33\" has a prefix length that does not fit the address",
        "\"localhost\" is not an IP address, alone or with a prefix length",
        "max_unauthenticated_clients",
    ] {
        assert!(errors.contains(words), "{words}: {errors}");
    }
}

/// How long a log-in takes that fails.
fn failure(runtime: &tokio::runtime::Runtime, pooler: &Pooler, user: &str) -> Duration {
    let mut config = tokio_postgres::Config::new();
    config
        .host(HERE)
        .port(pooler.port())
        .user(user)
        .password("wrong")
        .dbname("app");
    let start = Instant::now();
    let outcome = runtime.block_on(config.connect(tokio_postgres::NoTls));
    let error = outcome.err().expect("the password is wrong");
    assert_eq!(error.code().unwrap().code(), "28P01");
    start.elapsed()
}

/// Twenty of the one and then twenty of the other were compared once, and the machine was slow during the first: they take
/// turns, and go on until the quickest of each are alike. A PBKDF2 that only one of them costs would double it each time.
#[test]
fn an_unknown_user_fails_as_quickly_as_one_who_exists() {
    const MOST: usize = 300;
    let server = server();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for method in ["password", "md5", "scram-sha-256"] {
        let pooler = asking_for_passwords(&server)
            .set("auth.auth_type", format!("'{method}'"))
            .set("auth.max_auth_failures", "0")
            .start();
        let (mut known, mut unknown) = (Duration::MAX, Duration::MAX);
        let alike = (1..=MOST).any(|round| {
            known = known.min(failure(&runtime, &pooler, "app"));
            unknown = unknown.min(failure(&runtime, &pooler, "nobody"));
            let (less, more) = (known.min(unknown), known.max(unknown));
            round >= 20 && more < less.mul_f64(1.6) + Duration::from_millis(1)
        });
        assert!(alike, "{method}: {known:?} {unknown:?}");
    }
}

// --- connections that have not logged in ---

fn unauthenticated(pooler: &Pooler) -> f64 {
    pooler.metric("pgweir_unauthenticated_clients")
}

#[test]
fn silent_connections_make_way() {
    let server = server();
    let pooler = Pooler::builder(&server.address())
        .set("listen.max_unauthenticated_clients", "100")
        .start();
    let silent: Vec<_> = (0..100).map(|_| connect_from(HERE, &pooler)).collect();
    eventually("all are there", || unauthenticated(&pooler) == 100.0);
    // They have only just come: whoever comes now is told, in a way that it can read.
    let (state_now, message) = attempt(&pooler, HERE, "app", "secret");
    if state_now != "ok" {
        assert_eq!(state_now, "53300");
        let words = "too many connections that have not logged in (max_unauthenticated_clients is 100)";
        assert_eq!(message, words);
    }
    eventually("somebody makes way", || {
        state(&pooler, HERE, "app", "secret") == "ok"
    });
    // Three times as many keep nobody out for longer than a moment.
    let more: Vec<_> = (0..200).map(|_| connect_from(ELSEWHERE, &pooler)).collect();
    eventually("somebody makes way again", || {
        state(&pooler, HERE, "app", "secret") == "ok"
    });
    drop((silent, more));
    eventually("all are gone", || unauthenticated(&pooler) == 0.0);
    assert!(pooler.logs().contains("max_unauthenticated_clients is reached"));
}

#[test]
fn a_connection_that_stopped_halfway_makes_way_and_one_that_is_logged_in_does_not() {
    let server = server();
    let pooler = asking_for_passwords(&server)
        .set("listen.max_unauthenticated_clients", "3")
        .start();
    let mut session = connect_from(HERE, &pooler);
    session.authenticate(&[("user", "app"), ("database", "app")], "secret");
    let mut halfway: Vec<_> = (0..3).map(|_| connect_from(HERE, &pooler)).collect();
    for client in &mut halfway {
        say_who(client, "app");
        assert_eq!(client.read().tag, b'R');
    }
    eventually("one of them makes way", || {
        state(&pooler, ELSEWHERE, "app", "secret") == "ok"
    });
    session.query("SELECT 1");
}

#[test]
fn connections_that_stopped_halfway_take_no_client_s_place() {
    // 400 connections that said who they were and never answered the challenge had the places that 600 clients had
    // left of max_client_conn, and everybody else was told that there are too many for as long as client_login_timeout.
    let server = server();
    let pooler = asking_for_passwords(&server)
        .set("listen.max_client_conn", "4")
        .start();
    let log_in = || {
        let mut client = connect_from(HERE, &pooler);
        client.authenticate(&[("user", "app"), ("database", "app")], "secret");
        client
    };
    let mut sessions = vec![log_in(), log_in()];
    let start_halfway = || {
        let mut client = connect_from(ELSEWHERE, &pooler);
        say_who(&mut client, "app");
        assert_eq!(client.read().tag, b'R');
        client
    };
    let mut halfway = [start_halfway(), start_halfway(), start_halfway()];
    sessions.extend([log_in(), log_in()]);
    // All places are clients' now: one that comes is told at once, and so is one that has proved who it is.
    let words = "no more connections allowed (max_client_conn is 4)";
    let too_many = ("53300".to_owned(), words.to_owned());
    let mut late = connect_from(HERE, &pooler);
    say_who(&mut late, "app");
    assert_eq!(outcome(&late.read()), too_many);
    let [first, second, _] = &mut halfway;
    say_password(first, "secret");
    assert_eq!(outcome(first.read_to_end().last().unwrap()), too_many);
    // A place is free again for whoever proves first.
    sessions.pop();
    eventually("a place is free", || {
        let mut client = connect_from(HERE, &pooler);
        say_who(&mut client, "app");
        client.read().tag == b'R'
    });
    say_password(second, "secret");
    assert_eq!(outcome(&second.read()).0, "ok");
    for session in &mut sessions {
        session.query("SELECT 1");
    }
}

#[test]
fn one_address_with_all_places_keeps_neither_others_nor_the_admin_out() {
    // Connections are left alone for their first second, and those that have said something for five: a host that opened
    // new ones all the time had all places, and whoever else came was turned away, over a unix socket too.
    let server = server();
    let pooler = Pooler::builder(&server.address())
        .set("listen.max_unauthenticated_clients", "8")
        .set("listen.address", "['127.0.0.1:0', 'unix:.s.PGSQL.7005']")
        .set("auth.stats_users", "['app']")
        .start();
    let come = |number| {
        let mut client = connect_from(HERE, &pooler);
        client.send(frames::request(frames::SSL_REQUEST));
        if number < 8 {
            assert_eq!(client.read_byte(), b'N');
        }
        client
    };
    let flood: Vec<_> = (0..40).map(come).collect();
    let path = pooler.addresses()[1].strip_prefix("unix:").unwrap().to_owned();
    let mut admin = RawClient::over(UnixStream::connect(path).unwrap());
    admin.authenticate(&[("user", "app"), ("database", "pgweir")], "");
    let mut client = connect_from(ELSEWHERE, &pooler);
    client.authenticate(&[("user", "app"), ("database", "app")], "");
    drop(flood);
}

#[test]
fn a_cancel_request_needs_no_place() {
    let server = server();
    let pooler = Pooler::builder(&server.address())
        .set("listen.max_unauthenticated_clients", "1")
        .start();
    for _ in 0..5 {
        let silent = connect_from(HERE, &pooler);
        eventually("it is there", || unauthenticated(&pooler) >= 1.0);
        let position = pooler.log_position();
        let mut cancel = connect_from(ELSEWHERE, &pooler);
        cancel.send(frames::cancel(12345, &[0; 4]));
        assert!(cancel.read_to_end().is_empty());
        pooler.wait_for_log(position, "cancel request for an unknown client");
        drop(silent);
        eventually("it is gone", || unauthenticated(&pooler) == 0.0);
    }
}

#[test]
fn a_thousand_clients_may_come_at_once_over_tls() {
    let server = server();
    let authority = Authority::new("CA").unwrap();
    let pooler = Pooler::builder(&server.address())
        .client_tls("require", &authority.server(&["localhost"]).unwrap())
        .start();
    let come = || {
        let mut client = RawClient::connect(pooler.address());
        client.send(frames::request(frames::SSL_REQUEST));
        client
    };
    let log_in = |mut client: RawClient| {
        assert_eq!(client.read_byte(), b'S');
        let mut client = RawClient::over(tls(client.into_stream(), &authority, &[]));
        client.send(frames::startup(
            frames::PROTOCOL_3_0,
            &[("user", "app"), ("database", "app")],
        ));
        assert_eq!(outcome(&client.read()).0, "ok");
        client
    };
    let all_are_there = Barrier::new(20);
    let come_and_log_in = || {
        let clients: Vec<_> = (0..50).map(|_| come()).collect();
        all_are_there.wait();
        clients.into_iter().map(log_in).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(come_and_log_in)).collect();
        let clients = threads.into_iter().flat_map(|thread| thread.join().unwrap());
        assert_eq!(clients.collect::<Vec<_>>().len(), 1000);
    });
}
