//! What look-ups have found, and which are under way. Pure: the time is passed in, and what a look-up under way is, the
//! caller knows.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::auth::source::{Found, Freshness};

/// Strangers' names must not fill the memory.
const MOST_NEGATIVE: usize = 1000;
const MOST: usize = 100_000;
/// An answer of so short ago is as good as a new one, whatever has failed: whoever guesses passwords does not make the
/// server answer for each.
const RECENT: Duration = Duration::from_secs(1);

/// For how long an answer is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ttl {
    pub(super) positive: Duration,
    pub(super) negative: Duration,
}

/// What is known of a user.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hit<F> {
    /// The answer.
    Known(Found),
    /// Somebody is asking.
    UnderWay(F),
    /// Ask.
    Miss,
}

#[derive(Debug)]
pub(super) struct Cache<F> {
    secrets: Entries,
    /// Users who do not exist, or have no secret.
    strangers: Entries,
    under_way: HashMap<Box<str>, F>,
}

#[derive(Debug)]
struct Entries {
    entries: HashMap<Box<str>, (Found, Instant)>,
    most: usize,
}

impl<F: Clone> Cache<F> {
    pub(super) fn new() -> Self {
        let entries = |most| Entries {
            entries: HashMap::new(),
            most,
        };
        Self {
            secrets: entries(MOST),
            strangers: entries(MOST_NEGATIVE),
            under_way: HashMap::new(),
        }
    }

    pub(super) fn get(&self, user: &str, freshness: Freshness, ttl: Ttl, now: Instant) -> Hit<F> {
        let limit = |ttl: Duration| match freshness {
            Freshness::Remembered => ttl,
            Freshness::Anew => RECENT,
        };
        let known = self.secrets.get(user, limit(ttl.positive), now);
        let known = known.or_else(|| self.strangers.get(user, limit(ttl.negative), now));
        if let Some(found) = known {
            return Hit::Known(found);
        }
        let under_way = self.under_way.get(user).cloned();
        under_way.map_or(Hit::Miss, Hit::UnderWay)
    }

    /// Notes that a user is asked about.
    pub(super) fn begin(&mut self, user: &str, flight: F) {
        self.under_way.insert(user.into(), flight);
    }

    /// Notes the answer. There is none if asking has failed: what was known before is as good as it was.
    pub(super) fn end(&mut self, user: &str, found: Option<Found>, ttl: Ttl, now: Instant) {
        self.under_way.remove(user);
        let Some(found) = found else { return };
        self.secrets.entries.remove(user);
        self.strangers.entries.remove(user);
        match found {
            Found::Secret(_) => self.secrets.put(user, found, ttl.positive, now),
            _ => self.strangers.put(user, found, ttl.negative, now),
        }
    }

    /// Forgets a look-up that has not come to its end, if it is this one.
    pub(super) fn give_up(&mut self, user: &str, is_this: impl Fn(&F) -> bool) {
        if self.under_way.get(user).is_some_and(is_this) {
            self.under_way.remove(user);
        }
    }

    pub(super) fn drop_expired(&mut self, ttl: Ttl, now: Instant) {
        self.secrets.drop_expired(ttl.positive, now);
        self.strangers.drop_expired(ttl.negative, now);
    }

    /// Whether nothing is known and nobody is asked about.
    pub(super) fn is_empty(&self) -> bool {
        self.secrets.entries.is_empty() && self.strangers.entries.is_empty() && self.under_way.is_empty()
    }
}

impl Entries {
    fn get(&self, user: &str, limit: Duration, now: Instant) -> Option<Found> {
        let (found, since) = self.entries.get(user)?;
        is_fresh(*since, limit, now).then(|| found.clone())
    }

    fn put(&mut self, user: &str, found: Found, ttl: Duration, now: Instant) {
        if self.entries.len() >= self.most {
            self.drop_expired(ttl, now);
        }
        if self.entries.len() < self.most {
            self.entries.insert(user.into(), (found, now));
        }
    }

    fn drop_expired(&mut self, ttl: Duration, now: Instant) {
        self.entries
            .retain(|_, (_, since)| is_fresh(*since, ttl.max(RECENT), now));
    }
}

fn is_fresh(since: Instant, limit: Duration, now: Instant) -> bool {
    now.saturating_duration_since(since) < limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::secret::{Password, Secret};

    const TTL: Ttl = Ttl {
        positive: Duration::from_secs(30),
        negative: Duration::from_secs(2),
    };

    fn secret(text: &str) -> Found {
        Found::Secret(Secret::Plain(Password::new(text.as_bytes())))
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn answers_are_good_for_their_time_and_failures_are_forgotten() {
        let (mut cache, start) = (Cache::<u8>::new(), Instant::now());
        let get = |cache: &Cache<u8>, user: &str, after: u64| {
            cache.get(user, Freshness::Remembered, TTL, start + seconds(after))
        };
        assert_eq!(get(&cache, "a", 0), Hit::Miss);
        cache.begin("a", 7);
        assert_eq!(get(&cache, "a", 0), Hit::UnderWay(7));
        assert_eq!(get(&cache, "b", 0), Hit::Miss);
        cache.end("a", Some(secret("x")), TTL, start);
        cache.end("b", Some(Found::Unknown), TTL, start);
        assert_eq!(get(&cache, "a", 29), Hit::Known(secret("x")));
        assert_eq!(get(&cache, "a", 30), Hit::Miss);
        assert_eq!(get(&cache, "b", 1), Hit::Known(Found::Unknown));
        assert_eq!(get(&cache, "b", 2), Hit::Miss);
        cache.begin("a", 8);
        cache.end("a", None, TTL, start + seconds(5));
        assert_eq!(
            get(&cache, "a", 6),
            Hit::Known(secret("x")),
            "a failure takes nothing away"
        );
        cache.begin("c", 9);
        cache.end("c", None, TTL, start);
        assert_eq!(get(&cache, "c", 0), Hit::Miss, "and leaves nothing");
    }

    #[test]
    fn after_a_failed_log_in_only_the_answer_of_a_moment_ago_counts() {
        let (mut cache, start) = (Cache::<u8>::new(), Instant::now());
        let anew = |cache: &Cache<u8>, after: Duration| cache.get("a", Freshness::Anew, TTL, start + after);
        cache.end("a", Some(secret("old")), TTL, start);
        assert_eq!(
            anew(&cache, Duration::from_millis(999)),
            Hit::Known(secret("old"))
        );
        assert_eq!(anew(&cache, seconds(1)), Hit::Miss);
        cache.begin("a", 1);
        assert_eq!(anew(&cache, seconds(1)), Hit::UnderWay(1));
        cache.end("a", Some(secret("new")), TTL, start + seconds(1));
        assert_eq!(anew(&cache, seconds(1)), Hit::Known(secret("new")));
    }

    #[test]
    fn a_user_is_in_one_place() {
        let (mut cache, start) = (Cache::<u8>::new(), Instant::now());
        let get = |cache: &Cache<u8>| cache.get("a", Freshness::Remembered, TTL, start);
        cache.end("a", Some(secret("x")), TTL, start);
        cache.end("a", Some(Found::WithoutSecret), TTL, start);
        assert_eq!(get(&cache), Hit::Known(Found::WithoutSecret));
        cache.end("a", Some(secret("x")), TTL, start);
        assert_eq!(get(&cache), Hit::Known(secret("x")));
        cache.drop_expired(TTL, start + seconds(30));
        assert!(cache.is_empty());
    }

    #[test]
    fn strangers_take_no_room_from_users_and_not_much_at_all() {
        let (mut cache, start) = (Cache::<u8>::new(), Instant::now());
        for number in 0..MOST_NEGATIVE * 3 {
            cache.end(&number.to_string(), Some(Found::Unknown), TTL, start);
        }
        cache.end("a", Some(secret("x")), TTL, start);
        assert_eq!(cache.strangers.entries.len(), MOST_NEGATIVE);
        let get =
            |cache: &Cache<u8>, user: &str| cache.get(user, Freshness::Remembered, TTL, start + seconds(2));
        assert_eq!(get(&cache, "a"), Hit::Known(secret("x")));
        cache.end("late", Some(Found::Unknown), TTL, start + seconds(2));
        assert_eq!(cache.strangers.entries.len(), 1, "those from before have expired");
        assert_eq!(get(&cache, "late"), Hit::Known(Found::Unknown));
    }

    #[test]
    fn nothing_is_remembered_where_the_time_is_zero_but_for_a_log_in_that_fails() {
        let none = Ttl {
            positive: Duration::ZERO,
            negative: Duration::ZERO,
        };
        let (mut cache, start) = (Cache::<u8>::new(), Instant::now());
        cache.end("a", Some(secret("x")), none, start);
        assert_eq!(cache.get("a", Freshness::Remembered, none, start), Hit::Miss);
        assert_eq!(
            cache.get("a", Freshness::Anew, none, start),
            Hit::Known(secret("x"))
        );
    }
}
