//! Fuzzing of the configuration: the whole file, and the values that have a syntax of their own.

use std::{path::Path, time::Duration};

use super::{address, units};
use crate::types::Endpoint;

/// Any text is settings or problems that point into it.
pub fn config_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match super::parse(&text, Path::new("/etc/pgweir")) {
        Ok(settings) => {
            for (name, database) in &settings.databases {
                let pool = settings.pool_settings(database, name);
                assert!(pool.min_size <= pool.size.get());
            }
        }
        Err(problems) => {
            let lines = text.split('\n').count();
            assert!(!problems.is_empty());
            for problem in problems {
                assert!((1..=lines).contains(&problem.line), "{problem:?} of {lines}");
            }
        }
    }
}

/// Addresses read back as they are shown, and no duration is longer than a clock takes.
pub fn config_values(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let base = Path::new("/etc/pgweir");
    if let Ok(duration) = units::duration(&text) {
        assert!(duration <= Duration::from_secs(366 * 24 * 3600));
    }
    let _ = address::socket_address(&text);
    let _ = address::listen_address(&text, base, 6432);
    // A host of the name "unix" is shown as what looks like a socket.
    if let Ok(endpoint) = address::endpoint(&text, base)
        && !matches!(&endpoint, Endpoint::Tcp { host, .. } if host == "unix")
    {
        assert_eq!(address::endpoint(&endpoint.to_string(), base), Ok(endpoint));
    }
}
