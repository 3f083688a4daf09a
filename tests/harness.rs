//! The harness itself: what the other tests stand on does what it says.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use support::{
    Authority, FakeServer, Leaf, Ledger, Link, Load, Network, RawClient, Rig, Stop, TryClient, eventually,
    frames, postgres, postgres_with,
};

/// A port that sends back what it gets, for links.
fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(support::LIMIT)).unwrap();
    stream
}

fn round_trip(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, bytes);
}

#[test]
fn postgres_survives_every_kind_of_stop() {
    let mut postgres = postgres();
    let port = postgres.port();
    postgres.psql("CREATE TABLE kept AS SELECT 42 AS answer").unwrap();
    for how in [Stop::Smart, Stop::Fast, Stop::Immediate, Stop::Kill] {
        let pid = postgres.pid().unwrap();
        postgres.stop(how).unwrap();
        assert_eq!(postgres.pid(), None);
        assert!(TcpStream::connect(postgres.address()).is_err(), "{how:?}");
        postgres.start().unwrap();
        assert_ne!(postgres.pid(), Some(pid));
        assert_eq!(postgres.psql("SELECT answer FROM kept").unwrap(), "42", "{how:?}");
    }
    postgres.restart().unwrap();
    assert_eq!(postgres.port(), port);
}

#[test]
fn postgres_leaves_nothing_behind() {
    let postgres = postgres();
    let socket = postgres.socket_file();
    let directory = socket.parent().unwrap().to_path_buf();
    let pid = i32::try_from(postgres.pid().unwrap()).unwrap();
    assert!(socket.exists());
    drop(postgres);
    assert!(!directory.exists());
    let gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None);
    assert_eq!(gone, Err(nix::errno::Errno::ESRCH));
}

#[test]
fn passwords_are_asked_for_over_tcp() {
    let postgres = postgres();
    let psql = |user: &str, password: &str, database: &str| {
        let mut command = postgres.programs().command("psql");
        command.args([
            "-XAtc",
            "SELECT current_user",
            &postgres.url(user, password, database),
        ]);
        command.output().unwrap()
    };
    assert_eq!(psql("app", "secret", "app").stdout, b"app\n");
    assert_eq!(
        psql("postgres", postgres.password(), "postgres").stdout,
        b"postgres\n"
    );
    let refused = psql("app", "wrong", "app");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("password authentication failed"));
}

#[test]
fn settings_and_rules_are_the_tests_own() {
    let postgres = postgres_with(|builder| {
        builder
            .setting("max_connections", 17)
            .setting("fsync", "on")
            .hba(&["host all app all trust"])
    });
    assert_eq!(postgres.psql("SHOW max_connections").unwrap(), "17");
    assert_eq!(postgres.psql("SHOW fsync").unwrap(), "on");
    let mut client = RawClient::log_in(&postgres.address(), "app", "", "app");
    assert_eq!(client.value("SELECT 1 + 1"), "2");
    assert_eq!(
        frames::parameter(&client.parameters, "server_encoding"),
        Some("UTF8")
    );
    assert_eq!(client.key.as_ref().map(Vec::len), Some(8));
}

#[test]
fn postgres_speaks_tls_and_checks_client_certificates() {
    let authority = Authority::new("test CA").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let client = authority.client("app").unwrap();
    client.write_to(directory.path(), "app").unwrap();
    let ca_file = directory.path().join("ca.crt");
    std::fs::write(&ca_file, authority.certificate_pem()).unwrap();
    let server = authority
        .issue(&Leaf::server(&["localhost"]).empty_subject())
        .unwrap();
    let postgres = postgres_with(|builder| {
        builder
            .mutual_tls(&server, authority.certificate_pem())
            .hba(&["hostssl all all all cert"])
    });
    let connect = |with_certificate: bool| -> std::process::Output {
        let mut command: Command = postgres.programs().command("psql");
        let mut target = format!(
            "host=localhost hostaddr=127.0.0.1 port={} dbname=app user=app sslmode=verify-full sslrootcert={}",
            postgres.port(),
            ca_file.display()
        );
        if with_certificate {
            let directory = directory.path().display();
            target.push_str(&format!(
                " sslcert={directory}/app.crt sslkey={directory}/app.key"
            ));
        }
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        command.args(["-XAtc", sql, &target]).output().unwrap()
    };
    let connected = connect(true);
    assert_eq!(String::from_utf8_lossy(&connected.stdout), "t\n", "{connected:?}");
    assert!(!connect(false).status.success());
}

#[test]
fn sql_that_fails_is_an_error_with_its_words() {
    let error = postgres().psql("SELECT 1/0").unwrap_err();
    assert!(error.to_string().contains("division by zero"), "{error}");
}

#[test]
fn a_wrong_setting_shows_the_servers_log() {
    let error = support::Postgres::builder()
        .checkout(env!("CARGO_MANIFEST_DIR"))
        .setting("max_connections", "many")
        .start()
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("invalid value for parameter \"max_connections\""),
        "{error}"
    );
}

#[test]
fn a_link_forwards_both_ways_byte_by_byte_too() {
    let link = Link::to(echo());
    let mut stream = connect(&link.address());
    round_trip(&mut stream, b"hello");
    link.bytewise(true);
    round_trip(&mut stream, &[7; 3000]);
    link.bytewise(false);
    link.delay(Duration::from_millis(1));
    round_trip(&mut stream, b"slow");
    assert_eq!(link.accepted(), 1);
}

#[test]
fn a_link_passes_a_half_close_on() {
    let link = Link::to(echo());
    let mut stream = connect(&link.address());
    stream.write_all(b"last words").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = String::new();
    stream.read_to_string(&mut back).unwrap();
    assert_eq!(back, "last words");
}

#[test]
fn a_cut_link_resets_and_takes_new_connections() {
    let link = Link::to(echo());
    let mut stream = connect(&link.address());
    round_trip(&mut stream, b"hello");
    link.cut();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    round_trip(&mut connect(&link.address()), b"again");
}

#[test]
fn a_frozen_link_holds_everything_back_in_order() {
    let link = Link::to(echo());
    let mut stream = connect(&link.address());
    round_trip(&mut stream, b"hello");
    link.freeze();
    stream.write_all(b"one").unwrap();
    stream.write_all(b"two").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(stream.read(&mut [0]).is_err(), "nothing comes");
    link.thaw();
    stream.set_read_timeout(Some(support::LIMIT)).unwrap();
    let mut back = [0; 6];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"onetwo");
}

#[test]
fn a_frozen_link_can_be_cut_and_dropped() {
    let link = Link::to(echo());
    let mut stream = connect(&link.address());
    round_trip(&mut stream, b"hello");
    link.freeze();
    stream.write_all(b"lost").unwrap();
    link.cut();
    assert!(stream.read(&mut [0]).is_err());
    drop(link);
}

#[test]
fn a_refusing_link_is_like_no_server() {
    let mut link = Link::to(echo());
    let mut open = connect(&link.address());
    round_trip(&mut open, b"hello");
    link.refuse();
    let error = TcpStream::connect(link.address()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    round_trip(&mut open, b"still here");
    link.admit();
    round_trip(&mut connect(&link.address()), b"again");
}

#[test]
fn a_link_cut_while_its_reader_is_slow_lets_go() {
    let link = Link::to(echo());
    let stream = connect(&link.address());
    stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    // Nobody reads what comes back, until no buffer on the way has room.
    while (&stream).write(&[0; 65536]).is_ok() {}
    link.cut();
    eventually("the reset arrives", || {
        (&stream)
            .write(&[0])
            .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
    });
}

#[test]
fn a_fake_server_talks_as_postgres_does() {
    let server = FakeServer::answering(|sql| {
        let rows = frames::data_row(&[sql]);
        [
            rows,
            frames::command_complete("SELECT 1"),
            frames::ready_for_query(b'I'),
        ]
        .concat()
    });
    let mut client = RawClient::log_in(&server.address(), "app", "", "app");
    assert_eq!(client.value("SELECT 'x'"), "SELECT 'x'");
    client.send(frames::extended("SELECT $1", &[Some("y")]));
    let answer = client.read_until_ready();
    assert_eq!(answer[0].columns(), [Some("SELECT $1".to_owned())]);
    client.send(frames::terminate());
    assert!(client.read_to_end().is_empty());
    assert_eq!(server.accepted(), 1);
}

#[test]
fn a_fake_servers_error_has_postgresqls_fields() {
    let server = FakeServer::start(|connection| {
        let parameters = connection.read_startup()?;
        assert!(parameters.contains(&("user".into(), "app".into())));
        connection.send(frames::error_response(
            "FATAL",
            "57P03",
            "the database system is starting up",
        ))
    });
    let mut client = RawClient::connect(&server.address());
    client.send(frames::startup(frames::PROTOCOL_3_0, &[("user", "app")]));
    let messages = client.read_to_end();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].field(b'C').as_deref(), Some("57P03"));
    assert_eq!(
        messages[0].field(b'M').as_deref(),
        Some("the database system is starting up")
    );
}

#[test]
#[should_panic(expected = "the script is not happy")]
fn a_failing_script_fails_the_test() {
    let server = FakeServer::start(|_| -> std::io::Result<()> { panic!("the script is not happy") });
    assert!(RawClient::connect(&server.address()).read_to_end().is_empty());
    drop(server);
}

#[test]
fn metrics_are_found_by_some_of_their_labels() {
    let text = "# TYPE clients gauge\n\
        clients{database=\"app\",state=\"active\"} 2\n\
        clients{database=\"app\",state=\"waiting\"} 3\n\
        clients{database=\"other\",state=\"active\"} 5\n\
        clients_total 11\n";
    let metric = |sample| support::sum_of_samples(text, sample);
    assert!((metric("clients{state=\"active\",database=\"app\"}") - 2.0).abs() < f64::EPSILON);
    assert!((metric("clients{database=\"app\"}") - 5.0).abs() < f64::EPSILON);
    assert!((metric("clients_total") - 11.0).abs() < f64::EPSILON);
    assert!(metric("clients{database=\"none\"}").is_nan());
}

#[test]
fn a_rig_changes_its_primary_and_takes_the_old_one_back() {
    let mut rig = Rig::start(2, Network::Loopback).expect("loopback is there");
    rig.require_synchronous_standby(0);
    rig.sql(0, "CREATE TABLE t AS SELECT 1 AS a");
    assert!(!rig.is_in_recovery(0) && rig.is_in_recovery(1));
    let watch = rig.watch(1);
    rig.kill(0);
    eventually("the standby's receiver is down", || rig.is_receiver_down(1));
    assert!(TryClient::log_in(rig.address(0), "postgres", "postgres", support::LIMIT).is_err());
    rig.promote(1);
    watch.writable_since();
    assert_eq!(rig.sql(1, "INSERT INTO t SELECT 2 RETURNING a"), "2");
    let mut client =
        TryClient::log_in(rig.address(1), "postgres", "postgres", support::LIMIT).expect("it runs");
    rig.terminate_client_backends(1);
    let trouble = client.query("SELECT 1").expect_err("it was ended");
    assert_eq!(trouble.sqlstate.as_deref(), Some("57P01"));

    rig.rejoin(0, 1);
    rig.wait_until_streaming(1, 0);
    assert!(rig.is_in_recovery(0));
    eventually("the old one has what the new one has", || {
        rig.sql(0, "SELECT count(*) FROM t") == "2"
    });
}

#[test]
fn a_smart_shutdown_takes_as_long_as_clients_stay() {
    let mut rig = Rig::start(1, Network::Loopback).expect("loopback is there");
    let client = TryClient::log_in(rig.address(0), "postgres", "postgres", support::LIMIT).expect("it runs");
    rig.begin_stop(0, Stop::Smart);
    eventually("new clients are refused", || {
        let refused = TryClient::log_in(rig.address(0), "postgres", "postgres", support::LIMIT);
        refused.is_err_and(|trouble| trouble.sqlstate.as_deref() == Some("57P03"))
    });
    assert!(!rig.wait_for_end(0, Duration::from_millis(300)));
    drop(client);
    assert!(rig.wait_for_end(0, support::LIMIT));
    rig.restart(0);
    assert_eq!(rig.sql(0, "SELECT 1"), "1");
}

#[test]
fn a_ledger_sees_what_is_lost_and_what_is_there_twice() {
    let rig = Rig::start(1, Network::Loopback).expect("loopback is there");
    Ledger::prepare(&rig, 0);
    let load = Load {
        transferring: 3,
        autocommit: 1,
        ..Load::default()
    };
    let ledger = Ledger::start(rig.address(0), load);
    let since = Instant::now();
    rig.terminate_client_backends(0);
    assert!(ledger.first_commit(since, support::LIMIT).is_some());
    ledger.wait_for_everybody();
    let outcome = ledger.finish(support::LIMIT);
    assert_eq!((outcome.lost_connections(), outcome.stuck), (4, 0));
    assert!(
        outcome.errors_by_kind().contains("57P01"),
        "{}",
        outcome.errors_by_kind()
    );
    let verdict = outcome.verify(&rig, 0, None);
    assert!(verdict.is_good(), "{verdict}");

    rig.sql_in_database(
        0,
        "INSERT INTO journal SELECT number FROM journal ORDER BY number LIMIT 2",
    );
    rig.sql_in_database(
        0,
        "DELETE FROM journal WHERE number = (SELECT max(number) FROM journal)",
    );
    rig.sql_in_database(0, "UPDATE accounts SET balance = balance + 5 WHERE id = 1");
    let verdict = outcome.verify(&rig, 0, None);
    assert_eq!((verdict.lost, verdict.doubled, verdict.money), (1, 2, 5));
}
