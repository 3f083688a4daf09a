//! A pool keeps its places whatever becomes of those who wait for them.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use crate::{
    checks::{assert_settled, knock, log_in, wait_for_metric},
    support::{Pooler, Postgres, RawClient, eventually, frames, postgres, tags},
};

const WAITING: &str = "pgweir_waiting_clients";

fn pool_of(postgres: &Postgres, size: usize) -> Pooler {
    Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", size.to_string())
        .start()
}

#[test]
fn case_37_waiter_that_leaves_gives_its_turn_to_the_next() {
    // A hand-over to somebody who has gone must not be the end of the connection's way.
    let postgres = postgres();
    let pooler = pool_of(&postgres, 1);
    let (mut holder, mut leaver, mut patient) = (log_in(&pooler), log_in(&pooler), log_in(&pooler));
    holder.query("BEGIN");
    leaver.send(frames::query("SELECT 'never'"));
    wait_for_metric(&pooler, WAITING, 1.0);
    patient.send(frames::query("SELECT 'mine'"));
    wait_for_metric(&pooler, WAITING, 2.0);
    drop(leaver);
    wait_for_metric(&pooler, WAITING, 1.0);
    holder.query("COMMIT");
    assert_eq!(patient.read_until_ready()[1].columns(), [Some("mine".to_owned())]);
    pooler.assert_all_places(1);
}

#[test]
fn case_37_client_that_leaves_while_no_server_answers_leaves_nothing() {
    // Clients that waited for the first server connection of a pool were not read: those that had given up kept
    // their places until query_wait_timeout, and max_client_conn was reached by clients that were gone.
    let pooler = Pooler::builder("127.0.0.1:1")
        .set("listen.max_client_conn", "2")
        .start();
    for _ in 0..3 {
        let clients = [(); 2].map(|()| knock(&pooler, &[]));
        wait_for_metric(&pooler, WAITING, 2.0);
        drop(clients);
        wait_for_metric(&pooler, WAITING, 0.0);
    }
}

/// A client that leaves at a moment of its own: how far it gets depends on who else wants the places.
fn come_and_go(pooler: &Pooler, number: usize) {
    let mut client = log_in(pooler);
    let half = frames::query(&"x".repeat(20_000));
    let begin = frames::query("BEGIN");
    let request = match number % 6 {
        0 => frames::query("SELECT 1"),
        1 => frames::extended("SELECT 1", &[]),
        2 => begin,
        3 => [begin, half[..15_000].to_vec()].concat(),
        4 => frames::parse("", "SELECT 1"),
        _ => [frames::query("SELECT 1"), frames::terminate()].concat(),
    };
    let _ = client.try_send(request);
    let stream = client.into_stream();
    // About as long as it takes to get a place: before, while and after it is handed over.
    thread::sleep(Duration::from_micros((number * 7919 % 3000) as u64));
    if number.is_multiple_of(2) {
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}

#[test]
fn case_37_every_place_is_back_after_clients_that_left_at_random_moments() {
    // Futures that were dropped between hand-over and use made pools smaller without anybody's noticing (PgDoorman).
    const PLACES: usize = 3;
    const LEAVING: usize = 8;
    const TIMES: usize = 50;
    let postgres = postgres();
    let pooler = pool_of(&postgres, PLACES);
    let leaving = AtomicUsize::new(LEAVING);
    thread::scope(|scope| {
        let (pooler, leaving) = (&pooler, &leaving);
        for thread in 0..LEAVING {
            scope.spawn(move || {
                (0..TIMES).for_each(|time| come_and_go(pooler, thread * TIMES + time));
                leaving.fetch_sub(1, Ordering::SeqCst);
            });
        }
        // Some who stay, so that there is always a queue and a place that comes back.
        for number in 0..PLACES {
            scope.spawn(move || {
                let mut client = log_in(pooler);
                while leaving.load(Ordering::SeqCst) > 0 {
                    assert_eq!(client.value(&format!("SELECT {number}")), number.to_string());
                }
            });
        }
    });
    assert_settled(&pooler);
    pooler.assert_all_places(PLACES);
}

#[test]
fn case_37_every_place_is_back_after_waiters_left_at_once() {
    // The whole queue leaves in the moment in which the place that it waits for comes back.
    let postgres = postgres();
    let pooler = pool_of(&postgres, 1);
    let mut holder = log_in(&pooler);
    for round in 0..30 {
        assert_eq!(tags(&holder.query("BEGIN")), "CZ");
        let mut waiters: Vec<RawClient> = (0..8).map(|_| log_in(&pooler)).collect();
        for waiter in &mut waiters {
            waiter.send(frames::query("SELECT 1"));
        }
        eventually("they wait", || pooler.metric(WAITING) >= 8.0);
        holder.send(frames::query("COMMIT"));
        drop(waiters);
        assert_eq!(tags(&holder.read_until_ready()), "CZ", "round {round}");
        assert_eq!(holder.value("SELECT 'next'"), "next");
    }
    drop(holder);
    assert_settled(&pooler);
    pooler.assert_all_places(1);
}
