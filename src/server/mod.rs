//! One PostgreSQL server connection: how it is opened, what it owes, which settings it has.
//!
//! It knows nothing of pools and of who waits for it.

mod asking;
pub mod cancel;
mod connect;
mod connection;
mod error;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod hearing;
pub mod hints;
pub mod inquiry;
mod logins;
mod names;
mod negotiate;
mod notices;
pub mod parameters;
mod patience;
pub mod pins;
mod preparing;
mod replay;
mod settle;
pub mod state;
pub mod stateful;
pub mod statements;
mod suspicion;
mod unwind;
mod vitals;
mod wording;

pub use connect::{
    Address, Candidates, ConnectOptions, Proof, Target, connect, look, race, reach, search, suits,
};
pub use connection::{Connection, Home, Opening};
pub use error::ConnectError;
pub use hearing::Heard;
pub use logins::Logins;
pub use names::Names;
pub use notices::Notices;
pub use preparing::Supply;
pub use replay::{Batch, REMEMBERED};
pub use settle::{Column, SettleError};
pub use unwind::{Unwinding, Word};
pub use vitals::{CountedCancel, Duty, Vitals};
pub use wording::{Keeps, Wording};
