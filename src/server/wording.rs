//! What a client's query says, kept for as long as it runs where somebody may want to read it in the log.

use super::Connection;

/// So much of a query is kept.
const LONGEST: usize = 1024;

impl Connection {
    /// Keeps the beginning of a query's text, in place of what was kept before.
    pub fn note_text(&mut self, text: &[u8]) {
        let cut = text.get(..LONGEST).unwrap_or(text);
        let mut kept = String::from_utf8_lossy(cut).into_owned();
        if cut.len() < text.len() {
            // The cut may have gone through a character.
            kept.truncate(kept.trim_end_matches(char::REPLACEMENT_CHARACTER).len());
            kept.push_str("...");
        }
        self.text = Some(kept.into());
    }

    /// Keeps what was taken.
    pub fn put_text(&mut self, text: Option<Box<str>>) {
        self.text = text;
    }

    /// Takes what was kept.
    pub fn take_text(&mut self) -> Option<Box<str>> {
        self.text.take()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{net::Socket, server::fuzzing};

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let socket = Socket::memory(tokio::io::duplex(1).0);
        let mut connection = fuzzing::connection(socket, Arc::new(fuzzing::target()));
        connection.note_text(b"SELECT 1");
        assert_eq!(connection.take_text().as_deref(), Some("SELECT 1"));
        assert_eq!(connection.take_text(), None);
        connection.note_text(format!("x{}", "\u{e9}".repeat(1000)).as_bytes());
        let kept = connection.take_text().unwrap();
        assert_eq!(kept.len(), 1 + 2 * 511 + 3);
        assert!(kept.ends_with("\u{e9}..."));
    }
}
