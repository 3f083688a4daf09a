//! Asking an LDAP directory whether a password is the user's.
//!
//! `auth::ldap` knows the messages and what answers mean; this is the connection, one for each log-in.

use std::{io, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout_at},
};

use super::{door::Attempt, error::StartupError};
use crate::{
    auth::{
        AuthError,
        ldap::{
            self, Directory, Encryption, Malformed, Operation, Outcome, Question, Refusal, Reply, Search,
        },
        secret::Password,
    },
    config::Tcp,
    net::Socket,
    tls::{Connector, Stream, TlsError},
};

/// How many log-ins ask at once; the others wait.
pub(super) const AT_ONCE: usize = 32;
/// For the whole; clients and load balancers do not wait much longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// For one server, if there is another to be tried.
const CONNECTING: Duration = Duration::from_secs(2);
/// What a search may take of that.
const SEARCHING: u8 = 4;

/// What is needed to ask.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    /// Whom.
    pub(super) directory: &'a Directory,
    /// With what its certificates are verified.
    pub(super) tls: Option<&'a Connector>,
    /// On whose behalf.
    pub(super) attempt: &'a Attempt<'a>,
}

/// Why a directory could not say whether the password is right. It says nothing about the user.
#[derive(Debug, thiserror::Error)]
#[error("LDAP server \"{server}\" could not be asked")]
pub struct DirectoryError {
    /// Which one.
    server: String,
    #[source]
    trouble: Trouble,
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{AT_ONCE} log-ins are being asked about, and none came to an end within {}s", PATIENCE.as_secs())]
    Busy,
    #[error("no answer in time")]
    Timeout,
    #[error("connection failed")]
    Connect(#[source] io::Error),
    #[error("connection broke")]
    Io(#[from] io::Error),
    #[error("it closed the connection")]
    Closed,
    #[error("tls failed")]
    Tls(#[source] TlsError),
    #[error("none is named")]
    Nobody,
    #[error("auth.ldap_ca_file is not set")]
    NoCa,
    #[error("it sent bytes in clear behind its agreement to TLS")]
    ReadAhead,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("{operation} failed: {outcome}")]
    Failed {
        operation: &'static str,
        outcome: Outcome,
    },
}

impl DirectoryError {
    /// There is none.
    pub(super) fn nobody() -> Self {
        Self {
            server: String::new(),
            trouble: Trouble::Nobody,
        }
    }
}

impl Asker<'_> {
    /// Whether this is the user's password.
    ///
    /// # Errors
    /// It is not, or nobody could say.
    pub(super) async fn ask(&self, user: &str, password: &Password) -> Result<(), StartupError> {
        let refused = |reason| {
            let user = user.into();
            StartupError::from(AuthError::Directory { user, reason })
        };
        let question = self.directory.question(user).map_err(refused)?;
        let deadline = Instant::now() + PATIENCE;
        let Ok(Ok(_turn)) = timeout_at(deadline, self.attempt.turns().acquire()).await else {
            return Err(self.error_of_first(Trouble::Busy).into());
        };
        // Others may have failed while this one waited.
        self.attempt.check()?;
        let (server, mut connection) = self.connect(deadline).await?;
        let answer = timeout_at(deadline, connection.answer(&question, password)).await;
        match answer.unwrap_or(Err(Trouble::Timeout)) {
            Ok(verdict) => verdict.map_err(refused),
            Err(trouble) => Err(DirectoryError { server, trouble }.into()),
        }
    }

    /// The first server that can be reached, and its name.
    async fn connect(&self, deadline: Instant) -> Result<(String, Connection), DirectoryError> {
        let mut last = self.error_of_first(Trouble::Timeout);
        for (host, port) in &self.directory.servers {
            let patience = deadline.min(Instant::now() + CONNECTING);
            let opened = timeout_at(patience, self.open(host, *port)).await;
            let server = name(host, *port);
            match opened.unwrap_or(Err(Trouble::Timeout)) {
                Ok(connection) => return Ok((server, connection)),
                Err(trouble) => last = DirectoryError { server, trouble },
            }
        }
        Err(last)
    }

    fn error_of_first(&self, trouble: Trouble) -> DirectoryError {
        let first = self.directory.servers.first();
        let server = first.map_or_else(String::new, |(host, port)| name(host, *port));
        DirectoryError { server, trouble }
    }

    async fn open(&self, host: &str, port: u16) -> Result<Connection, Trouble> {
        let socket = Socket::connect_tcp(host, port, &Tcp::default())
            .await
            .map_err(Trouble::Connect)?;
        let mut connection = Connection::new(Stream::Plain(socket));
        match self.directory.encryption {
            Encryption::None => Ok(connection),
            Encryption::StartTls => {
                let outcome = connection.done(&Operation::StartTls).await?;
                expect_success("StartTLS", outcome)?;
                if !connection.input.is_empty() {
                    return Err(Trouble::ReadAhead);
                }
                self.encrypt(connection, host).await
            }
            Encryption::Ldaps => self.encrypt(connection, host).await,
        }
    }

    async fn encrypt(&self, connection: Connection, host: &str) -> Result<Connection, Trouble> {
        let (Some(tls), Stream::Plain(socket)) = (self.tls, connection.stream) else {
            return Err(Trouble::NoCa);
        };
        let stream = tls.connect(socket, host).await.map_err(Trouble::Tls)?;
        Ok(Connection {
            asked: connection.asked,
            ..Connection::new(stream)
        })
    }
}

fn name(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// A connection to one server, with one request under way at a time.
struct Connection {
    stream: Stream,
    input: BytesMut,
    asked: u8,
}

impl Connection {
    fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            asked: 0,
        }
    }

    async fn answer(
        &mut self,
        question: &Question<'_>,
        password: &Password,
    ) -> Result<Result<(), Refusal>, Trouble> {
        let verdict = match question {
            Question::Bind(name) => self.verdict(name.as_bytes(), password).await,
            Question::Search(search, filter) => match self.find(search, filter).await? {
                Ok(name) => self.verdict(&name, password).await,
                Err(refusal) => Ok(Err(refusal)),
            },
        };
        // A courtesy, which changes nothing any more.
        drop(self.send(&Operation::Unbind).await);
        verdict
    }

    async fn verdict(&mut self, name: &[u8], password: &Password) -> Result<Result<(), Refusal>, Trouble> {
        // Without a name or a password a bind may succeed, and proves nothing.
        if name.is_empty() {
            return Ok(Err(Refusal::NotFound));
        }
        if password.is_empty() {
            return Ok(Err(Refusal::EmptyPassword));
        }
        let outcome = self.done(&Operation::Bind { name, password }).await?;
        ldap::verdict(outcome).map_err(|outcome| failed("bind", outcome))
    }

    /// The name of the one entry that is the user.
    async fn find(&mut self, search: &Search, filter: &[u8]) -> Result<Result<Box<[u8]>, Refusal>, Trouble> {
        let bind = Operation::Bind {
            name: search.bind_name.as_bytes(),
            password: &search.bind_password,
        };
        expect_success("bind for the search", self.done(&bind).await?)?;
        self.send(&Operation::Search {
            base: &search.base,
            scope: search.scope,
            filter,
            seconds: SEARCHING,
        })
        .await?;
        let mut found = None;
        loop {
            match self.receive().await? {
                Reply::Entry(_) if found.is_some() => return Ok(Err(Refusal::Ambiguous)),
                Reply::Entry(name) => found = Some(name),
                Reply::Reference => {}
                Reply::Done(outcome) => {
                    expect_success("search", outcome)?;
                    return Ok(found.ok_or(Refusal::NotFound));
                }
            }
        }
    }

    /// The outcome of an operation that has only that.
    async fn done(&mut self, operation: &Operation<'_>) -> Result<Outcome, Trouble> {
        self.send(operation).await?;
        match self.receive().await? {
            Reply::Done(outcome) => Ok(outcome),
            Reply::Entry(_) | Reply::Reference => Err(Malformed.into()),
        }
    }

    async fn send(&mut self, operation: &Operation<'_>) -> Result<(), Trouble> {
        self.asked += 1;
        let request = ldap::request(self.asked, operation);
        self.stream.write_all(&request).await?;
        Ok(self.stream.flush().await?)
    }

    async fn receive(&mut self) -> Result<Reply, Trouble> {
        loop {
            let length = ldap::length(&self.input)?;
            if let Some(length) = length.filter(|&length| length <= self.input.len()) {
                let reply = ldap::reply(self.asked, &self.input[..length]);
                self.input.advance(length);
                return Ok(reply?);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(Trouble::Closed);
            }
        }
    }
}

fn expect_success(operation: &'static str, outcome: Outcome) -> Result<(), Trouble> {
    match outcome.code {
        0 => Ok(()),
        _ => Err(failed(operation, outcome)),
    }
}

fn failed(operation: &'static str, outcome: Outcome) -> Trouble {
    Trouble::Failed { operation, outcome }
}
