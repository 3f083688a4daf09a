//! What a session shows of itself to others, and how it is described to a client that waits because of it.

use std::{
    borrow::Cow,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::BytesMut;

use super::{
    activity::{Activity, Clock, Stage, Tick},
    forward::{Sender, Stop},
    identity::Identity,
    origin::Origin,
    pinned::Pinned,
};
use crate::{
    net::PeerAddress,
    pool::{Guest, Pool, Request, Sent},
    server::{Connection, parameters::Parameters, pins::Pins, statements::SharedNames},
    types::UserName,
    wire::frame::Splitter,
};

/// A session, as others see it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) identity: Identity,
    /// How it has come in.
    pub(super) origin: Arc<Origin>,
    pub(super) pool: Arc<Pool>,
    /// The settings that it began with; shared with every session that asked for the same.
    pub(super) settings: Parameters,
    pub(super) activity: Activity,
    pub(super) clock: Arc<Clock>,
    /// What it calls its prepared statements.
    pub(super) names: SharedNames,
    /// Whether its server connections are for others between its transactions.
    pub(super) shares: bool,
    /// Whether its prepared statements are shared with others.
    pub(super) renames: bool,
    /// What it has called itself since.
    pub(super) renamed: ArcSwapOption<Box<str>>,
    /// What keeps its server connection with it.
    pub(super) pinned: Pinned,
    /// The process that works for it, or has last.
    pub(super) backend: AtomicI32,
}

fn application_name(settings: &Parameters) -> Cow<'_, str> {
    let name = settings.get("application_name");
    name.map(|name| String::from_utf8_lossy(name)).unwrap_or_default()
}

/// A session that holds a server connection, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    user: UserName,
    application: String,
    peer: PeerAddress,
    doing: &'static str,
    held: Duration,
}

impl Member {
    /// For how long it has held a server connection, if it holds one.
    pub(super) fn held(&self, now: Tick) -> Option<Duration> {
        let holds = self.activity.snapshot().stage.holds_server();
        holds.then(|| now.elapsed(self.activity.lent()))
    }

    /// The same in words.
    pub(super) fn describe(&self, now: Tick) -> Option<Holder> {
        Some(Holder {
            user: self.identity.user.clone(),
            application: self.application_name(),
            peer: self.identity.peer,
            doing: match self.activity.snapshot().stage {
                Stage::InTransaction => "idle in transaction",
                Stage::Held => "idle in its session",
                _ => "active",
            },
            held: self.held(now)?,
        })
    }
}

impl Member {
    /// What it calls itself.
    pub(super) fn application_name(&self) -> String {
        match &*self.renamed.load() {
            Some(name) => name.as_ref().to_string(),
            None => application_name(&self.settings).into_owned(),
        }
    }

    /// Notes what its settings say that it calls itself.
    pub(super) fn note_application_name(&self, settings: &Parameters) {
        let name = application_name(settings);
        if name != self.application_name() {
            self.renamed.store(Some(Arc::new(name.into())));
        }
    }

    /// Notes that this connection works for it from now on.
    pub(super) fn begin(&self, connection: &Connection) {
        self.activity.begin(self.clock.now());
        connection.vitals().set_client(self.names.pid());
        self.backend.store(connection.key().pid, Ordering::Relaxed);
    }

    /// Notes what keeps its server connection with it now.
    pub(super) fn note_pins(&self, pins: Pins) {
        self.pinned.set(pins, self.clock.now(), self.pool.metrics());
    }

    /// Who sends for it, with these settings.
    pub(super) fn sender<'a>(&'a self, parameters: &'a Parameters) -> Sender<'a> {
        Sender {
            names: &self.names,
            parameters,
            pool: &self.pool,
            shares: self.shares,
            renames: self.renames,
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.note_pins(Pins::default());
    }
}

impl Guest for Member {
    fn send(&self, connection: &mut Connection, cx: &mut Context<'_>, request: &Request) -> Sent {
        self.begin(connection);
        let (mut splitter, mut out) = (Splitter::default(), BytesMut::new());
        let sender = self.sender(&request.parameters);
        // Its messages are whole and known, so that nothing can be wrong with them.
        let forwarded = match sender.forward(connection, &mut splitter, &request.bytes, &mut out) {
            Ok(forwarded) => forwarded,
            Err(_) => {
                return Sent {
                    taken: 0,
                    waits: false,
                    written: Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                };
            }
        };
        forwarded.count(connection, self.pool.metrics());
        let said = request.bytes.get(..forwarded.taken).unwrap_or_default();
        let sent = if forwarded.rewritten { &out[..] } else { said };
        Sent {
            taken: forwarded.taken,
            waits: forwarded.stop == Some(Stop::Wait),
            written: connection.poll_send(cx, sent),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user,
            application,
            peer,
            doing,
            held,
        } = self;
        if !application.is_empty() {
            write!(f, "\"{application}\" of ")?;
        }
        write!(f, "user \"{user}\" from {peer}, {doing}, for {held:?}")
    }
}
