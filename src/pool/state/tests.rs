//! The pool's accounting, by example and under random operations.

use proptest::prelude::*;

use super::*;

type Pool = State<u32, u32>;

fn pool(size: usize, min: usize) -> Pool {
    State::new(limits(size, min))
}

fn limits(size: usize, min: usize) -> Limits {
    Limits {
        size: NonZeroUsize::new(size).unwrap(),
        min,
        reserve: 0,
        reserve_after: Duration::from_secs(5),
    }
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
    assert_eq!(pool.begin_connecting(now), 0);
    pool.enqueue(now, 1);
    assert_eq!(pool.begin_connecting(now), 1);
    assert_eq!(pool.begin_connecting(now), 0);
    for waiter in 2..10 {
        pool.enqueue(now, waiter);
    }
    assert_eq!(pool.begin_connecting(now), 2);
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
    let now = Instant::now();
    let mut pool = pool(5, 2);
    assert_eq!(pool.begin_connecting(now), 0);
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
    let now = Instant::now();
    let mut pool = pool(5, 0);
    let ticket = pool.enqueue(now, 1);
    assert_eq!(pool.begin_connecting(now), 1);
    assert!(pool.wants_connecting());
    assert_eq!(pool.withdraw(ticket), Some(1));
    assert_eq!(pool.withdraw(ticket), None);
    assert!(!pool.wants_connecting());
}

/// The primary is away for long. Who has come since it was looked for last is not refused with the others.
#[test]
fn those_who_came_too_late_for_a_search_wait_for_the_next() {
    let (mut pool, start) = (pool(1, 0), Instant::now());
    for waiter in 0..3 {
        pool.enqueue(start + Duration::from_secs(waiter.into()), waiter);
    }
    assert_eq!(pool.dismiss_until(start + Duration::from_secs(1)), [0, 1]);
    assert_eq!(
        pool.dismiss_until(start + Duration::from_secs(1)),
        Vec::<u32>::new()
    );
    assert_eq!(pool.counts().waiting, 1);
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
    pool.resize(limits(1, 0));
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
    let now = Instant::now();
    pool.enqueue(now, 1);
    assert_eq!(pool.begin_connecting(now), 0);
    assert_eq!(pool.check_in(lent), Placed::Surplus(lent));
    assert_eq!(pool.dismiss(), [1]);
}

#[test]
fn the_reserve_is_for_those_who_have_waited_long_and_closed_when_nobody_waits() {
    let start = Instant::now();
    let mut pool = State::<u32, u32>::new(Limits {
        reserve: 2,
        ..limits(1, 0)
    });
    pool.enqueue(start, 1);
    assert_eq!(pool.begin_connecting(start), 1);
    assert_eq!(pool.connected(7), Placed::HandedOver(1, 7));
    pool.enqueue(start, 2);
    pool.enqueue(start + Duration::from_secs(1), 3);
    assert_eq!(pool.begin_connecting(start + Duration::from_secs(4)), 0);
    assert_eq!(
        pool.begin_connecting(start + Duration::from_secs(5)),
        1,
        "for one of two"
    );
    assert_eq!(pool.begin_connecting(start + Duration::from_secs(5)), 0);
    assert_eq!(pool.connected(8), Placed::HandedOver(2, 8));
    assert_eq!(pool.begin_connecting(start + Duration::from_secs(6)), 1);
    assert!(pool.wants_connecting(), "a failed attempt is made again");
    assert_eq!(pool.check_in(7), Placed::HandedOver(3, 7));
    assert_eq!(pool.connected(9), Placed::Surplus(9));
    assert_eq!(pool.check_in(8), Placed::Surplus(8));
    assert_eq!(pool.check_in(7), Placed::Idle);
}

#[test]
fn what_was_used_least_recently_makes_room() {
    let mut pool = idle(5, 3);
    assert_eq!(pool.least_recently_used(), Some(&0));
    assert_eq!(pool.evict(), Some(0));
    assert_eq!(pool.counts().servers(), 2);
}

#[test]
fn a_connection_that_is_checked_is_on_its_way_to_a_waiter() {
    let now = Instant::now();
    let mut pool = idle(3, 2);
    assert_eq!(pool.begin_check(), None, "nobody waits");
    let lent = pool.check_out(|_| true).unwrap();
    pool.put_back(lent);
    pool.enqueue(Instant::now(), 10);
    assert_eq!(pool.begin_check(), Some(1));
    assert_eq!((pool.begin_check(), pool.begin_connecting(now)), (None, 0));
    pool.enqueue(Instant::now(), 11);
    assert_eq!(pool.begin_check(), Some(0));
    pool.enqueue(Instant::now(), 12);
    assert_eq!((pool.begin_check(), pool.begin_connecting(now)), (None, 1));
    pool.end_check();
    assert_eq!(pool.connected(0), Placed::HandedOver(10, 0));
    pool.end_check();
    pool.connecting_failed();
    assert_eq!(pool.begin_connecting(now), 1, "for the one that failed");
}

/// A client whose idle connection had to prove itself waited for a connection attempt that hung, because one was under
/// way for nobody in particular.
#[test]
fn a_check_does_not_wait_for_an_attempt() {
    let now = Instant::now();
    let mut pool = idle(3, 1);
    assert_eq!(pool.succeed(), Succession::Open);
    let lent = pool.check_out(|_| true).unwrap();
    pool.put_back(lent);
    pool.enqueue(now, 10);
    assert_eq!(pool.begin_check(), Some(lent));
    assert_eq!((pool.begin_check(), pool.begin_connecting(now)), (None, 0));
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
    Evict,
    Later(u64),
    Resize(usize, usize, usize),
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
        1 => Just(Operation::Evict),
        1 => (0..4u64).prop_map(Operation::Later),
        1 => (1..6usize, 0..4usize, 0..3usize)
            .prop_map(|(size, min, reserve)| Operation::Resize(size, min, reserve)),
    ]
}

/// What the program around the state knows on its own: who holds what, who waits, what is being opened.
struct World {
    now: Instant,
    lent: Vec<u32>,
    queue: Vec<(Ticket, u32, Instant)>,
    connecting: usize,
    next: u32,
    largest_limit: usize,
}

impl World {
    fn new(largest_limit: usize) -> Self {
        Self {
            now: Instant::now(),
            lent: Vec::new(),
            queue: Vec::new(),
            connecting: 0,
            next: 0,
            largest_limit,
        }
    }

    fn placed(&mut self, placed: &Placed<u32, u32>) {
        if let Placed::HandedOver(waiter, connection) = placed {
            let (_, first, _) = self.queue.remove(0);
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
                    let ticket = pool.enqueue(self.now, self.next);
                    self.queue.push((ticket, self.next, self.now));
                }
            },
            Operation::AskStale => {
                if let Some(connection) = pool.check_out(|_| true) {
                    pool.put_back(connection);
                }
                self.next += 1;
                let ticket = pool.enqueue(self.now, self.next);
                self.queue.push((ticket, self.next, self.now));
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
                pool.end_check();
                self.next += 1;
                let placed = pool.connected(self.next);
                self.placed(&placed);
            }
            Operation::FailOne if self.connecting > 0 => {
                self.connecting -= 1;
                pool.end_check();
                pool.connecting_failed();
            }
            Operation::GiveUp(which) if !self.queue.is_empty() => {
                let (ticket, waiter, _) = self.queue.remove(which % self.queue.len());
                assert_eq!(pool.withdraw(ticket), Some(waiter));
            }
            Operation::SweepAll => drop(pool.sweep(|_, _| Some(()))),
            Operation::Evict => drop(pool.evict()),
            Operation::Later(seconds) => self.now += Duration::from_secs(*seconds),
            Operation::Resize(size, min, reserve) => {
                self.largest_limit = self.largest_limit.max(size + reserve);
                pool.resize(Limits {
                    reserve: *reserve,
                    ..limits(*size, *min.min(size))
                });
            }
            _ => {}
        }
        self.begin(pool);
    }

    /// What the program does after every change.
    fn begin(&mut self, pool: &mut Pool) {
        while pool.begin_check().is_some() {
            self.connecting += 1;
        }
        let before = pool.counts();
        let begun = pool.begin_connecting(self.now);
        let size = pool.limits().size.get();
        let beyond = (before.servers() + begun).saturating_sub(before.servers().max(size));
        let after = pool.limits().reserve_after;
        let long = self
            .queue
            .iter()
            .filter(|(_, _, since)| self.now - *since >= after);
        assert!(
            beyond <= long.count(),
            "the reserve is for those who have waited long"
        );
        self.connecting += begun;
        self.connecting += pool.begin_minimum();
    }
}

proptest! {
    #[test]
    fn counts_agree_with_the_world(operations in prop::collection::vec(operation(), 1..200)) {
        let (mut pool, mut world) = (pool(3, 1), World::new(3));
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

#[test]
fn a_paused_pool_keeps_nothing_and_a_suspended_one_lends_nothing() {
    let now = Instant::now();
    let mut state = pool(2, 0);
    state.enqueue(now, 7);
    assert_eq!(state.begin_connecting(now), 1);
    assert_eq!(state.connected(1), Placed::HandedOver(7, 1));
    state.set_service(Service::Suspended);
    assert_eq!(state.check_in(1), Placed::Idle);
    assert_eq!(state.check_out(|_| true), None);
    state.enqueue(now, 8);
    assert_eq!(state.begin_connecting(now), 0);
    assert!(state.wake_rested(|_| true).is_empty());
    state.set_service(Service::Open);
    assert_eq!(state.wake_rested(|_| true), [(8, 1)]);
    state.set_service(Service::Paused);
    assert!(!state.is_empty_of_servers());
    assert_eq!(state.check_in(1), Placed::Surplus(1));
    assert!(state.is_empty_of_servers());
    state.enqueue(now, 9);
    assert_eq!(state.begin_connecting(now), 0);
    state.retire();
    state.set_service(Service::Open);
    assert!(state.is_retired(), "nobody brings it back");
}
