//! Fuzzing of what is known about a server connection: the ledger against a model of PostgreSQL, the reading of a
//! server's stream in any pieces, and the look at statements.

mod backend;
mod hints;
mod ledger;
mod stream;

pub(crate) use self::{
    backend::{Asker, Backend, Reply},
    stream::{connection, target},
};
pub use self::{hints::statement_hints, ledger::ledger, stream::server_stream};
