//! The whole of it: a socket in, the role of the connection out. A refusal is told to the client here, once.

use std::{sync::Arc, time::Duration};

use super::{
    error::StartupError,
    login::{Policy, authenticate, negotiate_version, request},
    negotiate::{Opening, negotiate},
    refuse::refuse,
    slots::{Slot, Slots},
};
use crate::{
    auth::flow::Learned,
    net::{PeerAddress, Socket},
    tls::Stream,
    types::BackendKey,
    wire::stream::Framed,
};

/// What a connection turned out to be.
#[derive(Debug)]
pub enum Accepted {
    /// A client that is logged in.
    Session(Box<Login>),
    /// The request to cancel what another client is doing.
    Cancel {
        /// Which client, and the proof of being allowed to.
        key: BackendKey,
        /// Closing it tells the client that the request has been carried out.
        stream: Box<Framed<Stream>>,
    },
}

/// A client that has proved who it is. AuthenticationOk stands in the stream's output.
#[derive(Debug)]
pub struct Login {
    /// The stream.
    pub stream: Framed<Stream>,
    /// Where it comes from.
    pub peer: PeerAddress,
    /// The user of the startup packet.
    pub user: String,
    /// The database of the startup packet; the user's name where there was none.
    pub database: String,
    /// Everything else that the startup packet asks for.
    pub settings: Vec<(String, String)>,
    /// A replication connection is asked for; the settings are the packet's own words then.
    pub replication: bool,
    /// The minor version of the protocol that is spoken.
    pub minor: u16,
    /// What the log-in has taught about the secret.
    pub learned: Learned,
    /// Its place among the clients.
    pub slot: Slot,
}

/// Takes a socket through encryption and log-in, within `timeout` (zero is no limit).
///
/// # Errors
/// Why the connection did not become a client; the client has been told.
pub async fn accept(
    socket: Socket,
    policy: &Policy,
    slots: &Arc<Slots>,
    timeout: Duration,
) -> Result<Accepted, StartupError> {
    let startup = start(socket, policy, slots);
    if timeout.is_zero() {
        return startup.await;
    }
    tokio::time::timeout(timeout, startup)
        .await
        .unwrap_or(Err(StartupError::Timeout))
}

async fn start(socket: Socket, policy: &Policy, slots: &Arc<Slots>) -> Result<Accepted, StartupError> {
    let peer = socket.peer();
    let (mut stream, startup) = match negotiate(socket, policy).await? {
        Opening::Startup(stream, startup) => (stream, startup),
        Opening::Cancel(stream, key) => {
            return Ok(Accepted::Cancel {
                key,
                stream: Box::new(stream),
            });
        }
    };
    negotiate_version(&mut stream, &startup);
    let outcome = async {
        let request = request(startup)?;
        let slot = slots
            .take()
            .ok_or_else(|| StartupError::TooManyClients { limit: slots.limit() })?;
        let learned = authenticate(&mut stream, &request.user, policy).await?;
        Ok((request, slot, learned))
    };
    match outcome.await {
        Ok((request, slot, learned)) => Ok(Accepted::Session(Box::new(Login {
            stream,
            peer,
            user: request.user,
            database: request.database,
            settings: request.settings,
            replication: request.replication,
            minor: request.minor,
            learned,
            slot,
        }))),
        Err(error) => {
            refuse(&mut stream, &error).await;
            Err(error)
        }
    }
}
