//! From an accepted socket to a client that is known: encryption, protocol version, log-in.
//!
//! What comes out is [`Accepted`]: the role of the connection is decided before a session exists. It knows
//! no pools and opens no server connection.

mod accepted;
mod account;
mod admission;
mod directory;
mod door;
mod error;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod login;
mod negotiate;
mod newcomers;
mod options;
mod refuse;
mod slots;

pub use self::{
    accepted::{Accepted, Login, accept},
    directory::DirectoryError,
    door::Door,
    error::StartupError,
    login::Policy,
    slots::{Slot, Slots},
};
