//! Asking a server to cancel what one of its connections is doing.

use std::{sync::Arc, time::Duration};

use super::{
    connect::{Address, Pulse, Target, open},
    error::ConnectError,
};
use crate::{
    types::{BackendKey, TlsMode},
    wire::{frontend, stream::ReadError},
};

/// How long a cancel may take, from connecting to the server's closing the connection.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends a CancelRequest over the same kind of connection as queries use, and waits until the server has
/// closed it: only then has the signal been sent, and a query that begins later cannot be hit by it.
///
/// # Errors
/// The request may or may not have had an effect, now or a little later.
pub async fn cancel(target: &Arc<Target>, address: &Address, key: &BackendKey) -> Result<(), ConnectError> {
    let timeout = || ConnectError::Timeout {
        endpoint: address.endpoint.clone(),
        after: TIMEOUT,
    };
    tokio::time::timeout(TIMEOUT, send(target, address, key))
        .await
        .map_err(|_| timeout())?
}

async fn send(target: &Arc<Target>, address: &Address, key: &BackendKey) -> Result<(), ConnectError> {
    let ask_for_tls = target.connector.mode() != TlsMode::Allow;
    let mut stream = open(target, address, ask_for_tls, &Pulse::default()).await?;
    frontend::cancel_request(key, stream.output());
    stream.flush().await.map_err(|source| ConnectError::Io {
        endpoint: address.endpoint.clone(),
        source,
    })?;
    loop {
        match stream.read_byte().await {
            // Nothing is ever answered; the end of the stream is the answer, and a reset is one too.
            Err(ReadError::Closed | ReadError::Io(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
    }
}
