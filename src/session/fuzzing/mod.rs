//! Fuzzing of sessions: what a client's stream means, and the whole exchange between clients and a server.

mod exchange;
mod peers;
mod requests;

pub use self::{exchange::session, requests::requests};
