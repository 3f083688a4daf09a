//! How clients have come in. It is the same for many of them, and kept once.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    net::PeerAddress,
    tls::{Cipher, Stream},
};

/// At most so many are kept; who comes in by another way has its own.
const MOST: usize = 256;

/// How a client has come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// This end of its connection; absent if it was gone at once.
    pub local: Option<PeerAddress>,
    /// How it is encrypted, if it is.
    pub cipher: Option<Cipher>,
}

/// All the ways by which somebody has come in.
#[derive(Debug, Default)]
pub(super) struct Origins(Mutex<Vec<Arc<Origin>>>);

impl Origins {
    /// How this stream has come in.
    pub(super) fn of(&self, stream: &Stream) -> Arc<Origin> {
        self.share(Origin {
            local: stream.socket().local().ok(),
            cipher: stream.cipher(),
        })
    }

    fn share(&self, origin: Origin) -> Arc<Origin> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.iter().find(|known| ***known == origin) {
            return same.clone();
        }
        if known.len() >= MOST {
            known.retain(|origin| Arc::strong_count(origin) > 1);
        }
        let origin = Arc::new(origin);
        if known.len() < MOST {
            known.push(origin.clone());
        }
        origin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Origin {
        Origin {
            local: Some(PeerAddress::Ip([127, 0, 0, 1].into(), port)),
            cipher: None,
        }
    }

    #[test]
    fn the_same_way_is_kept_once_and_unused_ones_make_room() {
        let origins = Origins::default();
        let one = origins.share(at(1));
        assert!(Arc::ptr_eq(&one, &origins.share(at(1))));
        for port in 2..1_000 {
            drop(origins.share(at(port)));
        }
        assert!(Arc::ptr_eq(&one, &origins.share(at(1))));
        assert!(origins.0.lock().unwrap().len() <= MOST);
    }
}
