//! From an accepted socket to an authenticated client.
