//! Servers that cannot be reached, have no room, or do not let pgweir in.

use std::{
    net::TcpListener,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::behind_link;
use crate::{
    checks::{assert_error, field, knock, log_in, only_error, refused_log_in, wait_for_metric},
    support::{FakeServer, Pooler, Postgres, RawClient, eventually, frames, postgres, postgres_with, tags},
};

#[test]
fn fault_refusing_server_is_waited_for_and_used_at_once_when_it_is_back() {
    // A closed port: PgBouncer remembers it for server_login_retry (15 s) and fails everybody until then.
    let postgres = postgres();
    let (mut link, pooler) = behind_link(&postgres, |builder| builder);
    let mut client = log_in(&pooler);
    assert_eq!(client.value("SELECT 1"), "1");
    link.refuse();
    link.cut();
    wait_for_metric(&pooler, "pgweir_servers", 0.0);
    for _ in 0..2 {
        let asked = Instant::now();
        let answer = client.query("SELECT 1");
        assert!(
            asked.elapsed() >= Duration::from_millis(700),
            "told after {:?}",
            asked.elapsed()
        );
        assert_eq!(tags(&answer), "EZ");
        assert_error(&answer[0], "ERROR", "08006");
        assert!(field(&answer[0], b'M').contains("cannot connect"), "{answer:?}");
    }
    let refused = refused_log_in(&pooler, &[("search_path", "x")]);
    assert_error(&refused, "FATAL", "08006");
    link.admit();
    // Nothing is remembered against the server.
    let back = Instant::now();
    assert_eq!(client.value("SELECT 2"), "2");
    assert!(
        back.elapsed() < Duration::from_millis(500),
        "{:?}",
        back.elapsed()
    );
    assert_eq!(log_in(&pooler).value("SELECT 3"), "3");
}

#[test]
fn fault_refusing_server_that_comes_up_serves_who_waits() {
    // A pool that was started before its database: who has come too early waits, and the log is not flooded.
    let postgres = postgres();
    let (mut link, pooler) = behind_link(&postgres, |builder| {
        builder.set("pool.query_wait_timeout", "'60s'")
    });
    link.refuse();
    let mut client = knock(&pooler, &[]);
    eventually("several attempts have failed", || {
        pooler.metric("pgweir_server_connect_failures_total") >= 3.0
    });
    link.admit();
    assert_eq!(
        tags(&client.read_until_ready())
            .chars()
            .filter(|&tag| tag == 'E')
            .count(),
        0
    );
    assert_eq!(client.value("SELECT 1"), "1");
    // A series of equal failures is one line.
    let told = pooler
        .logs()
        .lines()
        .filter(|line| line.contains("cannot open a server connection"))
        .count();
    assert_eq!(told, 1);
}

#[test]
fn fault_silent_server_costs_server_connect_timeout() {
    // A server that accepts and never answers, such as a stopped process.
    let postgres = postgres();
    let (link, pooler) = behind_link(&postgres, |builder| {
        builder.set("pool.server_connect_timeout", "'200ms'")
    });
    link.freeze();
    let error = refused_log_in(&pooler, &[]);
    assert_error(&error, "FATAL", "08006");
    assert!(field(&error, b'D').contains("200ms"), "{error:?}");
    link.thaw();
    assert_eq!(log_in(&pooler).value("SELECT 1"), "1");
    wait_for_metric(&pooler, "pgweir_servers{state=\"connecting\"}", 0.0);
}

#[test]
fn fault_next_host_is_tried_when_one_refuses_or_says_nothing() {
    // Neither kind of dead host may stand in the way of one that lives.
    let postgres = postgres();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hosts = format!(
        "['127.0.0.1:1', '{}', '{}']",
        silent.local_addr().unwrap(),
        postgres.address()
    );
    let pooler = Pooler::builder("127.0.0.1:1")
        .set(r#"databases."*".hosts"#, hosts)
        .set("pool.server_connect_timeout", "'200ms'")
        .start();
    assert_eq!(log_in(&pooler).value("SELECT 1"), "1");
}

/// A connection of the server's own, as soon as there is room for it: who has just left still has a place.
fn take_place(postgres: &Postgres) -> RawClient {
    let mut taken = None;
    eventually("there is room on the server", || {
        let mut client = RawClient::connect(&postgres.address());
        let parameters = [("user", "app"), ("database", "app")];
        client.send(frames::startup(frames::PROTOCOL_3_0, &parameters));
        let accepted = client.read().tag == b'R';
        if accepted {
            client.read_until_ready();
            taken = Some(client);
        }
        accepted
    });
    taken.expect("it was just taken")
}

#[test]
fn fault_53300_is_waited_for() {
    // max_connections is reached because of somebody else, for a while.
    let postgres = postgres_with(|builder| {
        builder
            .setting("max_connections", 6)
            .setting("superuser_reserved_connections", 3)
            .hba(&["host all all all trust"])
    });
    // Two of the three places are taken by somebody else.
    let mut others: Vec<_> = (0..2).map(|_| take_place(&postgres)).collect();
    let pooler = Pooler::builder(&postgres.address()).start();
    let (mut first, mut second) = (log_in(&pooler), log_in(&pooler));
    first.query("BEGIN");
    let refused = pooler.metric("pgweir_server_connect_failures_total");
    second.send(frames::query("SELECT 'second'"));
    eventually("the server has refused", || {
        pooler.metric("pgweir_server_connect_failures_total") > refused
    });
    assert!(pooler.logs().contains("53300"), "{}", pooler.logs());
    others.pop();
    assert_eq!(tags(&second.read_until_ready()), "TDCZ");
    assert_eq!(tags(&first.query("COMMIT")), "CZ");
    drop((first, second, others));
}

#[test]
fn fault_53300_is_told_in_the_servers_words_when_the_wait_is_over() {
    // max_connections is reached for good: the client must learn which of the two limits it was.
    let server = FakeServer::start(|connection| {
        connection.read_startup()?;
        connection.send(frames::error_response(
            "FATAL",
            "53300",
            "sorry, too many clients already",
        ))
    });
    let pooler = Pooler::builder(&server.address())
        .set("pool.query_wait_timeout", "'300ms'")
        .start();
    let error = refused_log_in(&pooler, &[]);
    assert_error(&error, "FATAL", "53300");
    assert_eq!(field(&error, b'M'), "sorry, too many clients already");
    assert!(server.accepted() >= 2, "it was tried again");
}

#[test]
fn case_39_final_refusal_is_told_at_once_and_not_repeated() {
    // PgDog asked a server that had refused it again and again (pgdog #959); others let the client wait in vain.
    let server = FakeServer::start(|connection| {
        connection.read_startup()?;
        connection.send(frames::error_response("FATAL", "28000", "no pg_hba.conf entry"))
    });
    // Longer than the harness waits.
    let pooler = Pooler::builder(&server.address())
        .set("pool.query_wait_timeout", "'10m'")
        .start();
    let error = refused_log_in(&pooler, &[]);
    assert_error(&error, "FATAL", "28000");
    assert_eq!(field(&error, b'M'), "no pg_hba.conf entry");
    assert_eq!(
        server.accepted(),
        1,
        "a server is not hammered with what it has refused"
    );
}

#[test]
fn fault_57p03_and_57p01_at_log_in_are_waited_for() {
    // A server that is just starting, and one that is just stopping: both are over in a moment.
    let server = FakeServer::start(|connection| {
        let (sqlstate, message) = match connection.index {
            0 => ("57P03", "the database system is starting up"),
            1 => ("57P03", "the database system is shutting down"),
            2 => ("57P01", "terminating connection due to administrator command"),
            _ => {
                connection.log_in()?;
                return connection.read_to_end().map(drop);
            }
        };
        connection.read_startup()?;
        connection.send(frames::error_response("FATAL", sqlstate, message))
    });
    let pooler = Pooler::builder(&server.address()).start();
    knock(&pooler, &[]).read_until_ready();
    assert_eq!(server.accepted(), 4);
}

/// Log-ins as a user whose password pgweir does not know rightly: how many the server has seen.
fn wrong_passwords(postgres: &Postgres) -> usize {
    let log = postgres.log();
    log.matches("password authentication failed for user \"wrong\"")
        .count()
}

#[test]
fn case_39_wrong_password_is_told_stalls_nobody_and_is_not_hammered() {
    // One user's password has been changed on the server and not in the pooler. Its clients come back at once, as
    // applications do, and must not make the server hash passwords all day (pgdog #959), nor the others wait.
    const CLIENTS: usize = 10;
    let postgres = postgres_with(|builder| builder.hba(&["host all all all scram-sha-256"]));
    postgres.psql("CREATE ROLE wrong LOGIN PASSWORD 'new'").unwrap();
    let mut pooler = Pooler::builder(&postgres.address()).user("wrong", "old").start();
    let (begin, time) = (Instant::now(), Duration::from_secs(2));
    let refused: usize = thread::scope(|scope| {
        let pooler = &pooler;
        let wrong = || {
            let mut refused = 0;
            while begin.elapsed() < time {
                let mut client = RawClient::connect(pooler.address());
                client.send(frames::startup(
                    frames::PROTOCOL_3_0,
                    &[("user", "wrong"), ("database", "app")],
                ));
                let messages = client.read_to_end();
                assert_error(only_error(&messages), "FATAL", "28P01");
                refused += 1;
            }
            refused
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(wrong)).collect();
        let mut other = log_in(pooler);
        while begin.elapsed() < time {
            let asked = Instant::now();
            assert_eq!(other.value("SELECT 1"), "1");
            assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        }
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let seen = wrong_passwords(&postgres);
    println!("{refused} clients were refused, of {seen} log-ins at the server");
    assert!(refused >= CLIENTS);
    // One at a time, every 50 to 200 ms; the first ten may have come together.
    assert!(seen <= CLIENTS + 40, "{seen} wrong passwords in {time:?}");

    // The new password reaches pgweir, and nothing is remembered against the user.
    pooler.reconfigure(|builder| builder.user("wrong", "new"));
    pooler.reload();
    eventually("the new password is used", || {
        let mut client = RawClient::connect(pooler.address());
        client.send(frames::startup(
            frames::PROTOCOL_3_0,
            &[("user", "wrong"), ("database", "app")],
        ));
        client.read().tag == b'R'
    });
    let mut client = RawClient::log_in(pooler.address(), "wrong", "new", "app");
    assert_eq!(client.value("SELECT current_user"), "wrong");
}

/// Sets the limit of open files of a pgweir that runs; whether there is a program for it.
fn limit_files(pooler: &Pooler, limit: usize) -> bool {
    let mut command = Command::new("prlimit");
    command.arg(format!("--pid={}", pooler.pid()));
    command.arg(format!("--nofile={limit}:")).stdin(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn fault_open_files_at_their_limit_are_waited_for_and_told() {
    // A process without descriptors can open no server connection; clients that it has got are told why, and served
    // when there are some again.
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.query_wait_timeout", "'500ms'")
        .start();
    let mut clients = [log_in(&pooler), log_in(&pooler)];
    assert_eq!(clients[0].value("SELECT 1"), "1");
    assert_eq!(tags(&clients[0].query("BEGIN")), "CZ");
    // Those that are open stay so; no new one is under the limit.
    if !limit_files(&pooler, 3) {
        println!("skipped: prlimit, of util-linux, is not there");
        return;
    }
    let answer = clients[1].query("SELECT 2");
    assert_eq!(tags(&answer), "EZ");
    assert_error(&answer[0], "ERROR", "08006");
    assert_eq!(field(&answer[0], b'D'), "Too many open files");
    assert_eq!(
        tags(&clients[0].query("COMMIT")),
        "CZ",
        "who has a place keeps it"
    );
    assert_eq!(clients[1].value("SELECT 3"), "3");
    assert_eq!(tags(&clients[0].query("BEGIN")), "CZ");
    clients[1].send(frames::query("SELECT 4"));
    assert!(limit_files(&pooler, 1024));
    assert_eq!(
        tags(&clients[1].read_until_ready()),
        "TDCZ",
        "the wait was not for nothing"
    );
    assert_eq!(tags(&clients[0].query("COMMIT")), "CZ");
    drop(clients);
    pooler.assert_all_places(2);
}
