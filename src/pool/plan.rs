//! What a pool goes by, and where that comes from.

use std::sync::Arc;

use crate::{auth::secret::Secret, config::PoolSettings, server::Target, types::PoolKey};

/// What one pool goes by; replaced as a whole by a reload.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Sizes, mode and timeouts.
    pub settings: PoolSettings,
    /// Where server connections are opened, and as whom.
    pub target: Arc<Target>,
    /// The secret of the role that logs in, where it is configured.
    pub secret: Option<Secret>,
}

/// Says which pool serves a client and what it goes by.
pub trait Catalog: Send + Sync {
    /// The pool for `user` in `database`; `None` when there is no such database.
    fn pool(&self, database: &str, user: &str) -> Option<PoolKey>;

    /// What the pool of this key goes by now; `None` when its database is gone.
    fn plan(&self, key: &PoolKey) -> Option<Plan>;
}
