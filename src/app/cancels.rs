//! Cancel requests, wherever they come in: a service spreads connections over the replicas, and a cancel request is a
//! connection of its own.
//!
//! One that names no client here is put to all other replicas at once, over HTTP. They carry it out or say that they have
//! no such client, and ask nobody else. The request's connection stays open until then: who has asked is not told before
//! the server has dealt with it.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{replicas::Replicas, serve::Reception};
use crate::{
    session::{self, Table},
    telemetry::http::{Answer, Answering, Ask, Page},
    types::BackendKey,
};

/// Where a replica is asked.
pub(super) const PATH: &str = "/fleet/cancel";
/// So many are put to others at once; strangers can ask as well, and whoever comes later waits.
const AT_ONCE: usize = 32;

/// What became of cancel requests for clients of other replicas.
#[derive(Debug)]
pub(super) struct Cancels {
    replicas: Arc<Replicas>,
    turns: Semaphore,
}

impl Cancels {
    pub(super) fn new(replicas: Arc<Replicas>) -> Self {
        Self {
            replicas,
            turns: Semaphore::new(AT_ONCE),
        }
    }

    /// Has another replica carry it out. Whether one has.
    async fn put_to_others(&self, key: &BackendKey) -> bool {
        if !self.replicas.is_set() {
            return false;
        }
        // Never closed.
        let _turn = self.turns.acquire().await;
        self.replicas.order_any(PATH, written(key)).await
    }
}

/// Carries a cancel request out, here or elsewhere.
pub(super) async fn cancel(key: &BackendKey, reception: &Reception) {
    if let Some(control) = reception.table.find(key) {
        reception.cancels.here.inc();
        return session::send_cancel(&control).await;
    }
    let elsewhere = match reception.others.get() {
        Some(cancels) => cancels.put_to_others(key).await,
        None => false,
    };
    if elsewhere {
        reception.cancels.elsewhere.inc();
    } else {
        reception.cancels.unknown.inc();
        tracing::debug!(pid = key.pid, "cancel request for an unknown client");
    }
}

/// `/fleet/cancel`: what another replica has been asked and has no client for.
pub(super) struct CancelPage(pub(super) Arc<Table>);

impl Page for CancelPage {
    fn answer(&self, ask: Ask) -> Answering {
        let table = self.0.clone();
        Box::pin(async move {
            let Some(key) = read(&ask.body).filter(|_| ask.is_fan_out) else {
                return Answer::text(400, "this is for replicas, with the key of a client\n");
            };
            match table.find(&key) {
                Some(control) => {
                    session::send_cancel(&control).await;
                    Answer::text(200, "done\n")
                }
                None => Answer::text(404, "no such client here\n"),
            }
        })
    }
}

/// The process id and the secret, in hexadecimal digits.
fn written(key: &BackendKey) -> String {
    let secret: String = key.secret.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} {secret}\n", key.pid)
}

fn read(text: &[u8]) -> Option<BackendKey> {
    let (pid, secret) = str::from_utf8(text).ok()?.trim_end().split_once(' ')?;
    let digits = secret.as_bytes().chunks(2);
    let secret = digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok());
    Some(BackendKey {
        pid: pid.parse().ok()?,
        secret: secret.collect::<Option<Vec<_>>>()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_is_read_as_it_is_written(pid: i32, secret in prop::collection::vec(any::<u8>(), 1..=256)) {
            let key = BackendKey { pid, secret: secret.into() };
            prop_assert_eq!(read(written(&key).as_bytes()), Some(key));
        }

        #[test]
        fn any_text_is_survived(text in any::<Vec<u8>>()) {
            let _ = read(&text);
        }
    }

    #[test]
    fn what_is_no_key_is_none() {
        for text in ["", "1", "x 00", "1 0g", "99999999999 00"] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
    }
}
