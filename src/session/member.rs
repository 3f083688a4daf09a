//! What a session shows of itself to others, and how it is described to a client that waits because of it.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    activity::{Activity, Clock, Stage, Tick},
    identity::Identity,
};
use crate::{
    net::PeerAddress,
    pool::{Guest, Pool},
    server::parameters::Parameters,
    types::UserName,
};

/// A session, as others see it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) identity: Identity,
    pub(super) pool: Arc<Pool>,
    /// The settings that it began with; shared with every session that asked for the same.
    pub(super) settings: Parameters,
    pub(super) activity: Activity,
    pub(super) clock: Arc<Clock>,
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
        let application = self.settings.get("application_name");
        Some(Holder {
            user: self.identity.user.clone(),
            application: application
                .map(|name| String::from_utf8_lossy(name).into_owned())
                .unwrap_or_default(),
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

impl Guest for Member {
    fn request_sent(&self) {
        self.activity.begin(self.clock.now());
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
