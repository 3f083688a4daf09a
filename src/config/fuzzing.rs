//! Fuzzing of the configuration: the whole file, and the values that have a syntax of their own.

use std::{path::Path, time::Duration};

use super::{
    address,
    pgbouncer::{Ini, translate},
    units,
};
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

/// Any bytes are settings of PgBouncer's or problems that point into them, and what they come to is TOML.
pub fn pgbouncer_ini(data: &[u8]) {
    let path = Path::new("pgbouncer.ini");
    let ini = Ini::read(path, &|_| Ok(data.to_vec())).expect("it can be read");
    let translation = translate(&ini);
    let lines = data.split(|byte| *byte == b'\n').count();
    for problem in translation.all_problems() {
        assert!((1..=lines).contains(&problem.line), "{problem:?} of {lines}");
    }
    assert!(translation.to_text(path).parse::<toml::Table>().is_ok());
    let toml = translation.to_toml();
    for problem in super::parse(&toml.text, Path::new("")).err().unwrap_or_default() {
        let located = translation.located(problem, &toml);
        assert!((1..=lines).contains(&located.line), "{located:?} of {lines}");
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
