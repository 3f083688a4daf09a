//! Servers that fail in the middle of their work.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{failing_once, good, in_front_of, outcome};
use crate::{
    checks::{assert_error, assert_settled, field, knock, log_in, only_error, wait_for_metric},
    support::{FakeConnection, FakeServer, Link, Pooler, eventually, frames, postgres, tags},
};

#[test]
fn case_38_server_lost_between_two_messages_is_told_once() {
    // A pooler that tells the loss and then the failure of the query says two errors (pgdog #841).
    let messages = outcome(|connection| connection.send(frames::data_row(&["half"])));
    assert_eq!(tags(&messages), "DE");
    assert_error(&messages[1], "FATAL", "08006");
    assert!(
        !field(&messages[1], b'D').is_empty(),
        "whether it took effect is not known"
    );
}

#[test]
fn case_38_server_that_resets_is_told_once() {
    // A reset instead of an end, as from a machine that has restarted.
    let messages = outcome(FakeConnection::reset_at_end);
    assert_eq!(tags(&messages), "E");
    assert_error(&messages[0], "FATAL", "08006");
}

#[test]
fn case_38_server_lost_in_a_header_is_told_once() {
    // Half a header has been read and nothing of it shown: the client can still be told.
    let messages = outcome(|connection| connection.send([b'D', 0, 0]));
    assert_eq!(tags(&messages), "E");
    assert_error(&messages[0], "FATAL", "08006");
}

#[test]
fn case_38_nothing_is_said_in_the_middle_of_a_message() {
    // A message of which the client has a part: an ErrorResponse would be read as its contents.
    // A client that got more would take it for the rest of the row.
    let messages = outcome(|connection| {
        let row = frames::data_row(&[&"x".repeat(50_000)]);
        connection.send(&row[..row.len() / 2])
    });
    assert_eq!(tags(&messages), "");
}

#[test]
fn case_38_servers_own_last_words_are_all_that_is_said() {
    // The real cause, and not the pooler's "server conn crashed?" in its place.
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
fn case_38_link_cut_in_the_middle_of_a_result_is_one_error() {
    // The same with a real server in a transaction.
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
    assert_error(only_error(&messages), "FATAL", "08006");
    assert_eq!(log_in(&pooler).value("SELECT 1"), "1");
}

#[test]
fn case_38_server_that_ends_after_its_answer_is_not_the_clients_concern() {
    // A server that is shut down says so as soon as it has answered; a client that is not in a transaction by then
    // has no need to know, and drivers take an error that nobody asked for as the end of their connection.
    let server = failing_once(|connection| {
        let farewell = frames::error_response("FATAL", "57P01", "terminating connection");
        connection.send([good(), farewell].concat())
    });
    let pooler = in_front_of(&server);
    let mut client = log_in(&pooler);
    assert_eq!(tags(&client.query("SELECT 1")), "DCZ");
    assert_eq!(tags(&client.query("SELECT 2")), "DCZ");
    assert_eq!(server.accepted(), 2);
    drop(client);
    assert_settled(&pooler);
}

#[test]
fn case_38_farewell_that_answers_the_poolers_own_settings_is_told() {
    // The server goes away while it is given a client's settings: what it says then answers the pooler's request,
    // and is the reason why the client's will not be answered.
    let doomed = Arc::<AtomicBool>::default();
    let doom = doomed.clone();
    let server = FakeServer::start(move |connection| {
        connection.log_in()?;
        while connection.read()?.tag == b'Q' {
            if doom.swap(false, Ordering::SeqCst) {
                return connection.send(frames::error_response("FATAL", "57P01", "terminating connection"));
            }
            connection.send(good())?;
        }
        Ok(())
    });
    let pooler = in_front_of(&server);
    let [mut first, mut second] = ["1MB", "2MB"].map(|value| {
        let mut client = knock(&pooler, &[("work_mem", value)]);
        client.read_until_ready();
        client
    });
    assert_eq!(tags(&first.query("SELECT 1")), "DCZ");
    doomed.store(true, Ordering::SeqCst);
    second.send(frames::query("SELECT 1"));
    let messages = second.read_to_end();
    assert_error(only_error(&messages), "FATAL", "57P01");
    assert_eq!(
        tags(&first.query("SELECT 1")),
        "DCZ",
        "the next client is unharmed"
    );
    drop((first, second));
    assert_settled(&pooler);
}

#[test]
fn case_38_server_ended_in_mid_pipeline_is_one_error() {
    // Of many batches one is being answered: one error, with the server's own words, and not one for each batch.
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address()).start();
    let mut client = log_in(&pooler);
    let batch = frames::extended("SELECT 'before'", &[]);
    let slow = frames::extended("SELECT pg_sleep(100)", &[]);
    client.send([batch.clone(), slow, batch.repeat(20)].concat());
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'";
    eventually("it is ended", || postgres.psql(end).unwrap() == "t");
    let messages = client.read_to_end();
    assert_error(only_error(&messages), "FATAL", "57P01");
    assert!(tags(&messages).ends_with('E'), "{messages:?}");
    assert_eq!(log_in(&pooler).value("SELECT 1"), "1");
    pooler.assert_all_places(2);
}

#[test]
fn case_38_client_in_a_transaction_is_told_and_an_idle_one_goes_on() {
    // The connections of two clients are ended, one in a transaction, one between two.
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address()).start();
    let (mut busy, mut idle) = (log_in(&pooler), log_in(&pooler));
    busy.query("BEGIN");
    assert_eq!(idle.value("SELECT 1"), "1");
    wait_for_metric(&pooler, "pgweir_servers{state=\"idle\"}", 1.0);
    let end = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE usename = 'app'";
    assert_eq!(postgres.psql(end).unwrap(), "2");
    // Without having asked, as a client of the server itself.
    let messages = busy.read_to_end();
    assert_eq!(tags(&messages), "E");
    assert_error(&messages[0], "FATAL", "57P01");
    assert_eq!(idle.value("SELECT 2"), "2");
    drop((busy, idle));
    assert_settled(&pooler);
    pooler.assert_all_places(2);
}
