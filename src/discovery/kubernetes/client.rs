//! The API server: where it is, how it is verified, and what it is shown. One request at a time.
//!
//! It knows nothing of what is in the answers.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Config,
    client::{Body, ConfigExt},
    core::{
        Request,
        params::{ListParams, WatchParams},
    },
};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    Resource,
    error::{Message, WatchError},
    event::LONGEST,
};
use crate::config::Kubernetes;

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const HOST: &str = "KUBERNETES_SERVICE_HOST";
const PORT: &str = "KUBERNETES_SERVICE_PORT";
/// TCP and, separately, everything up to the head of an answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A list is short. One that takes longer asks a store that hangs, or nobody.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(10);
/// What is read of an answer that is no success.
const LONGEST_FAILURE: usize = 64 << 10;

/// Why there is no API server to ask.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// This is no pod.
    #[error("{HOST} and {PORT} are not set: this is no pod (set kubernetes.api_server)")]
    NotInPod,
    /// The URL is none.
    #[error("{url:?} is not the URL of an API server")]
    Url {
        /// What was given.
        url: String,
    },
    /// No namespace is given, and none can be read.
    #[error("cannot read the pod's namespace from {path} (set kubernetes.namespace)")]
    Namespace {
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot be read.
        #[source]
        source: io::Error,
    },
    /// The CA file cannot be used.
    #[error("cannot prepare TLS towards the API server")]
    Tls(#[source] Box<kube::Error>),
}

/// An API server and the credentials to ask it. It belongs to no runtime.
#[derive(Clone)]
pub struct Client {
    open: Arc<dyn Fn() -> kube::Client + Send + Sync>,
    url: Arc<str>,
    token_file: Option<Arc<Path>>,
    namespace: Option<Arc<str>>,
}

/// The same, for requests from one runtime.
pub(super) struct Api {
    client: Client,
    inner: kube::Client,
}

/// Which objects to ask for.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) resource: Resource,
    pub(super) namespace: String,
    /// Whose slices.
    pub(super) services: Vec<String>,
    /// The name of an object of any other kind.
    pub(super) object: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
}

impl Client {
    /// Prepares to ask the API server that `settings` name, or else the one that every pod is told of. It is not asked
    /// yet.
    ///
    /// # Errors
    /// There is none, or its CA file cannot be used.
    pub fn new(settings: &Kubernetes) -> Result<Self, ClientError> {
        let url = match &settings.api_server {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => url_in_pod(|name| env::var(name).ok()).ok_or(ClientError::NotInPod)?,
        };
        let account = Path::new(SERVICE_ACCOUNT);
        let or_mounted = |given: &Option<PathBuf>, name: &str| {
            let mounted = account.join(name);
            given.clone().or_else(|| mounted.exists().then_some(mounted))
        };
        let ca_file = or_mounted(&settings.ca_file, "ca.crt");
        Ok(Self {
            open: connector(&url, ca_file)?,
            url: url.into(),
            token_file: or_mounted(&settings.token_file, "token").map(Into::into),
            namespace: settings.namespace.as_deref().map(Into::into),
        })
    }

    /// The namespace of an object: its own, the one in the settings, or the pod's.
    ///
    /// # Errors
    /// It is the pod's, and cannot be read.
    pub fn namespace(&self, own: Option<&str>) -> Result<String, ClientError> {
        if let Some(namespace) = own.or(self.namespace.as_deref()) {
            return Ok(namespace.to_owned());
        }
        let path = Path::new(SERVICE_ACCOUNT).join("namespace");
        match fs::read_to_string(&path) {
            Ok(namespace) => Ok(namespace.trim().to_owned()),
            Err(source) => Err(ClientError::Namespace { path, source }),
        }
    }

    /// To be called on the runtime that asks: what is underneath starts tasks there.
    pub(super) fn open(&self) -> Api {
        Api {
            client: self.clone(),
            inner: (self.open)(),
        }
    }

    /// The token is replaced while it is in use: what counts is what is in the file now.
    async fn token(&self) -> Result<Option<http::HeaderValue>, WatchError> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let token = tokio::fs::read_to_string(path).await.map_err(WatchError::Token)?;
        let mut header = http::HeaderValue::try_from(format!("Bearer {}", token.trim()))
            .map_err(|_| WatchError::Token(io::ErrorKind::InvalidData.into()))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

impl Api {
    /// All objects, as the answer has them.
    pub(super) async fn list(&self, query: &Query) -> Result<Bytes, WatchError> {
        let mut parameters = ListParams::default();
        (parameters.label_selector, parameters.field_selector) = query.selectors();
        let request = query.request().list(&parameters);
        let read = async {
            let body = self.send(request).await?;
            let whole = Limited::new(body, LONGEST).collect().await;
            whole.map(http_body_util::Collected::to_bytes).map_err(of_body)
        };
        timeout(LIST_TIMEOUT, read)
            .await
            .map_err(|_| WatchError::Silent)?
    }

    /// What happens after `version`, for so many seconds.
    pub(super) async fn watch(&self, query: &Query, version: &str, seconds: u32) -> Result<Body, WatchError> {
        let mut parameters = WatchParams::default().timeout(seconds);
        (parameters.label_selector, parameters.field_selector) = query.selectors();
        let request = query.request().watch(&parameters, version);
        let answer = timeout(ANSWER_TIMEOUT, self.send(request)).await;
        answer.map_err(|_| WatchError::Silent)?
    }

    async fn send<E>(&self, request: Result<http::Request<Vec<u8>>, E>) -> Result<Body, WatchError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let mut request = request
            .map_err(|error| WatchError::Request(error.into()))?
            .map(Body::from);
        let url = format!("{}{}", self.client.url, request.uri());
        *request.uri_mut() = url
            .parse()
            .map_err(|error: http::uri::InvalidUri| WatchError::Request(error.into()))?;
        if let Some(token) = self.client.token().await? {
            request.headers_mut().insert(http::header::AUTHORIZATION, token);
        }
        let answer = self
            .inner
            .send(request)
            .await
            .map_err(|error| WatchError::Unreachable(error.into()))?;
        match answer.status().as_u16() {
            200 => Ok(answer.into_body()),
            401 => Err(WatchError::Unauthorized),
            403 => Err(WatchError::Forbidden(message(answer.into_body()).await)),
            404 => Err(WatchError::Missing),
            410 => Err(WatchError::Expired),
            code => Err(WatchError::Status(code)),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Query {
    fn request(&self) -> Request {
        let (group, plural) = (self.resource.group(), self.resource.plural());
        Request::new(format!("/apis/{group}/v1/namespaces/{}/{plural}", self.namespace))
    }

    /// By labels and by fields. The names of slices are random; the other objects have the name of the cluster.
    fn selectors(&self) -> (Option<String>, Option<String>) {
        match self.resource {
            Resource::EndpointSlices => {
                let services = self.services.join(",");
                (Some(format!("kubernetes.io/service-name in ({services})")), None)
            }
            Resource::Clusters | Resource::Leases => (None, Some(format!("metadata.name={}", self.object))),
        }
    }
}

/// As every pod is told.
fn url_in_pod(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (host, port) = (variable(HOST)?, variable(PORT)?);
    let brackets = host.contains(':') && !host.starts_with('[');
    Some(if brackets {
        format!("https://[{host}]:{port}")
    } else {
        format!("https://{host}:{port}")
    })
}

/// What makes clients. They have a connector of our own, because kube's stack of layers logs every failure as an error of
/// the program.
fn connector(
    url: &str,
    ca_file: Option<PathBuf>,
) -> Result<Arc<dyn Fn() -> kube::Client + Send + Sync>, ClientError> {
    let uri = url
        .parse()
        .map_err(|_| ClientError::Url { url: url.to_owned() })?;
    let mut config = Config::new(uri);
    if ca_file.is_some() || url.starts_with("http://") {
        // The file is what counts, and read again when it is replaced; the system's CAs are not looked for.
        config.root_cert = Some(Vec::new());
    }
    config.root_cert_file = ca_file;
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(KEEPALIVE));
    let connector = config
        .rustls_https_connector_with_connector(connector)
        .map_err(|error| ClientError::Tls(Box::new(error)))?;
    let http = legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
    Ok(Arc::new(move || kube::Client::new(http.clone(), "default")))
}

/// What the API server says about a refusal, where it says it as it should.
async fn message(body: Body) -> Message {
    let said = match Limited::new(body, LONGEST_FAILURE).collect().await {
        Ok(said) => said.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let status: Status = serde_json::from_slice(&said).unwrap_or_default();
    Message::new(&status.message)
}

/// What ends a body before its end.
pub(super) fn of_body(error: Box<dyn std::error::Error + Send + Sync>) -> WatchError {
    if error.is::<LengthLimitError>() {
        WatchError::TooLong
    } else {
        WatchError::Cut(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::kubernetes::index::Index;

    #[test]
    fn where_a_pod_finds_its_api_server() {
        let url = |host: &str| {
            let variables = [(HOST, host.to_owned()), (PORT, "6443".to_owned())];
            url_in_pod(|name| {
                variables
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| value.clone())
            })
        };
        assert_eq!(url("10.96.0.1").as_deref(), Some("https://10.96.0.1:6443"));
        assert_eq!(url("fd00::1").as_deref(), Some("https://[fd00::1]:6443"));
        assert_eq!(url_in_pod(|_| None), None);
    }

    #[test]
    fn selectors_name_the_services_of_the_cluster() {
        let query = |resource| Query {
            resource,
            namespace: "db".to_owned(),
            services: Index::services("pg").into(),
            object: "pg".to_owned(),
        };
        assert_eq!(
            query(Resource::EndpointSlices).selectors().0.unwrap(),
            "kubernetes.io/service-name in (pg-rw,pg-ro,pg-r)"
        );
        assert_eq!(
            query(Resource::Clusters).selectors().1.unwrap(),
            "metadata.name=pg"
        );
        let request = query(Resource::Leases)
            .request()
            .list(&ListParams::default())
            .unwrap();
        assert!(
            request
                .uri()
                .to_string()
                .starts_with("/apis/coordination.k8s.io/v1/namespaces/db/leases?"),
            "{}",
            request.uri()
        );
    }
}
