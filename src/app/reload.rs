//! Applying a changed configuration to a running process: all of it, or nothing.

use std::sync::{Arc, atomic::Ordering};

use super::{
    catalog::Configured,
    certificates::Expiries,
    clusters::Clusters,
    metrics::CompatibilityMetrics,
    premises::Known,
    prepare::{Digest, Part, PrepareError, Prepared, prepare},
    replicas::Replicas,
    serve::Reception,
    warnings::{warn, warn_of_remarks},
};
use crate::{
    auth::{mock::MockSecrets, source::SecretSource},
    config::{self, Overlay, Settings, Source, Values, pgbouncer::Remark},
    fault::chain,
    pool::auth_query::AuthQueries,
    server::Logins,
    startup::Policy,
    telemetry::{http::Guard, logging::Level},
};

/// What is in force.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) settings: Arc<Settings>,
    /// The same as text.
    pub(super) values: Arc<Values>,
    /// What the console has set since the file was read.
    pub(super) overlay: Overlay,
    pub(super) prepared: Arc<Prepared>,
    pub(super) mocks: Arc<MockSecrets>,
    pub(super) logins: Arc<Logins>,
    pub(super) clusters: Arc<Clusters>,
    pub(super) level: Level,
    /// What the HTTP server asks for.
    pub(super) guard: Arc<Guard>,
    pub(super) compatibility: Option<CompatibilityMetrics>,
    /// `None` without an HTTP server: nobody could be asked.
    pub(super) replicas: Option<Arc<Replicas>>,
    /// The file that the settings are from.
    pub(super) configuration: Digest,
    pub(super) expiries: Expiries,
}

/// What became of something that was to be read again.
#[derive(Debug)]
pub(super) enum Reload {
    /// It is what is in force.
    Unchanged,
    /// It is in force.
    Done,
    /// It cannot be used: what is wrong with it. What was in force before still is.
    Failed(Vec<String>),
}

/// What clients are let in by; `source` looks up who is not in the users file.
pub(super) fn policy(in_force: &InForce, source: &Arc<AuthQueries>) -> Policy {
    let Settings { listen, auth, .. } = &*in_force.settings;
    let source: Arc<dyn SecretSource> = source.clone();
    Policy {
        acceptor: in_force.prepared.acceptor.clone(),
        tls_mode: listen.tls.mode,
        access: in_force.prepared.access.clone(),
        ldap_tls: in_force.prepared.ldap_tls.clone(),
        allow_plaintext_password: auth.allow_plaintext_password,
        failures: auth.failures.clone(),
        users: in_force.prepared.users.clone(),
        databases: in_force.settings.database_names(),
        source: in_force.settings.looks_up_users().then_some(source),
        mocks: in_force.mocks.clone(),
    }
}

/// A configuration and what it names.
struct Loaded {
    configuration: Digest,
    settings: Settings,
    values: Values,
    remarks: Vec<Remark>,
    prepared: Prepared,
}

/// The configuration and what it names, or all that is wrong with it.
fn load(source: &Source, overlay: &Overlay) -> Result<Loaded, Vec<String>> {
    // Read first: if the file changes now, the next look finds that it has.
    let configuration = Digest::of(&source.files());
    let config::Loaded {
        settings,
        values,
        remarks,
    } = source.load(overlay).map_err(|error| vec![chain(&error)])?;
    let all = |errors: Vec<PrepareError>| errors.iter().map(|error| chain(error)).collect::<Vec<_>>();
    let prepared = prepare(&settings).map_err(all)?;
    Ok(Loaded {
        configuration,
        settings,
        values,
        remarks,
        prepared,
    })
}

/// Whoever was to read has not come back.
fn unread() -> Reload {
    Reload::Failed(vec!["the files were not read".to_owned()])
}

impl InForce {
    /// What pools go by.
    pub(super) fn catalog(&self) -> Configured {
        Configured {
            settings: self.settings.clone(),
            prepared: self.prepared.clone(),
            logins: self.logins.clone(),
            clusters: self.clusters.clone(),
        }
    }

    /// Makes a part again if its files have changed, and has it used for what begins from now on.
    pub(super) async fn renew(&mut self, part: Part, reception: &Reception) -> Reload {
        let (mut prepared, settings) = (Prepared::clone(&self.prepared), self.settings.clone());
        let renewing = tokio::task::spawn_blocking(move || {
            let renewed = prepared.renew(part, &settings);
            (prepared, renewed)
        });
        let Ok((prepared, renewed)) = renewing.await else {
            return unread();
        };
        let outcome = match renewed {
            Ok(false) => return Reload::Unchanged,
            Ok(true) => Reload::Done,
            // What is good of it is used all the same.
            Err(error) => Reload::Failed(vec![chain(&error)]),
        };
        if let Reload::Failed(_) = outcome
            && prepared.has_same_server_tls(&self.prepared)
        {
            return outcome;
        }
        self.prepared = Arc::new(prepared);
        self.expiries.update(&self.prepared);
        reception.auth_queries.reload(Box::new(self.catalog()));
        reception
            .policy
            .store(Arc::new(policy(self, &reception.auth_queries)));
        reception.pools.reload(Box::new(self.catalog()));
        reception.known.store(Arc::new(self.known()));
        outcome
    }

    /// Reads the configuration again if it is another than that in force.
    pub(super) async fn follow_configuration(&mut self, source: &Source, reception: &Reception) -> Reload {
        let file = source.clone();
        let reading = tokio::task::spawn_blocking(move || Digest::of(&file.files()));
        match reading.await {
            Ok(configuration) if configuration == self.configuration => Reload::Unchanged,
            _ => self.reload(source, reception).await,
        }
    }

    /// Reads the configuration again and applies it. What is wrong with it is returned, all of it, and then
    /// nothing is changed.
    pub(super) async fn reload(&mut self, source: &Source, reception: &Reception) -> Reload {
        self.reload_with(source, Overlay::default(), reception).await
    }

    /// The same with what is said beside the file.
    pub(super) async fn reload_with(
        &mut self,
        source: &Source,
        overlay: Overlay,
        reception: &Reception,
    ) -> Reload {
        let file = source.clone();
        // A mount may take its time.
        let loading = tokio::task::spawn_blocking(move || {
            let loaded = load(&file, &overlay);
            (loaded, overlay)
        });
        match loading.await {
            Ok((Ok(loaded), overlay)) => {
                self.configuration = loaded.configuration.clone();
                self.overlay = overlay;
                self.apply(loaded, reception);
                Reload::Done
            }
            Ok((Err(problems), _)) => Reload::Failed(problems),
            Err(_) => unread(),
        }
    }

    /// What others may see of it.
    pub(super) fn known(&self) -> Known {
        Known {
            settings: self.settings.clone(),
            prepared: self.prepared.clone(),
            values: self.values.clone(),
        }
    }

    /// Says what takes effect only at the next start; until then people are shown what is in force.
    fn keep_fixed(&self, settings: &Settings, values: &mut Values) {
        for key in config::restart_needed(&self.settings, settings) {
            tracing::warn!(key, "this change takes effect at the next start");
            match self.values.get(key) {
                Some(value) => values.insert(key.to_owned(), value.clone()),
                None => values.remove(key),
            };
        }
    }

    fn apply(&mut self, loaded: Loaded, reception: &Reception) {
        let Loaded {
            mut settings,
            mut values,
            mut prepared,
            remarks,
            ..
        } = loaded;
        self.keep_fixed(&settings, &mut values);
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
        if let (Some(now), Some(http)) = (&self.settings.http, &mut settings.http) {
            http.address = now.address;
            self.guard.set(http.auth.clone());
        } else {
            settings.http.clone_from(&self.settings.http);
        }
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
        self.clusters.follow(&settings);
        self.settings = Arc::new(settings);
        self.values = Arc::new(values);
        self.prepared = Arc::new(prepared);
        reception.auth_queries.reload(Box::new(self.catalog()));
        let policy = policy(self, &reception.auth_queries);
        reception.policy.store(Arc::new(policy));
        reception
            .login_timeout
            .store(Arc::new(self.settings.listen.client_login_timeout));
        reception.known.store(Arc::new(self.known()));
        reception.tuning.set(self.settings.tcp.clients);
        reception
            .max_packet_size
            .store(self.settings.listen.max_packet_size, Ordering::Relaxed);
        reception.door.resize(&self.settings.listen);
        reception.guests.reload(self.settings.clone());
        self.apply_to_pools(reception);
        if let Some(compatibility) = &self.compatibility {
            compatibility.set(self.settings.metrics.compatibility.clone());
        }
        if let Some(replicas) = &self.replicas {
            replicas.apply(&self.settings);
        }
        self.expiries.update(&self.prepared);
        warn(&self.settings, &self.prepared);
        warn_of_remarks(&remarks);
    }
    fn apply_to_pools(&self, reception: &Reception) {
        let (settings, pools) = (&self.settings, &reception.pools);
        pools.families().set_max_series(settings.metrics.max_series.get());
        let cache = settings.pool.prepared_statement_cache_size;
        pools.statements().set_limit(cache);
        reception.budget.follow(settings);
        pools.reload(Box::new(self.catalog()));
        pools.tracer().follow(settings.traces.as_ref());
    }
}
