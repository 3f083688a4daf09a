//! What a host name stands for, as the system's resolver says now.

use std::{io, net::SocketAddr};

/// More addresses of one name than this are not looked at.
const MOST: usize = 32;

/// The addresses of a name, in the resolver's order, each once; there is at least one. Nothing is remembered. Not bounded
/// in time; cancel-safe.
///
/// # Errors
/// The resolver's, or it knows no address.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    for address in tokio::net::lookup_host((host, port)).await? {
        if found.len() < MOST && !found.contains(&address) {
            found.push(address);
        }
    }
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}
