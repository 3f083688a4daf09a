//! Clients that are no sessions: those of the console, and those that have a server connection of their own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{
    activity::Tick,
    identity::Identity,
    origin::Origin,
    table::Table,
    view::{ClientState, ClientView},
};
use crate::{server::pins::Pins, types::PoolKey};

/// Who such a client is.
#[derive(Debug)]
pub struct Introduction<'a> {
    /// Who it is.
    pub identity: &'a Identity,
    /// What it calls itself.
    pub application_name: &'a str,
    /// `none`, `physical` or `logical`
    pub replication: &'static str,
    /// Where its own server connection is from, and the server's process.
    pub server: Option<(PoolKey, i32)>,
}

/// Such a client, as others see it.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) identity: Identity,
    pub(super) origin: Arc<Origin>,
    pub(super) pool: Option<PoolKey>,
    pub(super) pid: i32,
    pub(super) application_name: String,
    pub(super) replication: &'static str,
    /// The server process that works for it.
    pub(super) server: Option<i32>,
    pub(super) connected: Tick,
    pub(super) asked: AtomicU32,
}

/// Such a client's place among those who are shown; empty again when dropped.
#[derive(Debug)]
pub struct Shown {
    table: Arc<Table>,
    aside: Arc<Aside>,
}

impl Shown {
    pub(super) fn new(table: Arc<Table>, aside: Arc<Aside>) -> Self {
        table.show_aside(aside.pid, Some(aside.clone()));
        Self { table, aside }
    }

    /// Notes that it has asked for something.
    pub fn note_request(&self) {
        let now = self.table.clock().now();
        self.aside.asked.store(now.number(), Ordering::Relaxed);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.table.show_aside(self.aside.pid, None);
    }
}

impl Aside {
    /// It, for others.
    pub(super) fn view(&self, now: Tick) -> ClientView {
        let asked = Tick::from_number(self.asked.load(Ordering::Relaxed));
        ClientView {
            identity: self.identity.clone(),
            origin: self.origin.clone(),
            pool: self.pool.clone(),
            pid: self.pid,
            state: match self.pool {
                Some(_) => ClientState::Replicating,
                None => ClientState::Visiting,
            },
            application_name: self.application_name.clone(),
            replication: self.replication,
            connected: now.elapsed(self.connected),
            requested: now.elapsed(asked),
            since: Duration::ZERO,
            transaction: None,
            server: self.server,
            prepared: 0,
            pins: Pins::default(),
            pinned: None,
        }
    }
}
