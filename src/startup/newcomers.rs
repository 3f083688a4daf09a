//! Connections that have not logged in: how many there may be, and which of them makes way for a new one.
//!
//! One that we wait for longest is worth least. One that waits for us is left alone, however long it takes. But no source
//! keeps others out by having most of the places: one of its own makes way whatever it does.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus::IntGauge;
use tokio_util::sync::CancellationToken;

use crate::{auth::throttle::Source, net::PeerAddress};

/// How long a connection that has said nothing, and one that has said something, is waited for when others come.
const SILENT: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(5);
/// How many more may say what they want when there is no place: a cancel request is carried out all the same, and
/// others are refused in words that they can read.
const OVERFLOW: usize = 64;
/// Whatever happens on the network, so many processes of this machine have places: the admin's among them.
const LOCAL: usize = 8;
/// This part of all places is what a source has to have before one that has few is let in at its cost.
const LARGE_PART: usize = 4;
/// How often it is logged that there are too many.
const REMINDER: Duration = Duration::from_secs(60);
/// Instead of a time: it waits for us.
const BUSY: u64 = u64::MAX;

/// The connections that have not logged in.
#[derive(Debug)]
pub(super) struct Newcomers {
    limit: AtomicUsize,
    start: Instant,
    state: Mutex<State>,
    gauge: IntGauge,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    admitted: BTreeMap<u64, Arc<Presence>>,
    /// How many of them come from where; `None` is this machine.
    sources: BTreeMap<Option<Source>, usize>,
    overflow: usize,
    reminded: Option<Instant>,
}

/// What is known of a connection.
#[derive(Debug)]
struct Presence {
    /// `None` on a unix socket.
    source: Option<Source>,
    /// Since when it is waited for, in milliseconds.
    awaited: AtomicU64,
    has_spoken: AtomicBool,
    leave: CancellationToken,
}

/// A connection's place; free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    newcomers: Arc<Newcomers>,
    presence: Arc<Presence>,
    /// `None` for one that came when there was no place.
    number: Option<u64>,
}

impl Newcomers {
    /// So many places, all free. `gauge` shows how many are not.
    pub(super) fn new(limit: usize, gauge: IntGauge) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            start: Instant::now(),
            state: Mutex::default(),
            gauge,
        })
    }

    /// How many there are.
    pub(super) fn present(&self) -> usize {
        usize::try_from(self.gauge.get()).unwrap_or(0)
    }

    /// The limit in force.
    pub(super) fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many have no place as a client yet.
    pub(super) fn count(&self) -> usize {
        usize::try_from(self.gauge.get()).unwrap_or(0)
    }

    /// Sets a new limit; whoever has a place keeps it.
    pub(super) fn resize(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Lets a connection in, perhaps in place of another. `None` when there are too many even of those that have
    /// no place.
    pub(super) fn enter(self: &Arc<Self>, peer: PeerAddress, now: Instant) -> Option<Place> {
        let source = match peer {
            PeerAddress::Ip(address, _) => Some(Source::of(address)),
            PeerAddress::Local => None,
        };
        let presence = Arc::new(Presence {
            source,
            awaited: AtomicU64::new(self.milliseconds(now)),
            has_spoken: AtomicBool::new(false),
            leave: CancellationToken::new(),
        });
        let mut state = self.lock();
        let number = self.admit(&mut state, &presence, now);
        if number.is_none() {
            if state.overflow >= OVERFLOW {
                return None;
            }
            state.overflow += 1;
        }
        drop(state);
        self.gauge.inc();
        Some(Place {
            newcomers: self.clone(),
            presence,
            number,
        })
    }

    fn admit(&self, state: &mut State, presence: &Arc<Presence>, now: Instant) -> Option<u64> {
        let limit = self.limit();
        let is_reserved = presence.source.is_none() && state.count(None) < LOCAL;
        if state.admitted.len() >= limit && !is_reserved {
            remind(state, limit, now);
            let greedy = state.greedy(presence.source, limit);
            let number = match greedy {
                Some(source) => state.least_of(source),
                None => self.least(state, now),
            };
            if let Some(presence) = state.remove(number?) {
                presence.leave.cancel();
            }
        }
        Some(state.insert(presence.clone()))
    }

    /// The connection that has been waited for longest among those that have said nothing, otherwise among the others.
    fn least(&self, state: &State, now: Instant) -> Option<u64> {
        let spares_local = state.count(None) <= LOCAL;
        let now = self.milliseconds(now);
        let overdue = |presence: &Presence, patience: Duration| {
            let awaited = presence.awaited.load(Ordering::Relaxed);
            awaited != BUSY && u128::from(now.saturating_sub(awaited)) >= patience.as_millis()
        };
        let longest = |spoken: bool, patience: Duration| {
            let candidates = state.admitted.iter().filter(|(_, presence)| {
                let is_spared = presence.source.is_none() && spares_local;
                !is_spared
                    && presence.has_spoken.load(Ordering::Relaxed) == spoken
                    && overdue(presence, patience)
            });
            let number = |(number, _): (&u64, _)| *number;
            if spoken {
                let awaited = |(_, presence): &(_, &Arc<Presence>)| presence.awaited.load(Ordering::Relaxed);
                candidates.min_by_key(awaited).map(number)
            } else {
                // They are in the order in which they came.
                candidates.map(number).next()
            }
        };
        longest(false, SILENT).or_else(|| longest(true, SLOW))
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(BUSY - 1)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, presence: Arc<Presence>) -> u64 {
        let number = self.next;
        self.next += 1;
        *self.sources.entry(presence.source).or_default() += 1;
        self.admitted.insert(number, presence);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Presence>> {
        let presence = self.admitted.remove(&number)?;
        if let Some(count) = self.sources.get_mut(&presence.source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&presence.source);
            }
        }
        Some(presence)
    }

    fn count(&self, source: Option<Source>) -> usize {
        self.sources.get(&source).copied().unwrap_or_default()
    }

    /// The source that has most, if that is a large part of all and much more than `newcomer` would have.
    fn greedy(&self, newcomer: Option<Source>, limit: usize) -> Option<Option<Source>> {
        let (source, count) = self.sources.iter().max_by_key(|(_, count)| **count)?;
        let enough = 2 * (self.count(newcomer) + 1);
        let is_spared = source.is_none() && *count <= LOCAL;
        (*count > enough && *count >= limit / LARGE_PART && !is_spared).then_some(*source)
    }

    /// Of one source: a silent one, otherwise the one waited for longest, otherwise any.
    fn least_of(&self, source: Option<Source>) -> Option<u64> {
        let own = self
            .admitted
            .iter()
            .filter(|(_, presence)| presence.source == source);
        let worth = |(_, presence): &(_, &Arc<Presence>)| {
            let awaited = presence.awaited.load(Ordering::Relaxed);
            // Nothing is less than one that has failed.
            (
                awaited == BUSY,
                awaited != 0 && presence.has_spoken.load(Ordering::Relaxed),
                awaited,
            )
        };
        own.min_by_key(worth).map(|(number, _)| *number)
    }
}

fn remind(state: &mut State, limit: usize, now: Instant) {
    let is_due = state
        .reminded
        .is_none_or(|last| now.saturating_duration_since(last) >= REMINDER);
    if is_due {
        state.reminded = Some(now);
        tracing::warn!(limit, "max_unauthenticated_clients is reached");
    }
}

impl Place {
    /// Whether there was a place. Asks once more if there was none.
    pub(super) fn is_admitted(&mut self, now: Instant) -> bool {
        if self.number.is_some() {
            return true;
        }
        let mut state = self.newcomers.lock();
        self.number = self.newcomers.admit(&mut state, &self.presence, now);
        if self.number.is_some() {
            state.overflow -= 1;
        }
        self.number.is_some()
    }

    /// Waits for something that the client has to say.
    pub(super) async fn awaiting<T>(&self, message: impl Future<Output = T>) -> T {
        let now = self.newcomers.milliseconds(Instant::now());
        self.presence.awaited.store(now, Ordering::Relaxed);
        let message = message.await;
        self.presence.awaited.store(BUSY, Ordering::Relaxed);
        self.presence.has_spoken.store(true, Ordering::Relaxed);
        message
    }

    /// The client has said something; what, is still to be seen.
    pub(super) fn heard(&self) {
        self.presence.has_spoken.store(true, Ordering::Relaxed);
    }

    /// It has failed: any other is worth more.
    pub(super) fn failed(&self) {
        self.presence.awaited.store(0, Ordering::Relaxed);
    }

    /// Resolves when it has to make way.
    pub(super) fn leaving(&self) -> impl Future<Output = ()> + use<> {
        self.presence.leave.clone().cancelled_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.newcomers.lock();
        match self.number {
            // Not there if it had to make way.
            Some(number) => drop(state.remove(number)),
            None => state.overflow -= 1,
        }
        drop(state);
        self.newcomers.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newcomers(limit: usize) -> Arc<Newcomers> {
        Newcomers::new(limit, IntGauge::new("unauthenticated", "Test.").unwrap())
    }

    fn has_to_leave(place: &Place) -> bool {
        place.presence.leave.is_cancelled()
    }

    fn host(number: u8) -> PeerAddress {
        PeerAddress::Ip([192, 0, 2, number].into(), 5000)
    }

    async fn speak(place: &Place) {
        place.awaiting(std::future::ready(())).await;
    }

    /// Waits for the client from `at` on.
    fn wait_since(place: &Place, at: Instant) {
        let at = place.newcomers.milliseconds(at);
        place.presence.awaited.store(at, Ordering::Relaxed);
    }

    #[test]
    fn the_one_that_is_silent_for_longest_makes_way() {
        let (newcomers, start) = (newcomers(2), Instant::now());
        let first = newcomers.enter(host(1), start).unwrap();
        let mut second = newcomers.enter(host(1), start + SILENT / 2).unwrap();
        let mut early = newcomers.enter(host(1), start + SILENT / 2).unwrap();
        assert!(early.number.is_none() && !has_to_leave(&first));
        let later = start + SILENT;
        assert!(early.is_admitted(later) && has_to_leave(&first) && !has_to_leave(&second));
        drop(first);
        assert!(second.is_admitted(later));
        assert_eq!(newcomers.lock().admitted.len(), 2);
        assert_eq!(newcomers.gauge.get(), 2);
        drop((second, early));
        assert_eq!((newcomers.lock().admitted.len(), newcomers.gauge.get()), (0, 0));
    }

    #[tokio::test]
    async fn silence_counts_for_more_than_slowness_and_work_of_ours_for_nothing() {
        let (newcomers, start) = (newcomers(3), Instant::now());
        let [working, slow, silent] = [0, 0, 0].map(|_| newcomers.enter(host(1), start).unwrap());
        speak(&working).await;
        speak(&slow).await;
        wait_since(&slow, start);
        let mut places = Vec::new();
        let mut enter = |after| {
            let mut place = newcomers.enter(host(1), start + after).unwrap();
            let admitted = place.is_admitted(start + after);
            places.push(place);
            admitted
        };
        assert!(enter(SLOW) && has_to_leave(&silent) && !has_to_leave(&slow));
        assert!(enter(SLOW) && has_to_leave(&slow));
        assert!(!enter(SLOW), "the others have just come");
        assert!(enter(SLOW + SILENT) && !has_to_leave(&working));
    }

    #[tokio::test]
    async fn one_source_does_not_keep_the_others_out() {
        // One host that opened some hundred connections a second had all places, each with a connection younger than what is
        // waited for, and everybody else, cancel requests among them, was turned away.
        let (newcomers, now) = (newcomers(8), Instant::now() + SLOW);
        let greedy: Vec<_> = (0..8).map(|_| newcomers.enter(host(1), now).unwrap()).collect();
        let [busy, spoken, ..] = &*greedy else { return };
        speak(busy).await;
        spoken.heard();
        let is_in = |place: &Option<Place>| place.as_ref().is_some_and(|place| place.number.is_some());
        let own = newcomers.enter(host(1), now);
        assert!(!is_in(&own), "its own have just come");
        // Until those who come have a third.
        let others = [2, 3, 4, 2].map(|number| newcomers.enter(host(number), now));
        assert!(others.iter().all(is_in));
        assert!(greedy.iter().filter(|place| has_to_leave(place)).count() == 4);
        assert!(
            !has_to_leave(busy) && !has_to_leave(spoken),
            "the silent go first"
        );
        let more = newcomers.enter(host(2), now);
        assert!(!is_in(&more), "it has two, and four are not much more");
        drop((greedy, others, own, more));
        assert!(newcomers.lock().sources.is_empty());
    }

    #[tokio::test]
    async fn processes_of_this_machine_have_a_few_places_of_their_own() {
        let (newcomers, start) = (newcomers(2), Instant::now());
        let flood = [1, 2].map(|number| newcomers.enter(host(number), start).unwrap());
        let local: Vec<_> = (0..LOCAL)
            .map(|_| newcomers.enter(PeerAddress::Local, start).unwrap())
            .collect();
        assert!(local.iter().all(|place| place.number.is_some()));
        assert!(!flood.iter().any(has_to_leave));
        let more = newcomers.enter(PeerAddress::Local, start).unwrap();
        assert!(more.number.is_none(), "this is one like all others");
        let late = newcomers.enter(host(3), start + SLOW).unwrap();
        assert!(late.number.is_some() && flood.iter().any(has_to_leave));
        assert!(!local.iter().any(has_to_leave));
    }

    #[test]
    fn a_first_byte_is_something_said() {
        // TLS without asking counted as silence until the handshake was done, which takes more than a second on some links.
        let (newcomers, start) = (newcomers(1), Instant::now());
        let direct = newcomers.enter(host(1), start).unwrap();
        direct.heard();
        assert!(newcomers.enter(host(2), start + SILENT).unwrap().number.is_none());
        assert!(newcomers.enter(host(2), start + SLOW).unwrap().number.is_some());
    }

    #[tokio::test]
    async fn whoever_has_failed_makes_way() {
        let newcomers = newcomers(1);
        let start = Instant::now() + SLOW;
        let failed = newcomers.enter(host(1), start).unwrap();
        speak(&failed).await;
        failed.failed();
        assert!(newcomers.enter(host(1), start).unwrap().number.is_some());
        assert!(has_to_leave(&failed));
    }

    #[test]
    fn a_few_more_are_heard_and_no_more_than_that() {
        let (newcomers, now) = (newcomers(1), Instant::now());
        let admitted = newcomers.enter(host(1), now).unwrap();
        let overflow: Vec<_> = (0..OVERFLOW)
            .map(|_| newcomers.enter(host(1), now).unwrap())
            .collect();
        assert!(overflow.iter().all(|place| place.number.is_none()));
        assert!(newcomers.enter(host(1), now).is_none());
        drop(admitted);
        assert!(newcomers.enter(host(1), now).unwrap().number.is_some());
        drop(overflow);
        assert_eq!((newcomers.lock().overflow, newcomers.gauge.get()), (0, 0));
    }
}
