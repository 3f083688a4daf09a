//! 20: a server connection keeps some statements, and never loses one that is in use.

use super::{batch, outcome, prepare_and_use, use_statement};
use crate::support::{Pooler, RawClient, Stage, frames, postgres_for_twins, tags, values};

const MOST: usize = 10;

/// A pool of `size` whose server connections keep [`MOST`] statements each.
fn small(size: usize) -> Stage {
    let postgres = postgres_for_twins();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", size.to_string())
        .set("pool.max_prepared_statements", MOST.to_string())
        .start();
    Stage {
        pooler,
        size,
        postgres,
    }
}

fn name(number: usize) -> String {
    format!("s{number}")
}

fn text(number: usize) -> String {
    format!("SELECT 'value {number}'")
}

/// How many statements the server connection of a pool of one has.
fn kept(client: &mut RawClient) -> usize {
    let count = client.value("SELECT count(*) FROM pg_prepared_statements");
    count.parse().unwrap()
}

/// What was evicted is there when it is used, and no more than the limit is kept.
#[test]
fn case_20_a_client_may_have_more_statements_than_a_server_keeps() {
    let stage = small(1);
    let mut twins = stage.twins();
    for number in 0..50 {
        twins.say(batch(&[prepare_and_use(&name(number), &text(number))]), 1);
        assert!(kept(&mut twins.pooled) <= MOST);
    }
    for number in (0..50).chain((0..50).rev()).chain((0..50).step_by(7)) {
        let name = name(number);
        twins.say(batch(&[frames::describe(b'S', &name), use_statement(&name)]), 1);
        twins.say(batch(&[frames::parse(&name, "SELECT 'again'")]), 1);
        assert!(kept(&mut twins.pooled) <= MOST);
    }
    // Close of an evicted one.
    for number in 0..50 {
        twins.say(
            batch(&[frames::close(b'S', &name(number)), use_statement(&name(number))]),
            1,
        );
    }
    assert!(stage.pooler.metric("pgweir_prepared_statement_evictions_total") >= 40.0);
    stage.is_whole(&mut twins.pooled);
}

/// One batch that uses more than the limit, in any order: eviction inside it closed what it still used (PgDoorman 3.3).
#[test]
fn case_20_a_batch_may_use_more_statements_than_a_server_keeps() {
    let stage = small(1);
    let mut twins = stage.twins();
    let all: Vec<_> = (0..35).collect();
    let prepare: Vec<_> = all.iter().map(|&n| frames::parse(&name(n), &text(n))).collect();
    let using: Vec<_> = all.iter().map(|&n| use_statement(&name(n))).collect();
    twins.say(batch(&[prepare.clone(), using.clone()].concat()), 1);
    twins.say(batch(&[using.clone(), using.clone()].concat()), 1);
    // In one write, with an error in each batch.
    let broken = [using.clone(), vec![use_statement("unknown")], using.clone()].concat();
    twins.say(
        [batch(&broken), batch(&using), batch(&broken), batch(&using)].concat(),
        4,
    );
    // Portals of a transaction outlive the statements they came from.
    twins.say(frames::query("BEGIN"), 1);
    for &number in &all {
        twins.say(
            batch(&[frames::bind(&format!("p{number}"), &name(number), &[])]),
            1,
        );
    }
    for &number in &all {
        twins.say(batch(&[frames::execute(&format!("p{number}"))]), 1);
    }
    twins.say(frames::query("COMMIT"), 1);
    // What was too much is gone when it can be.
    twins.say(batch(&[prepare_and_use("last", "SELECT 'last'")]), 1);
    stage.is_whole(&mut twins.pooled);
}

/// Clients with more statements together than the servers keep, by the same names.
#[test]
fn case_20_clients_evict_each_other_s_statements() {
    let stage = small(2);
    let mut clients: Vec<_> = (0..4).map(|_| stage.client()).collect();
    for (owner, client) in clients.iter_mut().enumerate() {
        let prepare: Vec<_> = (0..8)
            .map(|n| frames::parse(&name(n), &format!("SELECT '{owner} {n}'")))
            .collect();
        client.send(batch(&prepare));
        assert_eq!(tags(&client.read_until_ready()), format!("{}Z", "1".repeat(8)));
    }
    for round in 0..40 {
        for (owner, client) in clients.iter_mut().enumerate() {
            let number = (round * 3 + owner) % 8;
            assert_eq!(outcome(client, &name(number)), [format!("{owner} {number}")]);
        }
    }
    let (first, rest) = clients.split_first_mut().unwrap();
    // Unnamed statements do not push named ones out.
    let before = stage.pooler.metric("pgweir_prepared_statement_evictions_total");
    for number in 0..30 {
        rest[0].send(batch(&[prepare_and_use(
            "",
            &format!("SELECT 'unnamed {number}'"),
        )]));
        assert_eq!(values(&rest[0].read_until_ready()), [format!("unnamed {number}")]);
    }
    assert_eq!(
        stage.pooler.metric("pgweir_prepared_statement_evictions_total"),
        before
    );
    stage.is_whole(first);
}
