//! A pgweir with a small pool in front of a PostgreSQL, and what answers say in short.

use super::{Frame, Pooler, Postgres, RawClient, eventually, postgres};

/// A pgweir with a pool of `size` in front of a PostgreSQL.
pub struct Stage {
    pub pooler: Pooler,
    pub size: usize,
    pub postgres: Postgres,
}

/// A transaction pool of `size`.
pub fn stage(size: usize) -> Stage {
    let postgres = postgres();
    let pooler = Pooler::builder(&postgres.address())
        .set("pool.default_pool_size", size.to_string())
        .start();
    Stage {
        pooler,
        size,
        postgres,
    }
}

impl Stage {
    /// A client that is logged in.
    pub fn client(&self) -> RawClient {
        RawClient::log_in(self.pooler.address(), "app", "secret", "app")
    }

    /// Whatever `client` did: it can go on, another client is served at once, and no place is lost.
    #[track_caller]
    pub fn is_whole(&self, client: &mut RawClient) {
        assert_eq!(client.value("SELECT 'still here'"), "still here");
        assert_eq!(self.client().value("SELECT 'another'"), "another");
        self.pooler.assert_all_places(self.size);
    }

    /// Waits until so many clients wait for a server connection.
    #[track_caller]
    pub fn waits(&self, clients: u32) {
        eventually("clients wait", || {
            self.pooler.metric("pgweir_waiting_clients") == f64::from(clients)
        });
    }
}

/// The first column of every row.
pub fn values(messages: &[Frame]) -> Vec<String> {
    let rows = messages.iter().filter(|message| message.tag == b'D');
    rows.map(|row| row.columns().swap_remove(0).unwrap_or_else(|| "NULL".into()))
        .collect()
}

/// The SQLSTATE of every error.
pub fn sqlstates(messages: &[Frame]) -> Vec<String> {
    let errors = messages.iter().filter(|message| message.tag == b'E');
    errors
        .map(|error| error.field(b'C').expect("an error has a SQLSTATE"))
        .collect()
}

/// What every ReadyForQuery says.
pub fn statuses(messages: &[Frame]) -> String {
    let ready = messages.iter().filter(|message| message.tag == b'Z');
    ready.map(|ready| char::from(ready.body[0])).collect()
}

/// Reads up to and with the `count`th ReadyForQuery.
#[track_caller]
pub fn read_ready(client: &mut RawClient, count: usize) -> Vec<Frame> {
    (0..count).flat_map(|_| client.read_until_ready()).collect()
}
