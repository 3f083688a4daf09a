//! 15: what failed or was skipped was never prepared, whoever asked for it.

use super::{batch, outcome, prepare_and_use, use_statement};
use crate::support::{Twins, frames, sqlstates, stage_for_twins, tags, values};

/// A Parse that fails leaves its name free, and the next one of the same text fails again (pgdog #776).
#[test]
fn case_15_a_parse_that_fails_leaves_no_ghost() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    for text in [
        "SELEKT",
        "SELECT * FROM missing",
        "SELECT 1; SELECT 2",
        "SELECT $1 + $2 + 'x'::int",
    ] {
        for _ in 0..2 {
            twins.say(batch(&[frames::parse("ghost", text), use_statement("ghost")]), 1);
            twins.say(batch(&[use_statement("ghost")]), 1);
            twins.say(batch(&[frames::describe(b'S', "ghost")]), 1);
            twins.say(batch(&[frames::close(b'S', "ghost")]), 1);
        }
        twins.say(batch(&[frames::parse("ghost", text)]).repeat(3), 3);
        twins.say(
            batch(&[
                prepare_and_use("ghost", "SELECT 'now'"),
                frames::close(b'S', "ghost"),
            ]),
            1,
        );
    }
    // A table that is made later: what failed before is right now.
    let late = prepare_and_use("late", "SELECT * FROM late");
    twins.say(batch(std::slice::from_ref(&late)), 1);
    twins.say(frames::query("CREATE TABLE late AS SELECT 1 AS a"), 1);
    twins.say(batch(&[late]), 1);
    stage.is_whole(&mut twins.pooled);
}

/// The same where it was skipped, because something before it in the batch had failed; also when the client has sent
/// more before it can know.
#[test]
fn case_15_a_skipped_parse_leaves_no_ghost() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    let failing = [
        frames::bind("", "unknown", &[]),
        frames::parse("", "SELEKT"),
        prepare_and_use("", "SELECT 1/0"),
        frames::execute("unknown"),
        frames::describe(b'P', "unknown"),
    ];
    for (number, failing) in failing.iter().enumerate() {
        let name = format!("skipped{number}");
        let text = format!("SELECT 'skipped {number}'");
        let skipped = batch(&[failing.clone(), frames::parse(&name, &text), use_statement(&name)]);
        // What follows is known too late, known in time, and in one write with it.
        twins.say(&skipped, 1);
        twins.say(batch(&[use_statement(&name)]), 1);
        twins.say(
            [skipped.clone(), batch(&[prepare_and_use(&name, &text)])].concat(),
            2,
        );
        twins.say(batch(&[use_statement(&name)]), 1);
        // Close and Parse of a name that is in use, both skipped: it still stands for what it stood for.
        let renamed = [
            failing.clone(),
            frames::close(b'S', &name),
            frames::parse(&name, "SELECT 'other'"),
        ];
        twins.say(batch(&renamed), 1);
        twins.say(batch(&[use_statement(&name)]), 1);
    }
    stage.is_whole(&mut twins.pooled);
}

/// What a batch does to a name depends on whether the one before it failed, which is not known yet when both come in one
/// write: a name must not be free, or taken, on the strength of what was skipped.
#[test]
fn case_15_a_name_in_two_batches_of_one_write() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    let failing = use_statement("unknown");
    let old = frames::parse("a", "SELECT 'old'");
    let new = prepare_and_use("a", "SELECT 'new'");
    let close = frames::close(b'S', "a");
    for ((fails, had), known) in [(true, true), (true, false), (false, true), (false, false)]
        .into_iter()
        .flat_map(|case| [(case, true), (case, false)])
    {
        let mut other = stage.client();
        let first = if fails { failing.clone() } else { Vec::new() };
        for second in [
            [first.clone(), close.clone()].concat(),
            [first.clone(), old.clone()].concat(),
            [first.clone(), close.clone(), old.clone()].concat(),
            [first.clone(), close.clone(), new.clone()].concat(),
        ] {
            for third in [
                new.clone(),
                use_statement("a"),
                frames::describe(b'S', "a"),
                close.clone(),
            ] {
                if had {
                    twins.say(batch(&[prepare_and_use("a", "SELECT 'first'")]), 1);
                }
                if known {
                    // Somebody else has prepared the same here.
                    other.send(batch(&[frames::parse("known", "SELECT 'new'"), old.clone()]));
                    other.read_until_ready();
                }
                twins.say(
                    [batch(std::slice::from_ref(&second)), batch(&[third])].concat(),
                    2,
                );
                twins.say(batch(&[use_statement("a")]), 1);
                twins.say(batch(std::slice::from_ref(&close)), 1);
                other.query("DEALLOCATE ALL");
            }
        }
    }
    stage.is_whole(&mut twins.pooled);
}

/// Several names given, taken and given again in one batch that fails at each of its messages in turn.
#[test]
fn case_15_a_batch_that_fails_at_any_of_its_messages() {
    let stage = stage_for_twins(2);
    let mut twins = stage.twins();
    let steps = [
        frames::parse("a", "SELECT 'a1'"),
        frames::parse("b", "SELECT 'b1'"),
        frames::close(b'S', "a"),
        frames::parse("a", "SELECT 'a2'"),
        use_statement("a"),
        frames::close(b'S', "b"),
        frames::parse("b", "SELECT 'a2'"),
        frames::close(b'S', "a"),
        frames::parse("c", "SELECT 'a2'"),
        frames::close(b'S', "c"),
    ];
    for at in 0..=steps.len() {
        let mut messages = steps.to_vec();
        messages.insert(at, frames::bind("", "unknown", &[]));
        twins.say(batch(&messages), 1);
        for name in ["a", "b", "c"] {
            twins.say(batch(&[use_statement(name)]), 1);
        }
        let close = ["a", "b", "c"].map(|name| frames::close(b'S', name));
        twins.say(batch(&close), 1);
    }
    stage.is_whole(&mut twins.pooled);
}

/// The pooler's own Parse stands behind an error too, and the next batch, sent before anything was answered, relies on
/// it.
#[test]
fn case_15_a_supplied_parse_that_was_skipped_is_supplied_again() {
    let stage = stage_for_twins(2);
    let mut twins = stage.twins();
    for number in 0..4 {
        let name = format!("moves{number}");
        twins.say(
            batch(&[frames::parse(&name, &format!("SELECT 'moved {number}'"))]),
            1,
        );
        let mut other = stage.client();
        other.query("BEGIN");
        let failing = batch(&[frames::bind("", "unknown", &[]), use_statement(&name)]);
        let using = batch(&[use_statement(&name)]);
        let conversation = match number {
            0 => [failing, using.clone(), using].concat(),
            1 => [failing.clone(), failing, using.clone(), using].concat(),
            2 => [using.clone(), failing.clone(), using.clone(), failing, using].concat(),
            // Skipped in a batch that has not ended yet.
            _ => batch(&[
                frames::bind("", "unknown", &[]),
                use_statement(&name),
                use_statement(&name),
            ]),
        };
        let ready = conversation
            .windows(5)
            .filter(|bytes| bytes == b"S\0\0\0\x04")
            .count();
        twins.say(conversation, ready);
        twins.say(batch(&[use_statement(&name)]), 1);
        other.query("COMMIT");
        assert_eq!(outcome(&mut twins.pooled, &name), [format!("moved {number}")]);
    }
    stage.is_whole(&mut twins.pooled);
}

/// In a failed transaction everything but its end is refused, a Parse that is answered elsewhere without the server
/// too; and its end may be a prepared statement.
#[test]
fn case_15_statements_in_a_failed_transaction() {
    let stage = stage_for_twins(2);
    for text in ["ROLLBACK", "COMMIT", "SELECT 'x'", "ROLLBACK TO s"] {
        let mut twins = stage.twins();
        // Prepared on the server that will work for it, by somebody else; then by the client itself.
        let mut other = stage.client();
        other.send(batch(&[frames::parse("known", text)]));
        other.read_until_ready();
        for round in 0..2 {
            fail(&mut twins);
            twins.say(batch(&[prepare_and_use("new", text)]), 1);
            twins.say(frames::query("ROLLBACK"), 1);
            twins.say(batch(&[frames::parse("new", text)]), 1);
            fail(&mut twins);
            twins.say(batch(&[frames::describe(b'S', "new")]), 1);
            twins.say(batch(&[use_statement("new")]), 1);
            twins.say(frames::query("ROLLBACK"), 1);
            fail(&mut twins);
            twins.say(
                batch(&[frames::close(b'S', "new"), frames::close(b'S', "new")]),
                1,
            );
            twins.say(frames::query("ROLLBACK"), 1);
            if round == 0 {
                // The other server connection does not have it.
                twins.say(batch(&[frames::parse("new", text)]), 1);
                other.query("BEGIN");
                fail(&mut twins);
                twins.say(batch(&[use_statement("new")]), 1);
                twins.say(frames::query("ROLLBACK"), 1);
                twins.say(batch(&[frames::close(b'S', "new")]), 1);
                other.query("COMMIT");
            }
        }
        stage.is_whole(&mut twins.pooled);
    }
}

fn fail(twins: &mut Twins) {
    twins.say(
        [
            frames::query("BEGIN"),
            frames::query("SAVEPOINT s"),
            frames::query("SELECT 1/0"),
        ]
        .concat(),
        3,
    );
}

/// A statement is not part of the transaction that prepared it: it stays when that is rolled back.
#[test]
fn case_15_statements_outlive_a_rollback() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    twins.say(frames::query("BEGIN"), 1);
    twins.say(batch(&[frames::parse("stays", "SELECT 'stays'")]), 1);
    twins.say(frames::query("ROLLBACK"), 1);
    twins.say(batch(&[use_statement("stays")]), 1);
    // Its batch fails after it: the implicit transaction is undone, the statement is not.
    twins.say(
        batch(&[
            frames::parse("too", "SELECT 'too'"),
            prepare_and_use("", "SELECT 1/0"),
        ]),
        1,
    );
    twins.say(batch(&[use_statement("too")]), 1);
    // Its table is not.
    twins.say(frames::query("BEGIN; CREATE TABLE gone (a int)"), 1);
    twins.say(batch(&[prepare_and_use("orphan", "SELECT * FROM gone")]), 1);
    twins.say(frames::query("ROLLBACK"), 1);
    twins.say(batch(&[use_statement("orphan")]), 1);
    twins.say(batch(&[frames::close(b'S', "orphan")]), 1);
    stage.is_whole(&mut twins.pooled);
}

/// Errors in the middle of a pipeline of many batches, each with names of its own: replies stay with their batch.
#[test]
fn case_15_errors_in_a_long_pipeline() {
    let stage = stage_for_twins(2);
    let mut twins = stage.twins();
    let mut conversation = Vec::new();
    for number in 0..40 {
        let name = format!("s{}", number % 7);
        conversation.extend(batch(&match number % 5 {
            0 => vec![frames::parse(&name, &format!("SELECT {number}"))],
            1 => vec![
                use_statement(&name),
                use_statement("unknown"),
                frames::close(b'S', &name),
            ],
            2 => vec![prepare_and_use(&name, "SELECT 1/0"), frames::close(b'S', &name)],
            3 => vec![
                frames::close(b'S', &name),
                prepare_and_use(&name, "SELECT 'again'"),
            ],
            _ => vec![
                use_statement(&name),
                frames::parse(&name, "SELEKT"),
                frames::close(b'S', &name),
            ],
        }));
    }
    let replies = twins.say(&conversation, 40);
    assert!(
        sqlstates(&replies).len() > 10 && values(&replies).len() > 10,
        "{}",
        tags(&replies)
    );
    for number in 0..7 {
        twins.say(batch(&[use_statement(&format!("s{number}"))]), 1);
    }
    stage.is_whole(&mut twins.pooled);
}
