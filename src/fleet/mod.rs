//! The other replicas of this pooler: who they are, and what they say when all are asked at once.
//!
//! It knows nothing of what they are asked for. Whoever is asked by it asks nobody else.

mod ask;
pub mod budget;
mod merge;
mod own;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{timeout, timeout_at},
};

use self::budget::Roll;
pub use self::{
    ask::{AskError, Question},
    merge::{Merged, NotMetrics},
    own::Own,
};
use crate::{config::ReplicaAddress, net};

/// All answers to one question together are not longer than this.
const ALL_ANSWERS: usize = 256 << 20;
/// And no single one than this.
const LONGEST_ANSWER: usize = 32 << 20;
/// Whoever has done something needs few words.
const LONGEST_RECEIPT: usize = 1024;
/// What is said of all other replicas in a line each is shorter.
const LONGEST_WORD: usize = 16 << 10;
/// More replicas than this are not asked.
const MOST_REPLICAS: usize = 256;
/// So many questions are asked at once; whoever comes later waits.
const AT_ONCE: usize = 2;

/// The replicas of this pooler.
#[derive(Debug)]
pub struct Fleet {
    own: Own,
    fixed: ArcSwap<Vec<ReplicaAddress>>,
    found: ArcSwap<Sought>,
    changes: watch::Sender<()>,
    timeout: ArcSwap<Duration>,
    turns: Semaphore,
    /// Those that have not answered the last time.
    silent: Mutex<BTreeSet<Box<str>>>,
}

/// What is known of a service.
#[derive(Debug, Default)]
enum Sought {
    /// There is none.
    #[default]
    Nothing,
    /// Nobody has said yet who is behind it.
    Unknown,
    Found(Vec<Found>),
}

/// A replica that was found by its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The name of its pod.
    pub name: Box<str>,
    /// Its HTTP server.
    pub address: SocketAddr,
}

/// What one replica has said.
#[derive(Debug)]
pub struct Answer {
    /// Its name: that of its pod, or its address.
    pub replica: Box<str>,
    /// It is this one.
    pub is_own: bool,
    /// How long it took.
    pub took: Duration,
    /// The answer, or why there is none.
    pub said: Result<Bytes, AskError>,
}

/// A replica, and where it is.
#[derive(Debug, Clone)]
pub struct Replica {
    name: Box<str>,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Here,
    At(SocketAddr),
    /// A name that stands for somewhere.
    Named(ReplicaAddress),
}

impl Fleet {
    /// Replicas at these addresses; who is found by a service is told later.
    pub fn new(own: Own, fixed: Vec<ReplicaAddress>, timeout: Duration) -> Self {
        Self {
            own,
            fixed: ArcSwap::from_pointee(fixed),
            found: ArcSwap::default(),
            changes: watch::Sender::default(),
            timeout: ArcSwap::from_pointee(timeout),
            turns: Semaphore::new(AT_ONCE),
            silent: Mutex::default(),
        }
    }

    /// Goes by other settings.
    pub fn set(&self, fixed: Vec<ReplicaAddress>, timeout: Duration) {
        self.fixed.store(Arc::new(fixed));
        self.timeout.store(Arc::new(timeout));
        self.changes.send_replace(());
    }

    /// There is another service, or none.
    pub fn seek(&self, is_service: bool) {
        let sought = if is_service {
            Sought::Unknown
        } else {
            Sought::Nothing
        };
        self.found.store(Arc::new(sought));
        self.changes.send_replace(());
    }

    /// These are the replicas that the service has now.
    pub fn find(&self, found: Vec<Found>) {
        self.found.store(Arc::new(Sought::Found(found)));
        self.changes.send_replace(());
    }

    /// Tells when there may be other replicas than before.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// All other replicas, and how far it is known who they are.
    pub fn others(&self) -> (Vec<Replica>, Roll) {
        let own = self.own.now();
        let roll = match &**self.found.load() {
            Sought::Nothing => Roll::Whole,
            Sought::Unknown => Roll::Unknown,
            Sought::Found(found) if found.iter().any(|found| own.is(found)) => Roll::Whole,
            Sought::Found(_) => Roll::Partial,
        };
        let mut others = self.replicas();
        others.retain(|replica| !replica.is_here());
        (others, roll)
    }

    /// How long a replica may take for an answer.
    pub fn timeout(&self) -> Duration {
        **self.timeout.load()
    }

    /// The port of this replica's HTTP server.
    pub fn port(&self) -> u16 {
        self.own.port()
    }

    /// Asks all replicas the same thing at once. `own` is this one's answer; no network is needed for it. Those that say
    /// nothing until the timeout are among the answers as well. In the order of their names.
    pub async fn ask_all(&self, question: &Question, own: impl Future<Output = Bytes>) -> Vec<Answer> {
        let limit = **self.timeout.load();
        let deadline = tokio::time::Instant::now() + limit;
        // Who has had no turn by then has no time left either.
        let _turn = timeout(limit, self.turns.acquire()).await;
        let replicas = self.replicas();
        let most = (ALL_ANSWERS / replicas.len().max(1)).min(LONGEST_ANSWER);
        let (here, elsewhere): (Vec<_>, Vec<_>) = replicas.into_iter().partition(Replica::is_here);
        let (mut answers, mut asked) = (Vec::new(), JoinSet::new());
        for Replica { name, place } in elsewhere {
            let question = question.clone();
            asked.spawn(async move {
                let asking = timeout_at(deadline, ask::ask(place, &question, most));
                let said = async { asking.await.unwrap_or(Err(AskError::Timeout)) };
                Answer::take(name, false, said).await
            });
        }
        if let Some(replica) = here.into_iter().next() {
            let said = async { Ok(own.await) };
            answers.push(Answer::take(replica.name, true, said).await);
        }
        while let Some(answer) = asked.join_next().await {
            answers.extend(answer);
        }
        answers.sort_by(|a, b| a.replica.cmp(&b.replica));
        self.note(&answers);
        answers
    }

    /// Has any other replica do something: all are told at once, and whoever answers well has done it. Whether one has,
    /// within `limit`.
    pub async fn order_any(&self, order: &Question, limit: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + limit;
        let mut told = JoinSet::new();
        for Replica { place, .. } in self.replicas().into_iter().filter(|replica| !replica.is_here()) {
            let order = order.clone();
            told.spawn(async move { ask::ask(place, &order, LONGEST_RECEIPT).await.is_ok() });
        }
        while let Ok(Some(done)) = timeout_at(deadline, told.join_next()).await {
            if done.unwrap_or(false) {
                return true;
            }
        }
        false
    }

    /// All replicas, this one among them and each once.
    fn replicas(&self) -> Vec<Replica> {
        let own = self.own.now();
        let sought = self.found.load();
        let found = match &**sought {
            Sought::Found(found) => found.as_slice(),
            Sought::Nothing | Sought::Unknown => &[],
        };
        let of_service = found.iter().map(|found| Replica {
            name: found.name.clone(),
            place: if own.is(found) {
                Place::Here
            } else {
                Place::At(found.address)
            },
        });
        let fixed = self.fixed.load();
        let others = fixed.iter().map(|address| Replica {
            name: address.to_string().into(),
            place: match address.host.parse().map(|ip| SocketAddr::new(ip, address.port)) {
                Ok(at) if own.is_at(at) => Place::Here,
                Ok(at) => Place::At(at),
                Err(_) if own.is_named(&address.host, address.port) => Place::Here,
                Err(_) => Place::Named(address.clone()),
            },
        });
        let mut all: Vec<Replica> = Vec::new();
        for replica in of_service.chain(others).take(MOST_REPLICAS) {
            if !all.iter().any(|other| other.is_same(&replica)) {
                all.push(replica);
            }
        }
        if !all.iter().any(Replica::is_here) && !self.may_be_a_name(&all) {
            all.push(Replica {
                name: own.name().into(),
                place: Place::Here,
            });
        }
        all
    }

    /// Whether this replica may be one of those that are only known by a name.
    fn may_be_a_name(&self, all: &[Replica]) -> bool {
        all.iter()
            .any(|replica| matches!(&replica.place, Place::Named(address) if address.port == self.own.port()))
    }

    /// One line when a replica falls silent, and one when it is there again.
    fn note(&self, answers: &[Answer]) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        for Answer { replica, said, .. } in answers {
            match said {
                Ok(_) if silent.remove(replica) => tracing::info!(%replica, "replica answers again"),
                Ok(_) => {}
                Err(error) => {
                    if silent.insert(replica.clone()) {
                        tracing::warn!(%replica, error = crate::fault::chain(error), "replica does not answer");
                    }
                }
            }
        }
        silent.retain(|name| answers.iter().any(|answer| answer.replica == *name));
    }
}

impl Answer {
    async fn take(
        replica: Box<str>,
        is_own: bool,
        said: impl Future<Output = Result<Bytes, AskError>>,
    ) -> Self {
        let begun = Instant::now();
        let said = said.await;
        Self {
            replica,
            is_own,
            took: begun.elapsed(),
            said,
        }
    }
}

impl Replica {
    /// What it is called here.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has it do something that it answers in few words, in this time.
    ///
    /// # Errors
    /// It has not.
    pub async fn order(self, order: &Question, limit: Duration) -> Result<Bytes, AskError> {
        let asking = timeout(limit, ask::ask(self.place, order, LONGEST_WORD));
        asking.await.unwrap_or(Err(AskError::Timeout))
    }

    fn is_here(&self) -> bool {
        matches!(self.place, Place::Here)
    }

    fn is_same(&self, other: &Self) -> bool {
        let same_place = match (&self.place, &other.place) {
            (Place::Here, Place::Here) => true,
            (Place::At(one), Place::At(other)) => one == other,
            _ => false,
        };
        same_place || self.name == other.name
    }
}

/// Where a name leads to.
async fn resolve(address: &ReplicaAddress) -> Result<Vec<SocketAddr>, AskError> {
    net::resolve(&address.host, address.port)
        .await
        .map_err(AskError::Resolve)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(bound: &str, fixed: &[(&str, u16)]) -> Fleet {
        let own = Own::new(bound.parse().unwrap(), Some("pod-1".to_owned()));
        let address = |(host, port): &(&str, u16)| ReplicaAddress {
            host: (*host).to_owned(),
            port: *port,
        };
        Fleet::new(
            own,
            fixed.iter().map(address).collect(),
            Duration::from_millis(200),
        )
    }

    fn shown(fleet: &Fleet) -> Vec<String> {
        let place = |replica: Replica| match replica.place {
            Place::Here => format!("{} here", replica.name),
            Place::At(at) => format!("{} at {at}", replica.name),
            Place::Named(address) => format!("{} named {address}", replica.name),
        };
        fleet.replicas().into_iter().map(place).collect()
    }

    #[test]
    fn this_replica_is_known_by_its_address_or_its_pod() {
        let one = fleet(
            "127.0.0.1:9127",
            &[("127.0.0.1", 9127), ("127.0.0.1", 9128), ("127.0.0.2", 9127)],
        );
        assert_eq!(
            shown(&one),
            [
                "127.0.0.1:9127 here",
                "127.0.0.1:9128 at 127.0.0.1:9128",
                "127.0.0.2:9127 at 127.0.0.2:9127"
            ]
        );
        let everywhere = fleet(
            "0.0.0.0:9127",
            &[("127.0.0.1", 9127), ("203.0.113.1", 9127), ("peer", 1)],
        );
        assert_eq!(
            shown(&everywhere),
            [
                "127.0.0.1:9127 here",
                "203.0.113.1:9127 at 203.0.113.1:9127",
                "peer:1 named peer:1"
            ]
        );
        let service = fleet("0.0.0.0:9127", &[]);
        let found = |name: &str, address: &str| Found {
            name: name.into(),
            address: address.parse().unwrap(),
        };
        service.find(vec![
            found("pod-1", "203.0.113.1:9127"),
            found("pod-2", "203.0.113.2:9127"),
        ]);
        assert_eq!(shown(&service), ["pod-1 here", "pod-2 at 203.0.113.2:9127"]);
    }

    #[test]
    fn who_is_not_listed_is_there_all_the_same_and_nobody_is_there_twice() {
        assert_eq!(shown(&fleet("127.0.0.1:9127", &[])), ["pod-1 here"]);
        let twice = fleet(
            "127.0.0.1:9127",
            &[("127.0.0.1", 9127), ("127.0.0.1", 9127), ("pod-1", 9127)],
        );
        assert_eq!(shown(&twice), ["127.0.0.1:9127 here"]);
        // It may be this one.
        let named = fleet("127.0.0.1:9127", &[("somewhere", 9127)]);
        assert_eq!(shown(&named), ["somewhere:9127 named somewhere:9127"]);
    }

    #[tokio::test]
    async fn own_words_need_no_network_and_who_is_not_there_is_told() {
        // Nobody listens at the port that is 1.
        let fleet = fleet("127.0.0.1:9127", &[("127.0.0.1", 9127), ("127.0.0.1", 1)]);
        let question = Question::new("/metrics");
        let answers = fleet
            .ask_all(&question, async { Bytes::from_static(b"own") })
            .await;
        assert_eq!(answers.len(), 2);
        assert!(
            matches!(&answers[0].said, Err(AskError::Connect(_))),
            "{answers:?}"
        );
        assert_eq!(answers[1].said.as_ref().unwrap(), "own");
        assert!(answers[1].is_own && !answers[0].is_own);
    }
}
