//! A server connection outside of the pool: opened for one client, never lent to another, closed with it. It counts
//! towards the limits that pools share, and not towards the pool's own.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use super::{Pool, error::LeaseError, lease::Server};
use crate::server::{self, Connection, Duty};

/// A client's own server connection; closed when dropped.
#[derive(Debug)]
pub struct Apart {
    server: Box<Server>,
    pool: Arc<Pool>,
}

impl Apart {
    /// How the connection's server is reached now.
    pub fn target_in_force(&self) -> Arc<server::Target> {
        self.pool.target_in_force(self)
    }

    /// Whether another server is the primary by now, where one was asked for.
    pub fn is_fenced(&self) -> bool {
        let target = self.target();
        target.wish.is_fenced(&target.cluster.topology(), self.endpoint())
    }
}

impl Pool {
    /// Opens a connection with what a client has asked for in its startup packet. It is tried once: whoever wants it
    /// comes again.
    ///
    /// # Errors
    /// A limit is reached, or why the server could not be reached or has refused.
    pub async fn open_apart(self: &Arc<Self>, asked: Vec<(String, String)>) -> Result<Apart, LeaseError> {
        let shares = self.shares_apart().map_err(LeaseError::Full)?;
        let target = Arc::new(self.plan().target.for_one_client(asked));
        match server::connect(&target, &self.credential()).await {
            Ok(connection) => {
                self.metrics.note_opened(connection.opening());
                connection.vitals().set_duty(Duty::Apart);
                Ok(Apart {
                    server: Box::new(Server::new(connection, shares, self)),
                    pool: self.clone(),
                })
            }
            Err(error) => {
                self.metrics.connect_failures.inc();
                Err(LeaseError::Connect(Arc::new(error)))
            }
        }
    }
}

impl Deref for Apart {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.server
    }
}

impl DerefMut for Apart {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.server
    }
}
