//! Fuzzing of what is known about a server connection: the ledger against a model of PostgreSQL, and the
//! reading of a server's stream in any pieces.

mod backend;
mod ledger;
mod stream;

pub(crate) use self::{
    backend::{Asker, Backend, Reply},
    stream::{connection, target},
};
pub use self::{ledger::ledger, stream::server_stream};
