//! How many clients a database and a user may have.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

use crate::{
    config::Settings,
    session::SessionError,
    startup::{Slot, Slots},
};

/// The places for clients of each database and of each user.
#[derive(Debug)]
pub(super) struct Guests {
    settings: ArcSwap<Settings>,
    databases: Names,
    users: Names,
}

#[derive(Debug, Default)]
struct Names(Mutex<HashMap<String, Arc<Slots>>>);

/// How many clients a database or a user has, and may have.
#[derive(Debug)]
pub(super) struct Used {
    pub(super) name: String,
    pub(super) clients: usize,
    pub(super) limit: usize,
}

/// Everywhere that a client counts; it no longer does when this is dropped.
#[derive(Debug)]
pub(super) struct Places {
    _everywhere: Slot,
    _database: Slot,
    _user: Slot,
}

impl Guests {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings: ArcSwap::new(settings),
            databases: Names::default(),
            users: Names::default(),
        }
    }

    /// A client's places. Clients are counted also where there is no limit: a reload may bring one.
    pub(super) fn seat(&self, everywhere: Slot, database: &str, user: &str) -> Result<Places, SessionError> {
        let settings = self.settings.load();
        let too_many = |setting, name: &str, limit: Option<NonZeroUsize>| SessionError::TooManyClients {
            setting,
            name: name.to_owned(),
            limit: limit.map_or(usize::MAX, NonZeroUsize::get),
        };
        let limit = settings.max_db_clients(database);
        let database = self
            .databases
            .take(database, limit)
            .ok_or_else(|| too_many("max_db_client_connections", database, limit))?;
        let limit = settings.max_user_clients(user);
        let user = self
            .users
            .take(user, limit)
            .ok_or_else(|| too_many("max_user_client_connections", user, limit))?;
        Ok(Places {
            _everywhere: everywhere,
            _database: database,
            _user: user,
        })
    }

    /// Goes by new settings. Whoever has a place keeps it.
    pub(super) fn reload(&self, settings: Arc<Settings>) {
        self.settings.store(settings);
    }

    /// The settings that it goes by.
    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// The databases that have a limit, the fullest first.
    pub(super) fn databases(&self) -> Vec<Used> {
        let settings = self.settings.load();
        self.databases.used(|name| settings.max_db_clients(name))
    }

    /// The users that have one.
    pub(super) fn users(&self) -> Vec<Used> {
        let settings = self.settings.load();
        self.users.used(|name| settings.max_user_clients(name))
    }

    /// Forgets the names that nobody uses.
    pub(super) fn drop_unused(&self) {
        self.databases.drop_unused();
        self.users.drop_unused();
    }
}

impl Names {
    fn used(&self, limit: impl Fn(&str) -> Option<NonZeroUsize>) -> Vec<Used> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = |(name, slots): (&String, &Arc<Slots>)| {
            Some(Used {
                limit: limit(name)?.get(),
                name: name.clone(),
                clients: slots.taken(),
            })
        };
        let mut all: Vec<_> = names.iter().filter_map(used).collect();
        drop(names);
        all.sort_by(|a, b| b.clients.cmp(&a.clients).then_with(|| a.name.cmp(&b.name)));
        all
    }

    fn take(&self, name: &str, limit: Option<NonZeroUsize>) -> Option<Slot> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = limit.map_or(usize::MAX, NonZeroUsize::get);
        if let Some(slots) = names.get(name) {
            slots.resize(limit);
            return slots.take();
        }
        names
            .entry(name.to_owned())
            .insert_entry(Slots::new(limit))
            .get()
            .take()
    }

    fn drop_unused(&self) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Each place holds what it belongs to.
        names.retain(|_, slots| Arc::strong_count(slots) > 1);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{config::parse, fault::Fault};

    fn settings(more: &str) -> Arc<Settings> {
        let text = format!("[auth]\nauth_type = \"trust\"\n[databases.\"*\"]\nhosts = \"h\"\n{more}");
        Arc::new(parse(&text, Path::new("")).unwrap())
    }

    #[test]
    fn each_database_and_user_has_its_own_limit() {
        let guests = Guests::new(settings(
            "[pool]\nmax_db_client_connections = 2\nmax_user_client_connections = 1\n\
             [users.many]\nmax_user_client_connections = 0",
        ));
        let all = Slots::new(10);
        let seat = |database, user| guests.seat(all.take().unwrap(), database, user);
        let first = seat("a", "one").unwrap();
        let error = seat("a", "one").unwrap_err();
        assert_eq!(error.sqlstate(), crate::fault::SqlState::TOO_MANY_CONNECTIONS);
        assert!(error.client_message().contains("max_user_client_connections"));
        let _second = seat("a", "many").unwrap();
        let error = seat("a", "many").unwrap_err();
        assert!(error.client_message().contains("max_db_client_connections"));
        assert_eq!(all.taken(), 2, "whoever is refused has no place anywhere");
        drop(first);
        let _third = seat("a", "one").unwrap();
        guests.reload(settings("[pool]\nmax_db_client_connections = 3"));
        let _fourth = seat("a", "one").unwrap();
        assert!(seat("a", "one").is_err(), "those from before a reload count");
        guests.drop_unused();
        let names = |names: &Names| names.0.lock().unwrap().len();
        assert_eq!((names(&guests.databases), names(&guests.users)), (1, 2));
    }
}
