//! What a statement may do to its session that the server does not report: a look at its text, and at the command
//! tags of its answer.
//!
//! It is no parser. A hint that is false costs a question to the server, one that is missed leaks state; so whatever
//! is unclear is a hint. It knows no connection and asks nobody.

mod lexer;
mod look;
mod tags;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use aho_corasick::AhoCorasick;

use look::Look;
pub use tags::{may_release, of_tag};

/// Kinds of session state, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hints(u16);

impl Hints {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Settings, role and session authorization.
    pub const SETTINGS: Self = Self(1);
    /// Statements of SQL `PREPARE`.
    pub const PREPARED: Self = Self(1 << 1);
    /// Channels that are listened to.
    pub const LISTEN: Self = Self(1 << 2);
    /// Temporary tables, and whatever else is in the temporary schema.
    pub const TEMP: Self = Self(1 << 3);
    /// Cursors that outlive their transaction.
    pub const CURSOR: Self = Self(1 << 4);
    /// Advisory locks that outlive their transaction.
    pub const LOCKS: Self = Self(1 << 5);
    /// A library that was loaded, for good.
    pub const LOAD: Self = Self(1 << 6);
    /// Something that no question to the server brings to light: a custom setting whose name the text does not say,
    /// a connection of dblink.
    pub const OPAQUE: Self = Self(1 << 7);
    /// All that a server can be asked about.
    pub const ASKABLE: Self = Self(0b11_1111);

    const EACH: [Self; 8] = [
        Self::SETTINGS,
        Self::PREPARED,
        Self::LISTEN,
        Self::TEMP,
        Self::CURSOR,
        Self::LOCKS,
        Self::LOAD,
        Self::OPAQUE,
    ];

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is in it.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Adds all of `other`.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// What is in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The kinds one by one.
    pub fn iter(self) -> impl Iterator<Item = Self> {
        Self::EACH.into_iter().filter(move |&kind| self.contains(kind))
    }
}

/// What the text of a request may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// What it may have changed when its transaction has ended well.
    pub hints: Hints,
    /// How many of its statements are answered by the command tag `SET` and last no longer than their transaction.
    pub local_sets: u32,
    /// Names of custom settings (those with a dot) that it sets or resets: a server lists them nowhere and has to be
    /// asked for each. Unique without regard to case.
    pub names: Vec<Box<str>>,
}

/// Names of functions, each with what a call of it may do.
type Functions = HashMap<Box<[u8]>, Hints>;

/// Looks at texts. Made once; reading takes no lock.
#[derive(Debug)]
pub struct Scanner {
    /// Finds the words that matter wherever they stand.
    words: Option<AhoCorasick>,
    functions: Functions,
}

/// What matters wherever it stands in a statement. Each is the part of a word or a whole one that rarely stands in
/// other words.
const ANYWHERE: [&str; 7] = [
    "set_config",
    "advisory_",
    "temp",
    "hold",
    "pg_settings",
    "dblink_connect",
    "_origin_session",
];

impl Scanner {
    /// Knows PostgreSQL's own statements and functions.
    pub fn new() -> Self {
        Self::with_names([])
    }

    /// Knows functions of the users' as well. Names are compared without regard to case and without their schemas.
    pub fn with_names<'a>(names: impl IntoIterator<Item = (&'a str, Hints)>) -> Self {
        let mut functions = Functions::new();
        for (name, hints) in names {
            if !name.is_empty() && !hints.is_empty() {
                let name = name.to_ascii_lowercase().into_bytes().into_boxed_slice();
                functions.entry(name).or_default().insert(hints);
            }
        }
        let own = ANYWHERE.iter().map(|word| word.as_bytes());
        let words = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(aho_corasick::AhoCorasickKind::DFA))
            .build(own.chain(functions.keys().map(|name| &**name)));
        Self {
            // Only too many names can be wrong with it; then every text is looked at closely.
            words: words.ok(),
            functions,
        }
    }

    /// What the text of a request (one or more statements) may do.
    pub fn read(&self, text: &[u8]) -> Reading {
        if self.may_matter(text) {
            Look::new(&self.functions).read(text)
        } else {
            Reading::default()
        }
    }

    /// The quick look, which most texts do not pass: no, or maybe.
    fn may_matter(&self, text: &[u8]) -> bool {
        // Wherever its strings end, each statement follows a `;` or is the first.
        let may_begin = if text.contains(&b';') {
            text.split(|&byte| byte == b';').any(may_begin_with_keyword)
        } else {
            may_begin_with_keyword(text)
        };
        may_begin || self.words.as_ref().is_none_or(|words| words.is_match(text))
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a statement may begin with a word that matters there. The text ends where the next `;` is, which may be
/// in the middle of a comment.
fn may_begin_with_keyword(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    let Some(&first) = text.first() else {
        return false;
    };
    if first == b'-' || first == b'/' || first == 0x0b {
        let rest = lexer::skip_blank(text);
        return rest.is_empty() || rest.len() < text.len() && may_begin_with_keyword(rest);
    }
    if !b"srdpluc".contains(&first.to_ascii_lowercase()) {
        return false;
    }
    let end = text.iter().position(|&byte| !lexer::continues_word(byte));
    let word = end.and_then(|end| text.get(..end)).unwrap_or(text);
    look::KEYWORDS
        .iter()
        .any(|keyword| word.eq_ignore_ascii_case(keyword.as_bytes()))
}
