//! Any text is read to its end, and what is read does not hide what follows it.

use crate::server::hints::{Hints, Scanner};

/// A text of a client.
pub fn statement_hints(data: &[u8]) {
    let scanner = Scanner::new();
    let alone = scanner.read(data);
    assert!(alone.names.iter().all(|name| name.contains('.')));
    assert!(alone.names.is_empty() || alone.hints.contains(Hints::SETTINGS));
    // In front of it.
    let first = scanner.read(&[b"SET x.y = 1;", data].concat());
    assert!(first.hints.contains(alone.hints.union(Hints::SETTINGS)));
    // Behind it, it in quotes.
    let quoted: Vec<u8> = data
        .iter()
        .copied()
        .filter(|byte| !b"'\\".contains(byte))
        .collect();
    let behind = scanner.read(&[b"SELECT '", &quoted[..], b"'; SET x.y = 1"].concat());
    assert!(behind.hints.contains(Hints::SETTINGS));
    assert!(behind.names.iter().any(|name| &**name == "x.y") || behind.hints.contains(Hints::OPAQUE));
}
