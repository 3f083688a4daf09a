//! What can be seen of clients from outside: copies, made without keeping anybody from working.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    activity::{Stage, Tick},
    control::Order,
    identity::Identity,
    member::Member,
    origin::Origin,
    table::Table,
};
use crate::{server::pins::Pins, types::PoolKey};

/// A client, as others see it. Times are a tenth of a second accurate.
#[derive(Debug, Clone)]
pub struct ClientView {
    /// Who it is.
    pub identity: Identity,
    /// How it has come in.
    pub origin: Arc<Origin>,
    /// Where its server connections come from; absent for a visitor of the console.
    pub pool: Option<PoolKey>,
    /// The process id that it was told.
    pub pid: i32,
    /// What it does.
    pub state: ClientState,
    /// What it called itself when it logged in.
    pub application_name: String,
    /// `none`, `physical` or `logical`
    pub replication: &'static str,
    /// How long ago it came.
    pub connected: Duration,
    /// How long ago it has asked for something.
    pub requested: Duration,
    /// For how long it has done what it does, without a sign of progress.
    pub since: Duration,
    /// For how long its transaction has been open, if one is.
    pub transaction: Option<Duration>,
    /// The server process that works for it.
    pub server: Option<i32>,
    /// How many of its statements have a name.
    pub prepared: usize,
    /// What keeps its server connection with it.
    pub pins: Pins,
    /// For how long something has.
    pub pinned: Option<Duration>,
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientState {
    /// Nothing.
    Idle,
    /// It waits for a server connection.
    Waiting,
    /// A server works for it.
    Active,
    /// The same; the server was asked to stop.
    Canceling,
    /// A server waits for it in the middle of a transaction.
    IdleInTransaction,
    /// It has a server connection that does nothing, outside of a transaction.
    Holding,
    /// It has a server connection of its own, for replication.
    Replicating,
    /// It speaks to the console.
    Visiting,
}

impl ClientState {
    /// The word that PgBouncer's users know: `active` is whoever has a server connection.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            _ => "active",
        }
    }

    /// The word that PostgreSQL's users know.
    pub fn activity(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting for a server connection",
            Self::Active | Self::Visiting => "active",
            Self::Canceling => "active, asked to stop",
            Self::IdleInTransaction => "idle in transaction",
            Self::Holding => "idle in its session",
            Self::Replicating => "replication",
        }
    }
}

impl From<Stage> for ClientState {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Idle | Stage::Ended => Self::Idle,
            Stage::Waiting | Stage::Notified => Self::Waiting,
            Stage::Active => Self::Active,
            Stage::Canceling => Self::Canceling,
            Stage::InTransaction => Self::IdleInTransaction,
            Stage::Held => Self::Holding,
        }
    }
}

impl Member {
    /// The session, for others.
    fn view(&self, now: Tick) -> ClientView {
        let snapshot = self.activity.snapshot();
        let stage = snapshot.stage;
        let asked = match stage {
            Stage::Waiting | Stage::Notified => snapshot.since,
            _ if stage.is_in_transaction() => snapshot.transaction,
            _ => self.activity.lent(),
        };
        ClientView {
            identity: self.identity.clone(),
            origin: self.origin.clone(),
            pool: Some(self.pool.key().clone()),
            pid: self.names.pid(),
            state: stage.into(),
            application_name: self.application_name(),
            replication: "none",
            connected: now.elapsed(self.activity.begun()),
            requested: now.elapsed(asked),
            since: now.elapsed(snapshot.since),
            transaction: stage
                .is_in_transaction()
                .then(|| now.elapsed(snapshot.transaction)),
            server: stage.holds_server().then(|| self.backend.load(Ordering::Relaxed)),
            prepared: self.names.with_any(|names| names.len()).unwrap_or_default(),
            pins: self.pinned.pins(),
            pinned: self.pinned.since().map(|since| now.elapsed(since)),
        }
    }
}

impl Table {
    /// Everybody who is logged in, in the order in which they came.
    pub fn clients(&self) -> Vec<ClientView> {
        let mut clients = self.views(|_| true);
        clients.extend(self.asides().iter().map(|aside| aside.view(self.clock().now())));
        clients.sort_by_key(|client| client.identity.client);
        clients
    }

    /// Those who wait for a server connection; who has waited longest comes first.
    pub fn waiters(&self) -> Vec<ClientView> {
        let mut clients = self.views(|stage| matches!(stage, Stage::Waiting | Stage::Notified));
        clients.sort_by_key(|client| (std::cmp::Reverse(client.since), client.identity.client));
        clients
    }

    /// Those who have a transaction open; the longest comes first.
    pub fn transactions(&self) -> Vec<ClientView> {
        let mut clients = self.views(Stage::is_in_transaction);
        clients.sort_by_key(|client| (std::cmp::Reverse(client.transaction), client.identity.client));
        clients
    }

    /// What keeps server connections with their clients: of each client for whom something does.
    pub fn pins(&self) -> Vec<Pins> {
        let mut all = Vec::new();
        self.for_each_member(|member, _| {
            let pins = member.pinned.pins();
            if !pins.is_empty() {
                all.push(pins);
            }
        });
        all
    }

    /// How many are visitors of the console.
    pub fn visitors(&self) -> usize {
        let asides = self.asides();
        asides.iter().filter(|aside| aside.pool.is_none()).count()
    }

    /// Ends clients at once. Returns how many.
    pub fn kill(&self, whom: impl Fn(&ClientView) -> bool) -> usize {
        let clients = self.clients();
        let killed = clients.iter().filter(|client| whom(client));
        killed.filter(|client| self.give(client.pid, Order::Kill)).count()
    }

    fn views(&self, wanted: impl Fn(Stage) -> bool) -> Vec<ClientView> {
        let mut members = Vec::new();
        // The table is not kept locked while its members are looked at more closely.
        self.for_each_member(|member, _| {
            if wanted(member.activity.snapshot().stage) {
                members.push(member.clone());
            }
        });
        let now = self.clock().now();
        members.iter().map(|member| member.view(now)).collect()
    }
}
