//! How long the kernel may wait for a server to take what it was sent.
//!
//! Linux counts a server that lives and does not read, because a statement of a large batch waits for a lock, like one that
//! has vanished. Between small requests the difference does not arise: they fit into the server's socket. So what a server
//! has been sent and has not answered decides how soon silence is taken for its end.

use std::{
    io,
    task::{Context, Poll},
    time::Duration,
};

use super::connection::Connection;

/// What fits into any server's socket, whether it reads or not.
const FITS: usize = 32 * 1024;
/// A server that may have reason not to read has this long at least.
const LONG: Duration = Duration::from_secs(120);

/// What a server has been sent since it has last answered everything.
#[derive(Debug, Default)]
pub(super) struct Patience {
    unanswered: usize,
    is_long: bool,
}

impl Connection {
    /// Writes what a client says, or as much as the server takes; the rest is written when the stream is drained.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<()>> {
        self.patience.unanswered = self.patience.unanswered.saturating_add(bytes.len());
        if self.patience.unanswered > FITS && !self.patience.is_long {
            self.be_patient(true);
        }
        self.stream.poll_write_through(cx, bytes)
    }

    /// Notes that the server has said that it is ready.
    pub(super) fn note_ready(&mut self) {
        if self.ledger.is_settled() {
            self.patience.unanswered = 0;
            if self.patience.is_long {
                self.be_patient(false);
            }
        }
    }

    fn be_patient(&mut self, is_long: bool) {
        self.patience.is_long = is_long;
        let usual = self.target().options.tcp.user_timeout;
        if usual.is_zero() || usual >= LONG {
            return;
        }
        let limit = if is_long { LONG } else { usual };
        // A socket that refuses it has failed, which is found when it is used.
        let _ = self.stream.get_ref().socket().set_user_timeout(limit);
    }
}
