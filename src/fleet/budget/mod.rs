//! How many of the server connections that all replicas together may have are this one's. Pure: what is heard and the
//! time are passed in, what is to be said is handed out.
//!
//! - Every replica has a *claim*, and opens no more than its *allowance*, which is never more than that. What it tells
//!   others is what it *holds*: the claim, or what it uses if that is still more.
//! - Its target is an equal part of the budget. A claim that is above it falls at once, and the allowance with it.
//! - One that is below is raised by what nobody holds, and told to all others. The allowance follows when each of them has
//!   answered a word with the raised claim in it, and the sum of what all hold is within the budget. Of two that raise their
//!   claims at the same time one sees the other's at least: whoever has raised last has told before it has heard.
//! - Words are numbered, and say the number that was heard last of the other side. So answers that are lost or overtaken do
//!   no harm, and a replica that is not in the list of this one acknowledges by what it asks.
//! - Words have in them what was heard from third ones. Two that only a third one knows find each other by it.

mod word;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

pub use self::word::{Held, Id, Word};

/// A replica that has said nothing for so long is not waited for; what it has said last counts.
pub const SILENT: Duration = Duration::from_secs(10);
/// One that is not listed any more either is forgotten after this.
pub const GRACE: Duration = Duration::from_secs(15);
/// Who is content speaks this often, and so often who is not.
const CALM: Duration = Duration::from_secs(1);
const BRISK: Duration = Duration::from_millis(200);
/// The least time between two rounds.
const LEAST: Duration = Duration::from_millis(20);
/// Whoever has been below its target for so long tries for all that nobody holds, and not only for its part of that.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far it is known who the others are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roll {
    /// Nobody has said it yet.
    Unknown,
    /// There is a list, and this replica is not in it yet: others that have come just now may be missing too.
    Partial,
    /// Whoever is missing has come later, and has this one in its own list.
    Whole,
}

/// This replica's part of the budget.
#[derive(Debug)]
pub struct Budget {
    own: Id,
    /// Of all replicas; none where there is no limit.
    whole: Option<usize>,
    /// Without a fleet all of it is this one's.
    is_shared: bool,
    /// The process ends; the number of the last word before that.
    leaves: Option<u64>,
    claim: usize,
    allowance: usize,
    /// The number of the first word with the claim in it, as long as not everybody has answered one.
    raised: Option<u64>,
    /// The number of the last word.
    spoken: u64,
    /// When all listed ones were last spoken to, and the number of the word before that.
    round: Option<(Instant, u64)>,
    peers: BTreeMap<Id, Peer>,
    listed: BTreeMap<Box<str>, Listed>,
    roll: (Roll, Instant),
    /// Since when it has had less than its target.
    wanting: Option<Instant>,
}

/// A replica that was heard.
#[derive(Debug)]
struct Peer {
    held: Held,
    at: Instant,
    /// The last number of this replica's words that it has heard.
    acknowledged: u64,
    /// The last of these that it was told.
    told: u64,
    leaves: bool,
    others: Vec<Held>,
}

#[derive(Debug)]
struct Listed {
    since: Instant,
    /// Who has answered there.
    id: Option<Id>,
}

/// Another replica as it counts.
#[derive(Debug, Clone, Copy)]
struct Other {
    /// `None`: nobody has answered there yet.
    id: Option<Id>,
    /// What it is known to hold.
    held: Option<Held>,
    /// It has a part of the budget.
    takes_part: bool,
    /// What it has acknowledged, if it is waited for.
    awaited: Option<u64>,
}

impl Budget {
    /// No limit yet.
    pub fn new(own: Id, now: Instant) -> Self {
        Self {
            own,
            whole: None,
            is_shared: false,
            leaves: None,
            claim: 0,
            allowance: 0,
            raised: None,
            spoken: 0,
            round: None,
            peers: BTreeMap::new(),
            listed: BTreeMap::new(),
            roll: (Roll::Unknown, now),
            wanting: None,
        }
    }

    /// Goes by this budget. What is `used` already is held in any case.
    pub fn set(&mut self, whole: Option<usize>, is_shared: bool, used: usize) {
        if (self.whole, self.is_shared) == (whole, is_shared) {
            return;
        }
        let before = self.whole.map_or(used, |_| self.allowance);
        self.allowance = match whole {
            None => 0,
            Some(whole) if !is_shared => whole,
            Some(whole) => before.min(whole),
        };
        (self.whole, self.is_shared) = (whole, is_shared);
        (self.claim, self.raised, self.wanting, self.round) = (self.allowance, None, None, None);
    }

    /// What all replicas together may have; `None` is no limit.
    pub fn whole(&self) -> Option<usize> {
        self.whole
    }

    /// How many server connections this one may have.
    pub fn allowance(&self) -> usize {
        self.allowance
    }

    /// Whether others are to be told anything.
    pub fn is_shared(&self) -> bool {
        self.is_shared && self.whole.is_some()
    }

    /// These are the others, by what they are called here.
    pub fn list(&mut self, names: impl IntoIterator<Item = Box<str>>, roll: Roll, now: Instant) {
        let names: BTreeSet<_> = names.into_iter().collect();
        if !names.iter().eq(self.listed.keys()) {
            self.round = None;
        }
        self.listed.retain(|name, _| names.contains(name));
        for name in names {
            let new = || Listed { since: now, id: None };
            self.listed.entry(name).or_insert_with(new);
        }
        if self.roll.0 != roll {
            self.roll = (roll, now);
        }
    }

    /// Begins a round: everybody who is listed is to be told a word.
    pub fn begin_round(&mut self, now: Instant) {
        self.round = Some((now, self.spoken));
    }

    /// When the next round is to begin; `None` is at once.
    pub fn next_round(&self) -> Option<Instant> {
        let (last, before) = self.round?;
        let pause = match self.raised {
            Some(raised) if before + 1 < raised => LEAST,
            _ if self.wanting.is_some() => BRISK,
            _ => CALM,
        };
        Some(last + pause)
    }

    /// What is said to whoever is listed under this name.
    pub fn tell(&mut self, name: &str, used: usize, now: Instant) -> Word {
        let id = self.listed.get(name).and_then(|listed| listed.id);
        self.word(id, used, now)
    }

    /// What this one is answered.
    pub fn answer(&mut self, id: Id, used: usize, now: Instant) -> Word {
        self.word(Some(id), used, now)
    }

    /// Every word from now on is a farewell.
    pub fn leave(&mut self) {
        self.leaves = Some(self.spoken);
        (self.claim, self.allowance, self.raised) = (0, 0, None);
    }

    /// Whether everybody who was heard lately has been told that this one leaves.
    pub fn has_left(&self, now: Instant) -> bool {
        let here = |peer: &&Peer| !peer.leaves && now.saturating_duration_since(peer.at) < SILENT;
        let mut here = self.peers.values().filter(here);
        self.leaves
            .is_some_and(|before| here.all(|peer| peer.told > before))
    }

    /// Since when this replica has had less than its part.
    pub fn wanting_since(&self) -> Option<Instant> {
        self.wanting
    }

    fn word(&mut self, to: Option<Id>, used: usize, now: Instant) -> Word {
        self.spoken += 1;
        let to = to.and_then(|id| self.peers.get_mut(&id));
        let heard = to.map_or(0, |peer| {
            peer.told = self.spoken;
            peer.held.number
        });
        let lately = |peer: &&Peer| now.saturating_duration_since(peer.at) < GRACE && peer.counts();
        Word {
            own: Held {
                id: self.own,
                number: self.spoken,
                count: self.claim.max(used),
            },
            heard,
            leaves: self.leaves.is_some(),
            others: self.peers.values().filter(lately).map(|peer| peer.held).collect(),
        }
    }

    /// Somebody has said something: whoever is listed as `name`, if it is an answer.
    pub fn hear(&mut self, word: Word, name: Option<&str>, now: Instant) {
        let id = word.own.id;
        if let Some(listed) = name.and_then(|name| self.listed.get_mut(name)) {
            listed.id = Some(id);
        }
        if id == self.own {
            return;
        }
        let known = self.peers.get(&id);
        let (acknowledged, told) = known.map_or((0, 0), |peer| (peer.acknowledged, peer.told));
        let acknowledged = acknowledged.max(word.heard);
        if let Some(peer) = self
            .peers
            .get_mut(&id)
            .filter(|peer| peer.held.number >= word.own.number)
        {
            // It was overtaken.
            peer.acknowledged = acknowledged;
            return;
        }
        let peer = Peer {
            held: word.own,
            at: now,
            acknowledged,
            told,
            leaves: word.leaves,
            others: word.others,
        };
        self.peers.insert(id, peer);
    }

    /// Draws the consequences of what was heard, and of the time.
    pub fn advance(&mut self, now: Instant) {
        self.forget(now);
        let Some(whole) = self.whole.filter(|_| self.is_shared && self.leaves.is_none()) else {
            return;
        };
        let others = self.others(now);
        let target = self.target(whole, &others);
        self.claim = self.claim.min(target);
        self.allowance = self.allowance.min(self.claim);
        // Nobody holds these, or this one does.
        let held = |other: &Other| other.held.map_or(whole / (others.len() + 1), |held| held.count);
        let rest = others.iter().map(held).fold(whole, usize::saturating_sub);
        if self.raised.is_none() && target > self.claim && self.may_raise(now) {
            let step = self.step(rest.saturating_sub(self.claim), whole, &others, now);
            if step > 0 {
                self.claim = target.min(self.claim + step);
                self.raised = Some(self.spoken + 1);
            }
        }
        if let Some(raised) = self.raised
            && others
                .iter()
                .filter_map(|other| other.awaited)
                .all(|heard| heard >= raised)
        {
            self.allowance = self.claim.min(rest).max(self.allowance);
            (self.claim, self.raised) = (self.allowance, None);
        }
        let wants = self.allowance < target;
        self.wanting = wants.then(|| self.wanting.unwrap_or(now));
    }

    /// Whether somebody may be there of whom nobody knows.
    fn may_raise(&self, now: Instant) -> bool {
        match self.roll {
            // Whoever lists this one has asked by then. What is left is a replica that nobody knows while nobody can say
            // who there is: it had better serve the clients that it has.
            (Roll::Unknown | Roll::Partial, since) => now.saturating_duration_since(since) >= SILENT,
            (Roll::Whole, _) => true,
        }
    }

    /// An equal part. The first by their numbers have what is left over.
    fn target(&self, whole: usize, others: &[Other]) -> usize {
        self.part(self.own, whole, others)
    }

    fn part(&self, of: Id, whole: usize, others: &[Other]) -> usize {
        let parts = others.iter().filter(|other| other.takes_part);
        let all = parts.clone().count() + 1;
        let ids = parts.filter_map(|other| other.id).chain([self.own]);
        let before = ids.filter(|id| *id < of).count();
        whole / all + usize::from(before < whole % all)
    }

    /// How much of what is free to take: if others have less than their parts too, as much as they.
    fn step(&self, free: usize, whole: usize, others: &[Other], now: Instant) -> usize {
        let is_patient = self
            .wanting
            .is_none_or(|since| now.saturating_duration_since(since) < PATIENCE);
        if !is_patient {
            return free;
        }
        let wants = |other: &&Other| {
            let held = other.held.filter(|_| other.takes_part && other.awaited.is_some());
            held.is_some_and(|held| held.count < self.part(held.id, whole, others))
        };
        let wanting = others.iter().filter(wants);
        let before = wanting.clone().filter(|other| other.id < Some(self.own)).count();
        let all = wanting.count() + 1;
        free / all + usize::from(before < free % all)
    }

    fn forget(&mut self, now: Instant) {
        let listed = &self.listed;
        self.peers.retain(|id, peer| {
            let is_listed = !peer.leaves && listed.values().any(|listed| listed.id == Some(*id));
            is_listed || now.saturating_duration_since(peer.at) < GRACE
        });
    }

    fn others(&self, now: Instant) -> Vec<Other> {
        let is_listed = |id: Id| self.listed.values().any(|listed| listed.id == Some(id));
        let lately = |since: Instant, limit| now.saturating_duration_since(since) < limit;
        let heard = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.counts())
            .map(|(id, peer)| {
                let is_here = !peer.leaves && lately(peer.at, SILENT);
                Other {
                    id: Some(*id),
                    held: Some(self.latest(peer.held, now)),
                    takes_part: is_here || (!peer.leaves && is_listed(*id)),
                    awaited: is_here.then_some(peer.acknowledged),
                }
            });
        let strangers = self.listed.values().filter(|listed| listed.id.is_none());
        let strangers = strangers.map(|listed| Other {
            id: None,
            held: None,
            takes_part: true,
            awaited: lately(listed.since, SILENT).then_some(0),
        });
        let mut told: BTreeMap<Id, Held> = BTreeMap::new();
        for held in self.told(now) {
            if held.id != self.own && !self.peers.contains_key(&held.id) {
                let known = told.entry(held.id).or_insert(held);
                *known = later(*known, held);
            }
        }
        let told = told.into_values().map(|held| Other {
            id: Some(held.id),
            held: Some(held),
            takes_part: true,
            awaited: None,
        });
        heard.chain(strangers).chain(told).collect()
    }

    /// What others have said of others.
    fn told(&self, now: Instant) -> impl Iterator<Item = Held> {
        let lately = move |peer: &&Peer| !peer.leaves && now.saturating_duration_since(peer.at) < GRACE;
        self.peers
            .values()
            .filter(lately)
            .flat_map(|peer| peer.others.iter().copied())
    }

    /// What is known last of a replica that was heard.
    fn latest(&self, held: Held, now: Instant) -> Held {
        self.told(now).filter(|told| told.id == held.id).fold(held, later)
    }
}

impl Peer {
    /// Whether it holds anything, or may soon.
    fn counts(&self) -> bool {
        !self.leaves || self.held.count > 0
    }
}

fn later(one: Held, other: Held) -> Held {
    if other.number > one.number { other } else { one }
}

#[cfg(test)]
mod tests;
