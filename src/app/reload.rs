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
    auth::mock::MockSecrets,
    config::{self, Settings},
    fault::chain,
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

impl InForce {
    /// What clients are let in by.
    pub(super) fn policy(&self) -> Policy {
        let Settings { listen, auth, .. } = &*self.settings;
        Policy {
            acceptor: self.prepared.acceptor.clone(),
            tls_mode: listen.tls.mode,
            auth_type: auth.auth_type,
            allow_plaintext_password: auth.allow_plaintext_password,
            failures: auth.failures.clone(),
            users: self.prepared.users.clone(),
            mocks: self.mocks.clone(),
        }
    }

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
        reception.policy.store(Arc::new(self.policy()));
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
