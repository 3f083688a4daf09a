//! Limits of messages, sockets and server connections: what they keep out, and what clients do not notice of them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{
    FakeConnection, FakeServer, Frame, Pooler, PoolerBuilder, RawClient, eventually, frames, postgres, tags,
};

fn log_in(pooler: &Pooler) -> RawClient {
    RawClient::log_in(pooler.address(), "app", "secret", "app")
}

/// One row with one value of so many bytes, as `SELECT repeat('x', BYTES)` is answered.
fn row_of(bytes: usize) -> Vec<u8> {
    [
        frames::data_row(&[&"x".repeat(bytes)]),
        frames::command_complete("SELECT 1"),
        frames::ready_for_query(b'I'),
    ]
    .concat()
}

/// A server whose answer to a number is a row of so many bytes.
fn rows_as_asked() -> FakeServer {
    FakeServer::answering(|sql| row_of(sql.split(' ').next().unwrap().parse().unwrap_or(1)))
}

fn in_front_of(server: &FakeServer, change: impl FnOnce(PoolerBuilder) -> PoolerBuilder) -> Pooler {
    change(Pooler::builder(&server.address()).set("pool.default_pool_size", "1")).start()
}

fn assert_too_long(messages: &[Frame], limit: &str) {
    let [error] = messages else {
        panic!("not one error: {messages:?}")
    };
    assert_eq!(
        (
            error.tag,
            error.field(b'S').as_deref(),
            error.field(b'C').as_deref()
        ),
        (b'E', Some("FATAL"), Some("54000"))
    );
    let text = error.field(b'M').unwrap();
    assert!(text.contains("max_packet_size") && text.contains(limit), "{text}");
}

#[test]
fn a_message_above_max_packet_size_ends_its_client_alone() {
    let server = rows_as_asked();
    let mut pooler = in_front_of(&server, |builder| builder.set("listen.max_packet_size", "'4KiB'"));
    let mut small = log_in(&pooler);
    assert_eq!(tags(&small.query(&format!("1 {}", "y".repeat(4000)))), "DCZ");

    // As the first word, and behind a request that is being served.
    let mut large = log_in(&pooler);
    large.send(frames::query(&format!("1 {}", "y".repeat(5000))));
    assert_too_long(&large.read_to_end(), "4096");
    let mut later = log_in(&pooler);
    later.send(frames::parse("", "1"));
    later.send(frames::query(&format!("1 {}", "y".repeat(5000))));
    assert_too_long(&later.read_to_end(), "4096");

    assert_eq!(tags(&small.query("1")), "DCZ");
    // Who is connected keeps the old limit.
    pooler.reconfigure(|builder| builder.set("listen.max_packet_size", "'1MiB'"));
    let position = pooler.log_position();
    pooler.reload();
    pooler.wait_for_log(position, "configuration reloaded");
    let long = format!("1 {}", "y".repeat(100_000));
    assert_eq!(tags(&log_in(&pooler).query(&long)), "DCZ");
    small.send(frames::query(&long));
    assert_too_long(&small.read_to_end(), "4096");
}

#[test]
fn a_row_above_max_packet_size_is_one_error_and_costs_one_server_connection() {
    let server = rows_as_asked();
    let pooler = in_front_of(&server, |builder| builder.set("listen.max_packet_size", "'4KiB'"));
    let mut client = log_in(&pooler);
    assert_eq!(tags(&client.query("4000")), "DCZ");
    client.send(frames::query("5000"));
    assert_too_long(&client.read_to_end(), "4096");
    assert_eq!(tags(&log_in(&pooler).query("1")), "DCZ");
    assert_eq!(server.accepted(), 2);
    eventually("nothing is left lent", || {
        pooler.metric("pgweir_servers{state=\"active\"}") == 0.0
    });
}

#[test]
fn server_login_retry_bounds_the_pauses() {
    // Closes every connection at once, as a server does that cannot start a process.
    let server = FakeServer::start(|_| Ok(()));
    let pooler = in_front_of(&server, |builder| {
        builder
            .set("pool.server_login_retry", "'10ms'")
            .set("pool.query_wait_timeout", "'2s'")
    });
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "app"), ("database", "app")],
    ));
    let messages = client.read_to_end();
    assert_eq!(messages.last().unwrap().field(b'C').as_deref(), Some("08006"));
    // With pauses of 50 ms and more there would be 40 at most.
    assert!(server.accepted() > 50, "{} attempts", server.accepted());
}

/// Answers BEGIN, COMMIT and whatever else a client says.
fn answer_transactions(connection: &mut FakeConnection) -> io::Result<()> {
    let mut status = b'I';
    loop {
        let message = connection.read()?;
        match (message.tag, message.body.as_slice()) {
            (b'X', _) => return Ok(()),
            (_, b"BEGIN\0") => status = b'T',
            (_, b"COMMIT\0") => status = b'I',
            _ => {}
        }
        connection.send([frames::command_complete("OK"), frames::ready_for_query(status)].concat())?;
    }
}

/// Eight clients of two pools want a connection each. The log-ins take longer together than any one of them may.
#[test]
fn log_ins_to_one_server_wait_their_turn_and_the_wait_is_nobodys_timeout() {
    const LOGIN: Duration = Duration::from_millis(100);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (entered, seen) = (now.clone(), most.clone());
    let server = FakeServer::start(move |connection| {
        seen.fetch_max(entered.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::sleep(LOGIN);
        entered.fetch_sub(1, Ordering::SeqCst);
        connection.log_in()?;
        answer_transactions(connection)
    });
    let pooler = in_front_of(&server, |builder| {
        builder
            .set("pool.default_pool_size", "4")
            .set("pool.max_server_logins", "2")
            .set("pool.server_connect_timeout", "'390ms'")
    });
    let mut clients: Vec<_> = thread::scope(|scope| {
        let client = |index| {
            let database = if index % 2 == 0 { "app" } else { "other" };
            let mut client = RawClient::log_in(pooler.address(), "app", "", database);
            assert_eq!(tags(&client.query("BEGIN")), "CZ");
            client
        };
        let threads: Vec<_> = (0..8).map(|index| scope.spawn(move || client(index))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for client in &mut clients {
        assert_eq!(tags(&client.query("COMMIT")), "CZ");
    }
    assert_eq!(server.accepted(), 8);
    assert_eq!(most.load(Ordering::SeqCst), 2);
    assert_eq!(pooler.metric("pgweir_server_connect_failures_total"), 0.0);
}

/// Which connection was sent which query.
type Record = Mutex<Vec<(usize, String)>>;

/// A server that writes down which queries each of its connections was sent. While `silent` says so, the first three
/// connections answer nothing.
fn recording(silent: Arc<AtomicBool>) -> (FakeServer, Arc<Record>) {
    let queries = Arc::new(Record::default());
    let record = queries.clone();
    let server = FakeServer::start(move |connection| {
        connection.log_in()?;
        loop {
            let message = connection.read()?;
            if message.tag != b'Q' {
                return Ok(());
            }
            let sql = message.strings().remove(0);
            record.lock().unwrap().push((connection.index, sql));
            if connection.index >= 3 || !silent.load(Ordering::SeqCst) {
                connection.send(row_of(1))?;
            }
        }
    });
    (server, queries)
}

fn texts(queries: &Record) -> Vec<String> {
    queries
        .lock()
        .unwrap()
        .iter()
        .map(|(_, sql)| sql.clone())
        .collect()
}

#[test]
fn a_rested_connection_is_asked_first() {
    for (delay, query, expected) in [
        ("'0s'", "'<empty>'", &["a", "", "b", "", "c"][..]),
        ("'0s'", "'SELECT 42'", &["a", "SELECT 42", "b", "SELECT 42", "c"]),
        ("'0s'", "''", &["a", "b", "c"]),
        ("'1h'", "'<empty>'", &["a", "b", "c"]),
    ] {
        let (server, queries) = recording(Arc::default());
        let pooler = in_front_of(&server, |builder| {
            builder
                .set("pool.server_check_delay", delay)
                .set("pool.server_check_query", query)
        });
        let mut client = log_in(&pooler);
        let first = texts(&queries).len();
        for sql in ["a", "b", "c"] {
            assert_eq!(tags(&client.query(sql)), "DCZ");
        }
        let asked: Vec<_> = texts(&queries).split_off(first);
        let asked: Vec<_> = asked
            .iter()
            .map(String::as_str)
            .skip_while(|sql| *sql != "a")
            .collect();
        assert_eq!(asked, expected, "{delay} {query}");
        assert_eq!(server.accepted(), 1);
    }
}

/// All idle connections have lost their server without a word. Each would cost a client the same wait.
#[test]
fn silent_connections_are_replaced_and_nobody_notices() {
    let silent = Arc::new(AtomicBool::new(false));
    let (server, queries) = recording(silent.clone());
    let pooler = in_front_of(&server, |builder| {
        builder
            .set("pool.default_pool_size", "3")
            .set("pool.min_pool_size", "3")
            .set("pool.server_check_delay", "'0s'")
            .set("pool.server_connect_timeout", "'300ms'")
    });
    let mut clients = [log_in(&pooler), log_in(&pooler)];
    eventually("the minimum is open", || {
        pooler.metric("pgweir_servers{state=\"idle\"}") == 3.0
    });
    silent.store(true, Ordering::SeqCst);
    for client in &mut clients {
        assert_eq!(tags(&client.query("work")), "DCZ");
    }
    let queries = queries.lock().unwrap();
    let at_silent = |sql: &str| {
        queries
            .iter()
            .filter(|(index, sent)| *index < 3 && sent == sql)
            .count()
    };
    assert_eq!(at_silent("work"), 0, "{queries:?}");
    assert_eq!(at_silent(""), 1, "one that is silent speaks for all: {queries:?}");
}

/// Log-ins take longer than any query may.
#[test]
fn lifetimes_end_without_a_client_waiting_for_a_log_in() {
    const LOGIN: Duration = Duration::from_millis(1500);
    let server = FakeServer::start(|connection| {
        thread::sleep(LOGIN);
        connection.log_in()?;
        answer_transactions(connection)
    });
    let pooler = in_front_of(&server, |builder| {
        builder
            .set("pool.default_pool_size", "2")
            .set("pool.server_lifetime", "'1s'")
    });
    let mut client = log_in(&pooler);
    let mut longest = Duration::ZERO;
    eventually("two generations have passed", || {
        let start = Instant::now();
        assert_eq!(tags(&client.query("work")), "CZ");
        longest = longest.max(start.elapsed());
        server.accepted() >= 3
    });
    assert!(longest < LOGIN / 2, "a client waited {longest:?}");
}

#[test]
fn a_full_pool_ends_lifetimes_too() {
    let server = FakeServer::start(|connection| {
        connection.log_in()?;
        answer_transactions(connection)
    });
    let pooler = in_front_of(&server, |builder| builder.set("pool.server_lifetime", "'500ms'"));
    let mut client = log_in(&pooler);
    eventually("two generations have passed", || {
        assert_eq!(tags(&client.query("work")), "CZ");
        server.accepted() >= 3
    });
    assert!(pooler.metric("pgweir_servers") <= 1.0);
}

#[test]
fn server_reset_query_always_cleans_after_every_transaction() {
    let (server, queries) = recording(Arc::default());
    let mut pooler = in_front_of(&server, |builder| {
        builder.set("pool.server_reset_query_always", "true")
    });
    let mut client = log_in(&pooler);
    let resets = || texts(&queries).iter().filter(|sql| *sql == "DISCARD ALL").count();
    for count in 1..=2 {
        assert_eq!(tags(&client.query("work")), "DCZ");
        eventually("the connection was cleaned", || resets() == count);
    }
    pooler.reconfigure(|builder| builder.set("pool.server_reset_query_always", "false"));
    let position = pooler.log_position();
    pooler.reload();
    pooler.wait_for_log(position, "configuration reloaded");
    for _ in 0..3 {
        assert_eq!(tags(&client.query("work")), "DCZ");
    }
    assert_eq!((resets(), server.accepted()), (2, 1));
}

#[test]
fn a_database_says_what_its_server_connections_begin_with() {
    let postgres = postgres();
    let builder = Pooler::builder(&postgres.address());
    let section = r#"databases."*""#;
    let mut pooler = builder
        .set(&format!("{section}.timezone"), "'Asia/Tokyo'")
        .set(&format!("{section}.datestyle"), "'SQL, DMY'")
        .set(&format!("{section}.application_name"), "'of the database'")
        .set(
            &format!("{section}.connect_query"),
            "\"SET statement_timeout = '77s'\"",
        )
        .start();
    let mut plain = log_in(&pooler);
    let reported =
        |client: &RawClient, name: &str| frames::parameter(&client.parameters, name).map(str::to_owned);
    assert_eq!(reported(&plain, "TimeZone").as_deref(), Some("Asia/Tokyo"));
    assert_eq!(reported(&plain, "DateStyle").as_deref(), Some("SQL, DMY"));
    assert_eq!(plain.value("SHOW application_name"), "of the database");
    assert_eq!(plain.value("SHOW statement_timeout"), "77s");

    // A client's own wish wins, and stays its own.
    let mut own = RawClient::connect(pooler.address());
    let wishes = [("user", "app"), ("database", "app"), ("timezone", "UTC")];
    own.authenticate(&wishes, "secret");
    assert_eq!(own.value("SHOW timezone"), "UTC");
    assert_eq!(plain.value("SHOW timezone"), "Asia/Tokyo");
    assert_eq!(own.value("SHOW datestyle"), "SQL, DMY");

    // A query that fails is told in the server's words, and a reload mends it.
    let query = format!("{section}.connect_query");
    for (sql, code) in [("'SELECT 1/0'", Some("22012")), ("'SELECT 1'", None)] {
        pooler.reconfigure(|builder| builder.set(&query, sql));
        let position = pooler.log_position();
        pooler.reload();
        pooler.wait_for_log(position, "configuration reloaded");
        let mut client = RawClient::connect(pooler.address());
        client.send(frames::startup(frames::PROTOCOL_3_0, &wishes[..2]));
        if let Some(code) = code {
            let messages = client.read_to_end();
            let error = messages.last().unwrap();
            assert_eq!(error.field(b'C').as_deref(), Some(code), "{error:?}");
            assert_eq!(error.field(b'M').as_deref(), Some("division by zero"));
            assert!(error.field(b'D').unwrap().contains("connect_query"));
        } else {
            client.read_until_ready();
            assert_eq!(client.value("SHOW statement_timeout"), "0");
        }
    }
}

#[test]
fn load_balance_hosts_deals_connections_out() {
    for (how, expected) in [("'disable'", [4, 0]), ("'round-robin'", [2, 2])] {
        let servers = [(); 2].map(|()| {
            FakeServer::start(|connection| {
                connection.log_in()?;
                answer_transactions(connection)
            })
        });
        let hosts = format!("['{}', '{}']", servers[0].address(), servers[1].address());
        let pooler = Pooler::builder(&servers[0].address())
            .set(r#"databases."*".hosts"#, hosts)
            .set(r#"databases."*".load_balance_hosts"#, how)
            .set("pool.default_pool_size", "4")
            .start();
        let mut clients: Vec<_> = (0..4).map(|_| log_in(&pooler)).collect();
        for client in &mut clients {
            assert_eq!(tags(&client.query("BEGIN")), "CZ");
        }
        assert_eq!(servers.each_ref().map(FakeServer::accepted), expected, "{how}");
    }
}
