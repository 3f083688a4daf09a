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

use look::Look;
pub use tags::{defines_functions, may_release, of_tag};

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
    /// What only the end of the session takes away: a library that was loaded, a connection of dblink.
    pub const LOAD: Self = Self(1 << 6);
    /// Something that no question to the server brings to light: a custom setting whose name the text does not say.
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
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this one only.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
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

/// What a call of a function may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effect {
    /// To its session.
    pub hints: Hints,
    /// Custom settings that it may set.
    pub names: Vec<Box<str>>,
}

impl Reading {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.hints.is_empty() && self.local_sets == 0 && self.names.is_empty()
    }
}

/// Names of functions, each with what a call of it may do.
type Functions = HashMap<Box<[u8]>, Effect>;

/// Looks at texts. Made once; reading takes no lock.
#[derive(Debug)]
pub struct Scanner {
    functions: Functions,
    /// For each first byte of a function's name, the lengths of those names: what has another length is none.
    lengths: Box<[u32; 256]>,
}

/// A part of each word that matters wherever it stands, and of few that do not: `temp`, `hold`, `pg_advisory_`,
/// `set_config` and `dblink_connect`, `pg_settings`, `pg_replication_origin_session_`.
const PARTS: [[u8; 4]; 6] = [*b"temp", *b"hold", *b"dvis", *b"_con", *b"_set", *b"_ori"];

impl Scanner {
    /// Knows PostgreSQL's own statements and functions.
    pub fn new() -> Self {
        Self::with_functions([])
    }

    /// Knows functions of the users' as well. Names are compared without regard to case and without their schemas.
    pub fn with_functions<'a>(functions: impl IntoIterator<Item = (&'a str, Effect)>) -> Self {
        let mut scanner = Self {
            functions: Functions::new(),
            lengths: Box::new([0; 256]),
        };
        for (name, effect) in functions {
            let name = name.to_ascii_lowercase().into_bytes().into_boxed_slice();
            for first in scanner.lengths_of(&name) {
                *first |= length_bit(&name);
            }
            let known = scanner.functions.entry(name).or_default();
            known.hints.insert(effect.hints);
            known.names.extend(effect.names);
        }
        scanner
    }

    fn lengths_of(&mut self, name: &[u8]) -> impl Iterator<Item = &mut u32> {
        let first = name.first().copied().map(usize::from);
        first.and_then(|first| self.lengths.get_mut(first)).into_iter()
    }

    /// What the text of a request (one or more statements) may do.
    pub fn read(&self, text: &[u8]) -> Reading {
        if self.may_matter(text) {
            Look::new(&self.functions).read(text)
        } else {
            Reading::default()
        }
    }

    /// What a call of a function with this body may do. Of other languages than PostgreSQL's own two, nothing is known but
    /// words.
    pub(super) fn read_body(&self, body: &[u8], is_sql: bool) -> Effect {
        let Reading { hints, names, .. } = Look::new(&self.functions).read_body(body, is_sql);
        Effect { hints, names }
    }

    /// The quick look, which most texts do not pass: no, or maybe. Also for a piece of a text.
    pub fn may_matter(&self, text: &[u8]) -> bool {
        // Most have one at their end and no other.
        let text = text.strip_suffix(b";").unwrap_or(text);
        // Wherever its strings end, each statement follows a `;` or is the first.
        let may_begin = if memchr::memchr(b';', text).is_some() {
            text.split(|&byte| byte == b';').any(may_begin_with_keyword)
        } else {
            may_begin_with_keyword(text)
        };
        may_begin || has_part(text) || (!self.functions.is_empty() && self.may_call(text))
    }
}

impl Scanner {
    fn may_call(&self, text: &[u8]) -> bool {
        text.split(|&byte| !lexer::continues_word(byte)).any(|word| {
            let first = word.first().map(|first| usize::from(first.to_ascii_lowercase()));
            let lengths = first.and_then(|first| self.lengths.get(first));
            lengths.is_some_and(|lengths| lengths & length_bit(word) != 0)
        })
    }
}

/// The words of a function's body that are followed by a parenthesis: names of the functions that it calls, and others.
pub(super) fn calls(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut lexer = lexer::Lexer::literal(body);
    std::iter::from_fn(move || {
        loop {
            let lexer::Token::Word(word) = lexer.next()? else {
                continue;
            };
            let mut ahead = lexer;
            // The name may have been in quotes.
            let is_call = match ahead.next() {
                Some(lexer::Token::Symbol(b'"')) => ahead.next() == Some(lexer::Token::Symbol(b'(')),
                next => next == Some(lexer::Token::Symbol(b'(')),
            };
            if is_call {
                return Some(word);
            }
        }
    })
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

fn length_bit(word: &[u8]) -> u32 {
    1 << word.len().min(31)
}

/// Whether one of [`PARTS`] is in a text, without regard to case. The last two bytes of a window of four say how far it
/// may move, mostly three bytes.
fn has_part(text: &[u8]) -> bool {
    let mut rest = text;
    while let &[a, b, c, d, ..] = rest {
        let shift = match SHIFTS.get(pair(c, d)) {
            None | Some(0) => {
                let window = [a, b, c, d].map(|byte| byte | CASE);
                if PARTS.iter().any(|part| part.map(|byte| byte | CASE) == window) {
                    return true;
                }
                1
            }
            Some(&shift) => usize::from(shift),
        };
        rest = rest.get(shift..).unwrap_or_default();
    }
    false
}

/// What tells small letters from capital ones; that it makes other bytes the same does no harm.
const CASE: u8 = 0x20;

/// By the last two bytes of a window: how many bytes further the next part may end.
static SHIFTS: [u8; 1024] = shifts();

/// The place of two bytes in [`SHIFTS`]; it does not tell small letters from capital ones.
const fn pair(a: u8, b: u8) -> usize {
    ((a & 31) as usize) << 5 | (b & 31) as usize
}

const fn shifts() -> [u8; 1024] {
    let mut shifts = [3; 1024];
    let mut part = 0;
    while part < PARTS.len() {
        let [a, b, c, d] = PARTS[part];
        let pairs = [pair(a, b), pair(b, c), pair(c, d)];
        let mut at = 0;
        while at < 3 {
            #[allow(clippy::cast_possible_truncation, reason = "at most 2")]
            let shift = 2 - at as u8;
            if shift < shifts[pairs[at]] {
                shifts[pairs[at]] = shift;
            }
            at += 1;
        }
        part += 1;
    }
    shifts
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
    // Nearly all that matter are told from nearly all others by three letters.
    if let Some(start) = text.first_chunk::<3>()
        && !may_start_keyword(start.map(|byte| byte | CASE))
    {
        return false;
    }
    let end = text.iter().position(|&byte| !lexer::continues_word(byte));
    let word = end.and_then(|end| text.get(..end)).unwrap_or(text);
    look::KEYWORDS
        .iter()
        .any(|keyword| word.eq_ignore_ascii_case(keyword.as_bytes()))
}

/// Whether one of [`look::KEYWORDS`] begins with these, of which letters are small ones.
fn may_start_keyword(start: [u8; 3]) -> bool {
    matches!(
        &start,
        b"set" | b"res" | b"dis" | b"pre" | b"dea" | b"lis" | b"unl" | b"loa" | b"cal" | [b'd', b'o', _]
    )
}
