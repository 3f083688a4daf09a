//! Requests of every kind through a transaction pool, and what they leave behind: nothing.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::{
    io::{ErrorKind, Write},
    thread,
    time::{Duration, Instant},
};

use support::{Frame, Link, Pooler, Postgres, RawClient, eventually, frames, postgres, tags};

const MIB: u64 = 1 << 20;

/// A pgweir with a pool of `size` in front of a PostgreSQL.
struct Stage {
    pooler: Pooler,
    size: usize,
    postgres: Postgres,
}

fn stage(size: usize) -> Stage {
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", size.to_string())
        .start();
    Stage {
        pooler,
        size,
        postgres,
    }
}

impl Stage {
    fn client(&self) -> RawClient {
        RawClient::log_in(self.pooler.address(), "app", "secret", "app")
    }

    /// Whatever `client` did: it can go on, another client is served at once, and no place is lost.
    #[track_caller]
    fn is_whole(&self, client: &mut RawClient) {
        assert_eq!(client.value("SELECT 'still here'"), "still here");
        assert_eq!(self.client().value("SELECT 'another'"), "another");
        self.pooler.assert_all_places(self.size);
    }

    fn waits(&self, clients: u32) {
        eventually("clients wait", || {
            self.pooler.metric("pgweir_waiting_clients") == f64::from(clients)
        });
    }
}

/// The first column of every row.
fn values(messages: &[Frame]) -> Vec<String> {
    let rows = messages.iter().filter(|message| message.tag == b'D');
    rows.map(|row| row.columns().swap_remove(0).unwrap_or_else(|| "NULL".into()))
        .collect()
}

/// The SQLSTATE of every error.
fn sqlstates(messages: &[Frame]) -> Vec<String> {
    let errors = messages.iter().filter(|message| message.tag == b'E');
    errors.map(|error| error.field(b'C').unwrap()).collect()
}

/// What every ReadyForQuery says.
fn statuses(messages: &[Frame]) -> String {
    let ready = messages.iter().filter(|message| message.tag == b'Z');
    ready.map(|ready| char::from(ready.body[0])).collect()
}

/// Reads up to and with the `count`th ReadyForQuery.
#[track_caller]
fn read_ready(client: &mut RawClient, count: usize) -> Vec<Frame> {
    (0..count).flat_map(|_| client.read_until_ready()).collect()
}

/// Execute with a row limit.
fn execute_some(portal: &str, rows: i32) -> Vec<u8> {
    frames::frame(b'E', [frames::text(portal), rows.to_be_bytes().to_vec()].concat())
}

/// FunctionCall of `int4pl` or another function of two integers, all in text.
fn call(function: i32, arguments: [&str; 2]) -> Vec<u8> {
    let mut body = function.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 0, 0, 2]);
    for argument in arguments {
        body.extend(i32::try_from(argument.len()).unwrap().to_be_bytes());
        body.extend(argument.as_bytes());
    }
    body.extend([0, 0]);
    frames::frame(b'F', body)
}

const INT4PL: i32 = 177;

fn copy_data(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    frames::frame(b'd', bytes)
}

fn copy_done() -> Vec<u8> {
    frames::frame(b'c', [])
}

/// Parse, Bind and Execute of the unnamed statement, without Sync.
fn run(sql: &str) -> Vec<u8> {
    [
        frames::parse("", sql),
        frames::bind("", "", &[]),
        frames::execute(""),
    ]
    .concat()
}

#[test]
fn simple_queries() {
    let stage = stage(1);
    let mut client = stage.client();
    let two = client.query("SELECT 1; SELECT 2");
    assert_eq!(
        (tags(&two).as_str(), values(&two).concat().as_str()),
        ("TDCTDCZ", "12")
    );
    assert_eq!(tags(&client.query("")), "IZ");
    assert_eq!(tags(&client.query(" ; ")), "IZ");

    let failed = client.query("SELECT 1; SELECT 1/0; SELECT 3");
    assert_eq!(
        (tags(&failed).as_str(), sqlstates(&failed).concat()),
        ("TDCEZ", "22012".into())
    );

    // The statements of one query are one transaction.
    client.query("CREATE TABLE t (a int)");
    let failed = client.query("INSERT INTO t VALUES (1); SELECT 1/0");
    assert_eq!(statuses(&failed), "I");
    assert_eq!(client.value("SELECT count(*) FROM t"), "0");

    assert_eq!(statuses(&client.query("BEGIN; INSERT INTO t VALUES (2)")), "T");
    assert_eq!(statuses(&client.query("SELECT 1/0")), "E");
    assert_eq!(sqlstates(&client.query("SELECT 1")), ["25P02"]);
    assert_eq!(statuses(&client.query("COMMIT")), "I");
    assert_eq!(client.value("SELECT count(*) FROM t"), "0");

    // Several in one write.
    client.send(
        [
            frames::query("SELECT 'a'"),
            frames::query(""),
            frames::query("SELECT 'b'"),
        ]
        .concat(),
    );
    assert_eq!(tags(&read_ready(&mut client, 3)), "TDCZIZTDCZ");
    stage.is_whole(&mut client);
}

#[test]
fn extended_queries_and_unnamed_statements() {
    let stage = stage(1);
    let (mut one, mut other) = (stage.client(), stage.client());
    one.send(frames::extended(
        "SELECT $1::text || '!', $2::text",
        &[Some("hi"), None],
    ));
    let answer = one.read_until_ready();
    assert_eq!(tags(&answer), "12TDCZ");
    assert_eq!(answer[3].columns(), [Some("hi!".into()), None]);

    one.send(
        [
            frames::parse("", "SELECT $1::int"),
            frames::describe(b'S', ""),
            frames::close(b'S', ""),
            frames::close(b'P', "never opened"),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&one.read_until_ready()), "1tT33Z");
    one.send([run(""), frames::sync()].concat());
    assert_eq!(tags(&one.read_until_ready()), "12IZ");

    // Within a transaction the unnamed statement stays from batch to batch.
    one.query("BEGIN");
    one.send([frames::parse("", "SELECT 'mine ' || $1"), frames::sync()].concat());
    one.read_until_ready();
    other.send(frames::extended("SELECT 'theirs'", &[]));
    stage.waits(1);
    for turn in ["1", "2"] {
        one.send(
            [
                frames::bind("", "", &[Some(turn)]),
                frames::execute(""),
                frames::sync(),
            ]
            .concat(),
        );
        assert_eq!(values(&one.read_until_ready()), [format!("mine {turn}")]);
    }
    one.query("COMMIT");
    assert_eq!(values(&other.read_until_ready()), ["theirs"]);
    stage.is_whole(&mut one);
}

#[test]
fn a_pipeline_of_many_batches() {
    let stage = stage(1);
    let mut client = stage.client();
    let numbers: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
    let batches = numbers
        .iter()
        .flat_map(|number| frames::extended("SELECT $1::text", &[Some(number)]));
    client.send(batches.collect::<Vec<u8>>());
    let answers = read_ready(&mut client, numbers.len());
    assert_eq!(values(&answers), numbers);
    assert_eq!(tags(&answers), "12TDCZ".repeat(numbers.len()));
    stage.is_whole(&mut client);
}

#[test]
fn a_transaction_may_end_in_the_middle_of_a_pipeline() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query("CREATE TABLE t (a int)");
    let batch = ["BEGIN", "INSERT INTO t VALUES (1)", "COMMIT", "SELECT a FROM t"].map(run);
    client.send([batch.concat(), frames::flush()].concat());
    assert_eq!(tags(&client.read_until(b'D')), "12C12C12C12D");
    // The server has ended a transaction and is still not anyone else's.
    let mut other = stage.client();
    other.send(frames::query("SELECT 'other'"));
    stage.waits(1);
    client.send(frames::sync());
    assert_eq!(tags(&client.read_until_ready()), "CZ");
    assert_eq!(values(&other.read_until_ready()), ["other"]);
    stage.is_whole(&mut client);
}

#[test]
fn an_error_in_a_pipeline_ends_at_its_sync() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query("CREATE TABLE t (a int)");
    let batches = [
        [run("SELECT 'first'"), frames::sync()].concat(),
        // Rolled back, and what follows is not even looked at: a Query neither.
        [
            run("INSERT INTO t VALUES (1)"),
            run("SELECT 1/0"),
            run("INSERT INTO t VALUES (2)"),
            frames::query("INSERT INTO t VALUES (3)"),
            call(INT4PL, ["1", "1"]),
            frames::flush(),
            frames::sync(),
        ]
        .concat(),
        [
            frames::parse("", "SELEKT"),
            frames::bind("", "", &[]),
            frames::sync(),
        ]
        .concat(),
        [frames::close(b'S', "unknown"), frames::sync(), frames::sync()].concat(),
        [run("SELECT 'last'"), frames::sync()].concat(),
    ];
    client.send(batches.concat());
    let answers = read_ready(&mut client, 6);
    assert_eq!(tags(&answers), "12DCZ12C1EZEZ3ZZ12DCZ");
    assert_eq!(sqlstates(&answers), ["22012", "42601"]);
    assert_eq!(client.value("SELECT count(*) FROM t"), "0");

    // The same with the Sync long after the error.
    client.send([run("SELECT 1/0"), frames::flush()].concat());
    assert_eq!(tags(&client.read_until(b'E')), "1E");
    client.send([run("SELECT 2"), frames::query("SELECT 3"), frames::flush()].concat());
    let mut other = stage.client();
    other.send(frames::query("SELECT 'other'"));
    stage.waits(1);
    client.send(frames::sync());
    assert_eq!(tags(&client.read_until_ready()), "Z");
    assert_eq!(values(&other.read_until_ready()), ["other"]);
    stage.is_whole(&mut client);
}

#[test]
fn a_deferred_error_comes_with_the_sync() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query("CREATE TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
    client.send(
        [
            run("INSERT INTO t VALUES (1), (1)"),
            frames::sync(),
            frames::query("SELECT 1"),
        ]
        .concat(),
    );
    let answers = read_ready(&mut client, 2);
    assert_eq!(tags(&answers), "12CEZTDCZ");
    assert_eq!(sqlstates(&answers), ["23505"]);
    stage.is_whole(&mut client);
}

#[test]
fn flush_without_sync_answers_and_keeps_the_server() {
    let stage = stage(1);
    let (mut client, mut other) = (stage.client(), stage.client());
    client.send([run("SELECT 'flushed'"), frames::flush()].concat());
    let answer = client.read_until(b'C');
    assert_eq!(
        (tags(&answer).as_str(), values(&answer).concat()),
        ("12DC", "flushed".into())
    );
    other.send(frames::query("SELECT 'other'"));
    stage.waits(1);
    client.send([run("SELECT 'again'"), frames::flush()].concat());
    assert_eq!(values(&client.read_until(b'C')), ["again"]);
    client.send(frames::sync());
    assert_eq!(tags(&client.read_until_ready()), "Z");
    assert_eq!(values(&other.read_until_ready()), ["other"]);
    stage.is_whole(&mut client);
}

#[test]
fn a_suspended_portal_is_not_the_end() {
    let stage = stage(1);
    let (mut client, mut other) = (stage.client(), stage.client());
    let opening = |portal| {
        let statement = frames::parse("", "SELECT generate_series(1, 5)");
        [statement, frames::bind(portal, "", &[]), execute_some(portal, 2)].concat()
    };
    client.send([opening(""), frames::flush()].concat());
    assert_eq!(tags(&client.read_until(b's')), "12DDs");
    other.send(frames::query("SELECT 'other'"));
    stage.waits(1);
    client.send([execute_some("", 2), execute_some("", 2), frames::sync()].concat());
    let rest = client.read_until_ready();
    assert_eq!(
        (tags(&rest).as_str(), values(&rest).concat()),
        ("DDsDCZ", "345".into())
    );
    assert_eq!(values(&other.read_until_ready()), ["other"]);

    // With Sync in between the portal lives as long as the transaction.
    client.query("BEGIN");
    client.send([opening("p"), frames::sync()].concat());
    assert_eq!(statuses(&client.read_until_ready()), "T");
    other.send(frames::query("SELECT 'other'"));
    stage.waits(1);
    client.send([frames::describe(b'P', "p"), frames::execute("p"), frames::sync()].concat());
    assert_eq!(tags(&client.read_until_ready()), "TDDDCZ");
    client.query("COMMIT");
    assert_eq!(values(&other.read_until_ready()), ["other"]);
    stage.is_whole(&mut client);
}

#[test]
fn simple_queries_between_extended_messages() {
    let stage = stage(1);
    let mut client = stage.client();
    let mixed = [
        run("SELECT 1"),
        frames::query("SELECT 2; SELECT 3"),
        run("SELECT 4"),
        frames::sync(),
        frames::query("SELECT 5"),
        frames::sync(),
    ];
    client.send(mixed.concat());
    let answers = read_ready(&mut client, 4);
    assert_eq!(tags(&answers), "12DCTDCTDCZ12DCZTDCZZ");
    assert_eq!(values(&answers).concat(), "12345");
    // The Query ends the batch, and the server is free without a Sync.
    client.send([run("SELECT 6"), frames::query("SELECT 7")].concat());
    assert_eq!(values(&client.read_until_ready()).concat(), "67");
    stage.is_whole(&mut client);
}

#[test]
fn function_calls() {
    let stage = stage(1);
    let mut client = stage.client();
    client.send(call(INT4PL, ["40", "2"]));
    let answer = client.read_until_ready();
    assert_eq!(tags(&answer), "VZ");
    assert_eq!(&answer[0].body[4..], b"42");
    client.send(
        [
            call(0, ["1", "1"]),
            call(INT4PL, ["1", "1"]),
            frames::query("SELECT 1"),
        ]
        .concat(),
    );
    assert_eq!(tags(&read_ready(&mut client, 3)), "EZVZTDCZ");
    stage.is_whole(&mut client);
}

#[test]
fn copy_out() {
    let stage = stage(1);
    let mut client = stage.client();
    let sql = "COPY (SELECT generate_series(1, 3)) TO STDOUT";
    assert_eq!(tags(&client.query(sql)), "HdddcCZ");
    client.send([run(sql), run("SELECT 1"), frames::sync()].concat());
    assert_eq!(tags(&client.read_until_ready()), "12HdddcC12DCZ");
    // An error after rows have gone out.
    let fails = "COPY (SELECT 10 / (3 - generate_series(1, 3))) TO STDOUT";
    assert_eq!(tags(&client.query(fails)), "HddEZ");
    client.send([run(fails), run("SELECT 1"), frames::sync(), frames::query("")].concat());
    assert_eq!(tags(&read_ready(&mut client, 2)), "12HddEZIZ");
    stage.is_whole(&mut client);
}

#[test]
fn copy_in_as_every_driver_does_it() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query("CREATE TABLE t (a int)");
    let sql = "COPY t FROM STDIN";
    // Waiting for CopyInResponse, by a simple query (libpq) ...
    client.send(frames::query(sql));
    assert_eq!(tags(&client.read_until(b'G')), "G");
    client.send([copy_data("1\n2"), copy_data("\n"), copy_done()].concat());
    assert_eq!(tags(&client.read_until_ready()), "CZ");
    // ... by an extended query, with the Sync at the end only ...
    client.send([run(sql), frames::flush()].concat());
    assert_eq!(tags(&client.read_until(b'G')), "12G");
    client.send([copy_data("3\n"), copy_done(), frames::sync()].concat());
    assert_eq!(tags(&client.read_until_ready()), "CZ");
    // ... with a Sync before the data too, which the server ignores (tokio-postgres, libpq's PQsendQueryParams) ...
    client.send([run(sql), frames::sync()].concat());
    assert_eq!(tags(&client.read_until(b'G')), "12G");
    client.send(
        [
            frames::sync(),
            copy_data("4\n"),
            frames::flush(),
            copy_done(),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&client.read_until_ready()), "CZ");
    // ... without waiting for anything ...
    let pieces = [
        run(sql),
        frames::sync(),
        copy_data("5\n"),
        copy_done(),
        frames::sync(),
        frames::query(""),
    ];
    client.send(pieces.concat());
    assert_eq!(tags(&read_ready(&mut client, 2)), "12GCZIZ");
    // ... and two of them in one query.
    let twice = frames::query(&format!("{sql}; {sql}; SELECT 1"));
    client.send(
        [
            twice,
            copy_data("6\n"),
            copy_done(),
            copy_data("7\n"),
            copy_done(),
        ]
        .concat(),
    );
    assert_eq!(tags(&client.read_until_ready()), "GCGCTDCZ");
    assert_eq!(
        client.value("SELECT string_agg(a::text, '' ORDER BY a) FROM t"),
        "1234567"
    );
    stage.is_whole(&mut client);
}

#[test]
fn copy_in_keeps_the_server_until_its_end() {
    let stage = stage(1);
    let (mut client, mut other) = (stage.client(), stage.client());
    client.query("CREATE TABLE t (a int)");
    client.send([run("COPY t FROM STDIN"), frames::sync()].concat());
    client.read_until(b'G');
    other.send(frames::query("SELECT count(*) FROM t"));
    stage.waits(1);
    client.send(copy_data("1\n"));
    client.send([copy_done(), frames::flush()].concat());
    assert_eq!(tags(&client.read_until(b'C')), "C");
    assert!(
        stage.pooler.metric("pgweir_waiting_clients") == 1.0,
        "there was no ReadyForQuery"
    );
    client.send(frames::sync());
    assert_eq!(tags(&client.read_until_ready()), "Z");
    assert_eq!(values(&other.read_until_ready()), ["1"]);
    stage.is_whole(&mut client);
}

#[test]
fn tokio_postgres_copies() {
    let stage = stage(1);
    let url = format!(
        "postgresql://app:secret@{}/app?sslmode=disable",
        stage.pooler.address()
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .unwrap();
        let work = async move {
            client.batch_execute("CREATE TABLE t (a int)").await.unwrap();
            for _ in 0..3 {
                let sink = client.copy_in::<_, &[u8]>("COPY t FROM STDIN").await.unwrap();
                assert_eq!(std::pin::pin!(sink).finish().await.unwrap(), 0);
                // Dropped: the driver says CopyFail.
                drop(client.copy_in::<_, &[u8]>("COPY t FROM STDIN").await.unwrap());
                let rows = client.query_typed("SELECT count(*) FROM t", &[]).await.unwrap();
                assert_eq!(rows[0].get::<_, i64>(0), 0);
            }
        };
        let (connection, ()) = tokio::join!(connection, work);
        connection.unwrap();
    });
    stage.is_whole(&mut stage.client());
}

#[test]
fn copy_that_fails_before_it_begins() {
    let stage = stage(1);
    let mut client = stage.client();
    let sql = "COPY nothing FROM STDIN";
    let data = [copy_data("1\n"), copy_data("2\n"), copy_done()].concat();
    client.send([frames::query(sql), data.clone(), frames::query("SELECT 1")].concat());
    let answers = read_ready(&mut client, 2);
    assert_eq!(
        (tags(&answers).as_str(), sqlstates(&answers).concat()),
        ("EZTDCZ", "42P01".into())
    );
    // Both Syncs count: no COPY was there to ignore the first.
    client.send(
        [
            run(sql),
            frames::sync(),
            data.clone(),
            frames::sync(),
            frames::query(""),
        ]
        .concat(),
    );
    assert_eq!(tags(&read_ready(&mut client, 3)), "12EZZIZ");
    client.send([run(sql), data, frames::sync(), frames::query("")].concat());
    assert_eq!(tags(&read_ready(&mut client, 2)), "12EZIZ");
    stage.is_whole(&mut client);
}

#[test]
fn copy_that_fails_in_the_middle() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query("CREATE TABLE t (a int)");
    let sql = "COPY t FROM STDIN";
    let late = [copy_data("2\n"), copy_done()].concat();
    client.send(frames::query(sql));
    client.read_until(b'G');
    client.send(copy_data("one\n"));
    let answer = client.read_until_ready();
    assert_eq!(
        (tags(&answer).as_str(), sqlstates(&answer).concat()),
        ("EZ", "22P02".into())
    );
    client.send([late.clone(), frames::query("SELECT 1")].concat());
    assert_eq!(tags(&client.read_until_ready()), "TDCZ");
    // In a batch there is no ReadyForQuery before the Sync.
    for early_sync in [Vec::new(), frames::sync()] {
        client.send([run(sql), early_sync, frames::flush()].concat());
        client.read_until(b'G');
        client.send(copy_data("one\n"));
        assert_eq!(tags(&client.read_until(b'E')), "E");
        client.send([late.clone(), frames::sync(), frames::query("SELECT 1")].concat());
        assert_eq!(tags(&read_ready(&mut client, 2)), "ZTDCZ");
    }
    // All in one write.
    client.send(
        [
            run(sql),
            frames::sync(),
            copy_data("one\n"),
            late.clone(),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&client.read_until_ready()), "12GEZ");
    client.send([frames::query(sql), copy_data("one\n"), late, frames::query("")].concat());
    assert_eq!(tags(&read_ready(&mut client, 2)), "GEZIZ");
    // The client's own wish.
    let fail = frames::frame(b'f', frames::text("changed my mind"));
    client.send([frames::query(sql), copy_data("1\n"), fail.clone()].concat());
    let answer = client.read_until_ready();
    assert_eq!(
        (tags(&answer).as_str(), sqlstates(&answer).concat()),
        ("GEZ", "57014".into())
    );
    client.send([run(sql), frames::sync()].concat());
    client.read_until(b'G');
    client.send([fail, frames::sync()].concat());
    assert_eq!(tags(&client.read_until_ready()), "EZ");
    assert_eq!(client.value("SELECT count(*) FROM t"), "0");
    stage.is_whole(&mut client);
}

#[test]
fn copy_data_after_the_server_went_to_someone_else() {
    let stage = stage(1);
    let (mut client, mut other) = (stage.client(), stage.client());
    client.query("CREATE TABLE t (a int)");
    client.send([frames::query("COPY t FROM STDIN"), copy_data("one\n")].concat());
    assert_eq!(tags(&client.read_until_ready()), "GEZ");
    other.query("BEGIN; CREATE TABLE u (a int)");
    other.send(frames::query("COPY u FROM STDIN"));
    other.read_until(b'G');
    // Half a message, so that the rest comes later still.
    let late = [copy_data("2\n".repeat(100_000)), copy_done()].concat();
    let (first, rest) = late.split_at(70_000);
    client.send(first);
    other.send([copy_data("1\n"), copy_done()].concat());
    assert_eq!(tags(&other.read_until_ready()), "CZ");
    client.send(rest);
    client.send(frames::query("SELECT count(*) FROM t"));
    stage.waits(1);
    assert_eq!(other.value("SELECT count(*) FROM u"), "1");
    other.query("COMMIT");
    assert_eq!(values(&client.read_until_ready()), ["0"]);
    stage.is_whole(&mut client);
}

#[test]
fn half_a_message_that_the_server_waits_for_is_not_the_next_clients() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query("CREATE TABLE t (a int)");
    // The first CopyData fails the COPY; the server is ready, and in the middle of the second one.
    let late = copy_data("2\n".repeat(100_000));
    let (first, rest) = late.split_at(30_000);
    client.send([&frames::query("COPY t FROM STDIN"), &copy_data("one\n"), first].concat());
    assert_eq!(tags(&client.read_until_ready()), "GEZ");
    let mut other = stage.client();
    other.send(frames::query("SELECT 'other'"));
    client.send([rest, &copy_done(), &frames::query("SELECT 'mine'")].concat());
    assert_eq!(values(&client.read_until_ready()), ["mine"]);
    assert_eq!(values(&other.read_until_ready()), ["other"]);
    stage.is_whole(&mut client);

    // The same from a client that never sends the rest.
    client.send([&frames::query("COPY t FROM STDIN"), &copy_data("one\n"), first].concat());
    assert_eq!(tags(&client.read_until_ready()), "GEZ");
    drop(client);
    stage.is_whole(&mut stage.client());
}

#[test]
fn a_value_larger_than_any_buffer_passes_in_bounded_memory() {
    let stage = stage(1);
    let mut client = stage.client();
    assert_eq!(client.value("SELECT 1"), "1");
    let before = stage.pooler.peak_memory();
    let value = "0123456789abcdef".repeat(110 * 65_536);
    client.send(frames::extended("SELECT $1::text", &[Some(&value)]));
    let answer = client.read_until_ready();
    assert_eq!(tags(&answer), "12TDCZ");
    // Not assert_eq, which would print them.
    assert!(answer[3].body[6..] == *value.as_bytes());
    let query = format!("SELECT length('{value}')");
    assert_eq!(client.value(&query), value.len().to_string());
    let growth = stage.pooler.peak_memory() - before;
    assert!(growth < 8 * MIB, "{growth} bytes more");
    stage.is_whole(&mut client);
}

#[test]
fn byte_by_byte_in_both_directions() {
    let postgres = postgres();
    let far = Link::to(postgres.address());
    let pooler = Pooler::builder(&far.address())
        .set("pool.default_pool_size", "1")
        .start();
    let near = Link::to(pooler.address());
    near.bytewise(true);
    far.bytewise(true);
    let mut client = RawClient::log_in(&near.address(), "app", "secret", "app");
    client.query("CREATE TABLE t (a int); SET application_name TO 'slow'");
    client.send(
        [
            frames::extended("SELECT $1", &[Some("value")]),
            frames::query("SELECT 1/0"),
            run("SELECT 1/0"),
            frames::sync(),
            frames::query("COPY t FROM STDIN"),
            copy_data("1\n2\n3\n"),
            copy_done(),
            frames::query("COPY t TO STDOUT"),
            call(INT4PL, ["1", "2"]),
            frames::query("SHOW application_name"),
        ]
        .concat(),
    );
    let answers = read_ready(&mut client, 7);
    assert_eq!(tags(&answers), "12TDCZEZ1EZGCZHdddcCZVZTDCZ");
    assert_eq!(values(&answers), ["value", "slow"]);
    // The settings of each client travel byte by byte too.
    let mut other = RawClient::log_in(&near.address(), "app", "secret", "app");
    assert_eq!(other.value("SHOW application_name"), "");
    assert_eq!(client.value("SHOW application_name"), "slow");
    drop((client, other));
    near.bytewise(false);
    far.bytewise(false);
    pooler.assert_all_places(1);
}

#[test]
fn a_client_that_writes_without_reading_is_held_back_and_loses_nothing() {
    const PAD: usize = 50_000;
    let stage = stage(1);
    let mut client = stage.client();
    assert_eq!(client.value("SELECT 1"), "1");
    let before = stage.pooler.peak_memory();
    let mut stream = client.into_stream();
    stream
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let query = |number: usize| {
        frames::query(&format!(
            "SELECT '{number} ' || repeat('x', {PAD}) /* {} */",
            "y".repeat(PAD)
        ))
    };
    // Until no buffer on the way has room: answers are as large as questions.
    let (mut sent, mut pending) = (0, Vec::new());
    loop {
        if pending.is_empty() {
            pending = query(sent);
            sent += 1;
        }
        match stream.write(&pending) {
            Ok(length) => drop(pending.drain(..length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 4000, "200 MB were taken from a client that does not read");
    }
    let growth = stage.pooler.peak_memory() - before;
    assert!(growth < 8 * MIB, "{growth} bytes more");
    // It reads and goes on writing: everything is answered, in order.
    let mut reading = RawClient::over(stream.try_clone().unwrap());
    let reader = thread::spawn(move || {
        for number in 0..sent {
            let answer = reading.read_until_ready();
            assert_eq!(tags(&answer), "TDCZ");
            let row = &answer[1].columns()[0];
            assert_eq!(
                row.as_ref().unwrap().split_once(' ').unwrap().0,
                number.to_string()
            );
        }
    });
    stream.set_write_timeout(None).unwrap();
    stream.write_all(&pending).unwrap();
    reader.join().unwrap();
    stage.is_whole(&mut RawClient::over(stream));
}

#[test]
fn a_client_that_never_reads_hurts_nobody_else() {
    let stage = stage(2);
    let (mut stuck, mut other) = (stage.client(), stage.client());
    assert_eq!(other.value("SELECT 1"), "1");
    let before = stage.pooler.peak_memory();
    stuck.send(frames::query(
        "SELECT repeat('x', 1000) FROM generate_series(1, 200000)",
    ));
    let in_write = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
    eventually("the server cannot write any more", || {
        stage.postgres.psql(in_write).unwrap() == "1"
    });
    let begin = Instant::now();
    for number in 0..200 {
        assert_eq!(other.value(&format!("SELECT {number}")), number.to_string());
    }
    assert!(begin.elapsed() < Duration::from_secs(10));
    let growth = stage.pooler.peak_memory() - before;
    assert!(growth < 8 * MIB, "{growth} bytes more");
    // It leaves without having read: the server is not left working for nobody.
    drop(stuck);
    eventually("the query has been cancelled", || {
        stage.postgres.psql(in_write).unwrap() == "0"
    });
    stage.is_whole(&mut other);
}

#[test]
fn both_directions_of_a_copy_at_once() {
    // Everything that goes up comes down while more goes up: neither direction may wait for the other.
    let stage = stage(1);
    let stream = stage.client().into_stream();
    let mut up = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        let batch = frames::extended("SELECT $1::text", &[Some(&"z".repeat(400_000))]);
        for _ in 0..200 {
            up.write_all(&batch).unwrap();
        }
    });
    let mut down = RawClient::over(stream);
    for _ in 0..200 {
        assert_eq!(tags(&down.read_until_ready()), "12TDCZ");
    }
    writer.join().unwrap();
    stage.is_whole(&mut down);
}

#[test]
fn a_request_in_pieces_takes_no_server_before_it_is_whole() {
    let stage = stage(1);
    let (mut slow, mut quick) = (stage.client(), stage.client());
    let query = frames::query("SELECT 'at last'");
    for piece in query.chunks(3) {
        slow.send(piece);
        if piece.len() == 3 {
            assert_eq!(quick.value("SELECT 'quick'"), "quick");
        }
    }
    assert_eq!(values(&slow.read_until_ready()), ["at last"]);
    stage.is_whole(&mut slow);
}

#[test]
fn what_is_not_the_protocol_ends_the_client_and_costs_no_place() {
    let stage = stage(1);
    for (bytes, in_transaction) in [
        (&b"\x00\x00\x00\x00\x04"[..], false),
        (b"Q\xff\xff\xff\xff", false),
        (b"Q\x00\x00\x00\x03", true),
        (b"p\x00\x00\x00\x04", true),
    ] {
        let mut client = stage.client();
        if in_transaction {
            client.query("BEGIN");
        }
        client.send(bytes);
        let end = client.read_to_end();
        assert_eq!(
            (tags(&end).as_str(), sqlstates(&end).concat()),
            ("E", "08P01".into()),
            "{bytes:?}"
        );
        stage.is_whole(&mut stage.client());
    }
}

#[test]
fn goodbye_after_a_request_lets_it_finish() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query("CREATE TABLE t (a int)");
    client.send([frames::query("INSERT INTO t VALUES (1)"), frames::terminate()].concat());
    let rest = client.read_to_end();
    assert_eq!(tags(&rest), "CZ");
    let mut other = stage.client();
    assert_eq!(other.value("SELECT count(*) FROM t"), "1");
    stage.is_whole(&mut other);
}

/// A driver sends Bind, Execute, Sync and only then the data. A statement trigger failed after CopyInResponse, so
/// the server read that Sync and answered it; pgweir had taken it for one that COPY ignores. The second
/// ReadyForQuery came when the server connection was the next client's, who took it for an answer of its own and
/// was one answer behind from then on.
#[test]
fn a_copy_that_fails_before_it_reads_answers_every_sync() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query(
        "CREATE TABLE t (a int);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(0.05); RAISE 'not today'; END $$;
        CREATE TRIGGER g BEFORE INSERT ON t EXECUTE FUNCTION f()",
    );
    let ahead = [
        frames::parse("", "COPY t FROM STDIN"),
        frames::bind("", "", &[]),
        frames::execute(""),
        frames::sync(),
    ];
    for round in 0..20 {
        client.send(ahead.concat());
        client.send([copy_data("1\n"), copy_done(), frames::sync()].concat());
        let mut other = stage.client();
        other.send(frames::query(&format!("SELECT 'other {round}'")));
        assert_eq!(tags(&read_ready(&mut client, 2)), "12GEZZ");
        assert_eq!(values(&other.read_until_ready()), [format!("other {round}")]);
        assert_eq!(client.value(&format!("SELECT {round}")), round.to_string());
    }
    stage.is_whole(&mut client);
}

/// The client's message of no known type ended its session while the server was in the middle of a message that
/// is ignored. Nothing was owed, so the server connection was handed on, and the server took the next client's
/// query for the rest of that message.
#[test]
fn a_client_that_breaks_the_protocol_in_mid_message_takes_its_server_along() {
    let stage = stage(1);
    let mut client = stage.client();
    let half = [&[b'd'][..], &104u32.to_be_bytes(), &[b'x'; 10]].concat();
    client.send([frames::query("SELECT 1"), half].concat());
    assert_eq!(values(&client.read_until_ready()), ["1"]);
    client.send([&[b'x'; 90][..], &frames::frame(b'z', "")].concat());
    assert_eq!(sqlstates(&client.read_to_end()), ["08P01"]);
    stage.is_whole(&mut stage.client());
}

/// Terminate is allowed at any time. In the middle of a COPY or of a batch the server waits for its client and
/// never owes anything, so pgweir waited too, for ever, and the place was lost.
#[test]
fn a_client_may_say_goodbye_while_the_server_waits_for_it() {
    let stage = stage(1);
    stage.client().query("CREATE TABLE t (a int)");
    let batch = [
        frames::parse("", "INSERT INTO t VALUES (1)"),
        frames::bind("", "", &[]),
        frames::execute(""),
    ];
    for request in [
        frames::query("COPY t FROM STDIN"),
        [batch.concat(), frames::flush()].concat(),
        [frames::parse("", "SELECT nonsense"), frames::flush()].concat(),
    ] {
        let mut client = stage.client();
        client.send(request);
        client.read();
        client.send(frames::terminate());
        drop(client);
        let mut next = stage.client();
        assert_eq!(next.value("SELECT count(*) FROM t"), "0");
        stage.is_whole(&mut next);
    }
}
