//! What clients notice when servers fail: true errors or a wait, and nothing that stays.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    io::{self, ErrorKind, Read},
    net::TcpListener,
    process::Stdio,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use support::{
    FakeConnection, FakeServer, Frame, LIMIT, Link, Pooler, PoolerBuilder, Postgres, RawClient, Stop,
    eventually, frames, postgres, postgres_with, tags,
};

fn log_in(pooler: &Pooler) -> RawClient {
    RawClient::log_in(pooler.address(), "app", "secret", "app")
}

/// A log-in that is refused; what was said.
fn refused_log_in(pooler: &Pooler) -> Frame {
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "app"), ("database", "app")],
    ));
    let messages = client.read_to_end();
    let errors = messages.iter().filter(|message| message.tag == b'E').count();
    assert!(errors == 1 && tags(&messages).ends_with('E'), "{messages:?}");
    messages.last().unwrap().clone()
}

/// Field of an error.
#[track_caller]
fn field(message: &Frame, code: u8) -> String {
    assert_eq!(message.tag, b'E', "{message:?}");
    message.field(code).unwrap_or_default()
}

#[track_caller]
fn assert_error(message: &Frame, severity: &str, sqlstate: &str) {
    assert_eq!(
        (field(message, b'V').as_str(), field(message, b'C').as_str()),
        (severity, sqlstate),
        "{message:?}"
    );
}

#[track_caller]
fn wait_for_metric(pooler: &Pooler, sample: &str, expected: f64) {
    eventually(&format!("{sample} is {expected}"), || {
        (pooler.metric(sample) - expected).abs() < 1e-9
    });
}

/// Nobody is connected, and nothing is lent or under way.
#[track_caller]
fn assert_settled(pooler: &Pooler) {
    wait_for_metric(pooler, "pgweir_clients", 0.0);
    for gauge in [
        "waiting_clients",
        "servers{state=\"active\"}",
        "servers{state=\"connecting\"}",
    ] {
        wait_for_metric(pooler, &format!("pgweir_{gauge}"), 0.0);
    }
}

/// The same, and all of the pool's places can be had at once.
#[track_caller]
fn assert_whole(pooler: &Pooler, size: usize) {
    assert_settled(pooler);
    let mut clients: Vec<_> = (0..size).map(|_| log_in(pooler)).collect();
    for client in &mut clients {
        assert_eq!(tags(&client.query("BEGIN")), "CZ");
    }
    let all = f64::from(u32::try_from(size).unwrap());
    wait_for_metric(pooler, "pgweir_servers{state=\"active\"}", all);
    wait_for_metric(pooler, "pgweir_servers", all);
    for client in &mut clients {
        assert_eq!(tags(&client.query("COMMIT")), "CZ");
    }
}

// --- A server that goes away and comes back ---

/// What a client that asks all the time has met.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    answers: AtomicUsize,
    /// When the last answer came.
    last: Mutex<Option<Instant>>,
}

impl Load {
    /// Asks until told to stop, on a new connection after each error; the errors.
    fn run(&self, pooler: &Pooler, in_block: bool) -> Vec<Frame> {
        let mut errors = Vec::new();
        let statements: &[&str] = if in_block {
            &["BEGIN", "SELECT pg_sleep(0.001)", "COMMIT"]
        } else {
            &["SELECT pg_sleep(0.001)"]
        };
        while !self.stop.load(Ordering::Relaxed) {
            let mut client = RawClient::connect(pooler.address());
            client.send(frames::startup(
                frames::PROTOCOL_3_0,
                &[("user", "app"), ("database", "app")],
            ));
            let mut alive = Self::ask(&mut client, None, &mut errors);
            while alive && !self.stop.load(Ordering::Relaxed) {
                for statement in statements {
                    alive = alive && Self::ask(&mut client, Some(statement), &mut errors);
                }
                if alive {
                    self.answers.fetch_add(1, Ordering::Relaxed);
                    *self.last.lock().unwrap() = Some(Instant::now());
                }
            }
        }
        errors
    }

    /// Sends a query, if any, and reads up to ReadyForQuery. An error must be the only one and the last word.
    fn ask(client: &mut RawClient, sql: Option<&str>, errors: &mut Vec<Frame>) -> bool {
        if let Some(sql) = sql {
            // Whoever cannot send may still read why.
            let _ = client.try_send(frames::query(sql));
        }
        let (mut failed, mut messages) = (false, Vec::new());
        loop {
            match client.try_read() {
                Ok(message) if message.tag == b'Z' => return !failed,
                Ok(message) => {
                    if message.tag == b'E' {
                        assert!(!failed, "a second error: {message:?} after {messages:?}");
                        failed = true;
                        errors.push(message.clone());
                    }
                    messages.push(message);
                }
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::WouldBlock, "no answer to {sql:?}");
                    assert!(failed, "closed without a word: {error} after {messages:?}");
                    return false;
                }
            }
        }
    }

    fn served_since(&self, moment: Instant) -> bool {
        self.last.lock().unwrap().is_some_and(|last| last > moment)
    }
}

/// Thirty clients on five server connections while the server stops in this way and comes back.
fn survive(how: Stop) {
    const CLIENTS: usize = 30;
    let mut postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", "5")
        .set("log.level", "'info'")
        .start();
    let load = Load::default();
    let errors: Vec<Frame> = thread::scope(|scope| {
        let (load, pooler) = (&load, &pooler);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| scope.spawn(move || load.run(pooler, number % 2 == 0)))
            .collect();
        // Whatever fails here, the clients have to end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("the load is under way", || {
                load.answers.load(Ordering::Relaxed) > 500
            });
            postgres.stop(how).unwrap();
            eventually("clients wait for the server", || {
                pooler.metric("pgweir_waiting_clients") > 0.0
            });
            postgres.start().unwrap();
            let back = Instant::now();
            eventually("the pool serves again", || load.served_since(back));
            assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
            let before = load.answers.load(Ordering::Relaxed);
            eventually("and goes on", || {
                load.answers.load(Ordering::Relaxed) > before + 500
            });
        }));
        load.stop.store(true, Ordering::Relaxed);
        let errors = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect();
        outcome
            .map(|()| errors)
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    for error in &errors {
        let sqlstate = field(error, b'C');
        assert!(
            matches!(sqlstate.as_str(), "57P01" | "57P02" | "57P03" | "08006"),
            "{error:?}"
        );
    }
    // Five transactions at most were open; whoever waited has waited on.
    assert!(
        (1..=5).contains(&errors.len()),
        "{} errors: {errors:?}",
        errors.len()
    );
    assert_whole(&pooler, 5);
}

#[test]
fn a_killed_server_is_survived() {
    survive(Stop::Kill);
}

#[test]
fn a_crashed_server_is_survived() {
    survive(Stop::Immediate);
}

#[test]
fn a_fast_restart_is_survived() {
    survive(Stop::Fast);
}

#[test]
fn pgbench_goes_on_after_a_restart_between_its_transactions() {
    let mut postgres = postgres();
    postgres.initialise_pgbench("app", "secret", "app").unwrap();
    let pooler = Pooler::builder(&postgres.address())
        .set("log.level", "'info'")
        .start();
    // One statement a transaction, with pauses: the restart finds nobody in one.
    let script = pooler.file("script.sql");
    std::fs::write(&script, "SELECT 1;\n\\sleep 400 ms\n").unwrap();
    let mut command = postgres.programs().command("pgbench");
    command.args(["-n", "-c", "4", "-t", "4", "-f"]).arg(&script);
    command.arg(format!("postgresql://app@{}/app", pooler.address()));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let pgbench = command.spawn().unwrap();
    eventually("the first transactions are done", || {
        pooler.metric("pgweir_transactions_total") >= 4.0
    });
    postgres.restart().unwrap();
    let output = pgbench.wait_with_output().unwrap();
    let summary = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(
        summary.contains("number of transactions actually processed: 16/16"),
        "{summary}"
    );
    assert_whole(&pooler, 2);
}

// --- A server that cannot be reached ---

/// A link to a server, and a pooler in front of it where clients do not wait for long.
fn behind_link(postgres: &Postgres, change: impl FnOnce(PoolerBuilder) -> PoolerBuilder) -> (Link, Pooler) {
    let link = Link::to(postgres.address());
    let builder = Pooler::builder(&link.address()).set("pool.query_wait_timeout", "'700ms'");
    let pooler = change(builder).start();
    (link, pooler)
}

#[test]
fn a_server_that_refuses_is_waited_for_and_used_at_once_when_it_is_back() {
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
    assert_error(
        &refused_log_in_with(&pooler, &[("search_path", "x")]),
        "FATAL",
        "08006",
    );
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

/// A log-in whose settings need a server.
fn refused_log_in_with(pooler: &Pooler, settings: &[(&str, &str)]) -> Frame {
    let mut client = RawClient::connect(pooler.address());
    let all = [&[("user", "app"), ("database", "app")], settings].concat();
    client.send(frames::startup(frames::PROTOCOL_3_0, &all));
    client.read_to_end().pop().expect("it is told")
}

#[test]
fn a_client_that_waits_is_served_when_the_server_comes_up() {
    let postgres = postgres();
    let (mut link, pooler) = behind_link(&postgres, |builder| {
        builder.set("pool.query_wait_timeout", "'60s'")
    });
    link.refuse();
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "app"), ("database", "app")],
    ));
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
fn a_server_that_says_nothing_costs_server_connect_timeout() {
    let postgres = postgres();
    let (link, pooler) = behind_link(&postgres, |builder| {
        builder.set("pool.server_connect_timeout", "'200ms'")
    });
    link.freeze();
    let error = refused_log_in(&pooler);
    assert_error(&error, "FATAL", "08006");
    assert!(field(&error, b'D').contains("200ms"), "{error:?}");
    link.thaw();
    assert_eq!(log_in(&pooler).value("SELECT 1"), "1");
    wait_for_metric(&pooler, "pgweir_servers{state=\"connecting\"}", 0.0);
}

#[test]
fn the_next_host_is_tried_when_one_refuses_or_says_nothing() {
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
fn a_server_without_room_is_waited_for() {
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
fn a_server_that_never_has_room_is_named_when_the_wait_is_over() {
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
    let error = refused_log_in(&pooler);
    assert_error(&error, "FATAL", "53300");
    assert_eq!(field(&error, b'M'), "sorry, too many clients already");
    assert!(server.accepted() >= 2, "it was tried again");
}

#[test]
fn a_final_refusal_is_told_at_once_and_not_repeated() {
    let server = FakeServer::start(|connection| {
        connection.read_startup()?;
        connection.send(frames::error_response("FATAL", "28000", "no pg_hba.conf entry"))
    });
    // Longer than the harness waits.
    let pooler = Pooler::builder(&server.address())
        .set("pool.query_wait_timeout", "'10m'")
        .start();
    let error = refused_log_in(&pooler);
    assert_error(&error, "FATAL", "28000");
    assert_eq!(field(&error, b'M'), "no pg_hba.conf entry");
    assert_eq!(
        server.accepted(),
        1,
        "a server is not hammered with what it has refused"
    );
}

// --- A server that fails in the middle ---

/// A server that logs in and then does `script` with the first query of its first connection; later
/// connections answer as they should.
fn failing_once(
    script: impl Fn(&mut FakeConnection) -> io::Result<()> + Send + Sync + 'static,
) -> FakeServer {
    FakeServer::start(move |connection| {
        connection.log_in()?;
        loop {
            let message = connection.read()?;
            match message.tag {
                b'Q' if connection.index == 0 => return script(connection),
                b'Q' => connection.send(good())?,
                _ => return Ok(()),
            }
        }
    })
}

fn good() -> Vec<u8> {
    let row = [frames::data_row(&["good"]), frames::command_complete("SELECT 1")];
    [row.concat(), frames::ready_for_query(b'I')].concat()
}

fn in_front_of(server: &FakeServer) -> Pooler {
    Pooler::builder(&server.address())
        .set("pool.default_pool_size", "1")
        .start()
}

/// What a client gets whose server does this, up to the end of its connection. The next client must be served
/// as if nothing had been.
fn outcome(script: impl Fn(&mut FakeConnection) -> io::Result<()> + Send + Sync + 'static) -> Vec<Frame> {
    let server = failing_once(script);
    let mut pooler = in_front_of(&server);
    let (mut victim, mut next) = (log_in(&pooler), log_in(&pooler));
    victim.send(frames::query("SELECT 1"));
    let messages = victim.read_to_end();
    assert_eq!(tags(&next.query("SELECT 1")), "DCZ", "after {messages:?}");
    assert_eq!(server.accepted(), 2, "the connection was not used again");
    drop((victim, next));
    assert_settled(&pooler);
    assert!(
        pooler.is_running() && !pooler.logs().contains("panicked"),
        "{}",
        pooler.logs()
    );
    messages
}

#[test]
fn a_server_lost_between_two_messages_is_told_once() {
    let messages = outcome(|connection| connection.send(frames::data_row(&["half"])));
    assert_eq!(tags(&messages), "DE");
    assert_error(&messages[1], "FATAL", "08006");
    assert!(
        !field(&messages[1], b'D').is_empty(),
        "whether it took effect is not known"
    );
}

#[test]
fn a_server_that_resets_the_connection_is_told_once() {
    let messages = outcome(FakeConnection::reset_at_end);
    assert_eq!(tags(&messages), "E");
    assert_error(&messages[0], "FATAL", "08006");
}

#[test]
fn a_server_lost_in_a_header_is_told_once() {
    let messages = outcome(|connection| connection.send([b'D', 0, 0]));
    assert_eq!(tags(&messages), "E");
    assert_error(&messages[0], "FATAL", "08006");
}

#[test]
fn nothing_is_said_in_the_middle_of_a_message() {
    // A client that got more would take it for the rest of the row.
    let messages = outcome(|connection| {
        let row = frames::data_row(&[&"x".repeat(50_000)]);
        connection.send(&row[..row.len() / 2])
    });
    assert_eq!(tags(&messages), "");
}

#[test]
fn the_servers_own_last_words_are_all_that_is_said() {
    let messages = outcome(|connection| {
        connection.send(frames::data_row(&["half"]))?;
        connection.send(frames::error_response(
            "FATAL",
            "57P01",
            "terminating connection due to administrator command",
        ))
    });
    assert_eq!(tags(&messages), "DE");
    assert_error(&messages[1], "FATAL", "57P01");
}

#[test]
fn a_link_that_is_cut_in_the_middle_of_a_result_is_one_error() {
    let postgres = postgres();
    let link = Link::to(postgres.address());
    let pooler = Pooler::builder(&link.address()).start();
    let mut client = log_in(&pooler);
    client.query("BEGIN");
    client.send(frames::query(
        "SELECT n, pg_sleep(0.01) FROM generate_series(1, 100000) n",
    ));
    wait_for_metric(&pooler, "pgweir_servers{state=\"active\"}", 1.0);
    link.cut();
    let messages = client.read_to_end();
    let errors: Vec<_> = messages.iter().filter(|message| message.tag == b'E').collect();
    assert_eq!(errors.len(), 1, "{}", tags(&messages));
    assert_error(errors[0], "FATAL", "08006");
    assert_eq!(log_in(&pooler).value("SELECT 1"), "1");
}

// --- A server that does not speak the protocol ---

#[test]
fn garbage_is_one_error() {
    let messages = outcome(|connection| {
        connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
        connection.read_to_end().map(drop)
    });
    assert_eq!(tags(&messages), "E");
    assert_error(&messages[0], "FATAL", "08006");
}

#[test]
fn impossible_lengths_are_one_error() {
    for length in [i32::MAX, -1, i32::MIN, 0, 3] {
        let messages = outcome(move |connection| {
            connection.send([&[b'D'][..], &length.to_be_bytes()].concat())?;
            connection.read_to_end().map(drop)
        });
        assert_eq!(tags(&messages), "E", "{length}");
        assert_error(&messages[0], "FATAL", "08006");
    }
}

#[test]
fn a_server_that_falls_out_of_step_is_left_after_the_transaction() {
    let ready = || frames::ready_for_query(b'I');
    for reply in [
        [good(), ready()].concat(),
        [good(), frames::data_row(&["late"])].concat(),
        [frames::frame(b'1', []), good()].concat(),
        [frames::frame(b'~', b"what"), good()].concat(),
        [ready(), good()].concat(),
        frames::ready_for_query(b'?'),
        frames::frame(b'Z', []),
    ] {
        let shown = reply.escape_ascii().to_string();
        let server = failing_once(move |connection| {
            connection.send(&reply)?;
            connection.read_to_end().map(drop)
        });
        let pooler = in_front_of(&server);
        let (mut victim, mut next) = (log_in(&pooler), log_in(&pooler));
        victim.send(frames::query("SELECT 1"));
        victim.read_until_ready();
        // The victim is still connected, and has nothing more to do with the server.
        assert_eq!(tags(&next.query("SELECT 1")), "DCZ", "after {shown}");
        assert_eq!(server.accepted(), 2, "{shown}");
        drop((victim, next));
        assert_settled(&pooler);
    }
}

#[test]
fn a_late_reply_on_an_idle_connection_costs_only_that_connection() {
    let server = failing_once(|connection| {
        connection.send(good())?;
        // The client has its answer; this is nobody's.
        connection.expect(b'Q')?;
        connection.send(good())?;
        connection.send(frames::ready_for_query(b'I'))?;
        connection.read_to_end().map(drop)
    });
    let pooler = in_front_of(&server);
    let mut client = log_in(&pooler);
    assert_eq!(tags(&client.query("SELECT 1")), "DCZ");
    client.send(frames::query("SELECT 2"));
    client.read_until_ready();
    wait_for_metric(&pooler, "pgweir_servers", 0.0);
    assert_eq!(tags(&log_in(&pooler).query("SELECT 3")), "DCZ");
    assert_eq!(server.accepted(), 2);
}

// --- Idle connections ---

#[test]
fn an_idle_connection_that_was_ended_is_given_to_nobody() {
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", "3")
        .start();
    let mut clients: Vec<_> = (0..3).map(|_| log_in(&pooler)).collect();
    for _ in 0..3 {
        for client in &mut clients {
            client.query("BEGIN");
        }
        for client in &mut clients {
            client.query("COMMIT");
        }
        wait_for_metric(&pooler, "pgweir_servers{state=\"idle\"}", 3.0);
        // Returns when they are gone.
        let end =
            "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE usename = 'app'";
        assert_eq!(postgres.psql(end).unwrap(), "3");
        for client in &mut clients {
            assert_eq!(client.value("SELECT 1"), "1");
        }
    }
    // The same without anybody asking: what is shown is what is there.
    postgres
        .psql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'")
        .unwrap();
    wait_for_metric(&pooler, "pgweir_servers", 0.0);
    assert!(pooler.logs().contains("server closes an idle connection"));
}

#[test]
fn what_a_server_says_on_its_own_is_consumed_and_its_settings_are_noted() {
    let ((go, may_say), (saying, said)) = (channel::<()>(), channel::<()>());
    let may_say = Mutex::new(may_say);
    let server = FakeServer::start(move |connection| {
        connection.log_in()?;
        connection.expect(b'Q')?;
        connection.send(good())?;
        may_say
            .lock()
            .unwrap()
            .recv_timeout(LIMIT)
            .map_err(io::Error::other)?;
        let notice = frames::frame(b'N', b"SNOTICE\0C00000\0Mhello\0\0");
        let notification = frames::frame(b'A', [&[0, 0, 0, 9][..], b"channel\0payload\0"].concat());
        connection.send([notice, notification.clone()].concat())?;
        connection
            .send_bytewise([notification, frames::parameter_status("in_hot_standby", "on")].concat())?;
        saying.send(()).map_err(io::Error::other)?;
        connection.expect(b'Q')?;
        connection.send(good())?;
        connection.read_to_end().map(drop)
    });
    let pooler = in_front_of(&server);
    let mut client = log_in(&pooler);
    assert_eq!(tags(&client.query("SELECT 1")), "DCZ");
    wait_for_metric(&pooler, "pgweir_servers{state=\"idle\"}", 1.0);
    go.send(()).unwrap();
    said.recv_timeout(LIMIT).unwrap();
    let mut next = log_in(&pooler);
    let answer = next.query("SELECT 2");
    // It hears of the setting that has changed, which is true for it too, and of nothing else.
    assert_eq!(tags(&answer), "SDCZ", "{answer:?}");
    assert_eq!(answer[0].strings(), ["in_hot_standby", "on"]);
    assert_eq!(server.accepted(), 1, "the connection is still in use");
}

#[test]
fn a_listening_connection_of_the_server_does_not_die_of_notifications() {
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", "1")
        .start();
    let mut client = log_in(&pooler);
    let pid = client.value("SELECT pg_backend_pid()");
    client.query("LISTEN news");
    wait_for_metric(&pooler, "pgweir_servers{state=\"idle\"}", 1.0);
    for _ in 0..20 {
        postgres.psql_in("app", "NOTIFY news, 'while idle'").unwrap();
    }
    let mut other = log_in(&pooler);
    let answer = other.query("SELECT pg_backend_pid()");
    let row = answer.iter().find(|message| message.tag == b'D').expect("a row");
    assert_eq!(row.columns(), [Some(pid)]);
}

#[test]
fn a_server_that_has_gone_silent_is_left_by_a_client_that_leaves() {
    let postgres = postgres();
    let (link, pooler) = behind_link(&postgres, |builder| builder.set("pool.default_pool_size", "1"));
    let mut client = log_in(&pooler);
    client.query("BEGIN");
    link.freeze();
    let mut stream = client.into_stream();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert!(stream.read(&mut [0]).is_err());
    drop(stream);
    // Its place comes back although the server neither takes the cancel nor closes the connection.
    wait_for_metric(&pooler, "pgweir_clients", 0.0);
    wait_for_metric(&pooler, "pgweir_servers{state=\"active\"}", 0.0);
    link.thaw();
    assert_eq!(log_in(&pooler).value("SELECT 1"), "1");
}

/// Clients that waited for the first server connection of a pool were not read: those that had given up kept
/// their places until query_wait_timeout, and max_client_conn was reached by clients that were gone.
#[test]
fn a_client_that_leaves_while_no_server_answers_leaves_nothing() {
    let pooler = Pooler::builder("127.0.0.1:1")
        .set("listen.max_client_conn", "2")
        .start();
    for _ in 0..3 {
        let startup = frames::startup(frames::PROTOCOL_3_0, &[("user", "app"), ("database", "app")]);
        let clients = [(); 2].map(|()| {
            let mut client = RawClient::connect(pooler.address());
            client.send(startup.clone());
            client
        });
        eventually("both wait", || pooler.metric("pgweir_waiting_clients") == 2.0);
        drop(clients);
        eventually("nobody waits", || pooler.metric("pgweir_waiting_clients") == 0.0);
    }
}

/// A COPY failed after CopyInResponse and before the server read anything; it then answered a Sync that pgweir had
/// taken for one that COPY ignores. The answer came when the server connection was another client's, who took it
/// for its own.
#[test]
fn a_late_answer_to_a_sync_before_copy_data_is_not_the_next_clients() {
    let server = FakeServer::start(|connection| {
        connection.log_in()?;
        for tag in *b"BES" {
            connection.expect(tag)?;
        }
        connection.send([frames::frame(b'2', ""), frames::frame(b'G', [0, 0, 0])].concat())?;
        for tag in *b"dcS" {
            connection.expect(tag)?;
        }
        let failed = frames::error_response("ERROR", "P0001", "not today");
        connection.send([failed, frames::ready_for_query(b'I')].concat())?;
        // As late as it can be: when something else has been asked.
        let mut late = frames::ready_for_query(b'I');
        loop {
            let message = connection.read()?;
            if message.tag != b'Q' {
                return Ok(());
            }
            let empty = message.body == [0];
            let answer = if empty {
                frames::frame(b'I', "")
            } else {
                frames::command_complete("SELECT 0")
            };
            let ready = frames::ready_for_query(b'I');
            connection.send([std::mem::take(&mut late), answer, ready].concat())?;
        }
    });
    let pooler = Pooler::builder(&server.address())
        .set("pool.default_pool_size", "1")
        .start();
    let (mut client, mut other) = (log_in(&pooler), log_in(&pooler));
    client.send([frames::bind("", "", &[]), frames::execute(""), frames::sync()].concat());
    assert_eq!([client.read().tag, client.read().tag], *b"2G");
    client.send(
        [
            frames::frame(b'd', "1\n"),
            frames::frame(b'c', ""),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&client.read_until_ready()), "EZ");
    other.send(frames::query("SELECT other"));
    assert_eq!(tags(&other.read_until_ready()), "CZ");
    assert_eq!(tags(&client.read_until_ready()), "Z");
}
