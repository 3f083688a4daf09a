//! 17 and 18: replies that pgweir gives itself stand where PostgreSQL's would.

use super::{batch, prepare_and_use, use_statement};
use crate::support::{RawClient, frames, frames::execute_some, stage_for_twins, tags};

/// Another client has prepared these, so that pgweir answers for some of them itself.
fn warm(client: &mut RawClient, texts: &[&str]) {
    for (number, text) in texts.iter().enumerate() {
        client.send(batch(&[frames::parse(&format!("warm{number}"), text)]));
        assert_eq!(tags(&client.read_until_ready()), "1Z");
    }
}

/// ParseComplete for a statement that the server had already overtook the server's own replies (PgDoorman), and a
/// skipped Close poisoned the server (PgBouncer #1555).
#[test]
fn case_17_forged_and_real_replies_keep_their_order() {
    let stage = stage_for_twins(1);
    let mut other = stage.client();
    warm(&mut other, &["SELECT 'known'", "SELECT $1::int + 1"]);
    let mut twins = stage.twins();
    let mixed = [
        frames::parse("a", "SELECT 'known'"),
        frames::parse("new", "SELECT 'new', generate_series(1, 3)"),
        frames::parse("b", "SELECT $1::int + 1"),
        frames::describe(b'S', "b"),
        use_statement("a"),
        frames::close(b'S', "a"),
        frames::close(b'S', "a"),
        frames::parse("a", "SELECT 'new'"),
        frames::bind("p", "b", &[Some("41")]),
        frames::describe(b'P', "p"),
        frames::close(b'S', "new"),
        frames::execute("p"),
        frames::parse("new", "SELECT 'known'"),
        frames::close(b'P', "p"),
        use_statement("a"),
        use_statement("new"),
        frames::close(b'S', "b"),
        frames::close(b'S', "a"),
        frames::close(b'S', "new"),
    ];
    for _ in 0..3 {
        twins.say(batch(&mixed), 1);
        // The same with every reply asked for at once, message by message.
        for message in &mixed {
            twins.direct.send([message.clone(), frames::flush()].concat());
            twins.pooled.send([message.clone(), frames::flush()].concat());
        }
        twins.say(frames::sync(), 1);
        // Many batches in one write.
        twins.say(batch(&mixed).repeat(20), 20);
    }
    stage.is_whole(&mut twins.pooled);
}

/// With Flush a client waits for each reply before it says more: a reply that the pooler owes must not wait for the
/// server to say something, which it never will.
#[test]
fn case_17_forged_replies_come_with_flush_alone() {
    let stage = stage_for_twins(1);
    warm(&mut stage.client(), &["SELECT 'known'"]);
    let mut twins = stage.twins();
    let flush = |message: Vec<u8>| [message, frames::flush()].concat();
    twins.flush(flush(frames::parse("a", "SELECT 'known'")), b'1', 1);
    twins.flush(flush(frames::describe(b'S', "a")), b'T', 1);
    twins.flush(flush(frames::close(b'S', "a")), b'3', 1);
    twins.flush(flush(frames::parse("a", "SELECT 'known'")), b'1', 1);
    twins.flush(flush(frames::parse("b", "SELECT 'known'")), b'1', 1);
    twins.flush(flush(use_statement("a")), b'C', 1);
    // A real reply, a forged one, both in the same write.
    let both = [use_statement("b"), frames::close(b'S', "b")].concat();
    twins.flush(flush(both), b'3', 1);
    // Flush before it and not after it: nothing is to be said yet, and the Sync says it all.
    twins
        .direct
        .send([frames::flush(), frames::parse("c", "SELECT 'known'")].concat());
    twins
        .pooled
        .send([frames::flush(), frames::parse("c", "SELECT 'known'")].concat());
    twins.say(frames::sync(), 1);
    stage.is_whole(&mut twins.pooled);
}

/// A batch of nothing but replies that the pooler gives: the server's ReadyForQuery comes after them.
#[test]
fn case_17_batches_of_forged_replies_alone() {
    let stage = stage_for_twins(1);
    warm(&mut stage.client(), &["SELECT 'known'"]);
    let mut twins = stage.twins();
    let names = ["a", "b", "c"];
    let parse = names.map(|name| frames::parse(name, "SELECT 'known'"));
    let close = names.map(|name| frames::close(b'S', name));
    for _ in 0..3 {
        let replies = twins.say([batch(&parse), batch(&close), frames::sync()].concat(), 3);
        assert_eq!(tags(&replies), "111Z333ZZ");
        let replies = twins.say(batch(&[parse.concat(), close.concat()]).repeat(30), 30);
        assert_eq!(tags(&replies), "111333Z".repeat(30));
    }
    stage.is_whole(&mut twins.pooled);
}

/// A forged reply stands between the rows of a result if the pooler says it as soon as it can.
#[test]
fn case_17_forged_replies_wait_for_large_results() {
    let stage = stage_for_twins(1);
    warm(&mut stage.client(), &["SELECT 'known'"]);
    let mut twins = stage.twins();
    let large = "SELECT repeat('x', 1000) FROM generate_series(1, 2000)";
    let messages = [
        prepare_and_use("large", large),
        frames::parse("a", "SELECT 'known'"),
        use_statement("a"),
        frames::bind("", "large", &[]),
        execute_some("", 700),
        frames::close(b'S', "a"),
        execute_some("", 700),
        frames::parse("a", "SELECT 'known'"),
        execute_some("", 700),
        frames::close(b'S', "a"),
        frames::close(b'S', "large"),
    ];
    twins.say(batch(&messages).repeat(3), 3);
    stage.is_whole(&mut twins.pooled);
}

/// A Query ends a batch too, and may stand in its middle.
#[test]
fn case_17_simple_queries_between_prepared_statements() {
    let stage = stage_for_twins(1);
    warm(&mut stage.client(), &["SELECT 'known'"]);
    let mut twins = stage.twins();
    let messages = [
        frames::parse("a", "SELECT 'known'"),
        frames::query("SELECT 1; SELECT 2"),
        use_statement("a"),
        frames::close(b'S', "a"),
        frames::query(""),
        frames::close(b'S', "a"),
        frames::parse("a", "SELECT 'other'"),
        frames::parse("b", "SELECT 'known'"),
        frames::query("SELECT 1/0"),
        use_statement("a"),
        use_statement("b"),
        frames::close(b'S', "b"),
        frames::close(b'S', "a"),
        frames::sync(),
    ];
    for _ in 0..3 {
        twins.say(messages.concat(), 4);
    }
    // Skipped with the rest of its batch.
    let skipped = [
        frames::parse("a", "SELECT 'known'"),
        frames::bind("", "unknown", &[]),
        frames::query("SELECT 'skipped'"),
        frames::close(b'S', "a"),
        frames::sync(),
        frames::query("SELECT 'next'"),
    ];
    twins.say(skipped.concat(), 2);
    twins.say(batch(&[use_statement("a")]), 1);
    stage.is_whole(&mut twins.pooled);
}

/// Close and Describe take a kind and a name: one of a portal was read as one of a statement (pgdog #1338), and a
/// portal's name was replaced (Odyssey #404).
#[test]
fn case_18_portals_and_statements_of_the_same_name() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    twins.say(frames::query("BEGIN"), 1);
    let messages = [
        frames::parse("same", "SELECT $1::text AS one"),
        frames::bind("same", "same", &[Some("x")]),
        frames::parse("other", "SELECT 2 AS two, 3 AS three"),
        frames::describe(b'P', "same"),
        frames::describe(b'S', "same"),
        frames::close(b'S', "same"),
        // The portal outlives its statement.
        frames::describe(b'P', "same"),
        frames::execute("same"),
        frames::close(b'P', "other"),
        frames::describe(b'S', "other"),
        frames::close(b'P', "same"),
    ];
    twins.say(batch(&messages), 1);
    for missing in [
        frames::describe(b'P', "same"),
        frames::describe(b'S', "same"),
        frames::execute("same"),
        frames::bind("", "same", &[]),
        frames::describe(b'P', "other"),
        // Neither a statement nor a portal.
        frames::describe(b'x', "same"),
        frames::close(b'x', "same"),
    ] {
        twins.say(frames::query("SAVEPOINT s"), 1);
        twins.say(
            batch(&[frames::close(b'S', "same"), missing, frames::close(b'S', "same")]),
            1,
        );
        twins.say(frames::query("ROLLBACK TO s"), 1);
    }
    twins.say(
        batch(&[frames::describe(b'S', "other"), use_statement("other")]),
        1,
    );
    twins.say(frames::query("COMMIT"), 1);
    stage.is_whole(&mut twins.pooled);
}

/// Close of what was never prepared is a success, however often and in whatever state (Odyssey #1362).
#[test]
fn case_18_close_of_the_unknown_is_a_success() {
    let stage = stage_for_twins(1);
    let mut twins = stage.twins();
    let close = [
        frames::close(b'S', "unknown"),
        frames::close(b'P', "unknown"),
        frames::close(b'S', ""),
        frames::close(b'P', ""),
        frames::close(b'S', "pgweir_1"),
        frames::close(b'S', "unknown"),
    ];
    twins.say(batch(&close), 1);
    twins.say(frames::query("BEGIN"), 1);
    twins.say(batch(&close), 1);
    twins.say(frames::query("SELECT 1/0"), 1);
    twins.say(batch(&close), 1);
    twins.say(frames::query("ROLLBACK"), 1);
    stage.is_whole(&mut twins.pooled);
}
