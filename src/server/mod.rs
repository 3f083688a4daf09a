//! One PostgreSQL server connection: how it is opened, what it owes, which settings it has.
//!
//! It knows nothing of pools and of who waits for it.

pub mod cancel;
mod connect;
mod connection;
mod error;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
pub mod hints;
mod logins;
pub mod parameters;
mod settle;
pub mod state;

pub use connect::{ConnectOptions, Target, connect};
pub use connection::{Connection, Heard, Home};
pub use error::ConnectError;
pub use logins::Logins;
pub use settle::SettleError;
