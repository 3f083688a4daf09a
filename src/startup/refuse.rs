//! Telling a stranger why it is not let in.

use std::time::Duration;

use super::error::StartupError;
use crate::{
    tls::Stream,
    wire::{
        reply::{self, Severity},
        stream::Framed,
    },
};

/// How long a refusal may take to be written.
const REFUSAL: Duration = Duration::from_secs(5);

/// Tells a client why it is not let in; a client that has left, or does not listen, is not waited for.
pub(super) async fn refuse(stream: &mut Framed<Stream>, error: &StartupError) {
    if error.is_departure() {
        return;
    }
    reply::error(Severity::Fatal, error, stream.output());
    let _ = tokio::time::timeout(REFUSAL, async {
        stream.flush().await?;
        stream.shutdown().await
    })
    .await;
}
