//! What can go wrong between the API server and us.

use std::{error::Error, fmt, io};

type Cause = Box<dyn Error + Send + Sync>;

/// Why nothing is heard of some kind of object.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    /// No connection, no TLS, or a connection that was reset.
    #[error("the API server cannot be reached")]
    Unreachable(#[source] Cause),
    /// No answer, or no more of one.
    #[error("the API server does not answer")]
    Silent,
    /// An answer that ends in the middle.
    #[error("the API server has broken off its answer")]
    Cut(#[source] Cause),
    /// The token cannot be read.
    #[error("the token cannot be read")]
    Token(#[source] io::Error),
    /// 401: the token has expired, or is none.
    #[error("the token is not accepted (401)")]
    Unauthorized,
    /// 403: no role allows it, or the roles have not been loaded.
    #[error("not allowed (403): {0}")]
    Forbidden(Message),
    /// 404: there are no such objects in this cluster.
    #[error("there is no such resource (404)")]
    Missing,
    /// 410: what has happened since is not remembered.
    #[error("the version is too old (410)")]
    Expired,
    /// Any other answer.
    #[error("the API server answers with status {0}")]
    Status(u16),
    /// Not what JSON looks like, or these objects.
    #[error("the answer cannot be understood")]
    Malformed(#[from] serde_json::Error),
    /// JSON, and something else than was asked for.
    #[error("the answer is about something else")]
    NotAsked,
    /// More than anybody needs.
    #[error("the answer is too long")]
    TooLong,
    /// No request could be made of it.
    #[error("no request can be made")]
    Request(#[source] Cause),
}

/// What the API server says, as far as a line of a log has room for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message(Box<str>);

impl Message {
    const LONGEST: usize = 300;

    pub(super) fn new(text: &str) -> Self {
        let printable = text.chars().filter(|character| !character.is_control());
        Self(printable.take(Self::LONGEST).collect::<String>().into())
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl WatchError {
    /// The word for it in metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Silent => "silent",
            Self::Cut(_) => "cut",
            Self::Token(_) => "token",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::Missing => "missing",
            Self::Expired => "expired",
            Self::Status(_) => "status",
            Self::Malformed(_) | Self::NotAsked | Self::TooLong | Self::Request(_) => "malformed",
        }
    }

    /// Whether the API server has said that we are to do without these objects.
    pub(super) fn is_denial(&self) -> bool {
        matches!(self, Self::Forbidden(_) | Self::Missing)
    }

    /// Whether a watch may work although a list does not: lists ask the store, watches are served from memory.
    pub(super) fn is_of_lists_only(&self) -> bool {
        matches!(self, Self::Silent | Self::Status(500..))
    }

    /// The whole chain of causes, for a log line.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            let cause = error.to_string();
            if !text.ends_with(&cause) {
                text = format!("{text}: {cause}");
            }
            source = error.source();
        }
        text
    }
}
