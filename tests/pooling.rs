//! Who gets a server connection, when, for how long, and in which state.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    collections::HashSet,
    net::TcpListener,
    process::Stdio,
    time::{Duration, Instant},
};

use support::{
    FakeServer, Frame, Pooler, PoolerBuilder, Postgres, RawClient, eventually, frames, postgres, tags,
};

/// A pgweir in front of a PostgreSQL.
struct Stage {
    pooler: Pooler,
    postgres: Postgres,
}

fn stage(change: impl FnOnce(PoolerBuilder) -> PoolerBuilder) -> Stage {
    let postgres = postgres();
    let pooler = change(Pooler::builder(&postgres.address())).start();
    Stage { pooler, postgres }
}

impl Stage {
    fn client(&self) -> RawClient {
        self.client_of("app", "app")
    }

    fn client_of(&self, user: &str, database: &str) -> RawClient {
        RawClient::log_in(self.pooler.address(), user, "secret", database)
    }

    fn waits(&self, clients: u32) {
        eventually("clients wait", || {
            self.pooler.metric("pgweir_waiting_clients") == f64::from(clients)
        });
    }

    /// How many server connections there are by PostgreSQL's own account.
    fn backends(&self) -> usize {
        let sql = "SELECT count(*) FROM pg_stat_activity \
            WHERE backend_type = 'client backend' AND usename <> 'postgres'";
        self.postgres.psql(sql).unwrap().parse().unwrap()
    }
}

fn pid(client: &mut RawClient) -> String {
    client.value("SELECT pg_backend_pid()")
}

fn rows(messages: &[Frame]) -> Vec<String> {
    let rows = messages.iter().filter(|message| message.tag == b'D');
    rows.map(|row| row.columns().swap_remove(0).unwrap()).collect()
}

fn size(size: usize) -> impl FnOnce(PoolerBuilder) -> PoolerBuilder {
    move |builder| builder.set("pool.default_pool_size", size.to_string())
}

fn mode(mode: &str) -> impl FnOnce(PoolerBuilder) -> PoolerBuilder {
    let mode = format!("'{mode}'");
    move |builder| builder.set("pool.mode", mode).set("pool.default_pool_size", "1")
}

#[test]
fn a_transaction_pool_lends_a_server_for_each_transaction() {
    let stage = stage(size(1));
    let mut clients = [stage.client(), stage.client(), stage.client()];
    let pids: HashSet<String> = clients.iter_mut().map(pid).collect();
    assert_eq!(pids.len(), 1);
    let [one, other, _] = &mut clients;
    one.query("BEGIN");
    other.send(frames::query("SELECT 'waited'"));
    stage.waits(1);
    one.query("COMMIT");
    assert_eq!(rows(&other.read_until_ready()), ["waited"]);
    stage.pooler.assert_all_places(1);
}

#[test]
fn a_statement_pool_refuses_transaction_blocks() {
    let stage = stage(mode("statement"));
    let mut client = stage.client();
    assert_eq!(tags(&client.query("BEGIN; SELECT 1; COMMIT")), "CTDCCZ");
    for begin in [frames::query("BEGIN"), frames::extended("BEGIN", &[])] {
        let mut other = stage.client();
        other.send(begin);
        let end = other.read_to_end();
        let error = end.last().unwrap();
        assert_eq!(error.field(b'C').as_deref(), Some("0A000"), "{end:?}");
        assert_eq!(
            error.field(b'M').as_deref(),
            Some("transaction blocks not allowed in statement pooling mode")
        );
        assert_eq!(client.value("SELECT 1"), "1");
    }
    stage.pooler.wait_until_quiet();
    // Each statement of two clients in turn.
    let mut other = stage.client();
    for _ in 0..3 {
        assert_eq!(pid(&mut client), pid(&mut other));
    }
}

#[test]
fn a_session_pool_lends_a_server_until_the_client_leaves_and_cleans_it() {
    let stage = stage(mode("session"));
    let mut client = stage.client();
    client.query("CREATE TEMP TABLE mine (a int); SET work_mem TO '1234kB'; SET TimeZone TO 'Asia/Tokyo'");
    client.query("SELECT pg_advisory_lock(1)");
    let first = pid(&mut client);
    let mut other = stage.client();
    other.send(frames::query("SHOW work_mem"));
    stage.waits(1);
    assert_eq!(client.value("SHOW work_mem"), "1234kB");
    client.send(frames::terminate());
    assert_ne!(rows(&other.read_until_ready()), ["1234kB"]);
    assert_eq!(pid(&mut other), first, "it was cleaned, not closed");
    assert_eq!(
        other.value("SELECT count(*) FROM pg_class WHERE relname = 'mine'"),
        "0"
    );
    assert_eq!(
        other.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
        "0"
    );
    assert_eq!(other.value("SHOW TimeZone"), "Etc/UTC");
    drop(other);
    stage.pooler.assert_all_places(1);
}

#[test]
fn a_session_that_ends_in_mid_transaction_is_rolled_back() {
    for goodbye in [frames::terminate(), Vec::new()] {
        let stage = stage(mode("session"));
        let mut client = stage.client();
        client.query("CREATE TABLE t (a int)");
        client.query("BEGIN; INSERT INTO t VALUES (1)");
        client.send(goodbye);
        drop(client);
        let mut other = stage.client();
        assert_eq!(other.value("SELECT count(*) FROM t"), "0");
        drop(other);
        stage.pooler.assert_all_places(1);
    }
}

#[test]
fn a_reset_query_that_fails_closes_the_server_connection() {
    let stage = stage(|builder| mode("session")(builder).set("pool.server_reset_query", "'SELECT 1/0'"));
    let first = pid(&mut stage.client());
    let mut other = stage.client();
    assert_ne!(pid(&mut other), first);
    drop(other);
    stage.pooler.assert_all_places(1);
}

#[test]
fn there_are_never_more_servers_than_places() {
    let stage = stage(size(3));
    stage.postgres.initialise_pgbench("app", "secret", "app").unwrap();
    let url = format!("postgresql://app:secret@{}/app", stage.pooler.address());
    let mut pgbench = stage
        .postgres
        .programs()
        .command("pgbench")
        .args(["-n", "-C", "-c", "24", "-j", "2", "-T", "2"])
        .arg(url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut most = 0;
    while pgbench.try_wait().unwrap().is_none() {
        most = most.max(stage.backends());
    }
    let output = pgbench.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("failed transactions: 0 "),
        "{output:?}"
    );
    assert_eq!(most, 3);
    stage.pooler.assert_all_places(3);
}

#[test]
fn waiters_are_served_in_the_order_in_which_they_came() {
    const WAITERS: u32 = 20;
    let stage = stage(size(1));
    let mut holder = stage.client();
    holder.query("CREATE TABLE turns (turn serial, name int)");
    holder.query("BEGIN");
    let mut waiters: Vec<_> = (0..WAITERS).map(|_| stage.client()).collect();
    // Not in the order in which they connected.
    waiters.rotate_left(7);
    for (waiter, name) in waiters.iter_mut().zip(0..) {
        waiter.send(frames::query(&format!(
            "INSERT INTO turns (name) VALUES ({name})"
        )));
        stage.waits(name + 1);
    }
    holder.query("COMMIT");
    for waiter in &mut waiters {
        assert_eq!(tags(&waiter.read_until_ready()), "CZ");
    }
    let order = holder.value("SELECT string_agg(name::text, ',' ORDER BY turn) FROM turns");
    assert_eq!(
        order,
        (0..WAITERS)
            .map(|name| name.to_string())
            .collect::<Vec<_>>()
            .join(",")
    );
    stage.pooler.assert_all_places(1);
}

#[test]
fn the_server_used_last_is_used_next() {
    let stage = stage(|builder| size(4)(builder).set("process.workers", "1"));
    let mut clients: Vec<_> = (0..4).map(|_| stage.client()).collect();
    let pids: Vec<String> = clients
        .iter_mut()
        .map(|client| {
            client.query("BEGIN");
            pid(client)
        })
        .collect();
    for client in &mut clients {
        client.query("COMMIT");
    }
    for client in &mut clients {
        for _ in 0..5 {
            assert_eq!(pid(client), pids[3]);
        }
    }
    stage.pooler.assert_all_places(4);
}

#[test]
fn the_minimum_is_kept_and_the_rest_goes_when_idle() {
    let stage = stage(|builder| {
        size(4)(builder)
            .set("pool.min_pool_size", "2")
            .set("pool.server_idle_timeout", "'1s'")
    });
    let mut clients: Vec<_> = (0..4).map(|_| stage.client()).collect();
    for client in &mut clients {
        client.query("BEGIN");
    }
    assert_eq!(stage.backends(), 4);
    for client in &mut clients {
        client.query("COMMIT");
    }
    eventually("two are left", || stage.backends() == 2);
    // One that dies is replaced without anybody asking.
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' LIMIT 1";
    let before = stage.pooler.metric("pgweir_server_connects_total");
    stage.postgres.psql(kill).unwrap();
    eventually("it is replaced", || {
        stage.pooler.metric("pgweir_server_connects_total") > before && stage.backends() == 2
    });
    stage.pooler.assert_all_places(4);
}

#[test]
fn a_server_past_its_lifetime_is_replaced_between_transactions() {
    let stage = stage(|builder| size(1)(builder).set("pool.server_lifetime", "'1s'"));
    let mut client = stage.client();
    client.query("BEGIN");
    let old = pid(&mut client);
    let age = "SELECT clock_timestamp() - backend_start > '1.5s' FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    eventually("it is past its lifetime", || client.value(age) == "t");
    assert_eq!(pid(&mut client), old, "a transaction is not disturbed");
    client.query("COMMIT");
    eventually("another server connection is used", || pid(&mut client) != old);
    stage.pooler.assert_all_places(1);
}

#[test]
fn waiting_too_long_is_one_error_and_not_the_end() {
    let stage = stage(|builder| size(1)(builder).set("pool.query_wait_timeout", "'500ms'"));
    let (mut holder, mut simple, mut extended) = (stage.client(), stage.client(), stage.client());
    holder.query("CREATE TABLE t (a int)");
    holder.query("BEGIN");
    let begin = Instant::now();
    simple.send(frames::query("INSERT INTO t VALUES (1)"));
    let insert = [
        frames::parse("", "INSERT INTO t VALUES (2)"),
        frames::bind("", "", &[]),
        frames::execute(""),
    ];
    extended.send([insert.concat(), frames::flush()].concat());
    let answer = simple.read_until_ready();
    assert_eq!(tags(&answer), "EZ");
    assert!(begin.elapsed() >= Duration::from_millis(500));
    let field = |code| answer[0].field(code).unwrap();
    assert_eq!((field(b'S'), field(b'C')), ("ERROR".into(), "53300".into()));
    assert!(field(b'M').contains("query_wait_timeout (500ms)"), "{answer:?}");
    assert!(
        field(b'D').contains("Pool \"app\" of user \"app\" has 1 of 1"),
        "{answer:?}"
    );

    // In a batch the error comes at once, and ReadyForQuery only for the Sync.
    assert_eq!(extended.read().tag, b'E');
    extended.send([insert.concat(), frames::query("INSERT INTO t VALUES (3)")].concat());
    extended.send(frames::sync());
    assert_eq!(tags(&extended.read_until_ready()), "Z");

    holder.query("COMMIT");
    for client in [&mut simple, &mut extended] {
        assert_eq!(client.value("SELECT count(*) FROM t"), "0");
    }
    stage.pooler.assert_all_places(1);
}

#[test]
fn every_database_and_user_has_a_pool_with_its_own_size_and_mode() {
    let postgres = postgres();
    for sql in [
        "CREATE ROLE small LOGIN PASSWORD 'secret'",
        "CREATE ROLE sessions LOGIN PASSWORD 'secret'",
        "CREATE DATABASE second",
        "GRANT ALL ON DATABASE app, second TO small, sessions",
    ] {
        postgres.psql(sql).unwrap();
    }
    let hosts = format!("['{}']", postgres.address());
    let pooler = Pooler::builder(&postgres.address())
        .user("small", "secret")
        .user("sessions", "secret")
        .set("pool.default_pool_size", "3")
        .set("databases.alias.hosts", hosts)
        .set("databases.alias.dbname", "'second'")
        .set("databases.alias.pool_size", "2")
        .set("users.small.pool_size", "1")
        .set("users.sessions.pool_mode", "'session'")
        .start();
    let stage = Stage { pooler, postgres };
    let size = |user: &str, database: &str| {
        let mut client = stage.client_of(user, database);
        assert_eq!(client.value("SELECT current_user"), user);
        let sample = format!("pgweir_pool_size{{database=\"{database}\",user=\"{user}\"}}");
        stage.pooler.metric(&sample)
    };
    assert!((size("app", "app") - 3.0).abs() < f64::EPSILON);
    assert!((size("app", "alias") - 2.0).abs() < f64::EPSILON);
    assert!((size("small", "alias") - 1.0).abs() < f64::EPSILON);
    assert!((size("small", "app") - 1.0).abs() < f64::EPSILON);
    assert_eq!(
        stage.client_of("app", "alias").value("SELECT current_database()"),
        "second"
    );

    // A full pool is nobody else's concern.
    let mut holder = stage.client_of("small", "app");
    holder.query("BEGIN");
    let mut blocked = stage.client_of("small", "app");
    blocked.send(frames::query("SELECT 1"));
    stage.waits(1);
    assert_eq!(stage.client_of("small", "alias").value("SELECT 1"), "1");
    assert_eq!(stage.client().value("SELECT 1"), "1");
    holder.query("COMMIT");
    blocked.read_until_ready();

    // One user's sessions, another's transactions.
    let mut client = stage.client_of("sessions", "app");
    client.query("SET work_mem TO '777kB'");
    let mut other = stage.client_of("sessions", "app");
    assert_ne!(pid(&mut client), pid(&mut other));
    assert_ne!(other.value("SHOW work_mem"), "777kB");
}

#[test]
fn a_forced_user_shares_one_pool_among_all_clients() {
    let stage = stage(|builder| {
        size(1)(builder)
            .user("someone", "x")
            .user("anyone", "y")
            .set(r#"databases."*".user"#, "'app'")
    });
    let (mut someone, mut anyone) = (
        stage.client_of("someone", "app"),
        stage.client_of("anyone", "app"),
    );
    assert_eq!(someone.value("SELECT session_user"), "app");
    assert_eq!(pid(&mut someone), pid(&mut anyone));
    assert_eq!(stage.backends(), 1);
    stage.pooler.assert_all_places(1);
}

#[test]
fn the_first_host_that_answers_is_used() {
    let postgres = postgres();
    // Bound and not listening: refused, and nobody else gets the port.
    let reserved = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    reserved.bind(&any.into()).unwrap();
    let dead = reserved.local_addr().unwrap().as_socket().unwrap();
    let pooler = Pooler::builder(&postgres.address())
        .set(
            r#"databases."*".hosts"#,
            format!("['{dead}', '{}']", postgres.address()),
        )
        .start();
    pooler.assert_all_places(2);
}

#[test]
fn a_host_that_says_nothing_is_given_up_for_the_next() {
    let postgres = postgres();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hosts = format!("['{}', '{}']", silent.local_addr().unwrap(), postgres.address());
    let pooler = Pooler::builder(&postgres.address())
        .set(r#"databases."*".hosts"#, hosts)
        .set("pool.server_connect_timeout", "'300ms'")
        .start();
    pooler.assert_all_places(2);
}

/// A server that says whether it is a standby, and its name.
fn member(standby: bool) -> FakeServer {
    let name = if standby { "standby" } else { "primary" };
    FakeServer::start(move |connection| {
        connection.read_startup()?;
        let hot_standby = if standby { "on" } else { "off" };
        connection.send(
            [
                frames::frame(b'R', [0; 4]),
                frames::parameter_status("in_hot_standby", hot_standby),
                frames::frame(b'K', [0, 0, 0, 1, 0, 0, 0, 1]),
                frames::ready_for_query(b'I'),
            ]
            .concat(),
        )?;
        while connection.read()?.tag == b'Q' {
            let answer = [
                frames::data_row(&[name]),
                frames::command_complete("SELECT 1"),
                frames::ready_for_query(b'I'),
            ];
            connection.send(answer.concat())?;
        }
        Ok(())
    })
}

#[test]
fn a_role_finds_its_kind_of_server() {
    let (standby, primary) = (member(true), member(false));
    let both = format!("['{}', '{}']", standby.address(), primary.address());
    let turned = format!("['{}', '{}']", primary.address(), standby.address());
    let pooler = Pooler::builder(&primary.address())
        .set("databases.rw.hosts", &both)
        .set("databases.ro.hosts", &turned)
        .set("databases.ro.role", "'ro'")
        .set("databases.any.hosts", &both)
        .set("databases.any.role", "'r'")
        .set("databases.none.hosts", format!("['{}']", primary.address()))
        .set("databases.none.role", "'ro'")
        .set("pool.query_wait_timeout", "'500ms'")
        .start();
    let client = |database| RawClient::log_in(pooler.address(), "app", "secret", database);
    assert_eq!(client("rw").value("SELECT name"), "primary");
    assert_eq!(client("ro").value("SELECT name"), "standby");
    assert_eq!(client("any").value("SELECT name"), "standby");
    let mut nobody = RawClient::connect(pooler.address());
    nobody.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "app"), ("database", "none")],
    ));
    let end = nobody.read_to_end();
    let error = end.last().unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("57P03"));
    assert!(error.field(b'M').unwrap().contains("role \"ro\""), "{error:?}");
}

/// A client that waits leaves its request in the queue, to be sent for it. One in two pieces, a batch and then its
/// Sync, was sent without the Sync: the server kept its answers, nobody woke the client, and the Sync was never sent.
#[test]
fn a_batch_whose_sync_comes_while_its_client_waits_is_finished() {
    let stage = stage(size(1));
    let (mut holder, mut waiter) = (stage.client(), stage.client());
    holder.query("BEGIN");
    let batch = [
        frames::parse("", "SELECT 'late'"),
        frames::bind("", "", &[]),
        frames::execute(""),
    ];
    waiter.send(batch.concat());
    stage.waits(1);
    let before = stage.pooler.metric("pgweir_received_bytes_total");
    waiter.send(frames::sync());
    // A whole session on the same worker after that: the Sync has been read.
    drop(stage.client());
    assert!((stage.pooler.metric("pgweir_received_bytes_total") - before).abs() < f64::EPSILON);
    holder.query("COMMIT");
    assert_eq!(tags(&waiter.read_until_ready()), "12DCZ");
    stage.pooler.assert_all_places(1);
}

/// What a client has sent before and after it began to wait was more than the memory that it was read into again, and
/// the client was cut off.
#[test]
fn much_that_is_said_while_waiting_is_carried_out_or_refused_as_a_whole() {
    for (wait, answer) in [("'60s'", "TDCZ".repeat(90)), ("'300ms'", "EZ".to_owned())] {
        let stage = stage(|builder| size(1)(builder).set("pool.query_wait_timeout", wait));
        let (mut holder, mut waiter) = (stage.client(), stage.client());
        waiter.query("SET TimeZone TO 'Asia/Tokyo'");
        holder.query("BEGIN");
        let query = frames::query(&format!("SELECT '{}'", "x".repeat(1500)));
        waiter.send(query.repeat(10));
        stage.waits(1);
        let mut sender = waiter.into_stream();
        let rest = query.repeat(80);
        std::thread::scope(|scope| {
            let mut writer = sender.try_clone().unwrap();
            scope.spawn(move || std::io::Write::write_all(&mut writer, &rest).unwrap());
            if wait == "'60s'" {
                holder.query("COMMIT");
            }
            let mut reader = RawClient::over(&mut sender);
            let mut got = tags(&reader.read_until_ready());
            while got.len() < answer.len() {
                got += &tags(&reader.read_until_ready());
            }
            assert_eq!(got, answer);
        });
    }
}
