//! What stays with a client in a transaction pool, what keeps its server connection with it, and who sees that.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use support::{Pooler, Postgres, RawClient, eventually, frames, postgres, sqlstates, stage, tags, values};

fn pooler(postgres: &Postgres, settings: &[(&str, &str)]) -> Pooler {
    let builder = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", "1")
        .set("auth.stats_users", "['app']");
    settings
        .iter()
        .fold(builder, |builder, (key, value)| builder.set(key, *value))
        .start()
}

fn client(pooler: &Pooler) -> RawClient {
    RawClient::log_in(pooler.address(), "app", "secret", "app")
}

fn console(pooler: &Pooler) -> RawClient {
    RawClient::log_in(pooler.address(), "app", "secret", "pgweir")
}

/// The process id that a client was told.
fn pid(pooler: &Pooler, client: &mut RawClient, name: &str) -> String {
    client.query(&format!("SET application_name = '{name}'"));
    let clients = console(pooler).query("SHOW CLIENTS");
    let row = clients
        .iter()
        .filter(|message| message.tag == b'D')
        .map(frames::Frame::columns)
        .find(|row| row[2].as_deref() == Some("app") && row[4].as_deref() == Some("active"));
    row.unwrap()[21].clone().unwrap()
}

#[test]
fn what_keeps_a_server_connection_is_seen_and_goes() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[]);
    let mut mine = client(&pooler);
    for (begin, end, reason) in [
        ("CREATE TEMP TABLE scratch (a int)", "DROP TABLE scratch", "temp"),
        ("LISTEN news", "UNLISTEN news", "listen"),
        (
            "SELECT pg_advisory_lock(7)",
            "SELECT pg_advisory_unlock(7)",
            "lock",
        ),
        ("PREPARE p AS SELECT 1", "DEALLOCATE p", "prepared"),
        (
            "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
            "CLOSE c",
            "cursor",
        ),
        ("LISTEN news", "DISCARD ALL", "listen"),
    ] {
        mine.query(begin);
        eventually("it is pinned", || pooler.metric("pgweir_pinned_clients") == 1.0);
        let clients = console(&pooler).query("SHOW CLIENTS");
        let pinned = clients
            .iter()
            .filter(|message| message.tag == b'D')
            .any(|row| row.columns()[22].as_deref() == Some(reason));
        assert!(pinned, "after {begin}: {clients:?}");
        mine.query(end);
        eventually("it is not any more", || {
            pooler.metric("pgweir_pinned_clients") == 0.0
        });
        assert_eq!(client(&pooler).value("SELECT 'served'"), "served", "after {end}");
    }
    assert_eq!(pooler.metric("pgweir_pins_total{reason=\"listen\"}"), 2.0);
    drop(mine);
    pooler.assert_all_places(1);
}

#[test]
fn state_is_reset_where_that_is_asked_for() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[("pool.session_state", "'reset'")]);
    let mut mine = client(&pooler);
    let backend = mine.value("SELECT pg_backend_pid()");
    mine.query("SET work_mem = '9MB'");
    mine.query("CREATE TEMP TABLE scratch (a int); SELECT pg_advisory_lock(7)");
    let mut other = client(&pooler);
    assert_eq!(
        other.value("SELECT to_regclass('pg_temp.scratch') IS NULL AND pg_try_advisory_lock(8)"),
        "t"
    );
    assert_eq!(
        other.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
        "0"
    );
    assert_eq!(
        mine.value("SHOW work_mem"),
        "9MB",
        "settings stay with their client"
    );
    assert_eq!(mine.value("SELECT pg_backend_pid()"), backend);
    assert_eq!(pooler.metric("pgweir_server_connects_total"), 1.0);
    drop((mine, other));
    pooler.assert_all_places(1);
}

#[test]
fn state_ends_its_session_where_it_is_not_allowed() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[(r#"databases."*".session_state"#, "'reject'")]);
    let mut mine = client(&pooler);
    mine.send(frames::query("LISTEN news"));
    let end = mine.read_to_end();
    assert_eq!(tags(&end), "CZE", "{end:?}");
    assert_eq!(sqlstates(&end), ["0A000"]);
    assert!(end[2].field(b'M').unwrap().contains("listen"), "{end:?}");
    assert_eq!(
        client(&pooler).value("SELECT count(*) FROM pg_listening_channels()"),
        "0"
    );
    pooler.assert_all_places(1);
}

#[test]
fn a_server_connection_is_not_kept_for_ever() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[("pool.max_pin_duration", "'300ms'")]);
    let mut mine = client(&pooler);
    mine.query("CREATE TEMP TABLE scratch (a int)");
    let end = mine.read_to_end();
    assert_eq!(sqlstates(&end), ["57P05"], "{end:?}");
    assert!(
        end[0].field(b'D').unwrap().contains("max_pin_duration"),
        "{end:?}"
    );
    assert_eq!(
        client(&pooler).value("SELECT to_regclass('pg_temp.scratch') IS NULL"),
        "t"
    );
    pooler.assert_all_places(1);
}

/// A function that takes a lock is not seen in the text that calls it: the lock went with the server connection to
/// the next client.
#[test]
fn what_a_function_does_to_a_session_is_noticed() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[("pool.function_scan_interval", "'1h'")]);
    let (mut mine, mut other) = (client(&pooler), client(&pooler));
    mine.query(
        "CREATE FUNCTION hold(bigint) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock($1)'; \
         CREATE FUNCTION outer_one(bigint) RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM public.hold($1); END'; \
         CREATE FUNCTION put(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.x', $1, false) $$",
    );
    for function in ["hold", "outer_one"] {
        mine.send(frames::extended(&format!("SELECT {function}(5)"), &[]));
        mine.read_until_ready();
        eventually("it is pinned", || pooler.metric("pgweir_pinned_clients") == 1.0);
        mine.query("SELECT pg_advisory_unlock(5)");
        assert_eq!(
            other.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
            "0"
        );
    }
    mine.query("SELECT put('mine')");
    assert_ne!(
        values(&other.query("SELECT current_setting('app.x', true)")),
        ["mine"]
    );
    assert_eq!(mine.value("SELECT current_setting('app.x')"), "mine");
    drop((mine, other));
    pooler.assert_all_places(1);
}

#[test]
fn a_client_is_canceled_and_ended_by_the_process_id_that_it_was_told() {
    let stage = stage(3);
    let mut pooler = stage.pooler;
    pooler.reconfigure(|builder| builder.set("auth.stats_users", "['app']"));
    pooler.reload();
    let mut victim = client(&pooler);
    victim.query("LISTEN news");
    let told = pid(&pooler, &mut victim, "victim");
    let mut killer = client(&pooler);
    // Nothing runs: nothing happens, as with PostgreSQL.
    assert_eq!(killer.value(&format!("SELECT pg_cancel_backend({told})")), "t");
    assert_eq!(victim.value("SELECT 1"), "1");
    victim.send(frames::query("SELECT pg_sleep(60)"));
    eventually("it sleeps", || {
        stage.postgres.psql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active' AND pid <> pg_backend_pid()").unwrap() == "1"
    });
    let answer = killer.query(&format!("select pg_catalog.pg_cancel_backend({told});"));
    assert_eq!(tags(&answer), "TDCZ");
    assert_eq!(sqlstates(&victim.read_until_ready()), ["57014"]);
    // With a parameter, as drivers say it.
    killer.send(
        [
            frames::extended("SELECT pg_terminate_backend($1::int)", &[Some(&told)]),
            frames::query("SELECT 'next'"),
        ]
        .concat(),
    );
    let answer = [killer.read_until_ready(), killer.read_until_ready()].concat();
    assert_eq!(values(&answer), ["t", "next"], "{answer:?}");
    assert_eq!(sqlstates(&victim.read_to_end()), ["57P01"]);
    // A process id that nobody was told is the server's business.
    let answer = killer.query("SELECT pg_cancel_backend(2147483647)");
    assert_eq!(values(&answer), ["f"], "{answer:?}");
    drop(killer);
    pooler.assert_all_places(3);
}

#[test]
fn a_notification_of_ones_own_names_oneself() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[]);
    let mut mine = client(&pooler);
    mine.query("LISTEN news");
    let told = pid(&pooler, &mut mine, "me");
    let answer = mine.query("NOTIFY news, 'hello'");
    let notification = answer.iter().find(|message| message.tag == b'A').unwrap();
    assert_eq!(notification.body[..4], told.parse::<i32>().unwrap().to_be_bytes());
    let backend: i32 = postgres.psql("SELECT pg_backend_pid()").unwrap().parse().unwrap();
    assert!(told.parse::<i32>().unwrap() > 1 << 22 && backend < 1 << 22);
    postgres.psql_in("app", "NOTIFY news, 'from elsewhere'").unwrap();
    let answer = mine.query("SELECT 1");
    let notification = answer.iter().find(|message| message.tag == b'A').unwrap();
    assert_ne!(notification.body[..4], told.parse::<i32>().unwrap().to_be_bytes());
}

#[test]
fn hits_misses_and_evictions_are_counted() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[("pool.max_prepared_statements", "2")]);
    let mut mine = client(&pooler);
    let run = |client: &mut RawClient, name: &str| {
        let messages = [frames::bind("", name, &[]), frames::execute(""), frames::sync()];
        client.send(messages.concat());
        tags(&client.read_until_ready())
    };
    for name in ["a", "b", "c"] {
        let text = format!("SELECT '{name}'");
        mine.send([frames::parse(name, &text), frames::sync()].concat());
        assert_eq!(tags(&mine.read_until_ready()), "1Z");
    }
    // "a" had to go for "c".
    assert_eq!(run(&mut mine, "c"), "2DCZ");
    assert_eq!(run(&mut mine, "a"), "2DCZ");
    assert_eq!(pooler.metric("pgweir_prepared_statement_hits_total"), 1.0);
    assert_eq!(pooler.metric("pgweir_prepared_statement_misses_total"), 4.0);
    assert_eq!(pooler.metric("pgweir_prepared_statement_evictions_total"), 2.0);
    let shown = console(&pooler).query("SHOW PREPARED_STATEMENTS");
    assert_eq!(
        values(&shown),
        ["statements", "bytes", "hits", "misses", "evictions"]
    );
    assert_eq!(
        postgres.psql_in("app", "SELECT 1").unwrap(),
        "1",
        "the server is well"
    );
}

/// The text of an unnamed statement was looked at when it was prepared and not when it was carried out, in a later
/// transaction: the lock stayed on the server connection.
#[test]
fn an_unnamed_statement_of_an_earlier_transaction_is_looked_at() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[]);
    let mut mine = client(&pooler);
    mine.send([frames::parse("", "SELECT pg_advisory_lock(1)"), frames::sync()].concat());
    assert_eq!(tags(&mine.read_until_ready()), "1Z");
    mine.send([frames::bind("", "", &[]), frames::execute(""), frames::sync()].concat());
    assert_eq!(tags(&mine.read_until_ready()), "2DCZ");
    eventually("it is pinned", || pooler.metric("pgweir_pinned_clients") == 1.0);
    drop(mine);
    assert_eq!(
        client(&pooler).value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
        "0"
    );
}

/// A client that waits for the answer to what may have the server forget statements was not read, and a COPY waits for
/// the client.
#[test]
fn a_copy_behind_what_forgets_statements_gets_its_data() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[]);
    let mut mine = client(&pooler);
    mine.query("CREATE TABLE t (a int)");
    mine.send(frames::query("DEALLOCATE ALL; COPY t (a) FROM STDIN"));
    mine.read_until(b'G');
    mine.send([frames::copy_data("5\n"), frames::copy_done()].concat());
    assert_eq!(tags(&mine.read_until_ready()), "CZ");
    assert_eq!(mine.value("SELECT a FROM t"), "5");
}

/// What stands in for a statement that is about to be deallocated was taken for the statement.
#[test]
fn what_stands_in_for_a_statement_is_not_carried_out() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[]);
    let (mut mine, mut other) = (client(&pooler), client(&pooler));
    for client in [&mut mine, &mut other] {
        client.send([frames::parse("s", "SELECT 7"), frames::sync()].concat());
        assert_eq!(tags(&client.read_until_ready()), "1Z");
    }
    client(&pooler).query("DEALLOCATE ALL");
    mine.send(
        [
            frames::parse("", "DEALLOCATE s"),
            frames::describe(b'S', ""),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&mine.read_until_ready()), "1tnZ");
    other.send([frames::bind("", "s", &[]), frames::execute(""), frames::sync()].concat());
    assert_eq!(values(&other.read_until_ready()), ["7"]);
}

/// A Parse under a name that is taken relies on the server to refuse it; where the server had lost the statement, it
/// took the new text under the shared name.
#[test]
fn a_name_that_is_taken_never_gets_another_text() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[]);
    let (mut mine, mut other) = (client(&pooler), client(&pooler));
    for client in [&mut mine, &mut other] {
        client.send([frames::parse("s", "SELECT 1"), frames::sync()].concat());
        assert_eq!(tags(&client.read_until_ready()), "1Z");
    }
    mine.query("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$");
    mine.send([frames::parse("s", "SELECT 2"), frames::sync()].concat());
    assert_eq!(sqlstates(&mine.read_until_ready()), ["42P05"]);
    for client in [&mut mine, &mut other] {
        client.send([frames::bind("", "s", &[]), frames::execute(""), frames::sync()].concat());
        assert_eq!(values(&client.read_until_ready()), ["1"]);
    }
}

/// What the pooler says in a server's place behind a Bind that failed was lost when the batch was sent again.
#[test]
fn a_batch_in_which_the_pooler_answers_is_not_sent_again() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[]);
    let mut mine = client(&pooler);
    mine.query("CREATE TABLE t AS SELECT 1 AS a");
    mine.send(
        [
            frames::parse("s", "SELECT * FROM t"),
            frames::parse("u", "SELECT 2"),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&mine.read_until_ready()), "11Z");
    mine.query("ALTER TABLE t ADD COLUMN b int");
    let use_it = [
        frames::bind("", "s", &[]),
        frames::describe(b'P', ""),
        frames::execute(""),
    ]
    .concat();
    mine.send([use_it.clone(), frames::close(b'S', "u"), frames::sync()].concat());
    let answer = mine.read_until_ready();
    assert_eq!(
        (tags(&answer).as_str(), sqlstates(&answer)),
        ("EZ", vec!["0A000".to_owned()])
    );
    mine.send([use_it, frames::close(b'S', "u"), frames::sync()].concat());
    assert_eq!(tags(&mine.read_until_ready()), "2TDC3Z");
}

/// A client that has described a statement once reads every row by that. It was handed rows of another shape where the
/// statement was prepared anew; and then the pooler asked for the shape for ever.
#[test]
fn rows_of_another_shape_are_refused_as_often_as_they_are_asked_for() {
    let stage = stage(2);
    let (mut mine, mut other) = (stage.client(), stage.client());
    other.query("CREATE TABLE t AS SELECT 1 AS a");
    mine.send(
        [
            frames::parse("s", "SELECT * FROM t"),
            frames::describe(b'S', "s"),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&mine.read_until_ready()), "1tTZ");
    let use_it = [frames::bind("", "s", &[]), frames::execute(""), frames::sync()].concat();
    mine.send(use_it.clone());
    assert_eq!(tags(&mine.read_until_ready()), "2DCZ");
    other.query("ALTER TABLE t ALTER COLUMN a TYPE text");
    for _ in 0..3 {
        // On either server connection, whether it has the statement or not.
        let mut busy = stage.client();
        busy.query("BEGIN");
        mine.send(use_it.clone());
        let answer = mine.read_until_ready();
        assert_eq!(
            (tags(&answer).as_str(), sqlstates(&answer)),
            ("EZ", vec!["0A000".to_owned()])
        );
    }
    mine.send(
        [
            frames::parse("again", "SELECT * FROM t"),
            frames::describe(b'S', "again"),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&mine.read_until_ready()), "1tTZ");
    mine.send(
        [
            frames::bind("", "again", &[]),
            frames::execute(""),
            frames::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&mine.read_until_ready()), "2DCZ");
}

#[test]
fn a_function_that_is_called_where_it_was_made_is_noticed() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[("pool.function_scan_interval", "'1h'")]);
    let mut mine = client(&pooler);
    mine.query(
        "CREATE FUNCTION hold() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock(9)'; SELECT hold()",
    );
    eventually("it is pinned", || pooler.metric("pgweir_pinned_clients") == 1.0);
    drop(mine);
    assert_eq!(
        client(&pooler).value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
        "0"
    );
}

/// In a session pool without a reset query, the settings that startup packets ask for are given again after a client
/// may have changed them.
#[test]
fn settings_of_startup_packets_outlive_a_session_that_is_not_cleaned() {
    let postgres = postgres();
    let pooler = pooler(
        &postgres,
        &[("pool.mode", "'session'"), ("pool.server_reset_query", "''")],
    );
    let client = || {
        let mut client = RawClient::connect(pooler.address());
        client.authenticate(
            &[("user", "app"), ("database", "app"), ("work_mem", "5MB")],
            "secret",
        );
        client
    };
    let mut first = client();
    first.query("SET work_mem = '9MB'");
    first.send(frames::terminate());
    drop(first);
    assert_eq!(client().value("SHOW work_mem"), "5MB");
}

/// A view, or a rule of a table, calls functions where no text shows it.
#[test]
fn what_a_view_does_to_a_session_is_noticed() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[("pool.function_scan_interval", "'1h'")]);
    let (mut mine, mut other) = (client(&pooler), client(&pooler));
    for sql in [
        "CREATE VIEW holding AS SELECT pg_try_advisory_lock(5)",
        "CREATE VIEW above AS SELECT * FROM holding",
        "CREATE TABLE plain (a int)",
        "CREATE RULE locks AS ON INSERT TO plain DO ALSO SELECT pg_advisory_lock(5)",
    ] {
        mine.query(sql);
    }
    for use_it in [
        "TABLE above",
        "SELECT * FROM holding",
        "INSERT INTO plain VALUES (1)",
    ] {
        mine.query(use_it);
        eventually(&format!("it is pinned by {use_it}"), || {
            pooler.metric("pgweir_pinned_clients") == 1.0
        });
        mine.query("SELECT pg_advisory_unlock_all()");
        assert_eq!(
            other.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
            "0",
            "{use_it}"
        );
    }
    other.query("TABLE plain");
    assert_eq!(pooler.metric("pgweir_pinned_clients"), 0.0);
    drop((mine, other));
    pooler.assert_all_places(1);
}

/// With `pg_temp` in the search path a table is temporary without any word that says so.
#[test]
fn what_the_search_path_makes_temporary_stays_with_its_client() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[]);
    let one_batch = |path: &str, sql: &str| {
        [
            frames::parse("", "SELECT set_config('search_path', $1, false)"),
            frames::bind("", "", &[Some(path)]),
            frames::execute(""),
            frames::parse("", sql),
            frames::bind("", "", &[]),
            frames::execute(""),
            frames::sync(),
        ]
        .concat()
    };
    let given = || {
        let mut client = RawClient::connect(pooler.address());
        let startup = [("user", "app"), ("database", "app"), ("search_path", "pg_temp")];
        client.authenticate(&startup, "secret");
        client
    };
    type Begin<'a> = (&'a dyn Fn() -> RawClient, Vec<u8>);
    let cases: [Begin<'_>; 4] = [
        (
            &|| client(&pooler),
            frames::query("SET search_path = pg_temp; CREATE TABLE scratch (a int)"),
        ),
        (
            &|| client(&pooler),
            one_batch("pg_temp", "CREATE TABLE scratch (a int)"),
        ),
        (&given, frames::query("CREATE TABLE scratch (a int)")),
        (&given, frames::extended("SELECT 1 AS a INTO scratch", &[])),
    ];
    for (number, (come, request)) in cases.into_iter().enumerate() {
        let mut mine = come();
        mine.send(request);
        assert_eq!(sqlstates(&mine.read_until_ready()), [""; 0], "case {number}");
        eventually("it is pinned", || pooler.metric("pgweir_pinned_clients") == 1.0);
        assert_eq!(mine.value("SELECT to_regclass('scratch') IS NOT NULL"), "t");
        drop(mine);
        assert_eq!(
            client(&pooler).value("SELECT to_regclass('pg_temp.scratch') IS NULL"),
            "t",
            "case {number}"
        );
    }
    pooler.assert_all_places(1);
}

/// A text of more than 8 kB is passed on in pieces, and what stood behind the first was not looked at.
#[test]
fn what_the_end_of_a_long_text_does_is_noticed() {
    let postgres = postgres();
    let pooler = pooler(&postgres, &[]);
    let (mut mine, mut other) = (client(&pooler), client(&pooler));
    let long = |length: usize| format!("SELECT '{}', pg_advisory_lock(5)", "x".repeat(length));
    // The name lies before, across and behind the ends of pieces, wherever they are.
    let lengths = (8_150..8_200)
        .step_by(7)
        .chain([32_740, 32_750, 65_510, 65_525, 400_000]);
    for (number, length) in lengths.enumerate() {
        if number % 2 == 0 {
            mine.query(&long(length));
        } else {
            mine.send(frames::extended(&long(length), &[]));
            mine.read_until_ready();
        }
        eventually(&format!("it is pinned after {length}"), || {
            pooler.metric("pgweir_pinned_clients") == 1.0
        });
        mine.query("SELECT pg_advisory_unlock_all()");
        assert_eq!(
            other.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
            "0"
        );
    }
    // Prepared in one transaction, used in another.
    mine.send([frames::parse("", &long(100_000)), frames::sync()].concat());
    mine.read_until_ready();
    mine.send([frames::bind("", "", &[]), frames::execute(""), frames::sync()].concat());
    assert_eq!(tags(&mine.read_until_ready()), "2DCZ");
    eventually("it is pinned", || pooler.metric("pgweir_pinned_clients") == 1.0);
    mine.query("SELECT pg_advisory_unlock_all()");
    other.query(&format!("SELECT '{}', lower('X')", "x".repeat(100_000)));
    assert_eq!(pooler.metric("pgweir_pins_total{reason=\"lock\"}"), 14.0);
    drop((mine, other));
    pooler.assert_all_places(1);
}
