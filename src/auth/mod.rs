//! Proving who one is: SCRAM, md5, passwords and where secrets come from. Pure: no socket, no clock.
//!
//! - [`flow`]: a client logs in to us;
//! - [`server_login`]: we log in to a server, with the answers decoded by [`request`];
//! - [`secret`], [`users`] and [`source`]: what is known of a user;
//! - [`access`]: by what a connection may come in, with [`hba`] and [`ident`], the files that say so, in the
//!   format of [`authfile`];
//! - [`ldap`]: which directory is asked, and in which words;
//! - [`mock`]: what is pretended of a user who is not known;
//! - [`throttle`]: who has failed too often;
//! - [`scram`] and [`md5`]: the two exchanges themselves.
//!
//! Every byte of a peer's message is taken for hostile: a decoder here returns an error or a value, and its
//! memory is bounded by the message that it was given.

pub mod access;
pub mod authfile;
pub mod error;
pub mod flow;
pub mod hba;
pub mod ident;
pub mod ldap;
pub mod md5;
pub mod mock;
pub mod request;
pub mod scram;
pub mod secret;
pub mod server_login;
pub mod source;
pub mod throttle;
pub mod users;
pub mod usual;

#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
mod primitives;
mod response;

pub use error::{AuthError, Guess, Refusal};
pub use primitives::RandomUnavailable;
pub use response::ResponseError;

#[cfg(test)]
mod tests;
