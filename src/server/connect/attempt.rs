//! One attempt at one address: TLS, log-in, role, `connect_query`.

use std::{io, sync::Arc, time::Instant};

use super::{
    Candidates,
    open::{Address, open},
    role,
    stagger::{Pulse, Step},
    target::Target,
};
use crate::{
    auth::{
        request::AuthRequest,
        server_login::{Progress, ServerCredential, ServerLogin, ServerLoginError},
    },
    fault::{SqlState, chain},
    server::{
        connection::{Connection, Established, Opening},
        error::ConnectError,
        negotiate,
        notices::Notices,
        parameters::{Parameters, Source},
    },
    tls::Stream,
    topology::Observation,
    types::{BackendKey, Endpoint, TlsMode},
    wire::{
        backend::{self, ServerError, tag},
        frontend,
        stream::{Frame, Framed},
    },
};

/// The largest message that is accepted from a server during log-in.
pub(in crate::server) const LOGIN_MESSAGE: usize = 64 * 1024;

/// One attempt.
pub(in crate::server) struct Attempt<'a> {
    pub(in crate::server) target: &'a Arc<Target>,
    pub(super) credential: &'a ServerCredential,
    pub(super) candidates: Candidates<'a>,
    pub(super) address: Address,
    pub(super) pulse: Arc<Pulse>,
}

impl Attempt<'_> {
    /// Carries it out, and tells whoever observes what happened.
    pub(super) async fn run(self) -> Result<Step<Address, Connection>, ConnectError> {
        let outcome = match &self.address {
            Address {
                endpoint: Endpoint::Tcp { host, port },
                at: None,
                ..
            } => self.resolve(host, *port).await.map(Step::Instead),
            _ => self.connect_in_time().await.map(Step::Good),
        };
        match outcome {
            Err(error) if self.is_its_own(&error) => Ok(Step::Refused(error)),
            outcome => outcome.inspect_err(|error| self.failed(error)),
        }
    }

    /// Whether a server refuses for good, and others need not do so.
    fn is_its_own(&self, error: &ConnectError) -> bool {
        let endpoint = &self.address.endpoint;
        let is_its_own = !error.is_transient() && !(self.candidates.has_last_word)(endpoint);
        if is_its_own && self.target.logins.begin_complaint(endpoint, Instant::now()) {
            self.target
                .span(endpoint)
                .in_scope(|| tracing::warn!(error = chain(error), "a server refuses, and others are asked"));
        }
        is_its_own
    }

    fn failed(&self, error: &ConnectError) {
        let endpoint = &self.address.endpoint;
        if error.is_transient() {
            self.target
                .span(endpoint)
                .in_scope(|| tracing::debug!(error = chain(error), "cannot connect to server"));
        }
        // One role's log-in may take for ever where the server itself is well.
        let is_slow = matches!(error, ConnectError::Timeout { .. }) && self.pulse.is_answered();
        if let Some(failure) = error.failure().filter(|_| !is_slow) {
            (self.candidates.observe)(Observation::Failed {
                endpoint: endpoint.clone(),
                failure,
            });
        }
    }

    /// The addresses of a name, which are candidates in its place.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<Address>, ConnectError> {
        self.pulse.beat();
        let look_up = self.target.names.resolve(host, port);
        let found = tokio::time::timeout(self.target.options.timeout, look_up).await;
        let (host, addresses) = found
            .map_err(|_| self.timeout())?
            .map_err(|source| self.io(source))?;
        Ok(addresses
            .into_iter()
            .map(|at| Address {
                endpoint: self.address.endpoint.clone(),
                at: Some(at),
                host: Some(host.clone()),
            })
            .collect())
    }

    async fn connect_in_time(&self) -> Result<Connection, ConnectError> {
        // The wait for a place is the pooler's doing and not counted against the server.
        let _place = self.target.logins.enter(&self.address.server()).await;
        self.pulse.beat();
        match tokio::time::timeout(self.target.options.timeout, self.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(self.timeout()),
        }
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        let mode = self.target.connector.mode();
        let begun = Instant::now();
        let first = self.open(mode != TlsMode::Allow).await?;
        let connected = Instant::now();
        let encrypted = first.get_ref().is_tls();
        let may_change = match mode {
            TlsMode::Allow => !encrypted,
            TlsMode::Prefer => encrypted,
            _ => false,
        };
        let established = match self.log_in(first).await {
            // As libpq does: the server's pg_hba.conf may insist on TLS, or on none.
            Err(refusal) if may_change && is_unauthorized(&refusal) => {
                let second = self.open(!encrypted).await?;
                match self.log_in(second).await {
                    // Both ways are closed: what was said over TLS is about more than the lack of it.
                    Err(error) if encrypted && is_unauthorized(&error) => return Err(refusal),
                    established => established?,
                }
            }
            established => established?,
        };
        self.pulse.beat();
        let mut connection = Connection::new(established).took(Opening {
            connect: connected - begun,
            login: connected.elapsed(),
        });
        role::show(&mut connection, self.candidates).await?;
        connection.generation = self.target.cluster.topology().generation;
        if let Some(query) = &self.target.connect_query {
            self.pulse.beat();
            connection
                .prove(query)
                .await
                .map_err(ConnectError::ConnectQuery)?;
        }
        Ok(connection)
    }

    /// Opens a stream to the address.
    pub(in crate::server) async fn open(&self, ask_for_tls: bool) -> Result<Framed<Stream>, ConnectError> {
        open(self.target, &self.address, ask_for_tls, &self.pulse).await
    }

    async fn log_in(&self, stream: Framed<Stream>) -> Result<Established, ConnectError> {
        let (mut stream, first) = negotiate::start(self, stream).await?;
        let mut first = Some(first);
        let login = ServerLogin::new(&self.target.user, self.credential.clone());
        let mut login = Some(login.bound_to(stream.get_ref().end_point()));
        let (mut parameters, mut notices) = (Parameters::default(), Notices::default());
        let mut key = BackendKey {
            pid: 0,
            secret: Arc::default(),
        };
        loop {
            let Frame { tag, body } = match first.take() {
                Some(first) => first,
                None => stream.read_frame(LOGIN_MESSAGE).await?,
            };
            self.pulse.answer();
            match tag {
                tag::AUTHENTICATION => {
                    let request = AuthRequest::decode(&body).map_err(ServerLoginError::from)?;
                    let pending = login.take().ok_or(ConnectError::Protocol)?;
                    match pending.on_request(request)? {
                        Progress::Send { body, next } => {
                            frontend::password(&body, stream.output());
                            stream.flush().await.map_err(|source| self.io(source))?;
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
                        secret: secret.into(),
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
        stream.splitter().set_limit(self.target.options.max_packet_size);
        Ok(Established {
            stream,
            parameters,
            notices,
            key,
            address: self.address.clone(),
            target: self.target.clone(),
        })
    }

    /// The endpoint that it is about.
    pub(in crate::server) fn endpoint(&self) -> &Endpoint {
        &self.address.endpoint
    }

    /// A failure of the socket.
    pub(in crate::server) fn io(&self, source: io::Error) -> ConnectError {
        ConnectError::Io {
            endpoint: self.address.endpoint.clone(),
            source,
        }
    }

    fn timeout(&self) -> ConnectError {
        ConnectError::Timeout {
            endpoint: self.address.endpoint.clone(),
            after: self.target.options.timeout,
        }
    }
}

/// Not a wrong password (28P01): it is wrong with and without TLS, and is not to be tried twice.
fn is_unauthorized(error: &ConnectError) -> bool {
    matches!(error, ConnectError::Server(error) if error.code == Some(SqlState::INVALID_AUTHORIZATION))
}
