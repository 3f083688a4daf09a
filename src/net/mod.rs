//! Sockets and listeners: the only place that names `tokio::net`.
//!
//! It knows bytes and addresses; not TLS, not the protocol, not who is allowed in.

pub mod listener;
pub mod local;
mod reactor;
mod resolve;
pub mod socket;

pub use listener::{BindError, BindOptions, Listener, Tuning};
pub use local::{interfaces, user_name};
pub use resolve::resolve;
pub use socket::{PeerAddress, Socket};
