//! A name that is meant: written out, or as `/` and a regular expression.

use regex::{Regex, RegexBuilder};

use super::tokens::Token;

/// How much memory one regular expression may take, compiled.
const PATTERN_SIZE: usize = 256 * 1024;

/// Which names are meant.
///
/// PostgreSQL's regular expressions are POSIX AREs; these are of the crate `regex`. What people write in these files
/// means the same in both, and both look for a match anywhere in the name. What differs: there are no back
/// references within an expression and no look-around (refused when the file is read), no `\m`, `\M`, `\y` and no
/// `***:` (use `\b` and `(?i)`), and of several ways to match the first alternative wins, not the longest, which
/// only a `\1` can show. A match takes time in proportion to the name, whatever the expression.
#[derive(Debug, Clone)]
pub(in crate::auth) enum Name {
    Exact(Box<str>),
    Pattern(Regex),
}

/// A regular expression that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("invalid regular expression \"{pattern}\": {}", brief(source))]
pub(in crate::auth) struct PatternError {
    pattern: Box<str>,
    source: Box<regex::Error>,
}

/// The parser draws an arrow at the place above what it says of it.
fn brief(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

impl Name {
    /// What a token means. A quote does not take the meaning from a slash: it lets the expression have commas.
    pub(in crate::auth) fn of(token: &Token) -> Result<Self, PatternError> {
        let Some(pattern) = token.text.strip_prefix('/') else {
            return Ok(Self::Exact(token.text.clone()));
        };
        RegexBuilder::new(pattern)
            .size_limit(PATTERN_SIZE)
            .dfa_size_limit(PATTERN_SIZE)
            // As in PostgreSQL: a dot is any character.
            .dot_matches_new_line(true)
            .build()
            .map(Self::Pattern)
            .map_err(|source| PatternError {
                pattern: pattern.into(),
                source: source.into(),
            })
    }

    pub(in crate::auth) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *name,
            Self::Pattern(pattern) => pattern.is_match(name),
        }
    }
}
