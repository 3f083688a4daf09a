//! `server_connection_budget`: what this replica may use of it is told to the pools, and what it holds to the others, over
//! HTTP. Who may have how much is for [`fleet::budget`](crate::fleet::budget) to say.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

use super::replicas::Replicas;
use crate::{
    auth::RandomUnavailable,
    config::Settings,
    fault::chain,
    fleet::{
        AskError, Replica,
        budget::{Budget, Id, SILENT, Word},
    },
    pool::{Limit, Pools},
    telemetry::http::{Answer, Answering, Ask, Page},
};

/// Where a replica is told what others hold.
pub(super) const PATH: &str = "/fleet/budget";
/// Whoever leaves waits so long for its servers, and as long again for the others to have heard of it.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long it answers those who ask it and whom it could not ask.
const LAST_ROUND: Duration = Duration::from_millis(1200);
/// How often it looks whether its servers have let go.
const LOOK: Duration = Duration::from_millis(5);

/// What this process may use of the budget.
#[derive(Debug)]
pub(super) struct Budgeting {
    budget: Mutex<Budget>,
    pools: Arc<Pools>,
    /// There is another budget, or another replica has asked.
    changed: Notify,
}

/// What one replica has answered.
type Answered = (Box<str>, Result<Bytes, AskError>);

/// Those who are told something, and what is known of them beside their words.
#[derive(Default)]
struct Round {
    asked: JoinSet<Answered>,
    /// They have not answered the last time yet.
    busy: BTreeSet<Box<str>>,
    /// They do not know what they are told.
    old: BTreeSet<Box<str>>,
    warned: bool,
}

impl Budgeting {
    /// Goes by these settings, before anybody opens a connection.
    ///
    /// # Errors
    /// There are no random numbers.
    pub(super) fn new(pools: Arc<Pools>, settings: &Settings) -> Result<Arc<Self>, RandomUnavailable> {
        let mut id = [0; 8];
        SystemRandom::new().fill(&mut id).map_err(|_| RandomUnavailable)?;
        let budget = Budget::new(Id(u64::from_ne_bytes(id)), Instant::now());
        let budgeting = Arc::new(Self {
            budget: Mutex::new(budget),
            pools,
            changed: Notify::new(),
        });
        budgeting.follow(settings);
        Ok(budgeting)
    }

    /// Goes by other settings.
    pub(super) fn follow(&self, settings: &Settings) {
        let mut budget = self.lock();
        let whole = settings.pool.server_connection_budget;
        let is_shared = settings.fleet.is_some();
        budget.set(whole.map(Into::into), is_shared, self.used());
        self.apply(&mut budget);
    }

    /// Keeps to the budget with the others, for as long as the process lives.
    pub(super) async fn keep(self: Arc<Self>, replicas: Arc<Replicas>) {
        let (mut round, mut changes) = (Round::default(), replicas.changes());
        self.list(&replicas);
        loop {
            let next = {
                let mut budget = self.lock();
                self.apply(&mut budget);
                round.warn(&budget);
                budget
                    .is_shared()
                    .then(|| budget.next_round().unwrap_or_else(Instant::now))
            };
            let begin = async {
                match next {
                    Some(next) => sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(Ok(answered)) = round.asked.join_next() => self.hear(answered, &mut round),
                () = begin => self.begin_round(&replicas, &mut round),
                _ = changes.changed() => drop(self.list(&replicas)),
                () = self.changed.notified() => {}
            }
        }
    }

    /// Tells the others that this one ends, when its servers have let go of its connections.
    pub(super) async fn leave(&self, replicas: &Arc<Replicas>) {
        if !self.lock().is_shared() {
            return;
        }
        let let_go = async {
            while self.used() > 0 {
                sleep(LOOK).await;
            }
        };
        // What they have not let go of by then is counted for a while.
        let _ = timeout(FAREWELL, let_go).await;
        self.lock().leave();
        let mut told = JoinSet::new();
        for replica in replicas.others().0 {
            let (word, replicas) = (self.word(replica.name()), replicas.clone());
            told.spawn(async move { replicas.tell(replica, PATH, word).await.is_ok() });
        }
        let _ = timeout(FAREWELL, told.join_all()).await;
        // Those who are not in the list of this one ask within a second.
        let asked = async {
            while !self.lock().has_left(Instant::now()) {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(LAST_ROUND, asked).await;
    }

    fn list(&self, replicas: &Replicas) -> Vec<Replica> {
        let (others, roll) = replicas.others();
        let names = others.iter().map(|replica| replica.name().into());
        self.lock().list(names, roll, Instant::now());
        others
    }

    fn begin_round(&self, replicas: &Arc<Replicas>, round: &mut Round) {
        let others = self.list(replicas);
        self.lock().begin_round(Instant::now());
        for replica in others {
            let name: Box<str> = replica.name().into();
            if round.busy.insert(name.clone()) {
                let (word, replicas) = (self.word(&name), replicas.clone());
                let asking = async move { (name, replicas.tell(replica, PATH, word).await) };
                round.asked.spawn(asking);
            }
        }
    }

    fn word(&self, name: &str) -> String {
        let mut budget = self.lock();
        budget.tell(name, self.used(), Instant::now()).to_string()
    }

    fn hear(&self, (name, said): Answered, round: &mut Round) {
        round.busy.remove(&name);
        match said {
            Ok(said) => {
                round.old.remove(&name);
                if let Some(word) = Word::read(&said) {
                    self.lock().hear(word, Some(&name), Instant::now());
                }
            }
            Err(AskError::Status(404)) if round.old.insert(name.clone()) => {
                tracing::warn!(
                    replica = name,
                    "replica does not know of server_connection_budget, as it is older: a part is left to it"
                );
            }
            Err(error) => tracing::debug!(replica = name, error = chain(&error), "replica is not heard"),
        }
    }

    /// What another replica is answered.
    fn answer(&self, word: Word) -> String {
        let (id, now) = (word.own.id, Instant::now());
        let mut budget = self.lock();
        budget.hear(word, None, now);
        // What is closed for it now is not used any more in the answer.
        self.apply(&mut budget);
        let answer = budget.answer(id, self.used(), now);
        drop(budget);
        self.changed.notify_one();
        answer.to_string()
    }

    fn apply(&self, budget: &mut Budget) {
        budget.advance(Instant::now());
        let here = budget.allowance();
        self.pools
            .limit(budget.whole().map(|whole| Limit { whole, here }));
    }

    fn used(&self) -> usize {
        self.pools.used().0
    }

    fn lock(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    /// Says once that nobody can be served.
    fn warn(&mut self, budget: &Budget) {
        let since = budget.wanting_since().filter(|_| budget.allowance() == 0);
        let Some(since) = since else {
            self.warned = false;
            return;
        };
        if since.elapsed() > SILENT && !self.warned {
            self.warned = true;
            tracing::warn!(
                silent = self.busy.iter().map(|name| &**name).collect::<Vec<_>>().join(","),
                "no server connection may be opened: this replica has no part of server_connection_budget yet, as the \
                 others still use it, do not answer, or are not known"
            );
        }
    }
}

/// `/fleet/budget`: what another replica holds; answered with what this one does.
pub(super) struct BudgetPage(pub(super) Arc<Budgeting>);

impl Page for BudgetPage {
    fn answer(&self, ask: Ask) -> Answering {
        let word = Word::read(&ask.body).filter(|_| ask.is_fan_out);
        let answer = match word {
            Some(word) => Answer::text(200, self.0.answer(word)),
            None => Answer::text(400, "this is for replicas, with what they hold\n"),
        };
        Box::pin(async { answer })
    }
}
