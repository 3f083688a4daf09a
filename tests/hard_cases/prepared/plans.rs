//! 22, and plans that have become stale: a statement means what it meant where it was prepared.

use super::{batch, outcome, prepare_and_use, use_statement};
use crate::support::{RawClient, Stage, frames, sqlstates, stage, stage_for_twins, statuses, tags, values};

/// The same text under two search paths reads two tables, with other types (PgDoorman 3.10.0).
#[test]
fn case_22_one_text_under_two_search_paths_is_two_statements() {
    let stage = stage(1);
    let mut setup = stage.client();
    for (schema, definition) in [("one", "a int"), ("two", "b text, a text")] {
        setup.query(&format!(
            "CREATE SCHEMA {schema}; CREATE TABLE {schema}.t ({definition})"
        ));
    }
    setup.query("INSERT INTO one.t VALUES (1); INSERT INTO two.t VALUES ('other', 'two')");
    let (mut first, mut second) = (stage.client(), stage.client());
    first.query("SET search_path = one");
    second.query("SET search_path = two");
    let ask = batch(&[
        frames::parse("ask", "SELECT a FROM t"),
        frames::describe(b'S', "ask"),
        use_statement("ask"),
    ]);
    first.send(&ask);
    second.send(&ask);
    let (one, two) = (first.read_until_ready(), second.read_until_ready());
    assert_eq!(
        (tags(&one).as_str(), values(&one).concat().as_str()),
        ("1tT2DCZ", "1")
    );
    assert_eq!(
        (tags(&two).as_str(), values(&two).concat().as_str()),
        ("1tT2DCZ", "two")
    );
    for _ in 0..5 {
        assert_eq!(outcome(&mut first, "ask"), ["1"]);
        assert_eq!(outcome(&mut second, "ask"), ["two"]);
    }
    stage.is_whole(&mut first);
}

/// The settings change under a statement that exists: PostgreSQL plans it anew, and so it must be here, on every server
/// connection.
#[test]
fn case_22_a_statement_follows_the_settings_of_its_client() {
    let stage = stage_for_twins(2);
    let mut twins = stage.twins();
    twins.say(
        frames::query("CREATE SCHEMA one; CREATE TABLE one.t AS SELECT 1 AS a"),
        1,
    );
    twins.say(
        frames::query("CREATE SCHEMA two; CREATE TABLE two.t AS SELECT 2 AS a"),
        1,
    );
    twins.say(frames::query("SET search_path = one"), 1);
    twins.say(
        batch(&[prepare_and_use(
            "ask",
            "SELECT a, now()::date - now()::date FROM t",
        )]),
        1,
    );
    let mut other = stage.client();
    for path in ["two", "one", "missing, two", "\"$user\", one"] {
        twins.say(frames::query(&format!("SET search_path = {path}")), 1);
        twins.say(batch(&[use_statement("ask")]), 1);
        other.query("BEGIN");
        twins.say(batch(&[use_statement("ask"), frames::describe(b'S', "ask")]), 1);
        other.query("COMMIT");
        twins.say(batch(&[use_statement("ask")]), 1);
    }
    // With a local change, in a transaction.
    twins.say(frames::query("BEGIN; SET LOCAL search_path = two"), 1);
    twins.say(batch(&[use_statement("ask")]), 1);
    twins.say(frames::query("COMMIT"), 1);
    twins.say(batch(&[use_statement("ask")]), 1);
    for setting in [
        "DateStyle = 'German'",
        "TimeZone = 'Asia/Tokyo'",
        "IntervalStyle = 'iso_8601'",
    ] {
        let name = setting.split(' ').next().unwrap();
        let text = "SELECT '2026-01-02 03:04:05+00'::timestamptz, '1 day'::interval";
        twins.say(batch(&[prepare_and_use(name, text)]), 1);
        twins.say(frames::query(&format!("SET {setting}")), 1);
        twins.say(batch(&[use_statement(name)]), 1);
        twins.say(batch(&[prepare_and_use("", text)]), 1);
    }
    stage.is_whole(&mut twins.pooled);
}

/// A table with a statement that reads all of it, prepared on both of two server connections, and its maker.
fn changing(stage: &Stage) -> (RawClient, RawClient) {
    let (mut client, mut admin) = (stage.client(), stage.client());
    admin.query("CREATE TABLE changing (a int); INSERT INTO changing VALUES (1)");
    admin.query("CREATE TABLE runs (n serial)");
    client.send(batch(&[prepare_and_use("all", "SELECT * FROM changing")]));
    assert_eq!(values(&client.read_until_ready()), ["1"]);
    admin.query("BEGIN");
    assert_eq!(outcome(&mut client, "all"), ["1"]);
    admin.query("COMMIT");
    (client, admin)
}

/// Outside a transaction a statement whose result has changed is prepared again, and nobody notices; what else is in
/// the batch is carried out once.
#[test]
fn case_22_a_stale_plan_is_made_anew_between_transactions() {
    let stage = stage(2);
    let (mut client, mut admin) = changing(&stage);
    for column in ["b", "c"] {
        admin.query(&format!("ALTER TABLE changing ADD COLUMN {column} int DEFAULT 7"));
        let insert = prepare_and_use("", "INSERT INTO runs DEFAULT VALUES RETURNING n");
        client.send(batch(&[
            frames::bind("", "all", &[]),
            frames::describe(b'P', ""),
            frames::execute(""),
            insert,
        ]));
        let replies = client.read_until_ready();
        assert_eq!(tags(&replies), "2TDC12DCZ");
        assert_eq!(sqlstates(&replies), [""; 0]);
        let columns = replies[2].columns().len();
        // The other server connection.
        admin.query("BEGIN");
        client.send(batch(&[frames::describe(b'S', "all"), use_statement("all")]));
        let replies = client.read_until_ready();
        assert_eq!(
            (tags(&replies).as_str(), replies[3].columns().len()),
            ("tT2DCZ", columns)
        );
        admin.query("COMMIT");
    }
    assert_eq!(client.value("SELECT count(*) || ' ' || max(n) FROM runs"), "2 2");
    stage.is_whole(&mut client);
}

/// Inside one the error is the client's, which has to know that its transaction has failed; the next use works.
#[test]
fn case_22_a_stale_plan_in_a_transaction_is_an_error_once() {
    let stage = stage(2);
    let (mut client, mut admin) = changing(&stage);
    admin.query("ALTER TABLE changing ADD COLUMN b int");
    client.query("BEGIN");
    client.send(batch(&[use_statement("all")]));
    let replies = client.read_until_ready();
    assert_eq!(
        (sqlstates(&replies).concat(), statuses(&replies)),
        ("0A000".into(), "E".into())
    );
    client.query("ROLLBACK");
    assert_eq!(outcome(&mut client, "all"), ["1"]);
    client.query("BEGIN");
    assert_eq!(outcome(&mut client, "all"), ["1"]);
    client.query("COMMIT");
    stage.is_whole(&mut client);
}

/// Behind something that was carried out the batch cannot be sent again.
#[test]
fn case_22_a_stale_plan_behind_something_carried_out_is_an_error_once() {
    let stage = stage(1);
    let (mut client, mut admin) = changing_on_one(&stage);
    admin.query("ALTER TABLE changing ADD COLUMN b int");
    client.send(batch(&[
        prepare_and_use("", "INSERT INTO runs DEFAULT VALUES"),
        use_statement("all"),
    ]));
    let replies = client.read_until_ready();
    assert_eq!(sqlstates(&replies), ["0A000"]);
    assert_eq!(outcome(&mut client, "all"), ["1"]);
    assert_eq!(client.value("SELECT count(*) FROM runs"), "0");
    // Pipelined with a batch before it and one behind it: each batch is answered once, and nothing runs twice.
    admin.query("ALTER TABLE changing ADD COLUMN c int");
    let insert = batch(&[prepare_and_use("", "INSERT INTO runs DEFAULT VALUES")]);
    client.send(
        [
            insert.clone(),
            batch(&[use_statement("all")]),
            insert,
            batch(&[use_statement("all")]),
        ]
        .concat(),
    );
    let replies: Vec<_> = (0..4).flat_map(|_| client.read_until_ready()).collect();
    assert_eq!(statuses(&replies), "IIII");
    assert_eq!(client.value("SELECT count(*) FROM runs"), "2");
    assert_eq!(outcome(&mut client, "all"), ["1"]);
    stage.is_whole(&mut client);
}

fn changing_on_one(stage: &Stage) -> (RawClient, RawClient) {
    let (mut client, mut admin) = (stage.client(), stage.client());
    admin.query(
        "CREATE TABLE changing (a int); INSERT INTO changing VALUES (1); CREATE TABLE runs (n serial)",
    );
    client.send(batch(&[prepare_and_use("all", "SELECT * FROM changing")]));
    assert_eq!(values(&client.read_until_ready()), ["1"]);
    (client, admin)
}

/// A client that deallocates on a server what is everybody's (by a way that nobody can see) breaks nobody else: 26000 is
/// the pooler's to heal.
#[test]
fn case_22_a_statement_that_has_vanished_is_prepared_again() {
    let stage = stage(1);
    let (mut client, mut vandal) = (stage.client(), stage.client());
    client.send(batch(&[prepare_and_use("kept", "SELECT 'kept'")]));
    client.read_until_ready();
    for _ in 0..3 {
        let text = "DO $$ BEGIN EXECUTE 'DEALLOCATE ' || 'ALL'; END $$";
        assert_eq!(sqlstates(&vandal.query(text)), [""; 0]);
        assert_eq!(outcome(&mut client, "kept"), ["kept"]);
        vandal.query(text);
        client.send(batch(&[frames::describe(b'S', "kept"), use_statement("kept")]));
        assert_eq!(tags(&client.read_until_ready()), "tT2DCZ");
        // In a transaction the client is told, by the name that it knows, and can go on afterwards.
        vandal.query(text);
        client.query("BEGIN");
        client.send(batch(&[use_statement("kept")]));
        let replies = client.read_until_ready();
        let error = crate::checks::only_error(&replies);
        assert_eq!(
            error.field(b'M').unwrap(),
            "prepared statement \"kept\" does not exist"
        );
        client.query("ROLLBACK");
        assert_eq!(outcome(&mut client, "kept"), ["kept"]);
        // A new client prepares the same.
        vandal.query(text);
        let mut newcomer = stage.client();
        newcomer.send(batch(&[prepare_and_use("mine", "SELECT 'kept'")]));
        assert_eq!(values(&newcomer.read_until_ready()), ["kept"]);
    }
    stage.is_whole(&mut client);
}
