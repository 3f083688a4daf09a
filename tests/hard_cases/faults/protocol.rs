//! Servers that do not keep to the protocol.

use super::{failing_once, good, in_front_of, outcome};
use crate::{
    checks::{assert_error, assert_settled, log_in, wait_for_metric},
    support::{FakeServer, Pooler, frames, tags},
};

#[test]
fn case_42_garbage_is_one_error() {
    // Something that is no PostgreSQL at the server's address.
    let messages = outcome(|connection| {
        connection.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
        connection.read_to_end().map(drop)
    });
    assert_eq!(tags(&messages), "E");
    assert_error(&messages[0], "FATAL", "08006");
}

#[test]
fn case_42_impossible_lengths_are_one_error() {
    // A length that is believed is memory or an overflow (CVE-2026-6664).
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
fn case_42_server_out_of_step_is_left_after_the_transaction() {
    // A reply too many or too few: the next client would read the last one's (odyssey #1326, pgagroal #142).
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
fn case_42_late_reply_on_an_idle_connection_costs_only_that_connection() {
    // The same when everything seemed to be in order before.
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

#[test]
fn case_28_late_answer_to_a_sync_before_copy_data_is_not_the_next_clients() {
    // A COPY failed after CopyInResponse and before the server read anything; it then answered a Sync that pgweir had
    // taken for one that COPY ignores. The answer came when the server connection was another client's, who took it
    // for its own.
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

#[test]
fn case_42_server_out_of_memory_is_not_used_again() {
    // A backend that has run out of memory once is bloated, and will again (odyssey #1326).
    let server = failing_once(|connection| {
        let oom = || frames::error_response("ERROR", "53200", "out of memory");
        connection.send([oom(), frames::ready_for_query(b'T')].concat())?;
        // Its client may finish the transaction.
        connection.expect(b'Q')?;
        connection.send(
            [
                frames::command_complete("ROLLBACK"),
                frames::ready_for_query(b'I'),
            ]
            .concat(),
        )?;
        connection.read_to_end().map(drop)
    });
    let pooler = in_front_of(&server);
    let (mut victim, mut next) = (log_in(&pooler), log_in(&pooler));
    let answer = victim.query("BEGIN; SELECT 1");
    assert_eq!(tags(&answer), "EZ");
    assert_error(&answer[0], "ERROR", "53200");
    assert_eq!(tags(&victim.query("ROLLBACK")), "CZ");
    assert_eq!(tags(&next.query("SELECT 1")), "DCZ");
    assert_eq!(server.accepted(), 2, "the connection was not used again");
    assert_eq!(tags(&victim.query("SELECT 1")), "DCZ", "the client goes on");
    drop((victim, next));
    assert_settled(&pooler);
}
