//! The PostgreSQL protocol as bytes: frames, startup packets, what the pooler says itself.
//!
//! Nothing here knows a configuration, a pool or a clock. What a peer sends is framed by
//! [`frame::Splitter`] and read by checked decoders; pgwire is used to build what the pooler says.

pub mod backend;
pub mod frame;
pub mod frontend;
#[cfg(any(fuzzing, test))]
pub(crate) mod fuzzing;
pub mod reader;
pub mod reply;
pub mod rows;
pub mod startup;
pub mod stream;
