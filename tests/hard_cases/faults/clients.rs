//! Clients that leave in the middle of something, and peers that never read.

use std::{
    io::{ErrorKind, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    checks::{assert_settled, log_in},
    support::{FakeServer, Pooler, Postgres, eventually, frames, postgres, tags},
};

const MIB: u64 = 1 << 20;

fn pool_of(postgres: &Postgres, size: usize) -> Pooler {
    Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", size.to_string())
        .start()
}

/// How many server connections there are by PostgreSQL's own account.
fn backends(postgres: &Postgres) -> usize {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    postgres.psql(sql).unwrap().parse().unwrap()
}

#[test]
fn case_31_client_that_vanishes_costs_no_place_and_leaves_no_work() {
    // PgDog and Odyssey handed on what such clients left behind (pgdog #805, #848; odyssey #1216).
    let postgres = postgres();
    let pooler = pool_of(&postgres, 1);
    let mut watcher = log_in(&pooler);
    watcher.query("CREATE TABLE t (a int)");
    let half_query = [
        frames::query("BEGIN; INSERT INTO t VALUES (2)"),
        frames::query(&"x".repeat(50_000)),
    ];
    let half_query = half_query.concat();
    let cases: [(&str, Vec<u8>); 8] = [
        (
            "in a transaction",
            frames::query("BEGIN; INSERT INTO t VALUES (1)"),
        ),
        ("in a message", half_query[..half_query.len() - 10_000].to_vec()),
        (
            "in the first message",
            frames::query(&"y".repeat(50_000))[..20_000].to_vec(),
        ),
        (
            "in a batch",
            [
                frames::parse("", "INSERT INTO t VALUES (3)"),
                frames::bind("", "", &[]),
                frames::execute(""),
            ]
            .concat(),
        ),
        (
            "in COPY in",
            [frames::query("COPY t FROM STDIN"), frames::frame(b'd', "4\n")].concat(),
        ),
        (
            "in half a CopyData",
            [
                &frames::query("COPY t FROM STDIN")[..],
                &frames::frame(b'd', "5\n".repeat(9000))[..9000],
            ]
            .concat(),
        ),
        (
            "in COPY out",
            frames::query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT"),
        ),
        (
            "in a long statement",
            frames::query("INSERT INTO t SELECT 6 FROM pg_sleep(600)"),
        ),
    ];
    for (case, bytes) in cases {
        let mut client = log_in(&pooler);
        client.send(&bytes);
        let active = "pgweir_servers{state=\"active\"}";
        eventually(&format!("{case}: a server works for it"), || {
            pooler.metric(active) == 1.0
        });
        drop(client);
        assert_eq!(watcher.value("SELECT count(*) FROM t"), "0", "{case}");
        pooler.assert_all_places(1);
        assert_eq!(backends(&postgres), 1, "{case}: nothing goes on for nobody");
    }
}

/// A little of everything, of which a part that is cut off at any byte leaves nothing.
fn everything() -> Vec<u8> {
    let insert = [
        frames::parse("", "INSERT INTO t VALUES ($1::int)"),
        frames::bind("", "", &[Some("1")]),
        frames::execute(""),
        frames::flush(),
    ];
    [
        frames::query("SELECT 'theirs', repeat('x', 20000)"),
        frames::query("BEGIN"),
        insert.concat(),
        frames::sync(),
        frames::query("COPY t FROM STDIN"),
        frames::frame(b'd', "2\n3\n"),
        frames::frame(b'c', ""),
        frames::extended("SELECT 'theirs', pg_sleep(0.01)", &[]),
        frames::query("SAVEPOINT s; SELECT 1/0"),
        frames::sync(),
        frames::query("ROLLBACK"),
        frames::extended("SELECT 'theirs' FROM generate_series(1, 2000)", &[]),
    ]
    .concat()
}

#[test]
fn case_31_client_that_leaves_at_any_byte_leaves_no_answer_to_the_next() {
    // In pgagroal the next client read the last one's answers (pgagroal #142).
    const LEAVING: usize = 4;
    const TIMES: usize = 30;
    let postgres = postgres();
    let pooler = pool_of(&postgres, 2);
    log_in(&pooler).query("CREATE TABLE t (a int)");
    let everything = everything();
    let leaving = AtomicUsize::new(LEAVING);
    thread::scope(|scope| {
        let (pooler, everything, leaving) = (&pooler, &everything, &leaving);
        for first in 0..LEAVING {
            scope.spawn(move || {
                for number in 0..TIMES {
                    // Spread over the whole length, in an order that is not the bytes'.
                    let cut = (first * TIMES + number) * 7919 % everything.len();
                    // It may be gone before all is sent.
                    let _ = log_in(pooler).try_send(&everything[..cut]);
                }
                leaving.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let mut next = log_in(pooler);
        let mut asked = 0;
        while asked < 50 || leaving.load(Ordering::SeqCst) > 0 {
            let mine = format!("mine {asked}");
            assert_eq!(next.value(&format!("SELECT '{mine}'")), mine);
            assert_eq!(next.value("SELECT count(*) FROM t"), "0", "after {mine}");
            asked += 1;
        }
    });
    assert_settled(&pooler);
    pooler.assert_all_places(2);
}

#[test]
fn case_31_what_was_asked_before_goodbye_is_done() {
    // A client that says Terminate after its last statement does not wait for the answer; PostgreSQL carries it out.
    let postgres = postgres();
    let pooler = pool_of(&postgres, 1);
    postgres
        .psql_in("app", "CREATE TABLE t (a int); GRANT ALL ON t TO app")
        .unwrap();
    for number in 1..=20 {
        let mut client = log_in(&pooler);
        client.send(
            [
                frames::query("INSERT INTO t SELECT 1 FROM pg_sleep(0.01)"),
                frames::terminate(),
            ]
            .concat(),
        );
        drop(client);
        // Nobody else wants the server connection: who leaves while it waits for one is not served.
        eventually("it is done", || {
            postgres.psql_in("app", "SELECT count(*) FROM t").unwrap() == number.to_string()
        });
    }
    pooler.assert_all_places(1);
}

/// A server that logs everyone in, but on its first connection reads nothing more until it is asked to cancel.
fn never_reading() -> FakeServer {
    let canceled = Arc::<AtomicBool>::default();
    FakeServer::start(move |connection| {
        if let Err(error) = connection.log_in() {
            canceled.fetch_or(error.kind() == ErrorKind::Unsupported, Ordering::SeqCst);
            return Ok(());
        }
        if connection.index == 0 {
            eventually("a cancel has come", || canceled.load(Ordering::SeqCst));
            return Ok(());
        }
        while connection.read()?.tag == b'Q' {
            let answer = [frames::data_row(&["good"]), frames::command_complete("SELECT 1")];
            connection.send([answer.concat(), frames::ready_for_query(b'I')].concat())?;
        }
        Ok(())
    })
}

#[test]
fn fault_server_that_never_reads_holds_back_its_client_and_no_memory() {
    // What a client sends must wait with the client and not in the pooler.
    let server = never_reading();
    let pooler = Pooler::builder(&server.address())
        .set("pool.default_pool_size", "1")
        .start();
    let client = log_in(&pooler);
    let before = pooler.peak_memory();
    let mut stream = client.into_stream();
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let error = stream
        .write_all(&frames::query(&"x".repeat(64 << 20)))
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::WouldBlock,
        "64 MiB were taken for a server that does not read"
    );
    let growth = pooler.peak_memory() - before;
    assert!(growth < 8 * MIB, "{growth} bytes more");
    // It gives up, as a client does whose driver has a timeout: by a reset, as there is something unsent.
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
    let mut next = log_in(&pooler);
    assert_eq!(tags(&next.query("SELECT 1")), "DCZ");
    drop(next);
    assert_settled(&pooler);
}
