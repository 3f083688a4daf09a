//! The whole of it: a socket in, the role of the connection out. A refusal is told to the client here, once.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{
    door::{Attempt, Door},
    error::StartupError,
    login::{Policy, authenticate, negotiate_version, request},
    negotiate::{Opening, negotiate},
    newcomers::Place,
    refuse::refuse,
    slots::Slot,
};
use crate::{
    auth::{access::Replication, server_login::ServerCredential},
    net::{PeerAddress, Socket},
    tls::Stream,
    types::BackendKey,
    wire::stream::Framed,
};

/// How long a connection that has no place may take to say what it wants.
const HEARING: Duration = Duration::from_secs(1);

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
    /// What the log-in has taught about the secret, and the secret if it was looked up.
    pub credential: ServerCredential,
    /// When that was known of the user by which the log-in was judged.
    pub known_since: Instant,
    /// Its place among the clients.
    pub slot: Slot,
}

/// Takes a socket, which comes from `peer`, through encryption and log-in, within `timeout` (zero is no limit).
///
/// # Errors
/// Why the connection did not become a client; the client has been told.
pub async fn accept(
    socket: Socket,
    peer: PeerAddress,
    policy: &Policy,
    door: &Door,
    timeout: Duration,
) -> Result<Accepted, StartupError> {
    let Some(mut place) = door.newcomers.enter(peer, Instant::now()) else {
        let error = no_place(door);
        refuse(&mut Framed::new(Stream::Plain(socket)), &error).await;
        return Err(error);
    };
    let leaving = place.leaving();
    let startup = start(socket, peer, policy, door, &mut place, timeout);
    tokio::select! {
        // What is there already is not worth a timer.
        biased;
        outcome = startup => outcome,
        () = leaving => Err(StartupError::MadeWay),
        () = sleep(timeout), if !timeout.is_zero() => Err(StartupError::Timeout),
    }
}

async fn start(
    socket: Socket,
    peer: PeerAddress,
    policy: &Policy,
    door: &Door,
    place: &mut Place,
    timeout: Duration,
) -> Result<Accepted, StartupError> {
    let (mut stream, startup) = match open(socket, policy, door, place).await? {
        Opening::Startup(stream, startup) => (stream, startup),
        Opening::Cancel(stream, key) => {
            return Ok(Accepted::Cancel {
                key,
                stream: Box::new(stream),
            });
        }
    };
    negotiate_version(&mut stream, &startup);
    let mut delay = Duration::ZERO;
    let outcome = async {
        if !place.is_admitted(Instant::now()) {
            return Err(no_place(door));
        }
        let request = request(startup)?;
        let mut attempt = Attempt::new(door, &policy.failures, &request.user, peer);
        attempt.check()?;
        let slots = &door.slots;
        let full = || StartupError::TooManyClients { limit: slots.limit() };
        // Only clients have a place, or those who never answer would have them all. Whoever would be turned away
        // afterwards need not prove anything first.
        if slots.are_full() {
            return Err(full());
        }
        let (credential, known_since) = authenticate(&mut stream, &request, &mut attempt, policy, place)
            .await
            .inspect_err(|error| delay = attempt.failed(error))?;
        attempt.succeeded();
        let slot = slots.take().ok_or_else(full)?;
        Ok((request, slot, credential, known_since))
    };
    match outcome.await {
        Ok((request, slot, credential, known_since)) => Ok(Accepted::Session(Box::new(Login {
            stream,
            peer,
            user: request.user,
            database: request.database,
            settings: request.settings,
            replication: request.replication != Replication::No,
            minor: request.minor,
            credential,
            known_since,
            slot,
        }))),
        Err(error) => {
            place.failed();
            // Without a client's place, and with time left to say it.
            sleep(if timeout.is_zero() {
                delay
            } else {
                delay.min(timeout / 4)
            })
            .await;
            refuse(&mut stream, &error).await;
            Err(error)
        }
    }
}

/// Hears what a connection wants. One that has no place is heard for a moment only.
async fn open(
    socket: Socket,
    policy: &Policy,
    door: &Door,
    place: &mut Place,
) -> Result<Opening, StartupError> {
    let admitted = place.is_admitted(Instant::now());
    let opening = negotiate(socket, policy, place);
    if admitted {
        return opening.await;
    }
    tokio::time::timeout(HEARING, opening)
        .await
        .unwrap_or_else(|_| Err(no_place(door)))
}

fn no_place(door: &Door) -> StartupError {
    StartupError::TooManyNewcomers {
        limit: door.newcomers.limit(),
    }
}
