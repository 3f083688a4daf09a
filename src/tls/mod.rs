//! TLS towards clients and servers.
