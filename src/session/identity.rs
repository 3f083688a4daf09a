//! Who a client is, and what it brings from its log-in.

use std::sync::Arc;

use tracing::Span;

use super::table::Entry;
use crate::{
    net::PeerAddress,
    pool::{Pool, StartupSettings},
    tls::Stream,
    types::{ClientId, DatabaseName, UserName},
    wire::stream::Framed,
};

/// Who a client is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Unique in the process.
    pub client: ClientId,
    /// The database that it asked for.
    pub database: DatabaseName,
    /// The user that it logged in as.
    pub user: UserName,
    /// Where it comes from.
    pub peer: PeerAddress,
}

impl Identity {
    /// The span of everything that is logged about this client. It is made when there is something to log:
    /// a span that lived as long as the client would cost memory for each.
    pub fn span(&self) -> Span {
        tracing::info_span!("session", client = %self.client, db = %self.database, user = %self.user, peer = %self.peer)
    }
}

/// A client on its way from log-in to its worker. AuthenticationOk stands in the stream's output.
#[derive(Debug)]
pub struct Arrival<Slot> {
    /// The stream; it belongs to the control runtime until the worker takes it.
    pub stream: Framed<Stream>,
    /// Who it is.
    pub identity: Identity,
    /// What it asked for.
    pub startup: StartupSettings,
    /// Where its server connections come from.
    pub pool: Arc<Pool>,
    /// Its place among the sessions.
    pub entry: Entry,
    /// Its place among the clients, given back when the session ends.
    pub slot: Slot,
}
