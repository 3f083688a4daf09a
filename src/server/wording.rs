//! What is known of a client's query for as long as it runs, where somebody may want to read it in the log or in a trace.

use super::Connection;
use crate::{fault::SqlState, traces::Context};

/// So much of a query's text is kept.
const LONGEST: usize = 1024;

/// What may be wanted of queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeps {
    /// What they say.
    pub texts: bool,
    /// Whose trace they belong to.
    pub contexts: bool,
}

/// What is kept of one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wording {
    /// Its text, or the beginning of it.
    pub text: Option<Box<str>>,
    /// The context that it has brought.
    pub context: Option<Context>,
    /// The last error that the server has raised.
    pub error: Option<SqlState>,
}

impl Keeps {
    /// Whether anything is wanted.
    pub fn any(self) -> bool {
        self.texts || self.contexts
    }
}

impl Connection {
    /// Keeps what is wanted of a query's text, in place of what was kept before.
    pub fn note_text(&mut self, text: &[u8], keeps: Keeps) {
        let wording = self.wording.get_or_insert_default();
        if keeps.texts {
            wording.text = Some(beginning(text));
        }
        self.note_more(text, keeps);
    }

    /// Looks for the context in what follows of a text.
    pub fn note_more(&mut self, text: &[u8], keeps: Keeps) {
        if keeps.contexts
            && let Some(context) = Context::in_text(text)
        {
            self.wording.get_or_insert_default().context = Some(context);
        }
    }

    /// Keeps an error that the server has raised.
    pub fn note_error(&mut self, code: SqlState) {
        self.wording.get_or_insert_default().error = Some(code);
    }

    /// Keeps what was taken.
    pub fn put_wording(&mut self, wording: Option<Box<Wording>>) {
        self.wording = wording;
    }

    /// Takes what was kept.
    pub fn take_wording(&mut self) -> Option<Box<Wording>> {
        self.wording.take()
    }
}

fn beginning(text: &[u8]) -> Box<str> {
    let cut = text.get(..LONGEST).unwrap_or(text);
    let mut kept = String::from_utf8_lossy(cut).into_owned();
    if cut.len() < text.len() {
        // The cut may have gone through a character.
        kept.truncate(kept.trim_end_matches(char::REPLACEMENT_CHARACTER).len());
        kept.push_str("...");
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{net::Socket, server::fuzzing};

    const TEXTS: Keeps = Keeps {
        texts: true,
        contexts: false,
    };
    const CONTEXTS: Keeps = Keeps {
        texts: false,
        contexts: true,
    };

    fn connection() -> Connection {
        let socket = Socket::memory(tokio::io::duplex(1).0);
        fuzzing::connection(socket, Arc::new(fuzzing::target()))
    }

    fn text(connection: &mut Connection) -> Option<Box<str>> {
        connection.take_wording().and_then(|wording| wording.text)
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut connection = connection();
        connection.note_text(b"SELECT 1", TEXTS);
        assert_eq!(text(&mut connection).as_deref(), Some("SELECT 1"));
        assert_eq!(connection.take_wording(), None);
        connection.note_text(format!("x{}", "\u{e9}".repeat(1000)).as_bytes(), TEXTS);
        let kept = text(&mut connection).unwrap();
        assert_eq!(kept.len(), 1 + 2 * 511 + 3);
        assert!(kept.ends_with("\u{e9}..."));
    }

    /// It stands at the end, beyond what is kept of the text and, where that is long, in another piece.
    #[test]
    fn a_context_is_found_wherever_the_text_ends() {
        let comment = "/*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/";
        let mut connection = connection();
        connection.note_text(
            format!("SELECT '{}' {comment}", "x".repeat(5000)).as_bytes(),
            CONTEXTS,
        );
        let whole = connection.take_wording().unwrap();
        assert_eq!((whole.text, whole.context.is_some()), (None, true));
        connection.note_text(b"SELECT 'x", CONTEXTS);
        connection.note_more(format!("xx' {comment}\0").as_bytes(), CONTEXTS);
        assert_eq!(connection.take_wording().unwrap().context, whole.context);
        connection.note_text(comment.as_bytes(), TEXTS);
        assert_eq!(connection.take_wording().unwrap().context, None);
    }
}
