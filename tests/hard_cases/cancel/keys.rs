//! The versions of the protocol that servers are asked for, and the long cancel keys of 3.2.

use std::sync::{Arc, Mutex};

use super::{assert_canceled, cancel, request_of};
use crate::{
    checks::log_in,
    support::{FakeConnection, FakeServer, Pooler, RawClient, eventually, frames, tags},
};

const SECRET: [u8; 32] = *b"a secret that nobody will guess!";

/// What the server notes in between: it works.
const ASLEEP: i32 = 0;

type Packets = Arc<Mutex<Vec<(i32, Vec<u8>)>>>;

/// A server that notes each packet that opens a connection, and goes on with `script` if it is no cancel.
fn server(
    packets: &Packets,
    script: impl Fn(&mut FakeConnection, i32) -> std::io::Result<()> + Send + Sync + 'static,
) -> FakeServer {
    let packets = packets.clone();
    FakeServer::start(move |connection| {
        let (version, rest) = connection.read_packet()?;
        packets.lock().unwrap().push((version, rest));
        if version == frames::CANCEL_REQUEST {
            return Ok(());
        }
        script(connection, version)
    })
}

fn versions(packets: &Packets) -> Vec<i32> {
    let packets = packets.lock().unwrap();
    packets.iter().map(|(version, _)| *version).collect()
}

fn in_front_of(server: &FakeServer) -> Pooler {
    Pooler::builder(&server.address())
        .set("pool.default_pool_size", "1")
        .start()
}

/// Answers every query; `SELECT pg_sleep` is canceled when a cancel request has come.
fn serve(connection: &mut FakeConnection, packets: &Packets) -> std::io::Result<()> {
    loop {
        let message = connection.read()?;
        if message.tag != b'Q' {
            return Ok(());
        }
        let answer = if message.strings() == [super::SLEEP] {
            packets.lock().unwrap().push((ASLEEP, Vec::new()));
            let canceled = || versions(packets).contains(&frames::CANCEL_REQUEST);
            eventually("it is canceled", canceled);
            frames::error_response("ERROR", "57014", "canceling statement due to user request")
        } else {
            frames::command_complete("OK")
        };
        connection.send([answer, frames::ready_for_query(b'I')].concat())?;
    }
}

#[test]
fn case_06_cancel_keys_of_3_2_are_long_on_both_sides() {
    let packets = Packets::default();
    let noted = packets.clone();
    let server = server(&packets, move |connection, _| {
        connection.greet(&SECRET)?;
        serve(connection, &noted)
    });
    let pooler = in_front_of(&server);
    let mut client = RawClient::connect(pooler.address());
    client.send(frames::startup(
        frames::PROTOCOL_3_2,
        &[("user", "app"), ("database", "app")],
    ));
    client.read_until_ready();
    assert_eq!(client.key.as_ref().unwrap().len(), 4 + 32);
    assert_eq!(tags(&client.query("SELECT 1")), "CZ");
    client.send(frames::query(super::SLEEP));
    eventually("the server works", || versions(&packets).contains(&ASLEEP));
    cancel(&pooler, &request_of(&client));
    assert_canceled(&client.read_until_ready());
    let packets = packets.lock().unwrap();
    let pid = 1000i32.to_be_bytes();
    assert_eq!(packets[0].0, frames::PROTOCOL_3_2);
    assert_eq!(
        packets[2],
        (frames::CANCEL_REQUEST, [&pid[..], &SECRET].concat()),
        "its own key, whole"
    );
}

#[test]
fn case_06_server_that_negotiates_is_asked_once() {
    // PostgreSQL since 9.3.21 says that it speaks 3.0, and goes on.
    let packets = Packets::default();
    let noted = packets.clone();
    let server = server(&packets, move |connection, _| {
        let spoken = [frames::PROTOCOL_3_0.to_be_bytes(), [0; 4]].concat();
        connection.send(frames::frame(b'v', spoken))?;
        connection.greet(&[1, 2, 3, 4])?;
        serve(connection, &noted)
    });
    let pooler = in_front_of(&server);
    assert_eq!(tags(&log_in(&pooler).query("SELECT 1")), "CZ");
    assert_eq!(versions(&packets), [frames::PROTOCOL_3_2]);
}

#[test]
fn case_06_server_that_cannot_negotiate_is_asked_for_3_0_and_that_is_remembered() {
    // Poolers and proxies from before 2024, in words and without.
    let in_words = frames::error_response("FATAL", "0A000", "unsupported frontend protocol 3.2");
    let by_pgbouncer = frames::error_response("FATAL", "08P01", "bad packet");
    for refusal in [in_words, by_pgbouncer, Vec::new()] {
        let packets = Packets::default();
        let noted = packets.clone();
        let server = server(&packets, move |connection, version| {
            if version != frames::PROTOCOL_3_0 {
                return connection.send(&refusal);
            }
            connection.greet(&[1, 2, 3, 4])?;
            serve(connection, &noted)
        });
        let pooler = in_front_of(&server);
        let (mut first, mut second) = (log_in(&pooler), RawClient::connect(pooler.address()));
        assert_eq!(tags(&first.query("SELECT 1")), "CZ");
        second.authenticate(&[("user", "app"), ("database", "other")], "");
        assert_eq!(
            versions(&packets),
            [frames::PROTOCOL_3_2, frames::PROTOCOL_3_0, frames::PROTOCOL_3_0]
        );
    }
}

#[test]
fn case_06_other_refusals_are_not_taken_for_the_versions() {
    let packets = Packets::default();
    let server = server(&packets, |connection, _| {
        connection.send(frames::error_response("FATAL", "28000", "no entry for you"))
    });
    let pooler = in_front_of(&server);
    let refused = crate::checks::refused_log_in(&pooler, &[]);
    crate::checks::assert_error(&refused, "FATAL", "28000");
    assert_eq!(versions(&packets), [frames::PROTOCOL_3_2]);
}
