//! Who has failed to log in too often: what is to be delayed, and what is refused for a while.
//!
//! Two counts, of a user's failures from one address and of all failures from that address. Users are known by
//! their names alone, so that one who does not exist is treated like one who does. The memory is bounded: where
//! there is no room, the record that matters least makes way.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    time::{Duration, Instant},
};

use crate::config::FailureLimits;

/// Failures are counted for this long; then the count begins anew.
const WINDOW: Duration = Duration::from_secs(60);
/// The answer to the second failure is held back for this long, to each further one for twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// An address may fail so many times as often as one user from it.
const ADDRESS_FACTOR: u32 = 10;
/// Records that a table has room for: sets, and places in each.
const SETS: usize = 1024;
const WAYS: usize = 16;

/// Who tries to log in, and from where.
#[derive(Debug, Clone, Copy)]
pub struct Claimant<'a> {
    /// The peer's address.
    pub address: IpAddr,
    /// The user of the startup packet.
    pub user: &'a str,
}

/// Whom a block is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One user from one address.
    User,
    /// Everybody from one address.
    Address,
}

/// An attempt that is refused unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked {
    /// Who else is refused.
    pub scope: Scope,
    /// For how long still.
    pub remaining: Duration,
}

/// What a failure comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Penalty {
    /// How long the answer is held back.
    pub delay: Duration,
    /// The block that begins with it.
    pub begins: Option<Scope>,
}

/// The failures of late.
#[derive(Debug)]
pub struct Throttle {
    names: RandomState,
    users: Records<(Source, u64)>,
    addresses: Records<Source>,
}

/// What counts as one address: of IPv6, the network that one customer or host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// An address.
    V4(Ipv4Addr),
    /// The first half of one.
    V6(u64),
}

/// Records in sets by the hash of their keys, so that making room looks at one set only. The hash has a key of its
/// own: nobody outside can tell which addresses share a set.
#[derive(Debug)]
struct Records<K> {
    hasher: RandomState,
    sets: Vec<Vec<(K, Record)>>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    begun: Instant,
    failures: u32,
    blocked_until: Option<Instant>,
}

/// How many failures are too many for this address; `None` where none are.
fn limit(who: Claimant<'_>, limits: &FailureLimits) -> Option<NonZeroU32> {
    let is_trusted = limits.trusted.iter().any(|network| network.contains(who.address));
    limits.max_failures.filter(|_| !is_trusted)
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            names: RandomState::new(),
            users: Records::new(),
            addresses: Records::new(),
        }
    }
}

impl Throttle {
    /// Whether an attempt may go on: to be asked before anything is looked up, and again before an answer is
    /// judged, so that attempts side by side are no way around it.
    ///
    /// # Errors
    /// There were too many failures.
    pub fn check(&self, who: Claimant<'_>, limits: &FailureLimits, now: Instant) -> Result<(), Blocked> {
        if limit(who, limits).is_none() {
            return Ok(());
        }
        let source = Source::of(who.address);
        let blocked = |scope, remaining| Blocked { scope, remaining };
        let address = self.addresses.blocked_for(&source, now);
        let user = self.users.blocked_for(&self.user_key(source, who), now);
        let longest = address
            .map(|remaining| blocked(Scope::Address, remaining))
            .into_iter()
            .chain(user.map(|remaining| blocked(Scope::User, remaining)))
            .max_by_key(|blocked| blocked.remaining);
        longest.map_or(Ok(()), Err)
    }

    /// Counts a failure.
    pub fn failed(&mut self, who: Claimant<'_>, limits: &FailureLimits, now: Instant) -> Penalty {
        let Some(max) = limit(who, limits) else {
            return Penalty::default();
        };
        let source = Source::of(who.address);
        let key = self.user_key(source, who);
        let (failures, user_begins) = self.users.count(key, max, limits.block, now);
        let most = address_limit(max);
        let (_, address_begins) = self.addresses.count(source, most, limits.block, now);
        Penalty {
            delay: delay(failures),
            begins: match (address_begins, user_begins) {
                (true, _) => Some(Scope::Address),
                (false, true) => Some(Scope::User),
                (false, false) => None,
            },
        }
    }

    /// Takes back a failure that was none.
    pub fn pardon(&mut self, who: Claimant<'_>, limits: &FailureLimits) {
        let Some(max) = limit(who, limits) else { return };
        let source = Source::of(who.address);
        let key = self.user_key(source, who);
        self.users.discount(&key, max);
        self.addresses.discount(&source, address_limit(max));
    }

    /// Forgets the user's failures from this address. The address keeps its own: whoever guesses may have one
    /// password.
    pub fn succeeded(&mut self, who: Claimant<'_>) {
        let key = self.user_key(Source::of(who.address), who);
        self.users.forget(&key);
    }

    /// A name is kept as its hash: names of startup packets are long if somebody wants that.
    fn user_key(&self, source: Source, who: Claimant<'_>) -> (Source, u64) {
        (source, self.names.hash_one(who.user))
    }
}

fn address_limit(max: NonZeroU32) -> NonZeroU32 {
    max.saturating_mul(NonZeroU32::new(ADDRESS_FACTOR).unwrap_or(max))
}

fn delay(failures: u32) -> Duration {
    match failures.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => 2_u32
            .checked_pow(doublings)
            .map_or(LONGEST_DELAY, |factor| FIRST_DELAY.saturating_mul(factor))
            .min(LONGEST_DELAY),
    }
}

impl Source {
    /// Of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

impl<K: Hash + Eq> Records<K> {
    fn new() -> Self {
        let sets = std::iter::repeat_with(Vec::new).take(SETS).collect();
        let hasher = RandomState::new();
        Self { hasher, sets }
    }

    fn index(&self, key: &K) -> usize {
        usize::try_from(self.hasher.hash_one(key) % SETS as u64).unwrap_or(0)
    }

    fn blocked_for(&self, key: &K, now: Instant) -> Option<Duration> {
        let set = self.sets.get(self.index(key))?;
        let (_, record) = set.iter().find(|(other, _)| other == key)?;
        record.blocked_for(now)
    }

    /// Counts one failure more: how many there are, and whether a block begins with this one.
    fn count(&mut self, key: K, max: NonZeroU32, block: Duration, now: Instant) -> (u32, bool) {
        let index = self.index(&key);
        let Some(set) = self.sets.get_mut(index) else {
            return (1, false);
        };
        let position = set.iter().position(|(other, _)| *other == key);
        let position = position.unwrap_or_else(|| {
            make_room(set, now);
            set.push((key, Record::new(now)));
            set.len() - 1
        });
        match set.get_mut(position) {
            Some((_, record)) => record.count(max, block, now),
            None => (1, false),
        }
    }

    /// Counts one failure less.
    fn discount(&mut self, key: &K, max: NonZeroU32) {
        let index = self.index(key);
        let mut entries = self.sets.get_mut(index).into_iter().flatten();
        if let Some((_, record)) = entries.find(|(other, _)| other == key) {
            record.discount(max);
        }
    }

    fn forget(&mut self, key: &K) {
        let index = self.index(key);
        if let Some(set) = self.sets.get_mut(index) {
            set.retain(|(other, _)| other != key);
        }
    }
}

fn make_room<K>(set: &mut Vec<(K, Record)>, now: Instant) {
    if set.len() < WAYS {
        return;
    }
    set.retain(|(_, record)| !record.is_over(now));
    if set.len() < WAYS {
        return;
    }
    let matters = |(_, record): &&(K, Record)| (record.blocked_until, record.failures, record.begun);
    let least = set
        .iter()
        .enumerate()
        .min_by_key(|(_, entry)| matters(entry))
        .map(|(index, _)| index);
    if let Some(index) = least {
        set.swap_remove(index);
    }
}

impl Record {
    fn new(now: Instant) -> Self {
        Self {
            begun: now,
            failures: 0,
            blocked_until: None,
        }
    }

    fn blocked_for(&self, now: Instant) -> Option<Duration> {
        self.blocked_until?
            .checked_duration_since(now)
            .filter(|remaining| !remaining.is_zero())
    }

    fn is_over(&self, now: Instant) -> bool {
        match self.blocked_until {
            Some(end) => end <= now,
            None => now.saturating_duration_since(self.begun) >= WINDOW,
        }
    }

    fn count(&mut self, max: NonZeroU32, block: Duration, now: Instant) -> (u32, bool) {
        if self.is_over(now) {
            *self = Self::new(now);
        }
        self.failures = self.failures.saturating_add(1);
        let begins = self.blocked_until.is_none() && self.failures >= max.get() && !block.is_zero();
        if begins {
            self.blocked_until = Some(now + block);
        }
        (self.failures, begins)
    }

    fn discount(&mut self, max: NonZeroU32) {
        self.failures = self.failures.saturating_sub(1);
        if self.failures < max.get() {
            self.blocked_until = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const BLOCK: Duration = Duration::from_secs(30);

    fn limits(max: u32) -> FailureLimits {
        FailureLimits {
            max_failures: NonZeroU32::new(max),
            block: BLOCK,
            trusted: Vec::new(),
        }
    }

    fn who(address: IpAddr, user: &str) -> Claimant<'_> {
        Claimant { address, user }
    }

    #[test]
    fn answers_take_longer_and_then_there_are_none() {
        let (mut throttle, limits, now) = (Throttle::default(), limits(10), Instant::now());
        let app = who(HERE, "app");
        let penalties: Vec<_> = (0..10).map(|_| throttle.failed(app, &limits, now)).collect();
        let delays: Vec<_> = penalties
            .iter()
            .map(|penalty| penalty.delay.as_millis())
            .collect();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        let begins: Vec<_> = penalties.iter().filter_map(|penalty| penalty.begins).collect();
        assert_eq!(begins, [Scope::User], "it begins once");
        let error = throttle.check(app, &limits, now + BLOCK / 3).unwrap_err();
        let remaining = BLOCK - BLOCK / 3;
        let expected = Blocked {
            scope: Scope::User,
            remaining,
        };
        assert_eq!(error, expected);
        for other in [who(HERE, "other"), who(ELSEWHERE, "app")] {
            assert_eq!(throttle.check(other, &limits, now), Ok(()), "{other:?}");
        }
        assert_eq!(throttle.check(app, &limits, now + BLOCK), Ok(()), "it ends");
        let after = throttle.failed(app, &limits, now + BLOCK);
        assert_eq!(after, Penalty::default(), "and the count begins anew");
    }

    #[test]
    fn an_address_is_refused_after_many_users() {
        let (mut throttle, limits, now) = (Throttle::default(), limits(3), Instant::now());
        let names: Vec<_> = (0..30).map(|number| number.to_string()).collect();
        for (name, count) in names.iter().zip(1..) {
            let begins = throttle.failed(who(HERE, name), &limits, now).begins;
            assert_eq!(begins, (count == 30).then_some(Scope::Address));
        }
        let error = throttle.check(who(HERE, "fresh"), &limits, now).unwrap_err();
        assert_eq!((error.scope, error.remaining), (Scope::Address, BLOCK));
        throttle.succeeded(who(HERE, "0"));
        assert!(throttle.check(who(HERE, "0"), &limits, now).is_err());
        assert_eq!(throttle.check(who(ELSEWHERE, "0"), &limits, now), Ok(()));
    }

    #[test]
    fn one_user_alone_does_not_cost_the_address() {
        let (mut throttle, limits, mut now) = (Throttle::default(), limits(10), Instant::now());
        // As an application does that has the wrong password and asks all the time.
        for _ in 0..10_000 {
            if throttle.check(who(HERE, "app"), &limits, now).is_ok() {
                throttle.failed(who(HERE, "app"), &limits, now);
            }
            assert_eq!(throttle.check(who(HERE, "other"), &limits, now), Ok(()));
            now += Duration::from_millis(50);
        }
    }

    #[test]
    fn a_success_forgets_and_so_does_time() {
        let (mut throttle, limits, now) = (Throttle::default(), limits(3), Instant::now());
        let app = who(HERE, "app");
        for _ in 0..100 {
            for _ in 0..2 {
                throttle.failed(app, &limits, now);
            }
            throttle.succeeded(app);
            if throttle.check(app, &limits, now).is_err() {
                break;
            }
        }
        let error = throttle.check(app, &limits, now).unwrap_err();
        assert_eq!(error.scope, Scope::Address);
        let (mut throttle, mut now) = (Throttle::default(), now);
        for _ in 0..100 {
            assert_eq!(throttle.failed(app, &limits, now).delay, Duration::ZERO);
            now += WINDOW;
        }
        assert_eq!(throttle.check(app, &limits, now), Ok(()));
    }

    #[test]
    fn a_failure_that_is_taken_back_leaves_nothing() {
        let (mut throttle, limits, now) = (Throttle::default(), limits(2), Instant::now());
        let app = who(HERE, "app");
        for _ in 0..100 {
            throttle.failed(app, &limits, now);
            throttle.pardon(app, &limits);
        }
        assert_eq!(throttle.failed(app, &limits, now).begins, None);
        // The block that begins with it ends with it; that of others' failures does not.
        assert_eq!(throttle.failed(app, &limits, now).begins, Some(Scope::User));
        throttle.pardon(app, &limits);
        assert_eq!(throttle.check(app, &limits, now), Ok(()));
        for _ in 0..2 {
            throttle.failed(app, &limits, now);
        }
        throttle.pardon(app, &limits);
        assert!(throttle.check(app, &limits, now).is_err());
        throttle.pardon(who(ELSEWHERE, "nobody"), &limits);
    }

    #[test]
    fn nobody_is_slowed_without_a_limit_or_from_a_trusted_network() {
        let now = Instant::now();
        let trusting = FailureLimits {
            trusted: vec!["192.0.2.0/24".parse().unwrap()],
            ..limits(1)
        };
        for limits in [limits(0), trusting] {
            let mut throttle = Throttle::default();
            for _ in 0..100 {
                let penalty = throttle.failed(who(HERE, "app"), &limits, now);
                assert_eq!(penalty, Penalty::default());
            }
            assert_eq!(throttle.check(who(HERE, "app"), &limits, now), Ok(()));
        }
    }

    #[test]
    fn a_block_outlives_a_flood_of_other_addresses() {
        let (mut throttle, limits, now) = (Throttle::default(), limits(2), Instant::now());
        for _ in 0..2 {
            throttle.failed(who(HERE, "app"), &limits, now);
        }
        for number in 0..200_000 {
            let address = IpAddr::V4(Ipv4Addr::from_bits(number));
            throttle.failed(who(address, "app"), &limits, now);
        }
        assert!(throttle.check(who(HERE, "app"), &limits, now).is_err());
        for records in [throttle.users.len(), throttle.addresses.len()] {
            assert!(records <= SETS * WAYS, "{records}");
        }
    }

    #[test]
    fn what_one_host_can_choose_counts_as_one_address() {
        let host = |low: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, low, 0, 0, 1));
        assert_eq!(Source::of(host(1)), Source::of(host(2)));
        let neighbour = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1));
        assert_ne!(Source::of(host(1)), Source::of(neighbour));
        let mapped = IpAddr::V6(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert_eq!(Source::of(mapped), Source::of(HERE));
    }

    impl<K> Records<K> {
        fn len(&self) -> usize {
            self.sets.iter().map(Vec::len).sum()
        }
    }

    proptest! {
        /// Whoever never fails is never refused but with its address; every block ends; nobody is blocked whose
        /// failures are fewer than the limit.
        #[test]
        fn only_failures_are_held_against_anyone(
            steps in prop::collection::vec((0_u32..4, 0_u8..4, any::<bool>(), 0_u64..20), 1..300),
            max in 1_u32..5,
        ) {
            let (mut throttle, limits, start) = (Throttle::default(), limits(max), Instant::now());
            let mut now = start;
            let mut failures = std::collections::HashMap::new();
            for (address, user, fails, seconds) in steps {
                now += Duration::from_secs(seconds);
                let name = user.to_string();
                let claimant = who(IpAddr::V4(Ipv4Addr::from_bits(address)), &name);
                match throttle.check(claimant, &limits, now) {
                    Err(Blocked { scope, remaining }) => {
                        prop_assert!(remaining <= BLOCK);
                        if scope == Scope::User {
                            prop_assert!(failures.get(&(address, user)) >= Some(&max));
                        }
                        let later = now + BLOCK;
                        prop_assert!(throttle.check(claimant, &limits, later).is_ok());
                    }
                    Ok(()) if fails => {
                        *failures.entry((address, user)).or_insert(0) += 1;
                        throttle.failed(claimant, &limits, now);
                    }
                    Ok(()) => throttle.succeeded(claimant),
                }
                let never = who(ELSEWHERE, "never");
                prop_assert!(throttle.check(never, &limits, now).is_ok());
            }
        }
    }
}
