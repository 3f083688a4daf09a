//! Replicas as values, and a network between them that delays, loses and reorders what they say.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const WHOLE: usize = 12;
/// A word is delivered within this time or never.
const LONGEST_WAY: u64 = 1500;
/// Of two replicas one hears the other at least this often, however much is lost.
const LONGEST_LOSS: u64 = 4000;

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides.max(1)
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

struct Replica {
    budget: Budget,
    used: usize,
    lives: bool,
    /// Whom it lists.
    list: BTreeSet<usize>,
    /// When others take it off their lists.
    struck: u64,
}

struct Packet {
    from: usize,
    to: usize,
    due: u64,
    word: Word,
    is_answer: bool,
}

struct World {
    dice: Dice,
    start: Instant,
    millis: u64,
    replicas: Vec<Replica>,
    packets: Vec<Packet>,
    /// When a request of one to the other was answered last.
    heard: BTreeMap<(usize, usize), u64>,
    is_quiet: bool,
    /// The first of all knows everybody and never ends, and two others need not know each other.
    has_hub: bool,
    /// What was wrong first.
    broken: Option<String>,
}

impl World {
    fn new(seed: u64, replicas: usize, has_hub: bool) -> Self {
        let mut world = Self {
            dice: Dice(seed | 1),
            start: Instant::now(),
            millis: 0,
            replicas: Vec::new(),
            packets: Vec::new(),
            heard: BTreeMap::new(),
            is_quiet: false,
            has_hub,
            broken: None,
        };
        (0..replicas).for_each(|_| world.join());
        world
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.millis)
    }

    fn living(&self) -> Vec<usize> {
        (0..self.replicas.len())
            .filter(|index| self.replicas[*index].lives)
            .collect()
    }

    /// Another one comes. It knows all that are there, and may be known to them; or the hub knows both.
    fn join(&mut self) {
        let (index, now) = (self.replicas.len(), self.now());
        let id = Id(self.dice.roll(u64::MAX));
        let mut replica = Replica {
            budget: Budget::new(id, now),
            used: 0,
            lives: true,
            list: BTreeSet::new(),
            struck: u64::MAX,
        };
        replica.budget.set(Some(WHOLE), true, 0);
        for other in self.living() {
            let is_hub = self.has_hub && other == 0;
            if is_hub || !self.has_hub || self.dice.one_in(2) {
                replica.list.insert(other);
            }
            if is_hub || self.dice.one_in(2) {
                self.replicas[other].list.insert(index);
            }
        }
        self.replicas.push(replica);
        self.tell_lists();
    }

    fn tell_lists(&mut self) {
        let now = self.now();
        for replica in self.replicas.iter_mut().filter(|replica| replica.lives) {
            let names = replica.list.iter().map(|index| index.to_string().into());
            replica
                .budget
                .list(names.collect::<Vec<Box<str>>>(), Roll::Whole, now);
        }
    }

    /// The process is gone, and with it its connections. Never the hub.
    fn end(&mut self, is_killed: bool) {
        let living = self.living();
        let living = &living[usize::from(self.has_hub)..];
        if living.len() < 2 {
            return;
        }
        let index = living[usize::try_from(self.dice.roll(living.len() as u64)).unwrap()];
        self.replicas[index].used = 0;
        self.replicas[index].lives = false;
        self.replicas[index].struck = self.millis + self.dice.roll(20_000);
        if !is_killed {
            self.replicas[index].budget.leave();
            for to in self.replicas[index].list.clone() {
                let (now, name) = (self.now(), to.to_string());
                let word = self.replicas[index].budget.tell(&name, 0, now);
                self.send(index, to, word, false);
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, word: Word, is_answer: bool) {
        let pair = (from.min(to), from.max(to));
        let last = *self.heard.entry(pair).or_insert(self.millis);
        let is_overdue = self.millis - last > LONGEST_LOSS;
        if !self.is_quiet && !is_overdue && self.dice.one_in(4) {
            return;
        }
        let way = if self.is_quiet || is_overdue {
            5
        } else {
            LONGEST_WAY
        };
        let due = self.millis + self.dice.roll(way);
        self.packets.push(Packet {
            from,
            to,
            due,
            word,
            is_answer,
        });
    }

    /// Delivers one that is due, whichever.
    fn deliver(&mut self) -> bool {
        let due = (0..self.packets.len()).filter(|index| self.packets[*index].due <= self.millis);
        let due: Vec<_> = due.collect();
        if due.is_empty() {
            return false;
        }
        let chosen = usize::try_from(self.dice.roll(due.len() as u64)).unwrap();
        let Packet {
            from,
            to,
            word,
            is_answer,
            ..
        } = self.packets.swap_remove(due[chosen]);
        let now = self.now();
        let replica = &mut self.replicas[to];
        if !replica.lives {
            return true;
        }
        let (id, name) = (word.own.id, from.to_string());
        replica.budget.hear(word, is_answer.then_some(&*name), now);
        replica.budget.advance(now);
        if is_answer {
            self.heard.insert((from.min(to), from.max(to)), self.millis);
        } else {
            let answer = replica.budget.answer(id, replica.used, now);
            self.send(to, from, answer, true);
        }
        true
    }

    fn speak(&mut self, index: usize) {
        let now = self.now();
        let replica = &mut self.replicas[index];
        replica.budget.advance(now);
        if replica.budget.next_round().is_some_and(|next| next > now) {
            return;
        }
        replica.budget.begin_round(now);
        let (list, used) = (replica.list.clone(), replica.used);
        for to in list {
            let word = self.replicas[index].budget.tell(&to.to_string(), used, now);
            self.send(index, to, word, false);
        }
    }

    /// Whatever may be opened is, sooner or later; whatever is too much is closed, sooner or later.
    fn use_it(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        let allowance = replica.budget.allowance();
        if replica.used > allowance {
            replica.used -= usize::from(self.is_quiet || self.dice.one_in(8));
        } else if self.dice.one_in(2) {
            replica.used += usize::from(replica.used < allowance);
        } else if self.dice.one_in(4) {
            replica.used = replica.used.saturating_sub(1);
        }
    }

    fn look(&mut self) {
        let living = self.replicas.iter().filter(|replica| replica.lives);
        let shown: Vec<_> = living
            .map(|replica| (replica.budget.allowance(), replica.used))
            .collect();
        let sum: usize = shown.iter().map(|(allowance, used)| allowance.max(used)).sum();
        if sum > WHOLE && self.broken.is_none() {
            self.broken = Some(format!("{sum} after {} ms: {shown:?}", self.millis));
        }
    }

    fn step(&mut self) {
        self.millis += self.dice.roll(40);
        let is_struck = |replica: &Replica| replica.struck <= self.millis;
        let struck: Vec<_> = (0..self.replicas.len())
            .filter(|index| is_struck(&self.replicas[*index]))
            .collect();
        if !struck.is_empty() {
            for gone in struck {
                self.replicas[gone].struck = u64::MAX;
                for replica in &mut self.replicas {
                    replica.list.remove(&gone);
                }
            }
            self.tell_lists();
        }
        while self.deliver() {
            self.look();
        }
        for index in self.living() {
            self.speak(index);
            self.use_it(index);
            self.look();
        }
    }

    fn run(&mut self, millis: u64) {
        let until = self.millis + millis;
        while self.millis < until {
            self.step();
        }
    }

    /// Nobody comes or goes any more, everybody knows everybody, and nothing is lost.
    fn settle(&mut self) -> Vec<usize> {
        self.is_quiet = true;
        let living: BTreeSet<_> = self.living().into_iter().collect();
        for index in &living {
            self.replicas[*index].list = living.iter().copied().filter(|other| other != index).collect();
        }
        self.tell_lists();
        self.run(40_000);
        let mut allowances: Vec<_> = living
            .iter()
            .map(|index| self.replicas[*index].budget.allowance())
            .collect();
        allowances.sort_unstable();
        allowances
    }
}

/// Equal parts, the smallest first.
fn parts(count: usize) -> Vec<usize> {
    let part = |index| WHOLE / count + usize::from(count - index <= WHOLE % count);
    (0..count).map(part).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_sum_never_passes_the_budget_and_all_come_to_their_parts(
        seed: u64,
        first in 1_usize..5,
        has_hub: bool,
        events in prop::collection::vec((0_u8..4, 0_u64..8000), 0..12),
    ) {
        let mut world = World::new(seed, first, has_hub);
        for (event, pause) in events {
            match event {
                0 | 1 if world.living().len() < 6 => world.join(),
                2 => world.end(true),
                _ => world.end(false),
            }
            world.run(pause);
        }
        let allowances = world.settle();
        prop_assert_eq!(world.broken, None);
        prop_assert_eq!(&allowances, &parts(allowances.len()));
    }
}

fn budget(id: u64, used: usize, now: Instant) -> Budget {
    let mut budget = Budget::new(Id(id), now);
    budget.set(Some(WHOLE), true, used);
    budget
}

/// One exchange: `from` tells `to`, who is listed there as `name`, and hears the answer.
fn exchange(from: &mut Budget, from_used: usize, to: &mut Budget, to_used: usize, name: &str, now: Instant) {
    let id = from.own;
    let word = from.tell(name, from_used, now);
    to.hear(word, None, now);
    to.advance(now);
    let answer = to.answer(id, to_used, now);
    from.hear(answer, Some(name), now);
    from.advance(now);
}

#[test]
fn whoever_is_alone_has_all_of_it_at_once() {
    let now = Instant::now();
    let mut alone = budget(1, 0, now);
    alone.advance(now);
    assert_eq!(alone.allowance(), 0, "nobody has said that it is alone");
    alone.list([], Roll::Whole, now);
    alone.advance(now);
    assert_eq!(alone.allowance(), WHOLE);
    // Without a fleet too.
    alone.set(Some(7), false, 0);
    alone.advance(now);
    assert_eq!(alone.allowance(), 7);
}

/// One that has all of it, and another that comes.
fn old_and_new(now: Instant) -> (Budget, Budget) {
    let (mut old, mut new) = (budget(1, 0, now), budget(2, 0, now));
    old.list([], Roll::Whole, now);
    old.advance(now);
    new.list(["old".into()], Roll::Whole, now);
    (old, new)
}

#[test]
fn a_newcomer_has_its_part_after_two_exchanges() {
    let now = Instant::now();
    let (mut old, mut new) = old_and_new(now);
    exchange(&mut new, 0, &mut old, 0, "old", now);
    assert_eq!((old.allowance(), new.allowance()), (6, 0));
    exchange(&mut new, 0, &mut old, 0, "old", now);
    assert_eq!((old.allowance(), new.allowance()), (6, 6));
}

#[test]
fn a_newcomer_waits_for_what_others_still_use() {
    let now = Instant::now();
    let (mut old, mut new) = old_and_new(now);
    for (used, expected) in [(10, 0), (10, 2), (7, 2), (7, 5), (3, 5), (3, 6)] {
        exchange(&mut new, 0, &mut old, used, "old", now);
        assert_eq!((old.allowance(), new.allowance()), (6, expected), "{used}");
    }
}

#[test]
fn whoever_leaves_leaves_its_part_and_whoever_is_gone_is_counted_for_a_while() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut old = budget(1, 0, start);
    let mut other = budget(2, 0, start);
    for budget in [&mut old, &mut other] {
        budget.list(["the other".into()], Roll::Whole, start);
    }
    for _ in 0..3 {
        exchange(&mut old, 0, &mut other, 0, "the other", start);
        exchange(&mut other, 0, &mut old, 0, "the other", start);
    }
    assert_eq!((old.allowance(), other.allowance()), (6, 6));
    let mut also = budget(3, 0, start);
    also.list(["the other".into()], Roll::Whole, start);
    exchange(&mut also, 0, &mut other, 0, "the other", start);
    // The other one vanishes.
    old.advance(after(60));
    assert_eq!(old.allowance(), 6, "it is still listed");
    old.list([], Roll::Whole, after(60));
    old.advance(after(60));
    assert_eq!(old.allowance(), WHOLE);
    // Where it is not listed, it is counted a little longer than it is waited for.
    other.list([], Roll::Whole, after(1));
    other.advance(after(1));
    assert_eq!(other.allowance(), 4);
    other.advance(after(14));
    assert_eq!(
        other.allowance(),
        6,
        "what the silent one may still have is left to it"
    );
    other.advance(after(15));
    assert_eq!(other.allowance(), WHOLE);
    // Or it says so.
    also.leave();
    let word = also.tell("the other", 0, after(15));
    other.hear(word, None, after(15));
    other.advance(after(15));
    assert_eq!(other.allowance(), WHOLE);
}

#[test]
fn words_that_were_overtaken_say_nothing_of_what_is_held() {
    let now = Instant::now();
    let (mut one, mut other) = (budget(1, 0, now), budget(2, 0, now));
    let old = other.answer(Id(1), 0, now);
    let new = other.answer(Id(1), 9, now);
    one.hear(new, None, now);
    one.hear(old, None, now);
    one.list([], Roll::Whole, now);
    one.advance(now);
    assert_eq!(one.claim, 3);
}

#[test]
fn whoever_leaves_has_told_those_too_that_it_does_not_list() {
    let now = Instant::now();
    let (mut one, mut other) = (budget(1, 0, now), budget(2, 0, now));
    one.list(["other".into()], Roll::Whole, now);
    exchange(&mut one, 0, &mut other, 0, "other", now);
    assert!(!other.has_left(now));
    other.leave();
    assert!(!other.has_left(now));
    exchange(&mut one, 0, &mut other, 0, "other", now);
    assert!(other.has_left(now));
    one.advance(now);
    assert_eq!((one.allowance(), other.allowance()), (WHOLE, 0));
}

#[test]
fn two_that_only_a_third_one_knows_find_each_other() {
    let now = Instant::now();
    let mut hub = budget(1, 0, now);
    let mut both = [budget(2, 0, now), budget(3, 0, now)];
    hub.list([], Roll::Whole, now);
    hub.advance(now);
    for budget in &mut both {
        budget.list(["hub".into()], Roll::Whole, now);
    }
    for _ in 0..4 {
        for budget in &mut both {
            exchange(budget, 0, &mut hub, 0, "hub", now);
        }
    }
    assert_eq!(hub.allowance(), 4);
    assert_eq!(both.map(|budget| budget.allowance()), [4, 4]);
}

#[test]
fn whoever_is_listed_and_never_answers_is_given_time_and_then_a_part() {
    let start = Instant::now();
    let mut budget = budget(1, 0, start);
    budget.list(["silent".into()], Roll::Whole, start);
    for (seconds, allowance) in [(0, 0), (9, 0), (10, 6), (100, 6)] {
        budget.advance(start + Duration::from_secs(seconds));
        assert_eq!(budget.allowance(), allowance, "{seconds}");
    }
}

/// Kubernetes' API is away: a container that starts again in its old pod is known to the others, and serves.
#[test]
fn whoever_hears_of_nobody_goes_by_those_who_ask_after_a_while() {
    let start = Instant::now();
    let (mut old, mut new) = (budget(1, 0, start), budget(2, 0, start));
    old.list(["new".into()], Roll::Whole, start);
    for (seconds, allowance) in [(0, 0), (9, 0), (10, 6)] {
        let now = start + Duration::from_secs(seconds);
        exchange(&mut old, 0, &mut new, 0, "new", now);
        exchange(&mut old, 0, &mut new, 0, "new", now);
        assert_eq!((old.allowance(), new.allowance()), (6, allowance), "{seconds}");
    }
    let mut alone = budget(3, 0, start);
    alone.advance(start + SILENT);
    assert_eq!(alone.allowance(), WHOLE);
}
