//! Which pool serves a client, from the settings in force.

use std::sync::{Arc, atomic::AtomicUsize};

use super::prepare::Prepared;
use crate::{
    config::{Database, Settings},
    pool::{Catalog, Plan},
    server::{ConnectOptions, Logins, Target},
    types::PoolKey,
};

/// The settings in force, as the pools see them.
pub(super) struct Configured {
    pub(super) settings: Arc<Settings>,
    pub(super) prepared: Arc<Prepared>,
    pub(super) logins: Arc<Logins>,
}

impl Configured {
    fn make_plan(&self, database: &Database, name: &str, user: &str) -> Plan {
        let settings = self.settings.pool_settings(database, user);
        let target = Target {
            endpoints: database.hosts.clone(),
            role: database.role,
            user: user.to_owned(),
            database: database.dbname.as_deref().unwrap_or(name).to_owned(),
            startup: database.startup.clone(),
            connect_query: database.connect_query.clone(),
            begun: AtomicUsize::default(),
            connector: self.prepared.connector().clone(),
            options: ConnectOptions {
                timeout: settings.server_connect_timeout,
                tcp: self.settings.tcp.towards_servers(),
                load_balance: database.load_balance_hosts,
                max_packet_size: self.settings.listen.max_packet_size,
            },
            logins: self.logins.clone(),
        };
        let secret = self
            .prepared
            .users
            .as_ref()
            .and_then(|users| users.get(user))
            .cloned();
        Plan {
            settings,
            target: Arc::new(target),
            secret,
        }
    }
}

impl Catalog for Configured {
    fn pool(&self, name: &str, user: &str) -> Option<PoolKey> {
        let database = self.settings.database(name)?;
        let user = database.user.as_deref().unwrap_or(user);
        Some(PoolKey {
            database: name.into(),
            user: user.into(),
            role: database.role,
        })
    }

    fn plan(&self, key: &PoolKey) -> Option<Plan> {
        let name = key.database.as_str();
        let database = self.settings.database(name)?;
        let user_is_current = database
            .user
            .as_deref()
            .is_none_or(|user| user == key.user.as_str());
        (database.role == key.role && user_is_current)
            .then(|| self.make_plan(database, name, key.user.as_str()))
    }
}
