//! The three ways in which SHUTDOWN ends the process.

use std::net::TcpStream;

use crate::{
    builder, client, console,
    support::{eventually, frames, postgres, sqlstates},
    table::{error, tags_of_commands},
};

#[test]
fn at_once() {
    let postgres = postgres();
    let mut pooler = builder(&postgres).start();
    let (mut busy, mut console) = (client(&pooler), console(&pooler));
    busy.query("BEGIN");
    console.send(frames::query("SHUTDOWN"));
    assert!(pooler.wait().success());
    busy.read_to_end();
}

#[test]
fn when_no_server_connection_is_in_use() {
    let postgres = postgres();
    let mut pooler = builder(&postgres).set("pool.default_pool_size", "1").start();
    let (mut busy, mut waiting, mut console) = (client(&pooler), client(&pooler), console(&pooler));
    busy.query("BEGIN");
    waiting.send(frames::query("SELECT 1"));
    eventually("it waits", || pooler.metric("pgweir_waiting_clients") == 1.0);
    let answer = console.query("SHUTDOWN WAIT_FOR_SERVERS");
    assert_eq!(tags_of_commands(&answer), ["SHUTDOWN"]);
    assert_eq!(sqlstates(&waiting.read_to_end()), ["57P01"]);
    assert_eq!(error(&console.query("RESUME")).0, "57P03");
    eventually("nobody is let in", || {
        TcpStream::connect(pooler.address()).is_err()
    });
    assert!(pooler.is_running());
    assert_eq!(busy.value("SELECT 'still'"), "still");
    busy.query("COMMIT");
    assert!(pooler.wait().success());
}

#[test]
fn when_the_last_client_has_left() {
    let postgres = postgres();
    let mut pooler = builder(&postgres).start();
    let (mut one, mut console) = (client(&pooler), console(&pooler));
    console.query("SHUTDOWN WAIT_FOR_CLIENTS");
    eventually("nobody is let in", || {
        TcpStream::connect(pooler.address()).is_err()
    });
    for _ in 0..3 {
        assert_eq!(one.value("SELECT 'served'"), "served");
    }
    assert!(pooler.is_running());
    drop(one);
    assert!(pooler.wait().success());
}
