//! Cases 14 to 19 and 23 to 25: whose answer is whose in the extended protocol, and when a server is free.

use std::{
    io,
    sync::{Mutex, mpsc::channel},
    time::{Duration, Instant},
};

use crate::support::{
    FakeServer, LIMIT, Pooler, RawClient, Stage, frames,
    frames::{INT4PL, call, execute_some, run},
    postgres, read_ready, sqlstates, stage, statuses, tags, values,
};

// --- 14: when the server is free ---

/// The first ReadyForQuery('I') was taken for the last: a pipeline's server was given to another client, who then got
/// the rest of the answers.
#[test]
fn case_14_a_server_goes_back_only_after_every_ready_for_query() {
    let (tick, ticks) = channel::<()>();
    let ticks = Mutex::new(ticks);
    let server = FakeServer::start(move |connection| {
        connection.log_in()?;
        for tag in *b"QPBESFS" {
            connection.expect(tag)?;
        }
        let (done, ready) = (
            frames::command_complete("SELECT 0"),
            frames::ready_for_query(b'I'),
        );
        let (parsed, bound) = (frames::frame(b'1', []), frames::frame(b'2', []));
        let result = frames::frame(b'V', [0xff; 4]);
        for answer in [
            [done.clone(), ready.clone()].concat(),
            [parsed, bound, done.clone(), ready.clone()].concat(),
            [result, ready.clone()].concat(),
            ready.clone(),
        ] {
            ticks
                .lock()
                .unwrap()
                .recv_timeout(LIMIT)
                .map_err(io::Error::other)?;
            connection.send(answer)?;
        }
        // A function may have done anything: the pooler asks what is in the session.
        connection.expect(b'Q')?;
        connection.send([done.clone(), ready.clone()].concat())?;
        connection.expect(b'Q')?;
        connection.send([frames::data_row(&["other"]), done, ready].concat())?;
        connection.read_to_end().map(drop)
    });
    let pooler = Pooler::builder(&server.address())
        .set("pool.default_pool_size", "1")
        .start();
    let client = || RawClient::log_in(pooler.address(), "app", "", "app");
    let (mut client, mut other) = (client(), client());
    let batch = [run("SELECT"), frames::sync()].concat();
    client.send(
        [
            frames::query("SELECT"),
            batch,
            call(INT4PL, ["1", "1"]),
            frames::sync(),
        ]
        .concat(),
    );
    crate::support::eventually("a server works for it", || {
        pooler.metric("pgweir_servers{state=\"active\"}") == 1.0
    });
    other.send(frames::query("SELECT 'other'"));
    for answer in ["CZ", "12CZ", "VZ", "Z"] {
        crate::support::eventually("the other waits", || {
            pooler.metric("pgweir_waiting_clients") == 1.0
        });
        tick.send(()).unwrap();
        assert_eq!(tags(&client.read_until_ready()), answer);
    }
    assert_eq!(values(&other.read_until_ready()), ["other"]);
    assert_eq!(server.accepted(), 1);
}

/// COMMIT in the middle of a batch ends a transaction and not the batch.
#[test]
fn case_14_a_transaction_may_end_in_the_middle_of_a_pipeline() {
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

/// The same by Query: each ReadyForQuery says that no transaction is open, and more was sent.
#[test]
fn case_14_requests_in_one_packet_are_answered_by_one_server() {
    let stage = stage(2);
    let (mut client, mut other) = (stage.client(), stage.client());
    for _ in 0..20 {
        let pid = "SELECT pg_backend_pid()";
        let requests = [
            frames::query(pid),
            frames::extended(pid, &[]),
            frames::query(pid),
            frames::query("BEGIN"),
            frames::query("COMMIT"),
            frames::query(pid),
        ];
        other.send(frames::query("SELECT 'other'"));
        client.send(requests.concat());
        let pids = values(&read_ready(&mut client, 6));
        assert_eq!(
            (pids.len(), pids.iter().all(|pid| *pid == pids[0])),
            (4, true),
            "{pids:?}"
        );
        assert_eq!(values(&other.read_until_ready()), ["other"]);
    }
    stage.is_whole(&mut client);
}

// --- 15: an error in a pipeline ---

/// After an error the server discards everything up to Sync. A pooler that still expected answers to it, or answered
/// for it, was out of step from then on.
#[test]
fn case_15_an_error_in_a_pipeline_ends_at_its_sync() {
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

/// What was skipped was never prepared: the pooler must not think that it was.
#[test]
fn case_15_a_skipped_parse_prepares_nothing() {
    let stage = stage(1);
    let mut client = stage.client();
    client.query("BEGIN");
    client.query("SAVEPOINT s");
    client.send(
        [
            run("SELECT 1/0"),
            frames::parse("skipped", "SELECT 1"),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&client.read_until_ready()), "1EZ");
    client.query("ROLLBACK TO s");
    client.send(
        [
            frames::bind("", "skipped", &[]),
            frames::execute(""),
            frames::sync(),
        ]
        .concat(),
    );
    let answer = client.read_until_ready();
    assert_eq!(
        (tags(&answer), sqlstates(&answer).concat()),
        ("EZ".into(), "26000".into())
    );
    client.query("ROLLBACK TO s");
    // It can be prepared now, once, and not twice.
    let parse = || [frames::parse("skipped", "SELECT 'now'"), frames::sync()].concat();
    client.send(parse());
    assert_eq!(tags(&client.read_until_ready()), "1Z");
    client.send(
        [
            frames::bind("", "skipped", &[]),
            frames::execute(""),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(values(&client.read_until_ready()), ["now"]);
    client.send(parse());
    assert_eq!(sqlstates(&client.read_until_ready()), ["42P05"]);
    client.send([frames::close(b'S', "skipped"), frames::sync()].concat());
    client.read_until_ready();
    client.query("ROLLBACK");
    stage.is_whole(&mut client);
}

// --- 16: Flush without Sync ---

/// With Flush a client gets what came so far. Waiting for ReadyForQuery first, the client and the pooler waited for
/// each other; giving the server away, the portal was someone else's.
#[test]
fn case_16_flush_without_sync_answers_and_keeps_the_server() {
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

/// Flush in front of anything else: there is nothing to flush, and it takes no server.
#[test]
fn case_16_flush_alone_takes_no_server() {
    let stage = stage(1);
    let (mut client, mut other) = (stage.client(), stage.client());
    client.send(frames::flush().repeat(1000));
    other.query("BEGIN");
    client.send([frames::flush(), frames::query("SELECT 'asked'"), frames::flush()].concat());
    stage.waits(1);
    other.query("COMMIT");
    assert_eq!(values(&client.read_until_ready()), ["asked"]);
    stage.is_whole(&mut client);
}

// --- 17, 18, 19: names that may not exist ---

/// A pooler that answers Parse or Close itself got ahead of the server's answers to what was asked before: drivers
/// count replies, so each took the next one's.
#[test]
fn case_17_replies_keep_the_order_of_their_requests() {
    let stage = stage(1);
    let mut client = stage.client();
    let round = [
        frames::close(b'S', "unknown"),
        frames::parse("a", "SELECT 'a' || $1::text"),
        frames::close(b'P', "unknown"),
        frames::describe(b'S', "a"),
        frames::bind("p", "a", &[Some("1")]),
        frames::close(b'S', "unknown"),
        frames::describe(b'P', "p"),
        execute_some("p", 1),
        frames::close(b'P', "p"),
        frames::parse("b", "BEGIN"),
        frames::close(b'S', "a"),
        frames::close(b'S', "a"),
        frames::close(b'S', "b"),
    ];
    let answer = "313tT23TDs31333";
    client.send([round.concat(), frames::sync()].concat());
    assert_eq!(tags(&client.read_until_ready()), format!("{answer}Z"));
    client.send(
        [
            [round.concat(), frames::flush()].concat().repeat(50),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(
        tags(&client.read_until_ready()),
        format!("{}Z", answer.repeat(50))
    );
    // With an error in between nothing after it is answered, also not by someone else.
    let failing = [
        round[0].clone(),
        run("SELECT 1/0"),
        round.concat(),
        frames::sync(),
    ];
    client.send([failing.concat(), round.concat(), frames::sync()].concat());
    assert_eq!(tags(&read_ready(&mut client, 2)), format!("31EZ{answer}Z"));
    stage.is_whole(&mut client);
}

/// Close of what does not exist was an error, and Close of a portal closed the statement of that name.
#[test]
fn case_18_close_of_an_unknown_name_is_a_success_and_kinds_are_apart() {
    let stage = stage(1);
    let mut client = stage.client();
    for kind in [b'S', b'P'] {
        for name in ["unknown", ""] {
            client.send([frames::close(kind, name), frames::sync()].concat());
            assert_eq!(tags(&client.read_until_ready()), "3Z", "{name}");
        }
    }
    // A statement and a portal of the same name.
    client.query("BEGIN");
    client.send(
        [
            frames::parse("same", "SELECT 'one'"),
            frames::bind("same", "same", &[]),
            frames::close(b'P', "same"),
            frames::describe(b'S', "same"),
            frames::bind("same", "same", &[]),
            frames::describe(b'P', "same"),
            frames::execute("same"),
            frames::close(b'S', "same"),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&client.read_until_ready()), "123tT2TDC3Z");
    // The statement is gone; a name that is used by a portal alone is not one of a statement.
    client.query("SAVEPOINT s");
    client.send([frames::describe(b'S', "same"), frames::sync()].concat());
    assert_eq!(sqlstates(&client.read_until_ready()), ["26000"]);
    client.query("ROLLBACK TO s");
    client.send(
        [
            frames::close(b'P', "same"),
            frames::describe(b'P', "same"),
            frames::sync(),
        ]
        .concat(),
    );
    let answer = client.read_until_ready();
    assert_eq!(
        (tags(&answer), sqlstates(&answer).concat()),
        ("3EZ".into(), "34000".into())
    );
    client.query("ROLLBACK TO s");
    client.send(
        [
            frames::close(b'S', "same"),
            frames::close(b'P', "same"),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&client.read_until_ready()), "33Z");
    client.query("COMMIT");
    stage.is_whole(&mut client);
}

/// Of a statement that nobody has prepared, the driver has to be told exactly that: by 26000 it knows to prepare it
/// again.
#[test]
fn case_19_an_unknown_statement_is_26000_and_an_unknown_portal_34000() {
    let stage = stage(1);
    let mut client = stage.client();
    for (request, sqlstate) in [
        (frames::bind("", "unknown", &[]), "26000"),
        (frames::describe(b'S', "unknown"), "26000"),
        (frames::describe(b'P', "unknown"), "34000"),
        (frames::execute("unknown"), "34000"),
    ] {
        // What came before it holds, what comes after it is skipped, and the next batch is whole.
        let batch = [
            frames::parse("", "SELECT 1"),
            request.clone(),
            run("SELECT 2"),
            frames::sync(),
        ];
        client.send([batch.concat(), run("SELECT 'next'"), frames::sync()].concat());
        let answers = read_ready(&mut client, 2);
        assert_eq!(tags(&answers), "1EZ12DCZ");
        assert_eq!(
            (sqlstates(&answers).concat(), values(&answers).concat()),
            (sqlstate.into(), "next".into())
        );
        // The first of a batch, with Flush: nothing came before it.
        client.send([request, frames::flush()].concat());
        assert_eq!(sqlstates(&[client.read()]), [sqlstate]);
        client.send(frames::sync());
        assert_eq!(tags(&client.read_until_ready()), "Z");
    }
    stage.is_whole(&mut client);
}

// --- 23: row limits ---

/// PortalSuspended was taken for the end of the statement, and the server given away while its portal was open.
#[test]
fn case_23_a_suspended_portal_is_not_the_end() {
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

// --- 24: simple and extended together ---

/// A Query in the middle of a batch was waited on until its Sync, which the client sends after the Query's answer.
#[test]
fn case_24_simple_queries_between_extended_messages() {
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

/// Several statements in a Query are one implicit transaction with one ReadyForQuery; an empty one has no
/// CommandComplete.
#[test]
fn case_24_simple_queries_of_many_statements_and_of_none() {
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

/// FunctionCall has no Sync and is a request of its own.
#[test]
fn case_24_a_function_call_ends_with_ready_for_query() {
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

// --- 25: the pooler has no ReadyForQuery of its own in mid-sequence ---

/// A pool of one server connection that waits 250 ms, and a client that holds it.
fn busy() -> (Stage, RawClient) {
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", "1")
        .set("pool.query_wait_timeout", "'250ms'")
        .start();
    let stage = Stage {
        pooler,
        size: 1,
        postgres,
    };
    let mut holder = stage.client();
    holder.query("CREATE TABLE t (a int)");
    holder.query("BEGIN");
    (stage, holder)
}

/// To a client in the middle of a batch the pooler said that the pool is busy, with a ReadyForQuery of its own; the
/// Sync of that batch was answered once more, and the client was one answer ahead from then on.
#[test]
fn case_25_a_busy_pool_is_told_once_and_ready_for_query_waits_for_sync() {
    let (stage, mut holder) = busy();
    let mut client = stage.client();
    let insert = run("INSERT INTO t VALUES (1)");
    // With a Sync already there, after it, byte by byte, and with a Query that is a part of the batch.
    client.send([insert.clone(), frames::sync()].concat());
    assert_eq!(tags(&client.read_until_ready()), "EZ");
    client.send([insert.clone(), frames::flush()].concat());
    assert_eq!(sqlstates(&[client.read()]), ["53300"]);
    client.send(
        [
            insert.clone(),
            frames::flush(),
            frames::query("INSERT INTO t VALUES (2)"),
        ]
        .concat(),
    );
    client.send(
        [
            call(INT4PL, ["1", "1"]),
            frames::copy_data("x"),
            frames::copy_done(),
        ]
        .concat(),
    );
    for byte in [insert.clone(), frames::sync()].concat() {
        client.send([byte]);
    }
    assert_eq!(tags(&client.read_until_ready()), "Z");
    // The error comes in the middle of a message: its rest is not a request.
    let value = "v".repeat(300_000);
    let large = frames::extended("SELECT $1::text", &[Some(&value)]);
    let (first, rest) = large.split_at(100_000);
    client.send(first);
    assert_eq!(sqlstates(&[client.read()]), ["53300"]);
    client.send(rest);
    assert_eq!(tags(&client.read_until_ready()), "Z");
    let large = frames::query(&format!("SELECT '{value}'"));
    let (first, rest) = large.split_at(100_000);
    client.send(first);
    assert_eq!(sqlstates(&[client.read()]), ["53300"]);
    client.send(rest);
    assert_eq!(tags(&client.read_until_ready()), "Z");
    // It has waited as long as it should, and asked for nothing since.
    assert!(stage.pooler.metric("pgweir_waiting_clients") == 0.0);
    holder.query("COMMIT");
    assert_eq!(client.value("SELECT count(*) FROM t"), "0");
    stage.is_whole(&mut client);
}

/// Requests behind the one that was refused are requests of their own: each is answered, in order.
#[test]
fn case_25_each_request_of_a_refused_pipeline_is_answered_once() {
    let (stage, mut holder) = busy();
    let mut client = stage.client();
    let begin = Instant::now();
    client.send(
        [
            frames::query("INSERT INTO t VALUES (1)"),
            run("INSERT INTO t VALUES (2)"),
            frames::sync(),
            call(INT4PL, ["1", "1"]),
            frames::sync(),
        ]
        .concat(),
    );
    let answers = read_ready(&mut client, 4);
    assert_eq!(tags(&answers), "EZEZEZEZ");
    assert!(begin.elapsed() >= Duration::from_millis(250));
    // Refused, and goodbye in the same breath.
    let mut leaving = stage.client();
    leaving.send([run("INSERT INTO t VALUES (3)"), frames::terminate()].concat());
    assert_eq!(tags(&leaving.read_to_end()), "E");
    holder.query("COMMIT");
    assert_eq!(client.value("SELECT count(*) FROM t"), "0");
    assert_eq!(statuses(&client.query("")), "I");
    stage.is_whole(&mut client);
}
