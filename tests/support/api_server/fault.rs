//! What can be wrong with the played API server.

use serde_json::{Value, json};

/// What new requests get instead of their answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 401, whatever the token.
    Unauthorized,
    /// 403 for everything, as after a restart when the roles are not loaded.
    Forbidden,
    /// 429 in plain text.
    TooManyRequests,
    /// HTTP 410, as for an old version or continuation.
    Gone,
    /// 500
    InternalError,
    /// 503, and no JSON.
    Unavailable,
    /// 504: the version is larger than the server's.
    VersionTooLarge,
    /// 200 and something that is no JSON.
    NoJson,
    /// 200 and a list of something else, with nothing in it.
    WrongShape,
    /// The head of an answer, and half of the rest: then the end of the connection.
    HalfAnAnswer,
    /// Read, and never answered.
    Silent,
    /// The end of the connection, without an answer.
    Closed,
}

/// How open watches end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchEnd {
    /// As at `timeoutSeconds`.
    Clean,
    /// In the middle, without the last chunk.
    Cut,
    /// By a TCP reset.
    Reset,
    /// An ERROR event with code 410, then as `Clean`.
    Expired,
    /// An ERROR event with code 500, then as `Clean`.
    Error,
}

/// An answer that is no success.
pub(super) struct Failure {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: String,
    pub(super) retry_after: bool,
}

impl Failure {
    pub(super) fn status(code: u16, reason: &str, message: &str) -> Self {
        Self::json(&status(code, reason, message))
    }

    fn json(status: &Value) -> Self {
        let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        Self {
            status: code.expect("a Status has a code"),
            content_type: "application/json",
            body: format!("{status}\n"),
            retry_after: false,
        }
    }

    fn text(code: u16, body: &str) -> Self {
        Self {
            status: code,
            content_type: "text/plain; charset=utf-8",
            body: body.to_owned(),
            retry_after: true,
        }
    }
}

/// A `Status` object.
pub(super) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

impl Fault {
    /// The answer; `None` if it takes more than one.
    pub(super) fn answer(self) -> Option<Failure> {
        Some(match self {
            Self::Unauthorized => Failure::status(401, "Unauthorized", "Unauthorized"),
            Self::Forbidden => Failure::status(
                403,
                "Forbidden",
                "forbidden: User \"system:serviceaccount:db:pooler\" cannot get path: RBAC: not loaded",
            ),
            Self::TooManyRequests => Failure::text(429, "Too many requests, please try again later."),
            Self::Gone => Failure::status(
                410,
                "Expired",
                "The resourceVersion for the provided list is too old.",
            ),
            Self::InternalError => Failure::status(
                500,
                "InternalError",
                "Internal error occurred: etcdserver: no leader",
            ),
            Self::Unavailable => Failure::text(503, "apiserver not ready"),
            Self::VersionTooLarge => {
                let mut status = status(
                    504,
                    "Timeout",
                    "Timeout: Too large resource version: 99999999, current: 286",
                );
                status["details"] = json!({
                    "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
                    "retryAfterSeconds": 1,
                });
                Failure {
                    retry_after: true,
                    ..Failure::json(&status)
                }
            }
            Self::NoJson => Failure {
                retry_after: false,
                ..Failure::text(200, "<html>Please log in</html>")
            },
            Self::WrongShape => Failure {
                status: 200,
                content_type: "application/json",
                body: "{\"kind\":\"Table\",\"metadata\":{\"resourceVersion\":\"900\"},\"items\":[]}\n"
                    .to_owned(),
                retry_after: false,
            },
            Self::HalfAnAnswer | Self::Silent | Self::Closed => return None,
        })
    }
}
