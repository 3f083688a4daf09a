//! Limits of time: who runs into one is told which, its server connection is free again, and nobody else notices.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a helper fails the test"
)]

mod support;

use std::{
    io::ErrorKind,
    thread,
    time::{Duration, Instant},
};

use support::{
    FakeServer, Frame, Pooler, PoolerBuilder, Postgres, RawClient, eventually, frames, postgres, tags,
};

const SLEEP: &str = "SELECT pg_sleep(100)";
/// The limit under test where nothing else is said, and a time that is certainly longer.
const LIMIT: &str = "'300ms'";
const LONGER: Duration = Duration::from_millis(900);

fn log_in(pooler: &Pooler) -> RawClient {
    RawClient::log_in(pooler.address(), "app", "secret", "app")
}

/// A pool of one server connection, with this limit.
fn limited(postgres: &Postgres, setting: &str, limit: &str) -> PoolerBuilder {
    Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", "1")
        .set(&format!("pool.{setting}"), limit)
}

#[track_caller]
fn error_of(messages: &[Frame]) -> &Frame {
    let errors: Vec<_> = messages.iter().filter(|message| message.tag == b'E').collect();
    assert_eq!(errors.len(), 1, "{messages:?}");
    errors[0]
}

/// Reads to the end of a connection, which must be this FATAL error, said once.
#[track_caller]
fn assert_ended(client: &mut RawClient, sqlstate: &str, detail: &str) {
    let messages = client.read_to_end();
    let error = error_of(&messages);
    assert_eq!(error.field(b'V').as_deref(), Some("FATAL"), "{error:?}");
    assert_eq!(error.field(b'C').as_deref(), Some(sqlstate), "{error:?}");
    assert!(error.field(b'D').unwrap().contains(detail), "{error:?}");
}

/// A query that took too long: the notice comes first, then the server's own error.
#[track_caller]
fn assert_canceled(messages: &[Frame]) {
    let error = error_of(messages);
    assert_eq!(error.field(b'V').as_deref(), Some("ERROR"), "{messages:?}");
    assert_eq!(error.field(b'C').as_deref(), Some("57014"), "{messages:?}");
    let notice = messages
        .iter()
        .find(|message| message.tag == b'N')
        .expect("a notice");
    assert!(
        notice.field(b'M').unwrap().contains("query_timeout (300ms)"),
        "{notice:?}"
    );
}

fn copy_data(row: &str) -> Vec<u8> {
    frames::frame(b'd', format!("{row}\n"))
}

fn wait_for_waiting(pooler: &Pooler, count: f64) {
    eventually(&format!("{count} clients wait"), || {
        (pooler.metric("pgweir_waiting_clients") - count).abs() < f64::EPSILON
    });
}

#[test]
fn a_query_that_takes_too_long_is_canceled_and_the_session_goes_on() {
    let postgres = postgres();
    let pooler = limited(&postgres, "query_timeout", LIMIT).start();
    let mut client = log_in(&pooler);
    let begun = Instant::now();
    assert_canceled(&client.query(SLEEP));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    pooler.wait_for_log(0, "query canceled: it took too long");
    client.send(frames::extended(SLEEP, &[]));
    assert_canceled(&client.read_until_ready());
    // In a transaction, which is then to be rolled back.
    client.query("BEGIN");
    let messages = client.query(SLEEP);
    assert_canceled(&messages);
    assert_eq!(messages.last().unwrap().body, b"E");
    client.query("ROLLBACK");
    assert_eq!(client.value("SELECT 1"), "1");
    pooler.assert_all_places(1);
    assert!((pooler.metric("pgweir_server_connects_total") - 1.0).abs() < f64::EPSILON);
}

#[test]
fn each_query_of_a_pipeline_has_its_own_time() {
    let postgres = postgres();
    let pooler = limited(&postgres, "query_timeout", "'1s'").start();
    let mut client = log_in(&pooler);
    let nap = "SELECT pg_sleep(0.4)";
    client.send(frames::query(nap).repeat(4));
    for _ in 0..4 {
        assert_eq!(tags(&client.read_until_ready()), "TDCZ");
    }
    // Without Flush the server would keep its answers to itself up to the Sync.
    let one = [
        frames::parse("", nap),
        frames::bind("", "", &[]),
        frames::execute(""),
        frames::flush(),
    ];
    let one = one.concat();
    client.send([one.repeat(4), frames::sync()].concat());
    assert_eq!(tags(&client.read_until_ready()), "12DC12DC12DC12DCZ");
}

#[test]
fn a_server_that_does_not_stop_is_left_after_a_while() {
    let server = FakeServer::start(|connection| {
        match connection.log_in() {
            // A cancel request, which is ignored.
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
            logged_in => drop(logged_in?),
        }
        loop {
            let message = connection.read()?;
            match message.tag {
                b'Q' if message.strings()[0] == SLEEP => {}
                b'Q' => connection.send(
                    [
                        frames::command_complete("SELECT 0"),
                        frames::ready_for_query(b'I'),
                    ]
                    .concat(),
                )?,
                _ => return Ok(()),
            }
        }
    });
    let pooler = Pooler::builder(&server.address())
        .set("pool.default_pool_size", "1")
        .set("pool.query_timeout", LIMIT)
        .start();
    let mut client = log_in(&pooler);
    client.send(frames::query(SLEEP));
    assert_ended(&mut client, "57014", "query_timeout (300ms)");
    assert_eq!(tags(&log_in(&pooler).query("SELECT")), "CZ", "the place is free");
    pooler.wait_until_quiet();
}

#[test]
fn the_server_is_not_blamed_for_a_client_that_is_slow_in_a_copy() {
    let postgres = postgres();
    let pooler = limited(&postgres, "query_timeout", LIMIT).start();
    let mut client = log_in(&pooler);
    client.query("CREATE TABLE t (n int)");
    client.send(frames::query("COPY t FROM STDIN"));
    client.read_until(b'G');
    for row in ["1", "2"] {
        client.send(copy_data(row));
        thread::sleep(LONGER);
    }
    client.send(frames::frame(b'c', []));
    assert_eq!(tags(&client.read_until_ready()), "CZ");
    assert_eq!(client.value("SELECT count(*) FROM t"), "2");
}

#[test]
fn a_transaction_may_not_be_long_whether_it_works_or_waits() {
    let postgres = postgres();
    let pooler = limited(&postgres, "transaction_timeout", "'600ms'").start();
    let (mut busy, mut idle) = (log_in(&pooler), log_in(&pooler));
    busy.query("BEGIN");
    let statements = frames::query("SELECT pg_sleep(0.1)").repeat(100);
    busy.send(statements);
    let messages = busy.read_to_end();
    let error = error_of(&messages);
    assert_eq!(error.field(b'C').as_deref(), Some("25P04"), "{error:?}");
    assert!(messages.len() > 4, "it has worked: {}", tags(&messages));
    idle.query("BEGIN");
    assert_ended(&mut idle, "25P04", "transaction_timeout (600ms)");
    let mut client = log_in(&pooler);
    client.send(frames::query(SLEEP));
    assert_ended(&mut client, "25P04", "transaction_timeout (600ms)");
    eventually("the server has stopped", || {
        postgres
            .psql("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = 'app'")
            .unwrap()
            == "0"
    });
    pooler.assert_all_places(1);
}

#[test]
fn transactions_that_follow_each_other_are_not_one_long_one() {
    let postgres = postgres();
    for mode in ["'transaction'", "'session'"] {
        let pooler = limited(&postgres, "transaction_timeout", "'1s'")
            .set("pool.mode", mode)
            .start();
        let mut client = log_in(&pooler);
        client.send(frames::query("SELECT pg_sleep(0.4)").repeat(4));
        for _ in 0..4 {
            assert_eq!(tags(&client.read_until_ready()), "TDCZ", "{mode}");
        }
    }
}

#[test]
fn a_client_that_idles_in_a_transaction_is_ended_and_a_busy_one_is_not() {
    let postgres = postgres();
    let pooler = limited(&postgres, "idle_transaction_timeout", LIMIT).start();
    let mut client = log_in(&pooler);
    client.send([frames::query("BEGIN"), frames::query("SELECT pg_sleep(0.9)")].concat());
    assert_eq!(tags(&client.read_until_ready()), "CZ");
    assert_eq!(tags(&client.read_until_ready()), "TDCZ", "it was busy");
    assert_ended(&mut client, "25P03", "idle_transaction_timeout (300ms)");
    // A batch without its end, a COPY without more data.
    let mut client = log_in(&pooler);
    client.send([frames::parse("", "SELECT 1"), frames::flush()].concat());
    assert_eq!(client.read().tag, b'1');
    assert_ended(&mut client, "25P03", "idle_transaction_timeout");
    let mut client = log_in(&pooler);
    client.query("CREATE TABLE t (n int)");
    client.send(frames::query("COPY t FROM STDIN"));
    client.read_until(b'G');
    let begun = Instant::now();
    while begun.elapsed() < LONGER {
        client.send(copy_data("1"));
        thread::sleep(Duration::from_millis(50));
    }
    assert_ended(&mut client, "25P03", "idle_transaction_timeout");
    pooler.assert_all_places(1);
}

#[test]
fn a_client_that_does_nothing_is_ended_and_its_server_connection_serves_the_next() {
    let postgres = postgres();
    for mode in ["'transaction'", "'session'"] {
        let pooler = limited(&postgres, "client_idle_timeout", LIMIT)
            .set("pool.mode", mode)
            .start();
        let mut client = log_in(&pooler);
        assert_eq!(tags(&client.query("SELECT pg_sleep(0.9)")), "TDCZ", "it was busy");
        client.query("BEGIN");
        thread::sleep(LONGER);
        let pid = client.value("SELECT pg_backend_pid()");
        client.query("COMMIT");
        let mut next = log_in(&pooler);
        next.send(frames::query("SELECT pg_backend_pid()"));
        assert_ended(&mut client, "57P05", "client_idle_timeout (300ms)");
        let answer = next.read_until_ready();
        assert_eq!(answer[1].columns()[0].as_deref(), Some(pid.as_str()), "{mode}");
        drop(next);
        pooler.wait_until_quiet();
    }
}

/// A client whose application has a name, in a transaction.
fn holder(pooler: &Pooler) -> RawClient {
    let mut holder = RawClient::connect(pooler.address());
    let settings = [
        ("user", "app"),
        ("database", "app"),
        ("application_name", "reports"),
    ];
    holder.authenticate(&settings, "secret");
    holder.query("BEGIN");
    holder
}

#[test]
fn a_client_that_waits_is_told_what_for() {
    let postgres = postgres();
    let pooler = limited(&postgres, "query_wait_notify", LIMIT).start();
    let mut holder = holder(&pooler);
    let mut waiter = log_in(&pooler);
    waiter.send(frames::query("SELECT 1"));
    let notice = waiter.read();
    assert_eq!(notice.tag, b'N', "{notice:?}");
    assert_eq!(notice.field(b'V').as_deref(), Some("NOTICE"));
    let message = notice.field(b'M').unwrap();
    assert!(message.contains(r#"pool "app" of user "app""#), "{message}");
    let detail = notice.field(b'D').unwrap();
    assert!(
        detail.contains("1 of 1 server connections in use and 1 clients waiting"),
        "{detail}"
    );
    assert!(detail.contains(r#"Held longest: "reports""#), "{detail}");
    thread::sleep(LONGER);
    holder.query("COMMIT");
    assert_eq!(tags(&waiter.read_until_ready()), "TDCZ", "told once, and served");
    pooler.assert_all_places(1);
}

#[test]
fn a_client_that_has_waited_in_vain_is_told_who_holds_what_it_waited_for() {
    let postgres = postgres();
    let pooler = limited(&postgres, "query_wait_timeout", LIMIT).start();
    let mut holder = holder(&pooler);
    let mut waiter = log_in(&pooler);
    let refused = |waiter: &mut RawClient| {
        let messages = waiter.query("SELECT 1");
        let error = error_of(&messages);
        assert_eq!(error.field(b'C').as_deref(), Some("53300"), "{error:?}");
        assert!(error.field(b'M').unwrap().contains("query_wait_timeout (300ms)"));
        error.field(b'D').unwrap()
    };
    let detail = refused(&mut waiter);
    assert!(
        detail.contains(r#"Held longest: "reports" of user "app" from 127.0.0.1:"#),
        "{detail}"
    );
    assert!(detail.contains(", idle in transaction, for "), "{detail}");
    holder.send(frames::query("SELECT pg_sleep(5)"));
    eventually("the holder is seen to work", || {
        refused(&mut waiter).contains(", active, for ")
    });
    drop(holder);
    pooler.assert_all_places(1);
}

#[test]
fn a_user_may_have_a_limit_of_its_own_and_a_reload_reaches_everybody() {
    let postgres = postgres();
    let mut pooler = limited(&postgres, "idle_transaction_timeout", LIMIT)
        .set("users.app.idle_transaction_timeout", "'0'")
        .start();
    let mut client = log_in(&pooler);
    client.query("BEGIN");
    thread::sleep(LONGER);
    assert_eq!(client.value("SELECT 1"), "1", "there is no limit for this user");
    let mut waiter = log_in(&pooler);
    waiter.send(frames::query("SELECT 1"));
    wait_for_waiting(&pooler, 1.0);
    pooler.reconfigure(|builder| builder.set("users.app.idle_transaction_timeout", "'200ms'"));
    pooler.reload();
    assert_ended(&mut client, "25P03", "idle_transaction_timeout (200ms)");
    assert_eq!(tags(&waiter.read_until_ready()), "TDCZ");
    pooler.assert_all_places(1);
}

#[test]
fn a_slow_query_is_logged_with_its_text_and_without_the_values_of_its_parameters() {
    for mode in ["transaction", "session"] {
        let postgres = postgres();
        let mut pooler = Pooler::builder(&postgres.address())
            .set("pool.mode", format!("'{mode}'"))
            .set("pool.default_pool_size", "1")
            .set("pool.log_min_duration_statement", "'200ms'")
            .start();
        let mut client = log_in(&pooler);
        let own = client.value("SELECT pg_backend_pid()");
        client.query("SELECT 'fast'");
        client.query("SELECT 'slow', pg_sleep(0.25)");
        let slow = pooler.wait_for_log(0, "'slow', pg_sleep");
        assert!(slow.contains("slow query") && slow.contains(&own), "{slow}");
        // The one of a batch that was prepared before, while another waits for the only connection.
        client.send(
            [
                frames::parse("nap", "SELECT pg_sleep($1::float8)"),
                frames::sync(),
            ]
            .concat(),
        );
        client.read_until_ready();
        let mut other = log_in(&pooler);
        let nap = [
            frames::bind("", "nap", &[Some("0.3125")]),
            frames::execute(""),
            frames::sync(),
        ];
        client.send(nap.concat());
        if mode == "transaction" {
            other.query("SELECT 'next'");
        }
        client.read_until_ready();
        // What a session has prepared is not kept where nobody shares it.
        let text = match mode {
            "transaction" => "SELECT pg_sleep($1::float8)",
            _ => "prepared statement nap",
        };
        let slow = pooler.wait_for_log(0, text);
        assert!(slow.contains("slow query") && !slow.contains("0.3125"), "{slow}");
        // One line for one query, whatever is in it.
        let position = pooler.log_position();
        client.query("SELECT 'in two\nlines', pg_sleep(0.25)");
        let slow = pooler.wait_for_log(position, "in two");
        assert!(slow.contains("slow query"), "{slow}");
        let log = pooler.logs();
        assert!(!log.contains("'fast'") && !log.contains("'next'"), "{log}");
        // A reload turns it off.
        let position = pooler.log_position();
        pooler.reconfigure(|builder| builder.set("pool.log_min_duration_statement", "'1h'"));
        pooler.reload();
        pooler.wait_for_log(position, "configuration reloaded");
        client.query("SELECT 'unnoticed', pg_sleep(0.25)");
        client.query("SELECT 1");
        assert!(!pooler.logs().contains("unnoticed"));
    }
}
