//! Cancel requests that come to another replica than the one whose client they are for: a service spreads connections, and
//! each cancel request is a new one.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{SLEEP, assert_canceled, cancel, request_of, send, wait_for_waiting, wait_until_running};
use crate::{
    checks::log_in,
    support::{FakeServer, LIMIT, Link, Pooler, eventually, fleet, frames, postgres},
};

fn count(pooler: &Pooler, client: &str) -> f64 {
    pooler.metric(&format!("pgweir_cancel_requests_total{{client=\"{client}\"}}"))
}

fn post(address: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST /fleet/cancel HTTP/1.1\r\nHost: pgweir\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Two of three users who press Ctrl-C behind a service with three replicas met nothing.
#[test]
fn a_cancel_that_comes_to_another_replica_is_carried_out() {
    let postgres = postgres();
    let poolers = fleet(&postgres.address(), 3, &["127.0.0.1:1"], |builder| {
        builder.set("pool.default_pool_size", "1")
    });
    let (own, other) = (&poolers[0], &poolers[2]);
    let mut client = log_in(own);
    client.send(frames::query(SLEEP));
    wait_until_running(&postgres, SLEEP, 1);
    cancel(other, &request_of(&client));
    assert_canceled(&client.read_until_ready());
    assert_eq!(client.value("SELECT 1"), "1", "the session goes on");
    // One that waits for a server connection is answered by its pooler.
    client.query("BEGIN");
    let mut waiting = log_in(own);
    waiting.send(frames::query("SELECT 1"));
    wait_for_waiting(own, 1.0);
    cancel(other, &request_of(&waiting));
    assert_canceled(&waiting.read_until_ready());
    client.query("COMMIT");
    // Nothing runs: nothing is cancelled, and nobody minds.
    cancel(other, &request_of(&waiting));
    assert_eq!(waiting.query("").len(), 2);
    let elsewhere = poolers
        .iter()
        .map(|pooler| count(pooler, "elsewhere"))
        .collect::<Vec<_>>();
    assert_eq!(format!("{elsewhere:?}"), "[0.0, 0.0, 3.0]");
}

/// Whoever has sent one goes by the end of its connection: what it asks next is not to be hit.
#[test]
fn the_connection_of_a_cancel_stays_until_the_server_has_dealt_with_it() {
    let postgres = postgres();
    let link = Link::to(postgres.address());
    let poolers = fleet(&link.address(), 2, &[], |builder| {
        builder
            .file("token", "t0ken\n")
            .set("http.auth.token_file", "'token'")
    });
    let mut client = log_in(&poolers[0]);
    client.send(frames::query(SLEEP));
    wait_until_running(&postgres, SLEEP, 1);
    link.freeze();
    let mut canceling = send(&poolers[1], &request_of(&client)).into_stream();
    eventually("the other replica has it", || link.accepted() >= 2);
    canceling
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let early = canceling.read(&mut [0]).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::WouldBlock);
    link.thaw();
    canceling.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(canceling.read(&mut [0]).unwrap(), 0);
    assert_canceled(&client.read_until_ready());
}

/// A guess, a client that has left, a replica that says nothing: the request's connection ends, and soon.
#[test]
fn a_cancel_that_nobody_knows_ends_nowhere() {
    let postgres = postgres();
    let silent = FakeServer::start(|connection| connection.read_to_end().map(drop));
    let poolers = fleet(&postgres.address(), 2, &[], |builder| builder);
    let client = log_in(&poolers[0]);
    let mut request = request_of(&client);
    *request.last_mut().unwrap() ^= 1;
    cancel(&poolers[1], &request);
    cancel(&poolers[0], &request);
    for pooler in &poolers {
        assert_eq!(format!("{}", count(pooler, "unknown")), "1");
    }
    let (with_silent, begun) = (
        fleet(&postgres.address(), 1, &[&silent.address()], |builder| builder),
        Instant::now(),
    );
    cancel(&with_silent[0], &request);
    assert!(begun.elapsed() < LIMIT / 2, "{:?}", begun.elapsed());
}

/// Nobody but a replica has anything to say there.
#[test]
fn only_replicas_may_ask() {
    let postgres = postgres();
    let poolers = fleet(&postgres.address(), 1, &[], |builder| {
        builder
            .file("token", "t0ken\n")
            .set("http.auth.token_file", "'token'")
    });
    let address = poolers[0].http_address();
    let (shown, of_ours) = ("Authorization: Bearer t0ken\r\n", "X-Pgweir-Fan-Out: 1\r\n");
    let both = format!("{shown}{of_ours}");
    for (headers, body, status) in [
        (of_ours, "1 00", "401"),
        (shown, "1 00", "400"),
        (&both, "nonsense", "400"),
        (&both, "1 00", "404"),
    ] {
        let answer = post(address, headers, body);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{headers}{body}: {answer}"
        );
    }
    let (status, text) = poolers[0].http_get("/fleet/cancel");
    assert!(status == 405 || status == 401, "{status} {text}");
}
