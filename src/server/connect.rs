//! Opening a server connection: socket, TLS, log-in, and whether it is the kind of server that is wanted.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tracing::Span;

use super::{
    connection::{Connection, Established},
    error::ConnectError,
    logins::Logins,
    negotiate,
    notices::Notices,
    parameters::{Parameters, Source},
};
use crate::{
    auth::{
        request::AuthRequest,
        server_login::{Progress, ServerCredential, ServerLogin, ServerLoginError},
    },
    config::{LoadBalance, Tcp},
    fault::SqlState,
    fault::chain,
    net::Socket,
    tls::{Connector, Stream},
    types::{BackendKey, Endpoint, Role, TlsMode},
    wire::{
        backend::{self, ServerError, tag},
        frontend,
        stream::{Frame, Framed},
    },
};

/// The largest message that is accepted from a server during log-in.
pub(super) const LOGIN_MESSAGE: usize = 64 * 1024;

/// Where to connect, as whom, and what is expected there.
#[derive(Debug)]
pub struct Target {
    /// Tried in the order that `options` say.
    pub endpoints: Vec<Endpoint>,
    /// What kind of server will do.
    pub role: Role,
    /// The role that logs in.
    pub user: String,
    /// The database's name on the server.
    pub database: String,
    /// Settings that connections are opened with.
    pub startup: Vec<(String, String)>,
    /// What is run on every connection before it is used.
    pub connect_query: Option<String>,
    /// TLS, and how much of it.
    pub connector: Arc<Connector>,
    /// How connections are opened.
    pub options: ConnectOptions,
    /// The places for log-ins at each server.
    pub logins: Arc<Logins>,
    /// How many connections have been begun.
    pub begun: AtomicUsize,
}

/// How connections are opened. When it changes, those that are open are as good as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectOptions {
    /// For one endpoint: socket, TLS and log-in together.
    pub timeout: Duration,
    /// What sockets are tuned with.
    pub tcp: Tcp,
    /// In which order endpoints are tried.
    pub load_balance: LoadBalance,
    /// How long a message of the server may be after the log-in.
    pub max_packet_size: u32,
}

impl Target {
    /// The span of what is logged about a connection to `endpoint`.
    pub fn span(&self, endpoint: &Endpoint) -> Span {
        tracing::info_span!("server", server = %endpoint, db = %self.database, user = %self.user)
    }

    /// The same for a client's own connection, which is opened with what the client has asked for and left alone.
    #[must_use]
    pub fn for_one_client(&self, asked: Vec<(String, String)>) -> Self {
        let mut startup = self.startup.clone();
        startup.retain(|(name, _)| !asked.iter().any(|(other, _)| name.eq_ignore_ascii_case(other)));
        startup.extend(asked);
        Self {
            endpoints: self.endpoints.clone(),
            role: self.role,
            user: self.user.clone(),
            database: self.database.clone(),
            startup,
            connect_query: None,
            connector: self.connector.clone(),
            options: ConnectOptions {
                max_packet_size: u32::MAX,
                ..self.options
            },
            logins: self.logins.clone(),
            begun: AtomicUsize::new(self.begun.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// The same for one of its servers only.
    #[must_use]
    pub fn at(&self, endpoint: &Endpoint) -> Self {
        Self {
            endpoints: vec![endpoint.clone()],
            role: self.role,
            user: self.user.clone(),
            database: self.database.clone(),
            startup: self.startup.clone(),
            connect_query: self.connect_query.clone(),
            connector: self.connector.clone(),
            options: self.options,
            logins: self.logins.clone(),
            begun: AtomicUsize::default(),
        }
    }

    /// The index of the endpoint that the next connection begins with.
    fn first(&self) -> usize {
        match self.options.load_balance {
            LoadBalance::Disable => 0,
            LoadBalance::RoundRobin => {
                self.begun.fetch_add(1, Ordering::Relaxed) % self.endpoints.len().max(1)
            }
        }
    }

    /// Whether connections for `other` are as good as connections for this, if perhaps made with certificates that
    /// were replaced since.
    pub fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || (self.endpoints == other.endpoints
                && self.role == other.role
                && self.user == other.user
                && self.database == other.database
                && self.startup == other.startup
                && self.connect_query == other.connect_query
                && (Arc::ptr_eq(&self.connector, &other.connector)
                    || self.connector.is_like(&other.connector)))
    }

    /// Whether connections for `other`, which is the same, are also opened in the same way.
    pub fn opens_like(&self, other: &Self) -> bool {
        self.options == other.options
            && Arc::ptr_eq(&self.logins, &other.logins)
            && Arc::ptr_eq(&self.connector, &other.connector)
    }
}

/// Opens a connection to the first endpoint that has the right kind of server.
///
/// # Errors
/// What the last endpoint failed with, or the first final refusal (see [`ConnectError::is_transient`]).
pub async fn connect(
    target: &Arc<Target>,
    credential: &ServerCredential,
) -> Result<Connection, ConnectError> {
    let mut last = ConnectError::NoEndpoint;
    let (before, after) = target.endpoints.split_at(target.first());
    for endpoint in after.iter().chain(before) {
        // The wait for a place is the pooler's doing and not counted against the server.
        let _place = target.logins.enter(endpoint).await;
        let attempt = tokio::time::timeout(target.options.timeout, connect_to(target, endpoint, credential));
        match attempt.await {
            Ok(Ok(connection)) => {
                target.connector.prove();
                return Ok(connection);
            }
            Ok(Err(error)) if !error.is_transient() => return Err(error),
            Ok(Err(error)) => {
                target
                    .span(endpoint)
                    .in_scope(|| tracing::debug!(error = chain(&error), "cannot connect to server"));
                last = error;
            }
            Err(_) => {
                last = ConnectError::Timeout {
                    endpoint: endpoint.clone(),
                    after: target.options.timeout,
                }
            }
        }
    }
    Err(last)
}

/// Opens a stream to an endpoint as every connection does, and closes it without logging in. Returns the TLS version.
///
/// # Errors
/// As [`connect`], up to the log-in.
pub async fn reach(target: &Target, endpoint: &Endpoint) -> Result<Option<&'static str>, ConnectError> {
    let ask_for_tls = target.connector.mode() != TlsMode::Allow;
    let opening = tokio::time::timeout(target.options.timeout, open(target, endpoint, ask_for_tls));
    match opening.await {
        Ok(opened) => opened.map(|stream| stream.get_ref().tls_version()),
        Err(_) => Err(ConnectError::Timeout {
            endpoint: endpoint.clone(),
            after: target.options.timeout,
        }),
    }
}

async fn connect_to(
    target: &Arc<Target>,
    endpoint: &Endpoint,
    credential: &ServerCredential,
) -> Result<Connection, ConnectError> {
    let mode = target.connector.mode();
    let first = open(target, endpoint, mode != TlsMode::Allow).await?;
    let encrypted = first.get_ref().is_tls();
    let may_change = match mode {
        TlsMode::Allow => !encrypted,
        TlsMode::Prefer => encrypted,
        _ => false,
    };
    let established = match login(target, endpoint, credential, first).await {
        // As libpq does: the server's pg_hba.conf may insist on TLS, or on none.
        Err(refusal) if may_change && is_unauthorized(&refusal) => {
            let second = open(target, endpoint, !encrypted).await?;
            match login(target, endpoint, credential, second).await {
                // Both ways are closed: what was said over TLS is about more than the lack of it.
                Err(error) if encrypted && is_unauthorized(&error) => return Err(refusal),
                established => established?,
            }
        }
        established => established?,
    };
    check_role(target.role, endpoint, &established.parameters)?;
    let mut connection = Connection::new(established);
    if let Some(query) = &target.connect_query {
        connection
            .prove(query)
            .await
            .map_err(ConnectError::ConnectQuery)?;
    }
    Ok(connection)
}

/// Not a wrong password (28P01): it is wrong with and without TLS, and is not to be tried twice.
fn is_unauthorized(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Server(error) if error.code == Some(SqlState::INVALID_AUTHORIZATION))
}

/// Opens the stream to an endpoint as every connection of this pooler does, cancel requests included.
pub(super) async fn open(
    target: &Target,
    endpoint: &Endpoint,
    ask_for_tls: bool,
) -> Result<Framed<Stream>, ConnectError> {
    let connector = &target.connector;
    let io = |source: io::Error| ConnectError::Io {
        endpoint: endpoint.clone(),
        source,
    };
    let (host, socket) = match endpoint {
        Endpoint::Tcp { host, port } => {
            let socket = Socket::connect_tcp(host, *port, &target.options.tcp).await;
            (host, socket.map_err(io)?)
        }
        Endpoint::Unix(path) => {
            let socket = Socket::connect_unix(path).await.map_err(io)?;
            return Ok(Framed::new(Stream::Plain(socket)));
        }
    };
    let mut stream = Framed::new(Stream::Plain(socket));
    if !ask_for_tls || connector.mode() == TlsMode::Disable {
        return Ok(stream);
    }
    frontend::ssl_request(stream.output());
    stream.flush().await.map_err(io)?;
    match stream.read_byte().await? {
        b'S' => {
            let Stream::Plain(socket) = stream.into_inner().map_err(|_| ConnectError::Protocol)? else {
                return Err(ConnectError::Protocol);
            };
            Ok(Framed::new(
                connector.connect(socket, host).await.map_err(ConnectError::Tls)?,
            ))
        }
        b'N' if matches!(connector.mode(), TlsMode::Allow | TlsMode::Prefer) => Ok(stream),
        b'N' => Err(ConnectError::TlsRefused {
            endpoint: endpoint.clone(),
        }),
        // What a server says before TLS may be anyone's words (CVE-2024-10977): it is not shown.
        b'E' => Err(ConnectError::TlsUnanswered {
            endpoint: endpoint.clone(),
        }),
        _ => Err(ConnectError::Protocol),
    }
}

async fn login(
    target: &Arc<Target>,
    endpoint: &Endpoint,
    credential: &ServerCredential,
    stream: Framed<Stream>,
) -> Result<Established, ConnectError> {
    let io = |source: io::Error| ConnectError::Io {
        endpoint: endpoint.clone(),
        source,
    };
    let (mut stream, first) = negotiate::start(target, endpoint, stream).await?;
    let mut first = Some(first);
    let login = ServerLogin::new(&target.user, credential.clone());
    let mut login = Some(login.bound_to(stream.get_ref().end_point()));
    let (mut parameters, mut notices) = (Parameters::default(), Notices::default());
    let mut key = BackendKey {
        pid: 0,
        secret: Bytes::new(),
    };
    loop {
        let Frame { tag, body } = match first.take() {
            Some(first) => first,
            None => stream.read_frame(LOGIN_MESSAGE).await?,
        };
        match tag {
            tag::AUTHENTICATION => {
                let request = AuthRequest::decode(&body).map_err(ServerLoginError::from)?;
                let pending = login.take().ok_or(ConnectError::Protocol)?;
                match pending.on_request(request)? {
                    Progress::Send { body, next } => {
                        frontend::password(&body, stream.output());
                        stream.flush().await.map_err(io)?;
                        login = Some(next);
                    }
                    Progress::Wait(next) => login = Some(next),
                    Progress::LoggedIn => {}
                }
            }
            tag::PARAMETER_STATUS => {
                let (name, value) = backend::parameter_status(&body)?;
                let name = std::str::from_utf8(name).map_err(|_| ConnectError::Protocol)?;
                parameters.set(name, value, Source::Reported);
            }
            tag::BACKEND_KEY_DATA => {
                let (pid, secret) = backend::backend_key_data(&body)?;
                key = BackendKey {
                    pid,
                    secret: Bytes::copy_from_slice(secret),
                };
            }
            tag::ERROR_RESPONSE => return Err(ConnectError::Server(ServerError::decode(&body))),
            tag::NOTICE_RESPONSE => notices.push(&body),
            tag::NEGOTIATE_PROTOCOL_VERSION => {}
            tag::READY_FOR_QUERY if login.is_none() => break,
            _ => return Err(ConnectError::Protocol),
        }
    }
    stream.shrink();
    stream.splitter().set_limit(target.options.max_packet_size);
    let (endpoint, target) = (endpoint.clone(), target.clone());
    Ok(Established {
        stream,
        parameters,
        notices,
        key,
        endpoint,
        target,
    })
}

/// Servers since PostgreSQL 14 report `in_hot_standby`; one that does not is taken at its word.
fn check_role(role: Role, endpoint: &Endpoint, parameters: &Parameters) -> Result<(), ConnectError> {
    let standby = parameters.get("in_hot_standby").map(|value| value == "on");
    match (role, standby) {
        (Role::ReadWrite, Some(true)) | (Role::ReadOnly, Some(false)) => Err(ConnectError::WrongRole {
            endpoint: endpoint.clone(),
            role,
        }),
        _ => Ok(()),
    }
}
