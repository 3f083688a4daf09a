//! A connection of our own to an HTTP server, for as long as one exchange takes.

use std::pin::pin;

use hyper::{
    body::Body,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Has `talk` ask over `stream`, and moves bytes while it does. Not bounded in time; cancel-safe.
///
/// # Errors
/// What `talk` says, or that there is no HTTP.
pub async fn exchange<S, B, T, E, F>(stream: S, talk: impl FnOnce(SendRequest<B>) -> F) -> Result<T, E>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: Future<Output = Result<T, E>>,
    E: From<hyper::Error>,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = pin!(connection);
    let mut answer = pin!(talk(sender));
    let mut is_open = true;
    loop {
        tokio::select! {
            biased;
            answer = answer.as_mut() => return answer,
            // Whatever it ends with: what has been read is still there.
            _ = connection.as_mut(), if is_open => is_open = false,
        }
    }
}
