//! What a reload cannot change.
//!
//! It compares two settings and applies nothing.

use std::net::SocketAddr;

use super::settings::Settings;

/// The keys that take effect only after a restart.
pub(super) const RESTART: [&str; 8] = [
    "listen.address",
    "listen.unix_socket_mode",
    "listen.unix_socket_group",
    "listen.listen_backlog",
    "http.address",
    "log.format",
    "process.workers",
    "process.scheduling",
];

/// The keys that differ and take effect only after a restart; a reload keeps their old values.
pub fn restart_needed(old: &Settings, new: &Settings) -> Vec<&'static str> {
    [
        ("listen.address", old.listen.addresses != new.listen.addresses),
        (
            "listen.unix_socket_mode",
            old.listen.unix_socket_mode != new.listen.unix_socket_mode,
        ),
        (
            "listen.unix_socket_group",
            old.listen.unix_socket_group != new.listen.unix_socket_group,
        ),
        (
            "listen.listen_backlog",
            old.listen.listen_backlog != new.listen.listen_backlog,
        ),
        ("http.address", address(old) != address(new)),
        ("log.format", old.log.format != new.log.format),
        ("process.workers", old.process.workers != new.process.workers),
        (
            "process.scheduling",
            old.process.scheduling != new.process.scheduling,
        ),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

fn address(settings: &Settings) -> Option<SocketAddr> {
    settings.http.as_ref().map(|http| http.address)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{KEYS, Key, parse};

    fn settings(more: &str) -> Settings {
        let text = format!("[auth]\nauth_type = \"trust\"\n[databases.a]\nhosts = \"h\"\n{more}");
        parse(&text, Path::new("")).unwrap()
    }

    #[test]
    fn every_key_that_needs_a_restart_is_named() {
        let new = settings(
            "[listen]\naddress = \"127.0.0.1:1\"\nlisten_backlog = 1\n\
             unix_socket_mode = \"0700\"\nunix_socket_group = \"g\"\n[http]\n[log]\nformat = \"json\"\n\
             [process]\nworkers = 3\nscheduling = \"inherit\"",
        );
        let keys = restart_needed(&settings(""), &new);
        assert_eq!(keys, RESTART);
        let known: Vec<_> = KEYS.iter().map(Key::path).collect();
        assert!(keys.iter().all(|key| known.iter().any(|path| path == key)));
    }

    #[test]
    fn everything_else_reloads() {
        let new = settings(
            "[pool]\ndefault_pool_size = 3\n[log]\nlevel = \"debug\"\n[shutdown]\ndrain_delay = \"0\"",
        );
        assert_eq!(restart_needed(&settings(""), &new), Vec::<&str>::new());
    }
}
