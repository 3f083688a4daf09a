//! `pgweir check --connect`: trying each server as the running pooler would use it. Nothing is changed anywhere.

use std::{
    collections::HashSet,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::Registry;

use super::{Prepared, catalog::Configured, clusters::Clusters};
use crate::{
    auth::{flow::Learned, secret::Secret, server_login::ServerCredential, source::Found},
    config::{Database, ServerTls, Settings},
    discovery::kubernetes,
    fault::{Fault, chain},
    lifecycle::Tasks,
    pool::{
        Catalog,
        auth_query::{
            self, AuthCatalog, AuthKey, AuthPlan,
            advice::{Asked, advice},
        },
    },
    server::{self, ConnectError, Logins, Target},
    session::Table,
    tls::{self, TlsError},
    topology::{Cluster, Topology},
    types::{Endpoint, TlsMode},
};

/// How long Kubernetes may take to say where a cluster's servers are.
const DISCOVERY: Duration = Duration::from_secs(5);

/// What is tried where the configuration leaves it open.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The database that stands for those of `[databases."*"]`.
    pub database: String,
    /// The user who is looked up.
    pub user: Option<String>,
}

/// What one attempt has shown.
#[derive(Debug)]
pub struct Finding {
    /// What was tried, and where.
    pub place: String,
    /// What works, or what does not.
    pub outcome: Result<String, Problem>,
}

/// What does not work.
#[derive(Debug)]
pub struct Problem {
    /// What is wrong.
    pub error: String,
    /// What mends it, if that is known.
    pub advice: Option<String>,
}

/// Tries everything that the configuration says about servers, one after the other.
///
/// # Errors
/// No runtime could be had.
pub fn try_out(settings: Settings, prepared: Prepared, trial: &Trial) -> io::Result<Vec<Finding>> {
    let logins = Arc::new(Logins::new(settings.pool.max_server_logins));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = Tasks::new(runtime.handle().clone());
    let watches = kubernetes::Families::new(&Registry::new()).map_err(io::Error::other)?;
    let clusters = Clusters::new(tasks, Arc::new(Table::default()), watches);
    let configured = Configured {
        settings: Arc::new(settings),
        prepared: Arc::new(prepared),
        logins,
        clusters: Arc::new(clusters),
    };
    let mut tour = Tour {
        configured: &configured,
        trial,
        looked_up: HashSet::new(),
        findings: Vec::new(),
    };
    runtime.block_on(tour.run());
    Ok(tour.findings)
}

struct Tour<'a> {
    configured: &'a Configured,
    trial: &'a Trial,
    looked_up: HashSet<AuthKey>,
    findings: Vec<Finding>,
}

impl Tour<'_> {
    async fn run(&mut self) {
        let settings = self.configured.settings.clone();
        for (key, database) in &settings.databases {
            let name = if key == "*" {
                self.trial.database.as_str()
            } else {
                key
            };
            let roles = self.roles(database);
            let cluster = self.configured.clusters.of(database, &settings);
            if database.servers.cluster().is_some() {
                self.discover(key, &cluster).await;
            }
            for server in &cluster.topology().servers {
                let endpoint = &server.endpoint;
                self.reach(key, name, database, endpoint).await;
                for role in &roles {
                    self.log_in(key, name, role, endpoint).await;
                }
            }
            self.look_up(key, name).await;
        }
    }

    /// Who logs in with what the configuration has. Everybody else brings a secret of their own.
    fn roles(&self, database: &Database) -> Vec<String> {
        if let Some(user) = &database.user {
            return vec![user.clone()];
        }
        let users = self.configured.settings.users.iter();
        users
            .filter(|(_, user)| user.server_tls.is_some())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// What Kubernetes says.
    async fn discover(&mut self, key: &str, cluster: &Cluster) {
        let mut changes = cluster.changes();
        let found = async {
            while cluster.topology().servers.is_empty() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let outcome = match tokio::time::timeout(DISCOVERY, found).await {
            Ok(()) => Ok(describe_cluster(&cluster.topology())),
            Err(_) => Err(Problem {
                error: format!("no endpoint is known after {DISCOVERY:?}"),
                advice: Some(
                    "see the log for what the Kubernetes API answers; the services are NAME-rw, -ro and -r"
                        .to_owned(),
                ),
            }),
        };
        let place = format!("databases.{key:?}: cluster {}", cluster.name());
        self.findings.push(Finding { place, outcome });
    }

    /// The socket and TLS.
    async fn reach(&mut self, key: &str, name: &str, database: &Database, endpoint: &Endpoint) {
        let place = format!("databases.{key:?}: {endpoint}");
        let target = self
            .configured
            .bare_target(database, name, "")
            .at(endpoint, Instant::now());
        let outcome = match server::reach(&target, endpoint).await {
            Ok(version) => Ok(self.explain_tls(&target, endpoint, version).await),
            Err(error) => Err(problem(&error)),
        };
        self.findings.push(Finding { place, outcome });
    }

    /// What TLS there is, and whether more of it could be asked for.
    async fn explain_tls(&self, target: &Target, endpoint: &Endpoint, version: Option<&str>) -> String {
        let settings = &self.configured.settings.server_tls;
        let Some(version) = version else {
            return "answers, without TLS".to_owned();
        };
        if settings.mode == TlsMode::VerifyFull {
            return format!("answers, {version}, its certificate is valid for its name");
        }
        let stricter = ServerTls {
            mode: TlsMode::VerifyFull,
            ..settings.clone()
        };
        let verdict = match tls::connector(&stricter) {
            Ok(connector) => {
                let target = Target {
                    connector: Arc::new(connector),
                    ..target.at(endpoint, Instant::now())
                };
                match server::reach(&target, endpoint).await {
                    Ok(_) => "server_tls.mode could be \"verify-full\"".to_owned(),
                    Err(error) => format!("\"verify-full\" would fail: {}", chain(&error)),
                }
            }
            Err(_) => "its certificate is not verified: there is no server_tls.ca_file".to_owned(),
        };
        format!("answers, {version}; {verdict}")
    }

    async fn log_in(&mut self, key: &str, name: &str, role: &str, endpoint: &Endpoint) {
        let Some(plan) = self
            .configured
            .pool(name, role)
            .and_then(|pool| self.configured.plan(&pool))
        else {
            return;
        };
        let place = format!("databases.{key:?}: {endpoint}: database {name:?} as {role:?}");
        let target = Arc::new(plan.target.at(endpoint, Instant::now()));
        let credential = ServerCredential {
            secret: plan.secret,
            learned: Learned::Nothing,
        };
        let outcome = match server::connect(&target, &credential).await {
            Ok(connection) => {
                connection.close();
                Ok("logs in".to_owned())
            }
            // One of several servers may well have another role.
            Err(error @ ConnectError::WrongRole { .. }) => Ok(format!("is not used: {error}")),
            Err(error) => Err(problem(&error)),
        };
        self.findings.push(Finding { place, outcome });
    }

    /// Looks a user up in each server of the database in which users of `name` are looked up, once.
    async fn look_up(&mut self, key: &str, name: &str) {
        let Some(asked) = self.configured.auth_key(name) else {
            return;
        };
        if !self.looked_up.insert(asked.clone()) {
            return;
        }
        let place = format!("databases.{key:?}: auth_query in {:?}", &*asked.database);
        let Some(plan) = self.configured.auth_plan(&asked) else {
            let error = format!("there is no database {:?} in the configuration", &*asked.database);
            let advice = Some("add it with its hosts, or correct auth_database".to_owned());
            let outcome = Err(Problem { error, advice });
            return self.findings.push(Finding { place, outcome });
        };
        for server in &plan.target.cluster.topology().servers {
            let endpoint = &server.endpoint;
            let finding = Finding {
                place: format!("{place} at {endpoint}"),
                outcome: self.ask(&asked, &plan, endpoint).await,
            };
            self.findings.push(finding);
        }
    }

    async fn ask(&self, asked: &AuthKey, plan: &AuthPlan, endpoint: &Endpoint) -> Result<String, Problem> {
        let user = self.trial.user.as_deref().unwrap_or(&asked.user);
        let only = AuthPlan {
            target: Arc::new(plan.target.at(endpoint, Instant::now())),
            ..plan.clone()
        };
        match auth_query::look_up_once(&only, &asked.query, user).await {
            Ok(found) => Ok(format!("works; {user:?} {}", describe(&found))),
            Err(error) => {
                let asked = Asked {
                    user: &asked.user,
                    query: &asked.query,
                    database: &plan.target.database,
                };
                Err(Problem {
                    error: chain(&error),
                    advice: advice(&error, &asked).map(|advice| advice.to_string()),
                })
            }
        }
    }
}

fn describe_cluster(topology: &Topology) -> String {
    let names: Vec<&str> = topology.servers.iter().map(|server| &*server.name).collect();
    let primary = topology
        .primary
        .as_ref()
        .and_then(|primary| topology.server(primary));
    let primary = primary.map_or("not known", |server| &*server.name);
    format!("has {}; the primary is {primary}", names.join(", "))
}

fn describe(found: &Found) -> &'static str {
    match found {
        Found::Secret(Secret::Scram(_)) => "has a SCRAM verifier",
        Found::Secret(Secret::Md5(_)) => "has an md5 hash, with which no client can use SCRAM",
        Found::Secret(Secret::Plain(_)) => "has a password in clear",
        Found::WithoutSecret => "has no password, or one that has expired",
        Found::Unknown | Found::NotAsked => "is not known, or may not log in",
    }
}

fn problem(error: &ConnectError) -> Problem {
    let advice = match error {
        ConnectError::Tls(TlsError::WrongName { .. }) => Some(
            "use one of these names in hosts, or set server_tls.server_name to the one to look for"
                .to_owned(),
        ),
        ConnectError::Tls(TlsError::UnknownServerIssuer) => {
            Some("put the CA that has signed the server's certificate into server_tls.ca_file".to_owned())
        }
        ConnectError::TlsRefused { .. } => {
            Some("set up ssl on the server, or server_tls.mode = \"prefer\" to do without".to_owned())
        }
        error => error.hint().map(std::borrow::Cow::into_owned),
    };
    Problem {
        error: chain(error),
        advice,
    }
}
