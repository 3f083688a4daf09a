//! Applying a changed configuration to a running process: all of it, or nothing.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use super::{
    catalog::Configured,
    prepare::{Prepared, prepare},
    serve::Reception,
};
use crate::{
    auth::{mock::MockSecrets, source::SecretSource},
    config::{self, Settings},
    fault::chain,
    pool::auth_query::AuthQueries,
    server::Logins,
    startup::Policy,
    telemetry::logging::Level,
};

/// What is in force.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) settings: Arc<Settings>,
    pub(super) prepared: Arc<Prepared>,
    pub(super) mocks: Arc<MockSecrets>,
    pub(super) logins: Arc<Logins>,
    pub(super) level: Level,
}

/// What clients are let in by; `source` looks up who is not in the users file.
pub(super) fn policy(in_force: &InForce, source: &Arc<AuthQueries>) -> Policy {
    let Settings { listen, auth, .. } = &*in_force.settings;
    let source: Arc<dyn SecretSource> = source.clone();
    Policy {
        acceptor: in_force.prepared.acceptor.clone(),
        tls_mode: listen.tls.mode,
        auth_type: auth.auth_type,
        allow_plaintext_password: auth.allow_plaintext_password,
        failures: auth.failures.clone(),
        users: in_force.prepared.users.clone(),
        source: in_force.settings.looks_up_users().then_some(source),
        mocks: in_force.mocks.clone(),
    }
}

impl InForce {
    /// What pools go by.
    pub(super) fn catalog(&self) -> Configured {
        Configured {
            settings: self.settings.clone(),
            prepared: self.prepared.clone(),
            logins: self.logins.clone(),
        }
    }

    /// Reads the configuration again and applies it. What is wrong with it is logged, all of it, and then
    /// nothing is changed.
    pub(super) fn reload(&mut self, path: &Path, reception: &Reception) {
        let mut settings = match config::load(path) {
            Ok(settings) => settings,
            Err(error) => {
                tracing::error!(error = chain(&error), "configuration not reloaded");
                return;
            }
        };
        let mut prepared = match prepare(&settings) {
            Ok(prepared) => prepared,
            Err(errors) => {
                for error in errors {
                    tracing::error!(error = chain(&error), "configuration not reloaded");
                }
                return;
            }
        };
        for key in config::restart_needed(&self.settings, &settings) {
            tracing::warn!(key, "this change takes effect at the next start");
        }
        // What cannot be changed stays as it is, also for the next comparison.
        settings
            .listen
            .addresses
            .clone_from(&self.settings.listen.addresses);
        settings.listen.unix_socket_mode = self.settings.listen.unix_socket_mode;
        settings
            .listen
            .unix_socket_group
            .clone_from(&self.settings.listen.unix_socket_group);
        settings.listen.listen_backlog = self.settings.listen.listen_backlog;
        settings.http = self.settings.http;
        settings.process.workers = self.settings.process.workers;
        settings.process.scheduling = self.settings.process.scheduling;
        settings.log.format = self.settings.log.format;
        if let Err(error) = self.level.set(&settings.log.level) {
            tracing::error!(error = chain(&error), "log.level not reloaded");
        }
        let max_logins = settings.pool.max_server_logins;
        if self.logins.limit() != max_logins {
            self.logins = Arc::new(Logins::new(max_logins));
        }
        prepared.keep_same(&self.prepared);
        self.settings = Arc::new(settings);
        self.prepared = Arc::new(prepared);
        reception.auth_queries.reload(Box::new(self.catalog()));
        let policy = policy(self, &reception.auth_queries);
        reception.policy.store(Arc::new(policy));
        reception
            .login_timeout
            .store(Arc::new(self.settings.listen.client_login_timeout));
        reception
            .stats_users
            .store(Arc::new(self.settings.auth.stats_users.clone()));
        reception.tuning.set(self.settings.tcp);
        reception
            .max_packet_size
            .store(self.settings.listen.max_packet_size, Ordering::Relaxed);
        reception.door.resize(&self.settings.listen);
        reception.guests.reload(self.settings.clone());
        reception
            .pools
            .statements()
            .set_limit(self.settings.pool.prepared_statement_cache_size);
        reception.pools.reload(Box::new(self.catalog()));
        tracing::info!("configuration reloaded");
    }
}
