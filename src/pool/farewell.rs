//! Connections that were closed and that their servers still have: they count towards the budget until they are gone.
//! Without that another replica could open its own before PostgreSQL has a place for it.

use std::time::Duration;

use super::quota::Share;
use crate::{
    lifecycle::Tasks,
    server::{Connection, Home},
};

/// A server that was told goodbye closes its end within milliseconds, when it has given the place back. One that says
/// nothing for longer than this is not waited for: it may be gone.
const LIMIT: Duration = Duration::from_secs(1);

/// Waits until the server has closed a connection that was told goodbye, and gives its share back then.
pub(super) fn begin(mut connection: Connection, mut share: Share, tasks: &Tasks) {
    share.leave();
    tasks.spawn("farewell", async move {
        if connection.rehome(Home::Control).is_ok() {
            // Whatever comes of it, the share goes back.
            let _ = tokio::time::timeout(LIMIT, connection.closed()).await;
        }
        drop(connection);
        drop(share);
    });
}
