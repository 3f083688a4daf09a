//! Which pool serves a client, from the settings in force.

use std::sync::{Arc, atomic::AtomicUsize};

use super::{
    clusters::{self, Clusters},
    prepare::Prepared,
};
use crate::{
    auth::secret::Secret,
    config::{Database, Settings},
    pool::{
        Catalog, Plan,
        auth_query::{AuthCatalog, AuthKey, AuthPlan, QUERY_LIMIT},
    },
    routing::Wish,
    server::{ConnectOptions, Logins, Target},
    types::{PoolKey, Role},
};

/// The name under which look-ups are seen on a server.
const LOOK_UP_NAME: &str = "pgweir auth_query";

/// The settings in force, as the pools see them.
pub(super) struct Configured {
    pub(super) settings: Arc<Settings>,
    pub(super) prepared: Arc<Prepared>,
    pub(super) logins: Arc<Logins>,
    pub(super) clusters: Arc<Clusters>,
}

impl Configured {
    fn make_plan(&self, database: &Database, name: &str, user: &str) -> Plan {
        Plan {
            settings: self.settings.pool_settings(database, user),
            target: Arc::new(Target {
                startup: database.startup.clone(),
                connect_query: database.connect_query.clone(),
                ..self.bare_target(database, name, user)
            }),
            secret: self.own_secret(name).or_else(|| self.listed_secret(user)),
        }
    }

    /// What the database's user logs in with.
    fn own_secret(&self, name: &str) -> Option<Secret> {
        let key = if self.settings.databases.contains_key(name) {
            name
        } else {
            "*"
        };
        self.prepared.passwords.get(key).cloned()
    }

    /// Connections of a role to a database, without what the database's settings do to its clients' sessions.
    pub(super) fn bare_target(&self, database: &Database, name: &str, user: &str) -> Target {
        Target {
            cluster: self.clusters.of(database, &self.settings),
            wish: clusters::wish(database, &self.settings),
            user: user.to_owned(),
            database: database.dbname.as_deref().unwrap_or(name).to_owned(),
            startup: Vec::new(),
            connect_query: None,
            begun: AtomicUsize::default(),
            connector: self.prepared.connector(user),
            server_name: clusters::server_name(database),
            options: ConnectOptions {
                timeout: self.settings.pool.server_connect_timeout,
                tcp: self.settings.tcp.servers,
                load_balance: database.load_balance_hosts,
                max_packet_size: self.settings.listen.max_packet_size,
            },
            logins: self.logins.clone(),
            names: self.clusters.names().clone(),
        }
    }

    fn listed_secret(&self, user: &str) -> Option<Secret> {
        self.prepared.users.as_ref()?.get(user).cloned()
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

impl AuthCatalog for Configured {
    fn auth_key(&self, database: &str) -> Option<AuthKey> {
        let look_up = self.settings.look_up(database)?;
        Some(AuthKey {
            database: look_up.database.into(),
            user: look_up.user.into(),
            query: look_up.query.into(),
        })
    }

    fn is_believed(&self, database: &str, user: &str) -> bool {
        self.settings.believes_look_up(database, user)
    }

    fn auth_plan(&self, key: &AuthKey) -> Option<AuthPlan> {
        if !self.settings.may_look_up(&key.user, &key.query) {
            return None;
        }
        let database = self.settings.database(&key.database)?;
        let startup = [
            ("application_name", LOOK_UP_NAME.to_owned()),
            // Whoever may set it for a database does not choose whose function is asked.
            ("search_path", "public".to_owned()),
            // Whoever has given up waiting does not leave the server at work.
            ("statement_timeout", QUERY_LIMIT.as_millis().to_string()),
        ];
        let bare = self.bare_target(database, &key.database, &key.user);
        let target = Target {
            // A standby knows the users as well, and also while there is no primary.
            wish: Wish {
                role: Role::Any,
                ..bare.wish
            },
            startup: startup.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            ..bare
        };
        let auth = &self.settings.auth.look_up;
        Some(AuthPlan {
            target: Arc::new(target),
            secret: self.listed_secret(&key.user),
            is_chosen: self.settings.chooses_auth_database(&key.database),
            is_open: !self.settings.databases.contains_key(&*key.database),
            lifetime: database
                .server_lifetime
                .unwrap_or(self.settings.pool.server_lifetime),
            ttl: auth.ttl,
            negative_ttl: auth.negative_ttl,
            patience: self.settings.pool.server_connect_timeout,
            retry: self.settings.pool.server_login_retry,
        })
    }
}
