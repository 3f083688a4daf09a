//! How a server is stopped.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Postgres, PostgresError};

const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How to stop a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Waits for clients to leave (`pg_ctl stop -m smart`).
    Smart,
    /// Ends clients with 57P01 (`-m fast`).
    Fast,
    /// Ends at once, with recovery at the next start (`-m immediate`).
    Immediate,
    /// SIGKILL: no word to anyone.
    Kill,
}

impl Stop {
    fn signal(self) -> Signal {
        match self {
            Self::Smart => Signal::SIGTERM,
            Self::Fast => Signal::SIGINT,
            Self::Immediate => Signal::SIGQUIT,
            Self::Kill => Signal::SIGKILL,
        }
    }
}

impl Postgres {
    /// Stops the server and waits for its end. A stopped server stays stopped.
    ///
    /// # Errors
    /// The server cannot be signalled or waited for.
    pub fn stop(&mut self, how: Stop) -> Result<(), PostgresError> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        child
            .end(how.signal(), STOP_LIMIT)
            .map(drop)
            .map_err(self.run_error())
    }

    /// Tells the server to stop and does not wait for it: [`Postgres::ended`] says when it has.
    ///
    /// # Errors
    /// The server cannot be signalled.
    pub fn begin_stop(&mut self, how: Stop) -> Result<(), PostgresError> {
        let told = match &mut self.child {
            Some(child) => child.signal(how.signal()),
            None => Ok(()),
        };
        told.map_err(self.run_error())
    }

    /// Stops with [`Stop::Fast`] and starts again.
    ///
    /// # Errors
    /// As [`Postgres::stop`] and [`Postgres::start`].
    pub fn restart(&mut self) -> Result<(), PostgresError> {
        self.stop(Stop::Fast)?;
        self.start()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The data goes too, so nothing is worth a checkpoint. A failure means that it has ended already.
        let _ = self.stop(Stop::Immediate);
    }
}
