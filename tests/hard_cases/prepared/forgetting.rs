//! 21: DEALLOCATE and DISCARD forget what precedes them, of one client only.

use super::{batch, outcome, prepare_and_use, use_statement};
use crate::support::{frames, sqlstates, stage, stage_for_twins, values};

const FORGETTING: [&str; 5] = [
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "DEALLOCATE PREPARE ALL",
    "deallocate /* comment */ all;",
    "SELECT 1; DEALLOCATE ALL",
];

/// By Query: all that was prepared before is gone, what follows in the same write is there.
#[test]
fn case_21_a_query_forgets_what_precedes_it() {
    let stage = stage_for_twins(2);
    let mut twins = stage.twins();
    for text in FORGETTING {
        let conversation = [
            batch(&[frames::parse("a", "SELECT 'a'"), frames::parse("b", "SELECT 'b'")]),
            frames::query(text),
            batch(&[prepare_and_use("a", "SELECT 'new a'")]),
            batch(&[use_statement("b")]),
        ];
        twins.say(conversation.concat(), 4);
        twins.say(batch(&[use_statement("a")]), 1);
        twins.say(batch(&[use_statement("b")]), 1);
        // Among the messages of a batch, which the Query ends; DISCARD ALL is refused there.
        let conversation = [
            frames::parse("c", "SELECT 'c'"),
            frames::query(text),
            frames::parse("d", "SELECT 'd'"),
            use_statement("c"),
            frames::sync(),
        ];
        twins.say(conversation.concat(), 2);
        twins.say(batch(&[use_statement("d")]), 1);
        twins.say(frames::query("DEALLOCATE ALL"), 1);
    }
    stage.is_whole(&mut twins.pooled);
}

/// By an unnamed statement, and by one with a name, within batches (PgBouncer #1535, #1543).
#[test]
fn case_21_an_execute_forgets_what_precedes_it() {
    let stage = stage_for_twins(2);
    let mut twins = stage.twins();
    for text in ["DEALLOCATE ALL", "DISCARD ALL"] {
        for name in ["", "forgets"] {
            let conversation = [
                batch(&[frames::parse("a", "SELECT 'a'"), frames::parse("b", "SELECT 'b'")]),
                batch(&[prepare_and_use(name, text)]),
                batch(&[prepare_and_use("a", "SELECT 'new a'")]),
                batch(&[use_statement("b")]),
                batch(&[use_statement(name)]),
            ];
            twins.say(conversation.concat(), 5);
            twins.say(batch(&[use_statement("a")]), 1);
            // In the middle.
            let messages = [
                frames::parse("c", "SELECT 'c'"),
                prepare_and_use(name, text),
                frames::parse("d", "SELECT 'd'"),
                use_statement("d"),
                use_statement("c"),
            ];
            twins.say(batch(&messages), 1);
            for left in ["c", "d", name] {
                twins.say(batch(&[use_statement(left)]), 1);
            }
            twins.say(frames::query("DEALLOCATE ALL"), 1);
        }
    }
    stage.is_whole(&mut twins.pooled);
}

/// Parsed and bound is not executed, skipped neither, and refused by the server neither.
#[test]
fn case_21_what_is_not_carried_out_forgets_nothing() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    twins.say(batch(&[frames::parse("kept", "SELECT 'kept'")]), 1);
    let unknown = use_statement("unknown");
    for text in ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE kept"] {
        let not_carried_out = [
            batch(&[frames::parse("", text)]),
            batch(&[frames::parse("", text), frames::bind("", "", &[])]),
            batch(&[unknown.clone(), prepare_and_use("", text)]),
            batch(&[unknown.clone(), frames::query(text)]),
            batch(&[frames::parse("never", text)]),
            frames::query("BEGIN"),
            frames::query("SELECT 1/0"),
            frames::query(text),
            batch(&[prepare_and_use("", text)]),
            frames::query("ROLLBACK"),
            batch(&[frames::close(b'S', "never")]),
        ];
        for conversation in not_carried_out {
            twins.say(conversation, 1);
        }
        twins.say(batch(&[use_statement("kept")]), 1);
    }
    // DISCARD ALL is refused inside a transaction, which fails.
    twins.say(frames::query("BEGIN"), 1);
    twins.say(frames::query("DISCARD ALL"), 1);
    twins.say(frames::query("ROLLBACK"), 1);
    twins.say(batch(&[use_statement("kept")]), 1);
    stage.is_whole(&mut twins.pooled);
}

/// In a text of any length, and in messages that come in pieces: the server must have all of what it is to answer.
#[test]
fn case_21_what_forgets_may_be_long_or_come_in_pieces() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    let prepare = batch(&[frames::parse("a", "SELECT 'a'")]);
    for size in [100, 8_100, 20_000, 300_000] {
        let text = format!("DEALLOCATE ALL /* {} */", "x".repeat(size));
        for forget in [
            frames::query(&text),
            batch(&[prepare_and_use("", &text)]),
            batch(&[prepare_and_use("f", &text)]),
        ] {
            let conversation = [prepare.clone(), forget, batch(&[use_statement("a")])].concat();
            twins.say(conversation, 3);
            twins.say(frames::query("DEALLOCATE ALL"), 1);
        }
    }
    let conversation = [
        prepare,
        batch(&[prepare_and_use("", "DEALLOCATE ALL")]),
        batch(&[use_statement("a")]),
    ]
    .concat();
    for cut in 1..conversation.len() {
        twins.say_in_two(&conversation, cut, 3);
    }
    stage.is_whole(&mut twins.pooled);
}

/// The client's settings are set in the same write, before it; by whoever its request is sent.
#[test]
fn case_21_deallocate_behind_settings() {
    let stage = stage_for_twins(1);
    let (mut twins, mut other) = (stage.twins(), stage.client());
    twins.say(
        frames::query("SET application_name = 'other'; SET TimeZone = 'Asia/Tokyo'"),
        1,
    );
    for waits in [false, true] {
        for text in ["DEALLOCATE a", "DEALLOCATE ALL"] {
            for forget in [
                frames::extended(text, &[]),
                batch(&[prepare_and_use("", text)]),
                frames::query(text),
            ] {
                twins.say(batch(&[frames::parse("a", "SELECT 'a'")]), 1);
                other.query("BEGIN");
                if waits {
                    twins.pooled.send(&forget);
                    stage.waits(1);
                    other.query("COMMIT");
                    twins.direct.send(&forget);
                    twins.say(frames::sync(), 2);
                } else {
                    other.query("COMMIT");
                    twins.say(forget, 1);
                }
                twins.say(batch(&[use_statement("a")]), 1);
            }
        }
    }
    stage.is_whole(&mut twins.pooled);
}

/// One name, in every spelling, by Query and extended; what it does is not undone by ROLLBACK.
#[test]
fn case_21_deallocate_forgets_one_name() {
    let stage = stage_for_twins(2);
    let mut twins = stage.twins();
    let spellings = [
        ("gone", "DEALLOCATE gone"),
        ("gone", "deallocate prepare GONE ;"),
        ("Gone", "DEALLOCATE \"Gone\""),
        ("a\"b", "DEALLOCATE \"a\"\"b\""),
        ("prepare", "DEALLOCATE prepare"),
        ("größe", "DEALLOCATE größe"),
    ];
    for (name, text) in spellings {
        for deallocate in [frames::query(text), batch(&[prepare_and_use("", text)])] {
            let conversation = [
                batch(&[
                    frames::parse(name, "SELECT 'gone'"),
                    frames::parse("kept", "SELECT 'kept'"),
                ]),
                deallocate.clone(),
                deallocate.clone(),
                batch(&[use_statement(name)]),
                batch(&[prepare_and_use(name, "SELECT 'new'")]),
                batch(&[use_statement("kept")]),
                frames::query("BEGIN"),
                deallocate.clone(),
                frames::query("ROLLBACK"),
                batch(&[use_statement(name)]),
                batch(&[frames::close(b'S', name), frames::close(b'S', "kept")]),
            ];
            let ready = conversation.len();
            twins.say(conversation.concat(), ready);
        }
    }
    // Of what is not there.
    for text in [
        "DEALLOCATE missing",
        "DEALLOCATE \"Missing\"",
        "DEALLOCATE pgweir_1",
    ] {
        let replies = twins.say(
            [frames::query(text), batch(&[prepare_and_use("", text)])].concat(),
            2,
        );
        assert_eq!(sqlstates(&replies), ["26000", "26000"]);
    }
    stage.is_whole(&mut twins.pooled);
}

/// DEALLOCATE in the middle of a batch, with more behind it in the same write.
#[test]
fn case_21_deallocate_in_the_middle_of_a_batch() {
    let stage = stage_for_twins(2);
    let mut twins = stage.twins();
    let messages = [
        frames::parse("gone", "SELECT 'gone'"),
        frames::parse("kept", "SELECT 'kept'"),
        use_statement("gone"),
        prepare_and_use("", "DEALLOCATE gone"),
        prepare_and_use("gone", "SELECT 'new'"),
        use_statement("kept"),
        prepare_and_use("", "DEALLOCATE gone"),
        use_statement("gone"),
        frames::close(b'S', "kept"),
    ];
    for _ in 0..3 {
        twins.say([batch(&messages), batch(&[use_statement("kept")])].concat(), 2);
        twins.say(batch(&[use_statement("gone")]), 1);
        twins.say(batch(&[frames::close(b'S', "kept")]), 1);
    }
    stage.is_whole(&mut twins.pooled);
}

/// What one client forgets, another who shares its statements on the same server connection keeps.
#[test]
fn case_21_what_one_client_forgets_another_keeps() {
    let stage = stage(1);
    let (mut client, mut other) = (stage.client(), stage.client());
    let texts = ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE shared"];
    other.send(batch(&[
        frames::parse("shared", "SELECT 'shared'"),
        frames::parse("own", "SELECT 'own'"),
    ]));
    other.read_until_ready();
    for text in texts {
        for extended in [false, true] {
            client.send(batch(&[frames::parse("shared", "SELECT 'shared'")]));
            client.read_until_ready();
            client.send(if extended {
                batch(&[prepare_and_use("", text)])
            } else {
                frames::query(text)
            });
            client.read_until_ready();
            assert_eq!(outcome(&mut client, "shared"), ["26000"], "{text}");
            assert_eq!(outcome(&mut other, "shared"), ["shared"], "{text}");
            assert_eq!(outcome(&mut other, "own"), ["own"], "{text}");
        }
    }
    // A statement of its own that only another has on this server: that is no reason for the server to have it.
    client.send(batch(&[prepare_and_use("", "DEALLOCATE own")]));
    assert_eq!(sqlstates(&client.read_until_ready()), ["26000"]);
    assert_eq!(values(&other.query("SELECT 'other'")), ["other"]);
    stage.is_whole(&mut client);
}
