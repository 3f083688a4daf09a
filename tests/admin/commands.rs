//! What administrators order, and what clients notice of it.

use crate::{
    builder, client, console,
    support::{Frame, RawClient, eventually, frames, postgres, sqlstates, tags, values},
    table::{error, number, row_where, show, tags_of_commands, value},
};

fn done(messages: &[Frame]) -> String {
    assert!(sqlstates(messages).is_empty(), "{messages:?}");
    tags_of_commands(messages).join(" ")
}

/// The state of each of the database's server connections.
fn servers(console: &mut RawClient) -> Vec<String> {
    let servers = show(console, "SERVERS");
    servers.iter().map(|row| value(row, "state").to_owned()).collect()
}

#[test]
fn pause_waits_for_transactions_and_requests_wait_for_resume() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let (mut busy, mut idle) = (client(&pooler), client(&pooler));
    let (mut console, mut other) = (console(&pooler), console(&pooler));
    idle.query("SELECT 1");
    busy.query("BEGIN");
    console.send(frames::query("PAUSE"));
    eventually("the idle connections are closed", || {
        servers(&mut other) == ["active"]
    });
    let state = show(&mut other, "STATE");
    assert_eq!(value(&row_where(&state, "key", "paused"), "value"), "yes");
    idle.send(frames::query("SELECT 'served'"));
    eventually("it waits", || show(&mut other, "WAITERS").len() == 1);
    let reason = value(&show(&mut other, "WAITERS")[0], "reason").to_owned();
    assert!(reason.contains("paused by an administrator"), "{reason}");
    assert_eq!(busy.value("SELECT 'goes on'"), "goes on");
    assert_eq!(error(&other.query("PAUSE")).0, "55000");
    busy.query("COMMIT");
    assert_eq!(done(&console.read_until_ready()), "PAUSE");
    assert!(servers(&mut other).is_empty());
    assert_eq!(
        number(
            &row_where(&show(&mut other, "DATABASES"), "name", "app"),
            "paused"
        ),
        1
    );
    // Somebody who comes only now waits as well.
    let mut late = RawClient::connect(pooler.address());
    late.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "app"), ("database", "app")],
    ));
    assert_eq!(
        postgres
            .psql_in(
                "app",
                "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'"
            )
            .unwrap(),
        "0"
    );
    assert_eq!(done(&other.query("RESUME")), "RESUME");
    assert_eq!(values(&idle.read_until_ready()), ["served"]);
    late.read_until_ready();
    assert_eq!(late.value("SELECT 'late'"), "late");
    assert_eq!(error(&other.query("RESUME")).0, "55000");
}

#[test]
fn one_database_is_paused_and_the_others_are_not() {
    let postgres = postgres();
    postgres.psql("CREATE DATABASE other OWNER app").unwrap();
    let pooler = builder(&postgres).start();
    let (mut mine, mut console) = (client(&pooler), console(&pooler));
    let mut theirs = RawClient::log_in(pooler.address(), "app", "secret", "other");
    mine.query("SELECT 1");
    assert_eq!(done(&console.query("PAUSE app")), "PAUSE");
    assert_eq!(theirs.value("SELECT 'served'"), "served");
    mine.send(frames::query("SELECT 'waited'"));
    eventually("it waits", || show(&mut console, "WAITERS").len() == 1);
    assert_eq!(error(&console.query("RESUME other")).0, "55000");
    assert_eq!(error(&console.query("PAUSE pgbouncer")).0, "55000");
    assert_eq!(done(&console.query("RESUME app")), "RESUME");
    assert_eq!(values(&mine.read_until_ready()), ["waited"]);
}

#[test]
fn who_cancels_a_pause_resumes() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let (mut busy, mut console) = (client(&pooler), console(&pooler));
    busy.query("BEGIN");
    console.send(frames::query("PAUSE"));
    let mut other = crate::console(&pooler);
    eventually("it is paused", || {
        value(&row_where(&show(&mut other, "STATE"), "key", "paused"), "value") == "yes"
    });
    let key = console.key.clone().unwrap();
    let (pid, secret) = key.split_at(4);
    let mut cancel = RawClient::connect(pooler.address());
    cancel.send(frames::cancel(
        i32::from_be_bytes(pid.try_into().unwrap()),
        secret,
    ));
    assert_eq!(error(&console.read_until_ready()).0, "57014");
    assert_eq!(client(&pooler).value("SELECT 'served'"), "served");
    busy.query("COMMIT");
    assert_eq!(tags(&console.query("SHOW VERSION")), "TDCZ");
}

#[test]
fn kill_ends_clients_and_server_connections() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let (mut busy, mut idle, mut console) = (client(&pooler), client(&pooler), console(&pooler));
    idle.query("SELECT 1");
    busy.query("BEGIN");
    assert_eq!(done(&console.query("KILL app")), "KILL");
    for client in [&mut busy, &mut idle] {
        assert_eq!(sqlstates(&client.read_to_end()), ["57P01"]);
    }
    eventually("the connections are closed", || servers(&mut console).is_empty());
    assert_eq!(done(&console.query("RESUME app")), "RESUME");
    assert_eq!(client(&pooler).value("SELECT 'served'"), "served");
}

#[test]
fn kill_client_ends_one() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let (mut one, mut another, mut console) = (client(&pooler), client(&pooler), console(&pooler));
    one.query("BEGIN");
    let transactions = show(&mut console, "TRANSACTIONS");
    let id = value(&transactions[0], "id");
    assert_eq!(done(&console.query(&format!("KILL_CLIENT {id}"))), "KILL_CLIENT");
    assert_eq!(sqlstates(&one.read_to_end()), ["57P01"]);
    assert_eq!(another.value("SELECT 'here'"), "here");
    let (code, message, hint) = error(&console.query(&format!("KILL_CLIENT {id}")));
    assert_eq!((&*code, &*message), ("42704", "client not found"));
    assert!(hint.contains("SHOW CLIENTS"));
}

#[test]
fn a_disabled_database_takes_no_new_clients() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let (mut before, mut console) = (client(&pooler), console(&pooler));
    assert_eq!(done(&console.query("DISABLE app")), "DISABLE");
    let mut refused = RawClient::connect(pooler.address());
    refused.send(frames::startup(
        frames::PROTOCOL_3_0,
        &[("user", "app"), ("database", "app")],
    ));
    assert_eq!(sqlstates(&refused.read_to_end()), ["55000"]);
    assert_eq!(before.value("SELECT 'here'"), "here");
    assert_eq!(
        number(
            &row_where(&show(&mut console, "DATABASES"), "name", "app"),
            "disabled"
        ),
        1
    );
    assert_eq!(done(&console.query("ENABLE app")), "ENABLE");
    assert_eq!(client(&pooler).value("SELECT 'back'"), "back");
    assert_eq!(error(&console.query("DISABLE")).0, "42601");
}

#[test]
fn reconnect_replaces_connections_as_they_are_given_back() {
    let postgres = postgres();
    let pooler = builder(&postgres).set("pool.default_pool_size", "1").start();
    let (mut client, mut console) = (client(&pooler), console(&pooler));
    client.query("BEGIN");
    let backend = client.value("SELECT pg_backend_pid()");
    assert_eq!(done(&console.query("RECONNECT")), "RECONNECT");
    let server = show(&mut console, "SERVERS");
    assert_eq!(
        number(&row_where(&server, "remote_pid", &backend), "close_needed"),
        1
    );
    let mut waiting = crate::console(&pooler);
    waiting.send(frames::query("WAIT_CLOSE app"));
    assert_eq!(
        client.value("SELECT pg_backend_pid()"),
        backend,
        "a transaction stays where it is"
    );
    client.query("COMMIT");
    assert_eq!(done(&waiting.read_until_ready()), "WAIT_CLOSE");
    let next = client.value("SELECT pg_backend_pid()");
    assert_ne!(next, backend);
    assert_eq!(
        client.value("SELECT pg_backend_pid()"),
        next,
        "and then it is kept"
    );
}

#[test]
fn suspend_keeps_connections_and_ends_with_who_has_ordered_it() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let (mut client, mut console) = (client(&pooler), console(&pooler));
    client.query("BEGIN");
    let backend = client.value("SELECT pg_backend_pid()");
    let mut suspending = crate::console(&pooler);
    suspending.send(frames::query("SUSPEND"));
    eventually("it is suspended", || {
        value(
            &row_where(&show(&mut console, "STATE"), "key", "suspended"),
            "value",
        ) == "yes"
    });
    client.query("COMMIT");
    assert_eq!(done(&suspending.read_until_ready()), "SUSPEND");
    client.send(frames::query("SELECT pg_backend_pid()"));
    eventually("it waits", || show(&mut console, "WAITERS").len() == 1);
    drop(suspending);
    assert_eq!(values(&client.read_until_ready()), [backend]);
}

#[test]
fn who_may_only_look_orders_nothing() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let mut eve = RawClient::log_in(pooler.address(), "eve", "eve", "pgweir");
    for allowed in [
        "SHOW POOLS",
        "SHOW CONFIG",
        "SET extra_float_digits = 3",
        "SHOW client_encoding",
        "BEGIN",
    ] {
        assert!(sqlstates(&eve.query(allowed)).is_empty(), "{allowed}");
    }
    for order in [
        "SHOW FDS",
        "PAUSE",
        "RESUME",
        "KILL",
        "KILL_CLIENT 1",
        "RELOAD",
        "SHUTDOWN",
        "SUSPEND",
        "RECONNECT",
        "DISABLE app",
        "ENABLE app",
        "WAIT_CLOSE",
        "SET default_pool_size = 3",
    ] {
        let (code, message, hint) = error(&eve.query(order));
        assert_eq!((&*code, &*message), ("42501", "admin access needed"), "{order}");
        assert!(hint.contains("auth.admin_users"));
    }
    let mut mallory = RawClient::connect(pooler.address());
    let parameters = [("user", "mallory"), ("database", "pgbouncer")];
    mallory.send(frames::startup(frames::PROTOCOL_3_0, &parameters));
    assert_eq!(sqlstates(&mallory.read_to_end()), ["42501"]);
}

#[test]
fn a_slip_is_answered_with_what_was_probably_meant() {
    let postgres = postgres();
    let pooler = builder(&postgres).start();
    let mut console = console(&pooler);
    for (typed, code, meant) in [
        ("PUASE", "42601", "PAUSE"),
        ("SHOW POOL", "42704", "SHOW POOLS"),
        ("SELECT 1 + 1", "42601", "SHOW HELP"),
        ("RESUME nowhere nothing", "42601", "one database"),
        ("KILL a b", "42601", "one database"),
    ] {
        let (found, message, more) = error(&console.query(typed));
        assert_eq!(found, code, "{typed}");
        assert!(
            format!("{message} {more}").contains(meant),
            "{typed}: {message} {more}"
        );
    }
    assert_eq!(tags(&console.query("")), "IZ");
    assert_eq!(tags(&console.query("SHOW VERSION; SHOW STATE;")), "TDCTDDDCZ");
}
