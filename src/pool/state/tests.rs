//! The pool's accounting, by example and under random operations.

use proptest::prelude::*;

use super::*;

type Pool = State<u32, u32>;

fn pool(size: usize, min: usize) -> Pool {
    State::new(Limits {
        size: NonZeroUsize::new(size).unwrap(),
        min,
    })
}

/// A pool with `count` idle connections, numbered from 0, the last one most recently used.
fn idle(size: usize, count: u32) -> Pool {
    let mut pool = pool(size, 0);
    for connection in 0..count {
        assert_eq!(pool.connected(connection), Placed::Idle);
    }
    pool
}

#[test]
fn the_most_recently_used_connection_is_lent_first() {
    let mut pool = idle(5, 3);
    assert_eq!(pool.check_out(|_| true), Some(2));
    assert_eq!(pool.check_in(2), Placed::Idle);
    assert_eq!(pool.check_out(|_| true), Some(2));
    assert_eq!(pool.check_out(|_| true), Some(1));
}

#[test]
fn round_robin_lends_what_has_rested_longest() {
    let mut pool = idle(5, 3);
    pool.set_round_robin(true);
    for expected in [0, 1, 2, 0] {
        let lent = pool.check_out(|&connection| connection == 2).unwrap();
        assert_eq!(lent, expected);
        assert_eq!(pool.check_in(lent), Placed::Idle);
    }
}

#[test]
fn a_preference_is_honoured_but_does_not_exclude() {
    let mut pool = idle(5, 3);
    assert_eq!(pool.check_out(|&connection| connection == 0), Some(0));
    assert_eq!(pool.check_out(|&connection| connection == 0), Some(2));
}

#[test]
fn waiters_are_served_in_order_and_not_overtaken() {
    let now = Instant::now();
    let mut pool = idle(1, 1);
    assert_eq!(pool.check_out(|_| true), Some(0));
    for waiter in [10, 11, 12] {
        pool.enqueue(now, waiter);
    }
    assert_eq!(pool.check_out(|_| true), None);
    for waiter in [10, 11, 12] {
        assert_eq!(pool.check_in(0), Placed::HandedOver(waiter, 0));
    }
    assert_eq!(pool.check_in(0), Placed::Idle);
}

#[test]
fn no_more_connections_are_opened_than_there_are_waiters_or_room() {
    let now = Instant::now();
    let mut pool = pool(3, 0);
    assert_eq!(pool.begin_connecting(), 0);
    pool.enqueue(now, 1);
    assert_eq!(pool.begin_connecting(), 1);
    assert_eq!(pool.begin_connecting(), 0);
    for waiter in 2..10 {
        pool.enqueue(now, waiter);
    }
    assert_eq!(pool.begin_connecting(), 2);
    assert_eq!(
        pool.counts(),
        Counts {
            connecting: 3,
            idle: 0,
            active: 0,
            waiting: 9
        }
    );
    assert_eq!(pool.connected(7), Placed::HandedOver(1, 7));
}

#[test]
fn the_minimum_is_opened_without_waiters_and_not_insisted_on() {
    let mut pool = pool(5, 2);
    assert_eq!(pool.begin_connecting(), 0);
    assert_eq!(pool.begin_minimum(), 2);
    assert!(!pool.wants_connecting());
    pool.connecting_failed();
    assert_eq!(pool.begin_minimum(), 1);
    pool.enqueue(Instant::now(), 1);
    assert!(
        !pool.wants_connecting(),
        "one of the two that are under way is enough"
    );
    pool.connecting_failed();
    assert!(pool.wants_connecting());
}

#[test]
fn nobody_waiting_means_no_further_attempt() {
    let mut pool = pool(5, 0);
    let ticket = pool.enqueue(Instant::now(), 1);
    assert_eq!(pool.begin_connecting(), 1);
    assert!(pool.wants_connecting());
    assert_eq!(pool.withdraw(ticket), Some(1));
    assert_eq!(pool.withdraw(ticket), None);
    assert!(!pool.wants_connecting());
}

#[test]
fn only_those_who_waited_long_enough_expire() {
    let start = Instant::now();
    let mut pool = pool(1, 0);
    pool.enqueue(start, 1);
    pool.enqueue(start + Duration::from_secs(1), 2);
    assert!(
        pool.expire(start + Duration::from_secs(9), Duration::from_secs(10))
            .is_empty()
    );
    assert_eq!(
        pool.expire(start + Duration::from_secs(10), Duration::from_secs(10)),
        [1]
    );
    assert_eq!(pool.counts().waiting, 1);
}

#[test]
fn a_smaller_limit_takes_effect_at_check_in() {
    let mut pool = idle(3, 3);
    let lent: Vec<_> = (0..3).filter_map(|_| pool.check_out(|_| true)).collect();
    pool.resize(Limits {
        size: NonZeroUsize::MIN,
        min: 0,
    });
    assert_eq!(pool.check_in(lent[0]), Placed::Surplus(lent[0]));
    assert_eq!(pool.check_in(lent[1]), Placed::Surplus(lent[1]));
    assert_eq!(pool.check_in(lent[2]), Placed::Idle);
}

#[test]
fn sweeping_removes_what_it_is_told_and_keeps_the_order() {
    let mut pool = idle(5, 4);
    let removed = pool.sweep(|connection, others| (*connection % 2 == 0 && others >= 2).then_some(()));
    assert_eq!(removed, [(0, ()), (2, ())]);
    assert_eq!(pool.check_out(|_| true), Some(3));
}

#[test]
fn a_retired_pool_takes_nothing_back() {
    let mut pool = idle(2, 2);
    let lent = pool.check_out(|_| true).unwrap();
    pool.retire();
    assert_eq!(pool.check_out(|_| true), None, "and lends nothing");
    pool.enqueue(Instant::now(), 1);
    assert_eq!(pool.begin_connecting(), 0);
    assert_eq!(pool.check_in(lent), Placed::Surplus(lent));
    assert_eq!(pool.dismiss(), [1]);
}

#[test]
fn a_connection_that_is_checked_is_on_its_way_to_a_waiter() {
    let mut pool = idle(3, 2);
    assert_eq!(pool.begin_check(), None, "nobody waits");
    let lent = pool.check_out(|_| true).unwrap();
    pool.put_back(lent);
    pool.enqueue(Instant::now(), 10);
    assert_eq!(pool.begin_check(), Some(1));
    assert_eq!((pool.begin_check(), pool.begin_connecting()), (None, 0));
    pool.enqueue(Instant::now(), 11);
    assert_eq!(pool.begin_check(), Some(0));
    pool.enqueue(Instant::now(), 12);
    assert_eq!((pool.begin_check(), pool.begin_connecting()), (None, 1));
    assert_eq!(pool.connected(0), Placed::HandedOver(10, 0));
    pool.connecting_failed();
    assert_eq!(pool.begin_connecting(), 1, "for the one that failed");
}

#[test]
fn an_old_connection_ends_when_its_successor_is_there() {
    let mut pool = idle(3, 1);
    assert_eq!(pool.succeed(), Succession::Open);
    assert_eq!(pool.counts().connecting, 1);
    assert_eq!(pool.succeed(), Succession::Awaited);
    pool.successor_failed(false);
    pool.connecting_failed();
    assert_eq!(pool.succeed(), Succession::Open);
    pool.successor_arrived();
    assert_eq!(pool.connected(7), Placed::Idle);
    assert_eq!(pool.succeed(), Succession::End);
    assert_eq!(pool.succeed(), Succession::Open, "and so on with the next");
    pool.successor_failed(true);
    pool.connecting_failed();
    assert_eq!(pool.succeed(), Succession::Exchange);
}

#[test]
fn a_full_pool_exchanges_one_for_another() {
    let mut pool = idle(1, 1);
    let old = pool.check_out(|_| true).unwrap();
    assert_eq!(pool.succeed(), Succession::Exchange);
    assert_eq!(pool.begin_successor(), 0, "the old one is still there");
    pool.lost();
    assert_eq!(pool.begin_successor(), 1);
    assert_eq!(pool.connected(old + 1), Placed::Idle);
}

#[derive(Debug, Clone)]
enum Operation {
    Ask,
    AskStale,
    Return(usize),
    Lose(usize),
    ConnectOne,
    FailOne,
    GiveUp(usize),
    SweepAll,
    Resize(usize, usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => Just(Operation::Ask),
        2 => Just(Operation::AskStale),
        3 => any::<usize>().prop_map(Operation::Return),
        1 => any::<usize>().prop_map(Operation::Lose),
        3 => Just(Operation::ConnectOne),
        1 => Just(Operation::FailOne),
        1 => any::<usize>().prop_map(Operation::GiveUp),
        1 => Just(Operation::SweepAll),
        1 => (1..6usize, 0..4usize).prop_map(|(size, min)| Operation::Resize(size, min)),
    ]
}

/// What the program around the state knows on its own: who holds what, who waits, what is being opened.
#[derive(Default)]
struct World {
    lent: Vec<u32>,
    queue: Vec<(Ticket, u32)>,
    connecting: usize,
    next: u32,
    largest_limit: usize,
}

impl World {
    fn placed(&mut self, placed: &Placed<u32, u32>) {
        if let Placed::HandedOver(waiter, connection) = placed {
            let (_, first) = self.queue.remove(0);
            assert_eq!(*waiter, first, "waiters are served in order");
            self.lent.push(*connection);
        }
    }

    fn perform(&mut self, pool: &mut Pool, operation: &Operation) {
        match operation {
            Operation::Ask => match pool.check_out(|_| true) {
                Some(connection) => self.lent.push(connection),
                None => {
                    self.next += 1;
                    self.queue
                        .push((pool.enqueue(Instant::now(), self.next), self.next));
                }
            },
            Operation::AskStale => {
                if let Some(connection) = pool.check_out(|_| true) {
                    pool.put_back(connection);
                }
                self.next += 1;
                self.queue
                    .push((pool.enqueue(Instant::now(), self.next), self.next));
            }
            Operation::Return(which) if !self.lent.is_empty() => {
                let connection = self.lent.remove(which % self.lent.len());
                let placed = pool.check_in(connection);
                self.placed(&placed);
            }
            Operation::Lose(which) if !self.lent.is_empty() => {
                self.lent.remove(which % self.lent.len());
                pool.lost();
            }
            Operation::ConnectOne if self.connecting > 0 => {
                self.connecting -= 1;
                self.next += 1;
                let placed = pool.connected(self.next);
                self.placed(&placed);
            }
            Operation::FailOne if self.connecting > 0 => {
                self.connecting -= 1;
                pool.connecting_failed();
            }
            Operation::GiveUp(which) if !self.queue.is_empty() => {
                let (ticket, waiter) = self.queue.remove(which % self.queue.len());
                assert_eq!(pool.withdraw(ticket), Some(waiter));
            }
            Operation::SweepAll => drop(pool.sweep(|_, _| Some(()))),
            Operation::Resize(size, min) => {
                let size = NonZeroUsize::new(*size).unwrap();
                self.largest_limit = self.largest_limit.max(size.get());
                pool.resize(Limits {
                    size,
                    min: *min.min(&size.get()),
                });
            }
            _ => {}
        }
        while pool.begin_check().is_some() {
            self.connecting += 1;
        }
        self.connecting += pool.begin_connecting();
        self.connecting += pool.begin_minimum();
    }
}

proptest! {
    #[test]
    fn counts_agree_with_the_world(operations in prop::collection::vec(operation(), 1..200)) {
        let (mut pool, mut world) = (pool(3, 1), World { largest_limit: 3, ..World::default() });
        for operation in &operations {
            world.perform(&mut pool, operation);
            let counts = pool.counts();
            prop_assert_eq!(counts.active, world.lent.len());
            prop_assert_eq!(counts.waiting, world.queue.len());
            prop_assert_eq!(counts.connecting, world.connecting);
            prop_assert!(counts.servers() <= world.largest_limit);
            // Nobody waits while a connection is idle and nothing is on its way, or while one could be opened and is not.
            prop_assert!(counts.waiting <= counts.connecting || counts.idle == 0);
            let full = counts.servers() >= pool.limits().size.get();
            prop_assert!(counts.waiting == 0 || full || counts.connecting >= 1);
        }
        // Everybody leaves: every count that has an owner returns to zero.
        while !world.lent.is_empty() { world.perform(&mut pool, &Operation::Lose(0)); }
        while !world.queue.is_empty() { world.perform(&mut pool, &Operation::GiveUp(0)); }
        prop_assert_eq!(pool.counts().active, 0);
        prop_assert_eq!(pool.counts().waiting, 0);
    }
}
