//! Loopback ports for servers that want to know theirs before they start.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, TcpListener},
};

/// Below Linux's range for outgoing connections, so that none of those takes a port between a server's stop
/// and its next start.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
const TRIES: usize = 200;

/// A loopback port that nobody listens on: `preferred` if it is free, else any.
///
/// Another process may take it before the caller does; who can, asks for another then.
///
/// # Errors
/// No free port was found.
pub fn free(preferred: Option<u16>) -> io::Result<u16> {
    if let Some(port) = preferred.filter(|&port| is_free(port)) {
        return Ok(port);
    }
    (0..TRIES)
        .map(|_| random_port())
        .find(|&port| is_free(port))
        .ok_or_else(|| io::ErrorKind::AddrInUse.into())
}

/// Whether `port` can be bound on 127.0.0.1 now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn random_port() -> u16 {
    // Each RandomState has its own random keys.
    let random = RandomState::new().hash_one(0_u8) % u64::from(RANGE.end - RANGE.start);
    RANGE.start + u16::try_from(random).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_preference_is_passed_over() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let chosen = free(Some(port)).unwrap();
        assert_ne!(chosen, port);
        assert!(RANGE.contains(&chosen));
    }

    #[test]
    fn a_free_preference_is_taken() {
        let port = free(None).unwrap();
        assert_eq!(free(Some(port)).unwrap(), port);
    }
}
