//! Statements of many clients on few server connections: whoever is served how, each gets its own.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{batch, outcome, prepare_and_use, use_statement};
use crate::support::{LIMIT, RawClient, frames, read_ready, sqlstates, stage, stage_for_twins, tags, values};

/// The unnamed statement lives from Parse to the next Parse, also across Sync; it is nobody else's.
#[test]
fn case_19_the_unnamed_statement_is_its_client_s() {
    let stage = stage_for_twins(1);
    let (mut twins, mut other) = (stage.twins(), stage.client());
    let meddle = |other: &mut RawClient, how: usize| {
        other.send(match how {
            0 => frames::query("SELECT 'meddling'"),
            1 => batch(&[frames::parse("", "SELECT 'not yours', 2")]),
            2 => batch(&[frames::parse("", "SELEKT")]),
            _ => batch(&[frames::close(b'S', "")]),
        });
        other.read_until_ready();
    };
    for how in 0..4 {
        twins.say(batch(&[frames::parse("", "SELECT 'mine', $1::text")]), 1);
        meddle(&mut other, how);
        twins.say(batch(&[frames::describe(b'S', "")]), 1);
        meddle(&mut other, how);
        twins.say(
            batch(&[frames::bind("", "", &[Some("x")]), frames::execute("")]),
            1,
        );
        meddle(&mut other, how);
        // Twice in one write.
        twins.say(
            batch(&[frames::bind("", "", &[Some("y")]), frames::execute("")]).repeat(2),
            2,
        );
        // Forgotten by the client, in each way; another's stays another's.
        for forget in [
            frames::query("SELECT 'forgets'"),
            batch(&[frames::parse("", "SELEKT")]),
            batch(&[frames::close(b'S', "")]),
        ] {
            twins.say(batch(&[frames::parse("", "SELECT 'mine'")]), 1);
            twins.say(forget, 1);
            other.send(batch(&[frames::parse("", "SELECT 'not yours'")]));
            other.read_until_ready();
            twins.say(batch(&[use_statement("")]), 1);
            twins.say(batch(&[frames::describe(b'S', "")]), 1);
        }
        // A client that never had one.
        let mut newcomer = stage.client();
        meddle(&mut other, 1);
        assert_eq!(outcome(&mut newcomer, ""), ["26000"]);
    }
    stage.is_whole(&mut twins.pooled);
}

/// A Parse, Close or Query that is skipped takes nothing away that the server has of somebody else: what follows in the
/// same write must not run that.
#[test]
fn case_19_an_unnamed_statement_that_was_skipped_is_nobody_else_s() {
    let stage = stage_for_twins(1);
    let (mut twins, mut other) = (stage.twins(), stage.client());
    let failing = use_statement("unknown");
    for skipped in [
        frames::parse("", "SELECT 'mine'"),
        frames::close(b'S', ""),
        frames::query("SELECT 'mine'"),
    ] {
        for using in [use_statement(""), frames::describe(b'S', "")] {
            twins.say(frames::query("SELECT 'none'"), 1);
            other.send(batch(&[frames::parse("", "SELECT 'a secret'")]));
            other.read_until_ready();
            let replies = twins.say(
                [
                    batch(&[failing.clone(), skipped.clone()]),
                    batch(std::slice::from_ref(&using)),
                ]
                .concat(),
                2,
            );
            assert_eq!(sqlstates(&replies), ["26000", "26000"]);
            // The same in two transactions.
            twins.say(batch(&[failing.clone(), skipped.clone()]), 1);
            other.send(batch(&[frames::parse("", "SELECT 'a secret'")]));
            other.read_until_ready();
            twins.say(batch(&[using]), 1);
            assert_eq!(outcome(&mut other, ""), ["a secret"]);
        }
    }
    stage.is_whole(&mut twins.pooled);
}

/// What forgets statements is waited for also when its request was sent by another client's session.
#[test]
fn case_21_a_hand_over_forgets_what_precedes_it() {
    let stage = stage_for_twins(1);
    let (mut twins, mut holder) = (stage.twins(), stage.client());
    for text in ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE a"] {
        for forget in [frames::query(text), batch(&[prepare_and_use("", text)])] {
            let prepare = batch(&[frames::parse("a", "SELECT 'a'"), frames::parse("b", "SELECT 'b'")]);
            let conversation = [
                forget,
                batch(&[use_statement("b")]),
                batch(&[prepare_and_use("a", "SELECT 'new a'")]),
                batch(&[use_statement("a")]),
                batch(&[
                    frames::close(b'S', "b"),
                    use_statement("unknown"),
                    frames::close(b'S', "a"),
                ]),
                batch(&[use_statement("b")]),
                batch(&[use_statement("a")]),
                frames::query("DEALLOCATE ALL"),
            ];
            twins.say(prepare, 1);
            holder.query("BEGIN");
            twins.pooled.send(conversation.concat());
            stage.waits(1);
            holder.query("COMMIT");
            twins.direct.send(conversation.concat());
            twins.say(frames::sync(), conversation.len() + 1);
        }
    }
    stage.is_whole(&mut twins.pooled);
}

/// The pooler's own Parse of it may be skipped as well.
#[test]
fn case_19_an_unnamed_statement_outlives_an_error_before_its_use() {
    let stage = stage_for_twins(2);
    let (mut twins, mut other) = (stage.twins(), stage.client());
    for _ in 0..3 {
        twins.say(batch(&[frames::parse("", "SELECT 'stays'")]), 1);
        other.query("BEGIN");
        let skipped = [use_statement("unknown"), use_statement("")];
        twins.say([batch(&skipped), batch(&[use_statement("")])].concat(), 2);
        other.query("COMMIT");
        other.query("SELECT 'forgets'");
        twins.say(batch(&skipped), 1);
        twins.say(batch(&[use_statement("")]), 1);
    }
    stage.is_whole(&mut twins.pooled);
}

/// A client that waits has its request sent by whoever is served before it: names are replaced there too, and what is
/// missing is prepared.
#[test]
fn case_19_statements_of_clients_that_are_served_by_hand_over() {
    let stage = stage(1);
    let clients = 12;
    let rounds = 40;
    thread::scope(|scope| {
        for client in 0..clients {
            let stage = &stage;
            scope.spawn(move || {
                let mut connection = stage.client();
                let mut names = Vec::new();
                for round in 0..rounds {
                    let name = format!("s{}", round % 5);
                    if round < 5 {
                        // Half of the texts are everybody's.
                        let text = match round % 2 {
                            0 => format!("SELECT 'shared {round}'"),
                            _ => format!("SELECT 'own {client} {round}'"),
                        };
                        connection.send(batch(&[frames::parse(&name, &text)]));
                        assert_eq!(tags(&connection.read_until_ready()), "1Z");
                        names.push(text);
                    }
                    let expected = names[round % names.len()]
                        .replace("SELECT ", "")
                        .replace('\'', "");
                    let name = format!("s{}", round % names.len());
                    let unknown = batch(&[use_statement("unknown"), use_statement(&name)]);
                    connection.send([unknown, batch(&[use_statement(&name)])].concat());
                    let replies = read_ready(&mut connection, 2);
                    assert_eq!(sqlstates(&replies), ["26000"]);
                    assert_eq!(values(&replies), [expected]);
                    if round % 10 == 9 {
                        let again = frames::parse(&name, &names[round % names.len()]);
                        connection.send(batch(&[frames::close(b'S', &name), again]));
                        assert_eq!(tags(&connection.read_until_ready()), "31Z");
                    }
                }
            });
        }
    });
    stage.is_whole(&mut stage.client());
}

/// The same with messages that come in pieces while their client waits.
#[test]
fn case_19_statements_in_pieces_while_their_client_waits() {
    let stage = stage(1);
    let (mut holder, mut client) = (stage.client(), stage.client());
    let request = batch(&[
        prepare_and_use("a", "SELECT 'a'"),
        frames::close(b'S', "a"),
        prepare_and_use("a", "SELECT 'b'"),
    ]);
    for cut in (1..request.len()).step_by(7) {
        holder.query("BEGIN");
        let (first, second) = request.split_at(cut);
        client.send(first);
        // As far as there is a whole message it waits.
        if cut > 40 {
            stage.waits(1);
        }
        if cut.is_multiple_of(2) {
            client.send(second);
            holder.query("COMMIT");
        } else {
            holder.query("COMMIT");
            client.send(second);
        }
        let replies = client.read_until_ready();
        assert_eq!(
            (tags(&replies).as_str(), values(&replies).concat().as_str()),
            ("12DC312DCZ", "ab"),
            "cut at {cut}"
        );
        client.send(batch(&[frames::close(b'S', "a")]));
        client.read_until_ready();
    }
    stage.is_whole(&mut client);
}

/// A cancel while the server works at a Parse that the pooler put into the client's batch is the client's, and leaves
/// the statement as unknown as it was.
#[test]
fn case_19_a_cancel_reaches_the_pooler_s_parse() {
    let stage = stage(2);
    let mut client = stage.client();
    // Preparing waits for the lock of the table that the text names.
    client.query("CREATE TABLE locked AS SELECT 'read' AS a");
    client.send(batch(&[prepare_and_use("waits", "SELECT a FROM locked")]));
    assert_eq!(values(&client.read_until_ready()), ["read"]);
    let key = client.key.clone().expect("a key was given");
    for round in 0..3 {
        let mut holder = stage.client();
        holder.query("BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE");
        // The holder has the connection on which it is prepared.
        client.send(batch(&[use_statement("waits")]));
        let until = Instant::now() + LIMIT;
        while holder.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == "0" {
            assert!(Instant::now() < until, "the client waits for the lock");
        }
        let mut cancel = RawClient::connect(stage.pooler.address());
        let code = frames::CANCEL_REQUEST.to_be_bytes();
        cancel.send(frames::untagged([&code, &key[..]].concat()));
        cancel.read_to_end();
        assert_eq!(sqlstates(&client.read_until_ready()), ["57014"], "round {round}");
        holder.query("ROLLBACK");
        assert_eq!(outcome(&mut client, "waits"), ["read"]);
    }
    stage.is_whole(&mut client);
}

/// Clients that vanish in the middle of a batch with prepared statements: who comes next finds what it prepared.
#[test]
fn case_19_clients_that_vanish_among_their_statements() {
    let stage = stage(2);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..60 {
                let mut leaver = stage.client();
                let name = format!("s{}", number % 3);
                let text = format!("SELECT 'shared {}'", number % 3);
                let request = match number % 6 {
                    0 => prepare_and_use(&name, &text),
                    1 => batch(&[prepare_and_use(&name, &text)]),
                    2 => [batch(&[frames::parse(&name, &text)]), use_statement(&name)].concat(),
                    3 => batch(&[use_statement("unknown"), prepare_and_use(&name, &text)]),
                    4 => frames::parse(&name, &text)[..12].to_vec(),
                    _ => [frames::query("BEGIN"), batch(&[prepare_and_use(&name, &text)])].concat(),
                };
                leaver.send(request);
                thread::sleep(Duration::from_micros(number * 137 % 2000));
            }
            done.store(true, Ordering::SeqCst);
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = stage.client();
                for number in 0..3 {
                    client.send(batch(&[frames::parse(
                        &format!("s{number}"),
                        &format!("SELECT 'shared {number}'"),
                    )]));
                    assert_eq!(tags(&client.read_until_ready()), "1Z");
                }
                while !done.load(Ordering::SeqCst) {
                    for number in 0..3 {
                        assert_eq!(
                            outcome(&mut client, &format!("s{number}")),
                            [format!("shared {number}")]
                        );
                    }
                }
            });
        }
    });
    stage.is_whole(&mut stage.client());
}
