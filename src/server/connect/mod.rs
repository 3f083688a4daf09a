//! Opening a server connection: to the first of several servers that is of the kind that is wanted.
//!
//! It keeps nothing of one call for the next: no failure, and no address.

mod attempt;
mod open;
mod role;
mod search;
mod stagger;
mod target;

use std::{sync::Arc, time::Instant};

use self::{attempt::Attempt, search::Search, stagger::first_good};
pub(super) use self::{
    attempt::{Attempt as LogIn, LOGIN_MESSAGE},
    open::open,
    role::IN_HOT_STANDBY,
    stagger::Pulse,
};
pub use self::{
    open::Address,
    role::{Proof, suits},
    target::{ConnectOptions, Target},
};
use super::{connection::Connection, error::ConnectError};
use crate::{
    auth::server_login::ServerCredential,
    topology::{Failure, Observation},
    types::{Endpoint, Role, TlsMode},
    wire::{
        backend::{ServerError, tag},
        frontend,
        stream::Frame,
    },
};

/// The servers that will do, and what they have to show.
#[derive(Clone, Copy)]
pub struct Candidates<'a> {
    /// Tried in this order.
    pub endpoints: &'a [Endpoint],
    /// What a server has to be.
    pub role: Role,
    /// What a server has to show besides that.
    pub proof: Proof,
    /// The primary, where that is known: another that is one, too, is asked for its timeline.
    pub primary: Option<&'a Endpoint>,
    /// Whether a server's refusal for good ends the search. The refusal of any other is its own: the next may accept.
    pub has_last_word: &'a (dyn Fn(&Endpoint) -> bool + Sync),
    /// Told what each server was seen to do.
    pub observe: &'a (dyn Fn(Observation) + Sync),
}

/// Opens a connection to a server of the target's cluster, and tells the cluster what was seen. Whenever the cluster changes
/// so that it is to be looked for elsewhere, that is done at once. Cancel-safe.
///
/// # Errors
/// As [`race`].
pub async fn connect(
    target: &Arc<Target>,
    credential: &ServerCredential,
) -> Result<Connection, ConnectError> {
    loop {
        if let Some(connection) = search(target, credential).await? {
            return Ok(connection);
        }
    }
}

/// As [`connect`], but `None` as soon as the cluster has changed so that the server is to be looked for elsewhere: whoever
/// takes turns with others has to wait for another then. Cancel-safe.
///
/// # Errors
/// As [`race`].
pub async fn search(
    target: &Arc<Target>,
    credential: &ServerCredential,
) -> Result<Option<Connection>, ConnectError> {
    let search = Search::new(target);
    let topology = &search.topology;
    let writes = target.wish.role == Role::ReadWrite && !topology.is_replica;
    let candidates = Candidates {
        endpoints: &search.endpoints,
        role: target.role(topology),
        proof: match topology.timeline_asked {
            Some(asked) if writes => Proof::Timeline(asked),
            _ => Proof::Role,
        },
        primary: topology.primary.as_ref().filter(|_| !topology.is_shared),
        has_last_word: &|endpoint| search.has_last_word(endpoint),
        observe: &|observation| target.cluster.observe(&observation, Instant::now()),
    };
    tokio::select! {
        biased;
        connected = race(target, candidates, credential) => connected.map(Some),
        () = search.overtaken() => Ok(None),
    }
}

/// Opens a connection to the first candidate that is good. The next begins when those before it have failed or say
/// nothing for a moment; each address of a name is a candidate of its own. Cancel-safe.
///
/// # Errors
/// The first final refusal (see [`ConnectError::is_transient`]) by one who has the last word, or what the last candidate
/// failed with, or the first refusal if there was nothing else.
pub async fn race(
    target: &Arc<Target>,
    candidates: Candidates<'_>,
    credential: &ServerCredential,
) -> Result<Connection, ConnectError> {
    let addresses = candidates.endpoints.iter().map(Address::of);
    let connection = first_good(addresses, |address, pulse| {
        let attempt = Attempt {
            target,
            credential,
            candidates,
            address,
            pulse,
        };
        attempt.run()
    });
    let connection = connection.await?;
    target.connector.prove();
    Ok(connection)
}

/// Asks a server whether it takes connections, which it says before it asks who is there, and leaves. `None` if it does,
/// or says something else.
pub async fn look(target: &Target, endpoint: &Endpoint) -> Option<Failure> {
    let asking = tokio::time::timeout(target.options.timeout, ask(target, endpoint));
    asking.await.ok()?.err()?.failure()
}

async fn ask(target: &Target, endpoint: &Endpoint) -> Result<(), ConnectError> {
    let ask_for_tls = target.connector.mode() != TlsMode::Allow;
    let mut stream = open(target, &Address::of(endpoint), ask_for_tls, &Pulse::default()).await?;
    let who = [("user", &*target.user), ("database", &*target.database)];
    frontend::startup(0, who, stream.output());
    stream.flush().await.map_err(|source| ConnectError::Io {
        endpoint: endpoint.clone(),
        source,
    })?;
    let Frame { tag, body } = stream.read_frame(LOGIN_MESSAGE).await?;
    match tag {
        tag::ERROR_RESPONSE => Err(ConnectError::Server(ServerError::decode(&body))),
        _ => Ok(()),
    }
}

/// Opens a stream to an endpoint as every connection does, and closes it without logging in. Returns the TLS version.
///
/// # Errors
/// As [`connect`], up to the log-in.
pub async fn reach(target: &Target, endpoint: &Endpoint) -> Result<Option<&'static str>, ConnectError> {
    let ask_for_tls = target.connector.mode() != TlsMode::Allow;
    let (address, pulse) = (Address::of(endpoint), Pulse::default());
    let opening = open(target, &address, ask_for_tls, &pulse);
    match tokio::time::timeout(target.options.timeout, opening).await {
        Ok(opened) => opened.map(|stream| stream.get_ref().tls_version()),
        Err(_) => Err(ConnectError::Timeout {
            endpoint: endpoint.clone(),
            after: target.options.timeout,
        }),
    }
}
