//! The console's conversation: simple queries in, tables out.

use std::{borrow::Cow, io, sync::Arc, time::Duration};

use super::{
    command::{self, Command, UnknownCommand},
    show::show,
};
use crate::{
    fault::{Blame, Fault, SqlState},
    pool::Pools,
    session::{Entry, Identity, Table},
    tls::Stream,
    topology::Cluster,
    wire::{
        frontend::tag,
        reply::{self, Severity},
        stream::{Framed, ReadError},
    },
};

/// The longest message that is read.
const MESSAGE: usize = 16 * 1024;
/// How long the last words may take.
const GOODBYE: Duration = Duration::from_secs(5);

/// What the console looks at.
#[derive(Debug, Clone)]
pub struct Console {
    /// The pools.
    pub pools: Arc<Pools>,
    /// The sessions.
    pub table: Arc<Table>,
    /// The clusters, by name.
    pub clusters: Vec<Arc<Cluster>>,
}

/// Someone who is logged in to the console. AuthenticationOk stands in the stream's output.
#[derive(Debug)]
pub struct Visitor<Slot> {
    /// The stream.
    pub stream: Framed<Stream>,
    /// Who it is.
    pub identity: Identity,
    /// Its place among the sessions.
    pub entry: Entry,
    /// Its place among the clients.
    pub slot: Slot,
}

/// Why the console does not answer.
#[derive(Debug, thiserror::Error)]
enum ConsoleError {
    #[error("user \"{0}\" may not use the admin console")]
    NotAllowed(String),
    #[error(transparent)]
    Unknown(#[from] UnknownCommand),
    #[error("the admin console takes simple queries only")]
    Extended,
    #[error("terminating connection due to administrator command")]
    Drained,
    #[error("invalid frontend message")]
    Protocol,
}

impl Fault for ConsoleError {
    fn blame(&self) -> Blame {
        match self {
            Self::Drained => Blame::Pooler,
            _ => Blame::Client,
        }
    }

    fn sqlstate(&self) -> SqlState {
        match self {
            Self::NotAllowed(_) => SqlState::INSUFFICIENT_PRIVILEGE,
            Self::Unknown(_) => SqlState::SYNTAX_ERROR,
            Self::Extended => SqlState::FEATURE_NOT_SUPPORTED,
            Self::Drained => SqlState::ADMIN_SHUTDOWN,
            Self::Protocol => SqlState::PROTOCOL_VIOLATION,
        }
    }

    fn client_message(&self) -> Cow<'_, str> {
        self.to_string().into()
    }

    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::NotAllowed(_) => {
                Some("Name the user in auth.stats_users of pgweir's configuration.".into())
            }
            Self::Unknown(_) => Some("SHOW HELP lists the commands.".into()),
            _ => None,
        }
    }
}

impl Console {
    /// Serves a visitor until one side ends it.
    pub async fn serve<Slot>(self, mut visitor: Visitor<Slot>, stats_users: &[String]) {
        let user = visitor.identity.user.as_str();
        if !stats_users.iter().any(|allowed| allowed == user) {
            let error = ConsoleError::NotAllowed(user.to_owned());
            visitor
                .identity
                .span()
                .in_scope(|| tracing::info!(%error, "admin console refused"));
            return end(&mut visitor.stream, Some(error)).await;
        }
        self.greet(&mut visitor);
        let control = visitor.entry.control().clone();
        let ended = tokio::select! {
            ended = self.converse(&mut visitor.stream) => ended,
            _ = control.ordered_to_end() => Some(ConsoleError::Drained),
        };
        end(&mut visitor.stream, ended).await;
    }

    fn greet<Slot>(&self, visitor: &mut Visitor<Slot>) {
        let key = visitor.entry.key().clone();
        let out = visitor.stream.output();
        let version = format!("{}/pgweir", env!("CARGO_PKG_VERSION"));
        let settings = [
            ("server_version", version.as_str()),
            ("client_encoding", "UTF8"),
            ("server_encoding", "UTF8"),
        ];
        for (name, value) in settings {
            reply::parameter_status(name, value.as_bytes(), out);
        }
        reply::backend_key_data(&key, out);
        reply::ready_for_query(out);
    }

    /// Returns what has to be said at the end, if anything has.
    async fn converse(&self, stream: &mut Framed<Stream>) -> Option<ConsoleError> {
        loop {
            if stream.flush().await.is_err() {
                return None;
            }
            let frame = match stream.read_frame(MESSAGE).await {
                Ok(frame) => frame,
                Err(ReadError::Closed | ReadError::Io(_)) => return None,
                Err(_) => return Some(ConsoleError::Protocol),
            };
            match frame.tag {
                tag::QUERY => self.answer(&frame.body, stream),
                tag::SYNC => reply::ready_for_query(stream.output()),
                tag::TERMINATE => return None,
                // Everything up to the next Sync is part of the refused batch.
                tag::PARSE => reply::error(Severity::Error, &ConsoleError::Extended, stream.output()),
                tag::BIND | tag::DESCRIBE | tag::EXECUTE | tag::CLOSE | tag::FLUSH => {}
                _ => return Some(ConsoleError::Protocol),
            }
        }
    }

    fn answer(&self, body: &[u8], stream: &mut Framed<Stream>) {
        let sql = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(body));
        let out = stream.output();
        match command::parse(&sql) {
            Ok(Command::Empty) => reply::empty_query_response(out),
            Ok(Command::Show(topic)) => {
                let shown = show(topic, self);
                reply::text_rows(shown.columns, &shown.rows, out);
                reply::command_complete("SHOW", out);
            }
            Err(error) => reply::error(Severity::Error, &ConsoleError::from(error), out),
        }
        reply::ready_for_query(out);
    }
}

async fn end(stream: &mut Framed<Stream>, error: Option<ConsoleError>) {
    if let Some(error) = error {
        reply::error(Severity::Fatal, &error, stream.output());
    }
    let closed = async {
        stream.flush().await?;
        stream.shutdown().await
    };
    let _: Result<io::Result<()>, _> = tokio::time::timeout(GOODBYE, closed).await;
}
