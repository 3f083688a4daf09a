//! For the fuzzing of sessions: a pool whose server connections are given to it.

use std::sync::Arc;

use super::{Pool, attempt::Attempt};
use crate::server::Connection;

impl Pool {
    /// Takes a connection as if it had been opened for `min_pool_size`, if there is room for it.
    pub(crate) fn adopt(self: &Arc<Self>, connection: Connection) {
        if self.lock().begin_minimum() == 0 {
            return;
        }
        if let Some(shares) = self.spare_shares() {
            Attempt::new(self.clone(), shares).succeeded(connection);
        }
    }
}
