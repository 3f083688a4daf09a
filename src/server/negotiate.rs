//! Which version of the protocol a server connection speaks. The newest is asked for, because of the long cancel keys
//! of 3.2.
//!
//! PostgreSQL negotiates; all supported versions do. Something in between that neither knows 3.2 nor how to say so is
//! asked for 3.0, and that is remembered for a while.

use std::time::Instant;

use super::{
    connect::{LOGIN_MESSAGE, LogIn},
    error::ConnectError,
};
use crate::{
    tls::Stream,
    wire::{
        backend::{ServerError, tag},
        frontend,
        startup::NEWEST_MINOR,
        stream::{Frame, Framed, ReadError},
    },
};

/// Sends the startup packet. Returns the first answer, and the stream that it came on.
pub(super) async fn start(
    attempt: &LogIn<'_>,
    mut stream: Framed<Stream>,
) -> Result<(Framed<Stream>, Frame), ConnectError> {
    let (logins, endpoint) = (&attempt.target.logins, attempt.endpoint());
    if logins.is_outdated(endpoint, Instant::now()) {
        let answer = ask(attempt, 0, &mut stream).await?;
        return Ok((stream, answer));
    }
    let encrypted = stream.get_ref().is_tls();
    match ask(attempt, NEWEST_MINOR, &mut stream).await {
        answer if may_be_about_version(&answer) => {
            let mut stream = attempt.open(encrypted).await?;
            let answer = ask(attempt, 0, &mut stream).await?;
            if answer.tag != tag::ERROR_RESPONSE {
                logins.note_outdated(endpoint, Instant::now());
            }
            Ok((stream, answer))
        }
        answer => Ok((stream, answer?)),
    }
}

/// Whether an answer, or its absence, may be the refusal of a version.
fn may_be_about_version(answer: &Result<Frame, ConnectError>) -> bool {
    match answer {
        Ok(Frame { tag, body }) if *tag == tag::ERROR_RESPONSE => ServerError::decode(body)
            .code
            .is_none_or(|code| matches!(code.class(), "08" | "0A")),
        Err(ConnectError::Read(ReadError::Closed | ReadError::Io(_))) => true,
        _ => false,
    }
}

async fn ask(attempt: &LogIn<'_>, minor: u16, stream: &mut Framed<Stream>) -> Result<Frame, ConnectError> {
    let target = attempt.target;
    let settings = target.startup.iter();
    let settings = settings.map(|(name, value)| (name.as_str(), value.as_str()));
    let who = [
        ("user", target.user.as_str()),
        ("database", target.database.as_str()),
    ];
    frontend::startup(minor, who.into_iter().chain(settings), stream.output());
    stream.flush().await.map_err(|source| attempt.io(source))?;
    Ok(stream.read_frame(LOGIN_MESSAGE).await?)
}
