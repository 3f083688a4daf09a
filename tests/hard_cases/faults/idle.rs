//! What servers say, or do, while nobody uses them.

use std::{
    io,
    sync::{Mutex, mpsc::channel},
};

use super::{good, in_front_of};
use crate::{
    checks::{log_in, wait_for_metric},
    support::{FakeServer, LIMIT, Pooler, frames, postgres, tags},
};

#[test]
fn case_32_idle_connection_that_was_ended_is_given_to_nobody() {
    // PgDog handed out connections that the server had ended while they were idle (pgdog #1318).
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", "3")
        .start();
    let mut clients: Vec<_> = (0..3).map(|_| log_in(&pooler)).collect();
    for _ in 0..3 {
        for client in &mut clients {
            client.query("BEGIN");
        }
        for client in &mut clients {
            client.query("COMMIT");
        }
        wait_for_metric(&pooler, "pgweir_servers{state=\"idle\"}", 3.0);
        // Returns when they are gone.
        let end =
            "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity WHERE usename = 'app'";
        assert_eq!(postgres.psql(end).unwrap(), "3");
        for client in &mut clients {
            assert_eq!(client.value("SELECT 1"), "1");
        }
    }
    // The same without anybody asking: what is shown is what is there.
    postgres
        .psql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'")
        .unwrap();
    wait_for_metric(&pooler, "pgweir_servers", 0.0);
    assert!(pooler.logs().contains("server closes an idle connection"));
}

#[test]
fn case_32_what_an_idle_server_says_is_consumed_and_its_settings_are_noted() {
    // Odyssey took a notice on an idle connection for its death (odyssey #1376).
    let ((go, may_say), (saying, said)) = (channel::<()>(), channel::<()>());
    let may_say = Mutex::new(may_say);
    let server = FakeServer::start(move |connection| {
        connection.log_in()?;
        connection.expect(b'Q')?;
        connection.send(good())?;
        may_say
            .lock()
            .unwrap()
            .recv_timeout(LIMIT)
            .map_err(io::Error::other)?;
        let notice = frames::frame(b'N', b"SNOTICE\0C00000\0Mhello\0\0");
        let notification = frames::frame(b'A', [&[0, 0, 0, 9][..], b"channel\0payload\0"].concat());
        connection.send([notice, notification.clone()].concat())?;
        connection
            .send_bytewise([notification, frames::parameter_status("in_hot_standby", "on")].concat())?;
        saying.send(()).map_err(io::Error::other)?;
        connection.expect(b'Q')?;
        connection.send(good())?;
        connection.read_to_end().map(drop)
    });
    let pooler = in_front_of(&server);
    let mut client = log_in(&pooler);
    assert_eq!(tags(&client.query("SELECT 1")), "DCZ");
    wait_for_metric(&pooler, "pgweir_servers{state=\"idle\"}", 1.0);
    go.send(()).unwrap();
    said.recv_timeout(LIMIT).unwrap();
    let mut next = log_in(&pooler);
    let answer = next.query("SELECT 2");
    // It hears of the setting that has changed, which is true for it too, and of nothing else.
    assert_eq!(tags(&answer), "SDCZ", "{answer:?}");
    assert_eq!(answer[0].strings(), ["in_hot_standby", "on"]);
    assert_eq!(server.accepted(), 1, "the connection is still in use");
}

#[test]
fn case_32_listening_connection_does_not_die_of_notifications() {
    // The same with notifications of a real server.
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", "1")
        .start();
    let mut client = log_in(&pooler);
    let pid = client.value("SELECT pg_backend_pid()");
    client.query("LISTEN news");
    wait_for_metric(&pooler, "pgweir_pinned_clients", 1.0);
    for _ in 0..20 {
        postgres.psql_in("app", "NOTIFY news, 'while idle'").unwrap();
    }
    let heard = tags(&client.query("UNLISTEN news"));
    assert_eq!(heard.matches('A').count(), 20, "{heard}");
    let mut other = log_in(&pooler);
    let answer = other.query("SELECT pg_backend_pid()");
    let row = answer.iter().find(|message| message.tag == b'D').expect("a row");
    assert_eq!(row.columns(), [Some(pid)]);
}

#[test]
fn case_32_what_an_idle_server_says_is_not_the_next_clients() {
    // The same in two pieces, which come with the answer, while the connection is idle, or with the next answer.
    let server = FakeServer::start(|connection| {
        connection.log_in()?;
        for number in 1.. {
            if connection.read()?.tag != b'Q' {
                return Ok(());
            }
            let notice = frames::frame(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mlong ago\0\0");
            let answer = [
                frames::data_row(&[&number.to_string()]),
                frames::command_complete("SELECT 1"),
                frames::ready_for_query(b'I'),
            ];
            // The notice comes in two pieces: with the answer, while the connection is idle, or with the next one.
            let (first, rest) = notice.split_at(12);
            if number % 2 == 0 {
                connection.send([&answer.concat(), first].concat())?;
            } else {
                connection.send(answer.concat())?;
                connection.send(first)?;
            }
            connection.send(rest)?;
        }
        Ok(())
    });
    let pooler = Pooler::builder(&server.address())
        .set("pool.default_pool_size", "1")
        .start();
    let mut client = log_in(&pooler);
    for number in 1..=50 {
        assert_eq!(client.value("SELECT number"), number.to_string());
    }
    assert_eq!(server.accepted(), 1);
}
