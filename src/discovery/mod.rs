//! Who says where the servers of a cluster are.
//!
//! It watches and tells; what comes of it is decided in `topology`, and it opens no connection to a server.

pub mod kubernetes;
