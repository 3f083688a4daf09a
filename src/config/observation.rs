//! How the process is looked at: the HTTP server, metrics, the other replicas that are asked for theirs, and traces.
//!
//! Values only: nothing is opened or read.

use std::{fmt, net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use serde::Deserialize;

/// The HTTP server for metrics and probes.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// `address`
    pub address: SocketAddr,
    /// `[http.auth]`
    pub auth: HttpAuth,
}

/// `[http.auth]`: who may see the pages. Nothing set: everybody. The secrets are in files, which are read again for
/// every request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HttpAuth {
    /// `user` and `password_file`
    pub basic: Option<BasicAuth>,
    /// `token_file`: a bearer token.
    pub token_file: Option<PathBuf>,
}

/// A user of the HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicAuth {
    /// `user`
    pub user: String,
    /// `password_file`
    pub password_file: PathBuf,
}

impl HttpAuth {
    /// Whether anything has to be shown.
    pub fn is_asked(&self) -> bool {
        self.basic.is_some() || self.token_file.is_some()
    }
}

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// `max_series`: so many pools, databases and users each have series of their own; the rest are `other`.
    pub max_series: NonZeroUsize,
    /// `compatibility`
    pub compatibility: Vec<Compatibility>,
}

/// Names of metrics that other programs have made known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compatibility {
    /// `cnpg_pgbouncer_*`, of CloudNativePG's Pooler.
    Cnpg,
    /// `pgbouncer_*`, of Prometheus' community exporter.
    PgbouncerExporter,
}

/// `[fleet]`: the replicas of this pooler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// `service`: a headless service of Kubernetes whose endpoints they are.
    pub service: Option<ServiceRef>,
    /// `replicas`: the addresses of the HTTP servers of others.
    pub replicas: Vec<ReplicaAddress>,
    /// `timeout`: a replica that has not answered by then is left out.
    pub timeout: Duration,
}

/// The HTTP server of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReplicaAddress {
    /// A name or an IP address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// `[traces]`: OpenTelemetry's spans, and the collector that they are sent to.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// `endpoint`
    pub endpoint: Collector,
    /// `ca_file`: the CAs that sign the collector's certificate.
    pub ca_file: Option<PathBuf>,
    /// `token_file`: a bearer token that the collector is shown.
    pub token_file: Option<PathBuf>,
    /// `sample_rate`: of transactions that bring no context of their own, the part that is traced, 0 to 1.
    pub sample_rate: f64,
    /// `query_text`: whether spans have the texts of queries.
    pub query_text: bool,
    /// `service_name`
    pub service_name: String,
    /// `timeout`: how long the collector may take for one batch.
    pub timeout: Duration,
}

/// Where OTLP is spoken over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// Whether by https.
    pub tls: bool,
    /// A name or an IP address, the latter without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path of the requests.
    pub path: String,
}

/// A service: `"name"` or `"namespace/name"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceRef {
    /// The namespace, where one is given; otherwise `kubernetes.namespace`, or that of the pod.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let address = ReplicaAddress {
            host: self.host.clone(),
            port: self.port,
        };
        write!(f, "{scheme}://{address}{}", self.path)
    }
}

impl fmt::Display for ReplicaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
