//! 19: what a client calls its statements is its own affair, and errors name what it knows.

use std::{thread, time::Duration};

use super::{batch, prepare_and_use, use_statement};
use crate::support::{Stage, Twins, frames, sqlstates, stage_for_twins, tags, values};

const INT4: i32 = 23;
const TEXT: i32 = 25;

fn message(frames: &[crate::support::Frame]) -> String {
    crate::checks::only_error(frames).field(b'M').unwrap()
}

/// Of an unknown statement the driver is told just that, with the name that it used (PgDoorman said 58000).
#[test]
fn case_19_unknown_statements_are_named_as_the_client_names_them() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    for name in [
        "unknown",
        "pgweir_1",
        "Ünknown \"quoted\"",
        &"n".repeat(300),
        "%s%n",
    ] {
        for request in [frames::bind("", name, &[]), frames::describe(b'S', name)] {
            let replies = twins.say(
                batch(&[frames::parse("", "SELECT 1"), request, use_statement("")]),
                1,
            );
            assert_eq!(
                (tags(&replies).as_str(), sqlstates(&replies).concat().as_str()),
                ("1EZ", "26000")
            );
            assert!(message(&replies).contains(name));
        }
    }
    stage.is_whole(&mut twins.pooled);
}

/// Too few or too many parameters: that error has the statement's name in it too.
#[test]
fn case_19_a_wrong_number_of_parameters_is_said_of_the_client_s_name() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    twins.say(batch(&[frames::parse("adds", "SELECT $1::int + $2::int")]), 1);
    for count in [0, 1, 3] {
        let bind = frames::bind("", "adds", &[Some("1")].repeat(count));
        let replies = twins.say(batch(&[bind]), 1);
        assert_eq!(sqlstates(&replies), ["08P01"]);
        assert!(message(&replies).contains("\"adds\""), "{replies:?}");
    }
    stage.is_whole(&mut twins.pooled);
}

/// A name that is taken: PostgreSQL's own refusal, after its own look at the text, and nothing has changed.
#[test]
fn case_19_a_taken_name_is_refused_as_postgresql_refuses_it() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    twins.say(batch(&[frames::parse("taken", "SELECT 'first'")]), 1);
    for (text, sqlstate) in [
        ("SELECT 'first'", "42P05"),
        ("SELECT 'second'", "42P05"),
        ("SELECT 1; SELECT 2", "42601"),
        ("SELEKT", "42601"),
        ("SELECT missing", "42703"),
        ("", "42P05"),
    ] {
        let again = [frames::parse("taken", text), use_statement("taken")];
        let replies = twins.say([batch(&again), batch(&[use_statement("taken")])].concat(), 2);
        assert_eq!(
            (tags(&replies).as_str(), sqlstates(&replies).concat().as_str()),
            ("EZ2DCZ", sqlstate)
        );
        assert_eq!(values(&replies), ["first"]);
        if sqlstate == "42P05" {
            assert_eq!(message(&replies), "prepared statement \"taken\" already exists");
        }
    }
    // The same in the batch that gives the name.
    let twice = [
        frames::parse("x", "SELECT 1"),
        frames::parse("x", "SELECT 2"),
        use_statement("x"),
    ];
    twins.say([batch(&twice), batch(&[use_statement("x")])].concat(), 2);
    twins.say(batch(&twice), 1);
    twins.say(batch(&[use_statement("x")]), 1);
    stage.is_whole(&mut twins.pooled);
}

/// The same while the statement that has the name is not prepared on the server that is asked.
#[test]
fn case_19_a_taken_name_is_refused_by_a_server_that_never_saw_it() {
    let stage = stage_for_twins(2);
    let mut twins = stage.twins();
    twins.say(batch(&[frames::parse("taken", "SELECT 'first'")]), 1);
    elsewhere(&stage, &mut twins, |twins| {
        let replies = twins.say(batch(&[frames::parse("taken", "SELECT 'second'")]), 1);
        assert_eq!(sqlstates(&replies), ["42P05"]);
        twins.say(batch(&[frames::parse("taken", "SELEKT")]), 1);
        twins.say(
            batch(&[frames::describe(b'S', "taken"), use_statement("taken")]),
            1,
        );
    });
    stage.is_whole(&mut twins.pooled);
}

/// Runs `then` while the twin uses another server connection than before.
fn elsewhere(stage: &Stage, twins: &mut Twins, then: impl FnOnce(&mut Twins)) {
    // Idle server connections are lent last in, first out.
    let mut other = stage.client();
    other.query("BEGIN");
    then(twins);
    other.query("COMMIT");
}

/// A statement that the server connection does not have is prepared there, within the client's own batch.
#[test]
fn case_19_a_statement_moves_with_its_client() {
    let stage = stage_for_twins(2);
    let mut twins = stage.twins();
    let text = "SELECT $1 || '!', pg_typeof($1)";
    twins.say(batch(&[frames::parse_typed("moves", text, &[TEXT])]), 1);
    let bind = frames::bind("", "moves", &[Some("x")]);
    let uses = |first: &[Vec<u8>]| batch(&[first.concat(), bind.clone(), frames::execute("")]);
    elsewhere(&stage, &mut twins, |twins| {
        // In the middle of a batch, behind an error, after it.
        twins.say(
            uses(&[prepare_and_use("", "SELECT 1"), frames::describe(b'S', "moves")]),
            1,
        );
        twins.say(uses(&[use_statement("unknown")]), 1);
        twins.say(uses(&[frames::describe(b'S', "moves")]), 1);
    });
    let mut pids = Vec::new();
    for other in 0..4 {
        let name = format!("pid{other}");
        twins
            .pooled
            .send(batch(&[prepare_and_use(&name, "SELECT pg_backend_pid()")]));
        pids.extend(values(&twins.pooled.read_until_ready()));
        twins.say(uses(&[]), 1);
    }
    assert!(stage.pooler.metric("pgweir_prepared_statement_misses_total") > 2.0 || pids.len() == 4);
    stage.is_whole(&mut twins.pooled);
}

/// A name is free when its statement is closed; a portal of the old one still runs the old one.
#[test]
fn case_19_a_name_is_given_again_after_close() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    twins.say(frames::query("BEGIN"), 1);
    for round in 0..5 {
        let (old, new) = (format!("SELECT 'old {round}'"), format!("SELECT {round}"));
        let messages = [
            frames::parse("name", &old),
            frames::bind("old", "name", &[]),
            frames::close(b'S', "name"),
            frames::parse("name", &new),
            use_statement("name"),
            frames::describe(b'S', "name"),
            frames::execute("old"),
            frames::close(b'P', "old"),
            frames::close(b'S', "name"),
        ];
        twins.say(batch(&messages), 1);
    }
    twins.say(frames::query("COMMIT"), 1);
    stage.is_whole(&mut twins.pooled);
}

/// One text with two parameter types is two statements, in one session and in two.
#[test]
fn case_19_parameter_types_make_another_statement() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    let text = "SELECT pg_typeof($1), $1";
    let types: [&[i32]; 4] = [&[TEXT], &[INT4], &[0], &[]];
    for (number, types) in types.iter().enumerate() {
        let name = format!("typed{number}");
        let messages = [
            frames::parse_typed(&name, text, types),
            frames::describe(b'S', &name),
            frames::bind("", &name, &[Some("1")]),
            frames::describe(b'P', ""),
            frames::execute(""),
        ];
        twins.say(batch(&messages), 1);
    }
    let mut second = stage.twins();
    second.say(
        batch(&[
            frames::parse_typed("typed0", text, &[INT4]),
            frames::describe(b'S', "typed0"),
        ]),
        1,
    );
    twins.say(batch(&[frames::describe(b'S', "typed0")]), 1);
    stage.is_whole(&mut twins.pooled);
}

/// Names and texts in pieces: a message that has to be known as a whole is not lost at any cut.
#[test]
fn case_19_messages_cut_at_every_byte() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    let conversation = [
        frames::parse("cut", "SELECT $1::text"),
        frames::describe(b'S', "cut"),
        frames::bind("portal", "cut", &[Some("value")]),
        frames::execute("portal"),
        frames::close(b'P', "portal"),
        frames::parse("", "SELECT 'unnamed'"),
        use_statement(""),
        frames::close(b'S', "cut"),
        frames::close(b'S', "cut"),
        frames::sync(),
    ]
    .concat();
    for cut in 1..conversation.len() {
        twins.say_in_two(&conversation, cut, 1);
    }
    stage.is_whole(&mut twins.pooled);
}

/// A text of more than any buffer: it is sent when all of it is known, and shared like any other.
#[test]
fn case_19_large_texts_by_name() {
    let stage = stage_for_twins(2);
    let mut twins = stage.twins();
    for size in [8_100, 8_192, 8_193, 16_000, 70_000, 3_000_000] {
        let text = format!("SELECT length('{}')", "x".repeat(size));
        let messages = batch(&[
            prepare_and_use("large", &text),
            frames::close(b'S', "unknown"),
            use_statement("large"),
        ]);
        twins.say(&messages, 1);
        elsewhere(&stage, &mut twins, |twins| {
            twins.say(
                batch(&[use_statement("large"), frames::describe(b'S', "large")]),
                1,
            );
        });
        twins.say(batch(&[frames::parse("large", &text)]), 1);
        twins.say(batch(&[frames::close(b'S', "large")]), 1);
        // In pieces, with others before and behind.
        let again = batch(&[
            prepare_and_use("", "SELECT 1"),
            prepare_and_use("large", &text),
            use_statement("large"),
        ]);
        for piece in again.chunks(again.len() / 7 + 1) {
            twins.pooled.send(piece);
            thread::sleep(Duration::from_millis(2));
        }
        twins.direct.send(&again);
        twins.say(batch(&[frames::close(b'S', "large")]), 2);
    }
    stage.is_whole(&mut twins.pooled);
}

/// One that is larger than pgweir will hold as a whole is refused, with a reason; unnamed, it passes.
#[test]
fn case_19_a_text_that_is_too_large_to_be_shared_is_refused() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    let text = format!("SELECT length('{}')", "x".repeat(20 << 20));
    twins.say(batch(&[prepare_and_use("", &text)]), 1);
    let mut client = stage.client();
    let sent = frames::parse("huge", &text);
    // It may be refused before all of it is sent.
    let _ = client.try_send([sent, frames::sync()].concat());
    let replies = client.read_to_end();
    assert_eq!(sqlstates(&replies), ["54000"], "{replies:?}");
    stage.is_whole(&mut twins.pooled);
}

/// A driver sends batch after batch without waiting, and prepares a name that is taken in a transaction. That fails, and
/// nothing can be prepared any more; the statement that has the name was prepared once more for the refusal, and a later
/// batch did so again, because it could not know: it was told of the transaction and not what it had asked for.
#[test]
fn case_19_a_statement_whose_name_was_taken_again_is_there_in_the_failed_transaction() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    for last in [
        frames::describe(b'S', "b"),
        frames::bind("", "b", &[Some("one too many")]),
    ] {
        let conversation = [
            batch(&[prepare_and_use("b", "BEGIN")]),
            batch(&[prepare_and_use("b", "SELECT 1")]),
            batch(&[last]),
            batch(&[frames::close(b'S', "b")]),
            frames::query("ROLLBACK"),
        ];
        twins.say(conversation.concat(), 5);
    }
    stage.is_whole(&mut twins.pooled);
}

/// An unnamed DEALLOCATE that is prepared once more, because an error has come in between, went with the name that the
/// client knows, under which the server has nothing.
#[test]
fn case_19_deallocate_that_is_prepared_again_has_the_servers_name() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    let conversation = [
        batch(&[frames::execute("unknown")]),
        batch(&[
            frames::parse("b", "SELECT 1"),
            frames::parse("", "DEALLOCATE \"b\""),
            frames::bind("", "", &[]),
            frames::execute(""),
        ]),
        batch(&[frames::describe(b'S', "b")]),
    ]
    .concat();
    for cut in 1..conversation.len() {
        twins.say_in_two(&conversation, cut, 3);
    }
    stage.is_whole(&mut twins.pooled);
}
