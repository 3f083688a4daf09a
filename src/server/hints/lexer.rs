//! SQL text as PostgreSQL's own lexer cuts it: words, quoted texts, comments. It knows no statement.

/// A piece of SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword or an identifier, as it is written.
    Word(&'a [u8]),
    /// An identifier in quotes, without them.
    Identifier(&'a [u8]),
    /// A string, without its quotes.
    Text {
        /// As it is written: two quotes for one.
        raw: &'a [u8],
        /// Whether backslashes may stand for other characters.
        escapes: bool,
    },
    /// Anything else, one byte of it.
    Symbol(u8),
}

/// Reads a text from left to right; a copy looks ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    /// Quotes and comments are bytes like others.
    literal: bool,
    /// Where a string ends cannot be known: it depends on settings or on the encoding, or there is no end.
    unclear: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            rest: text,
            literal: false,
            unclear: false,
        }
    }

    /// Takes every word for a word, in quotes and comments as well.
    pub(super) fn literal(text: &'a [u8]) -> Self {
        Self {
            literal: true,
            ..Self::new(text)
        }
    }

    pub(super) fn is_unclear(&self) -> bool {
        self.unclear
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    fn word(&mut self) -> Token<'a> {
        let end = self.rest.iter().position(|&byte| !continues_word(byte));
        let word = self.take(end.unwrap_or(self.rest.len()));
        match self.rest.first() {
            Some(b'\'') if !self.literal && matches!(word, b"e" | b"E") => {
                self.take(1);
                self.escape_string()
            }
            _ => Token::Word(word),
        }
    }

    /// What follows an opening quote, up to the closing one; two of them stand for one.
    fn quoted(&mut self, quote: u8) -> &'a [u8] {
        let mut at = 0;
        loop {
            let rest = self.rest.get(at..).unwrap_or_default();
            let Some(end) = rest.iter().position(|&byte| byte == quote) else {
                self.unclear = true;
                return self.take(usize::MAX);
            };
            if rest.get(end + 1) != Some(&quote) {
                let text = self.take(at + end);
                self.take(1);
                return text;
            }
            at += end + 2;
        }
    }

    fn string(&mut self) -> Token<'a> {
        let raw = self.quoted(b'\'');
        // With standard_conforming_strings off, the backslash would have made the quote a part of the text.
        self.unclear |= raw.ends_with(b"\\") || raw.windows(2).any(|pair| pair == b"\\'");
        Token::Text {
            raw,
            escapes: raw.contains(&b'\\'),
        }
    }

    fn escape_string(&mut self) -> Token<'a> {
        let (mut at, mut before) = (0, 0);
        loop {
            let pair = (self.rest.get(at), self.rest.get(at + 1));
            at += match pair {
                (None, _) => {
                    self.unclear = true;
                    break;
                }
                (Some(b'\\'), _) => {
                    // In some encodings this is the second byte of a character.
                    self.unclear |= before >= 0x80;
                    2
                }
                (Some(b'\''), Some(b'\'')) => 2,
                (Some(b'\''), _) => break,
                _ => 1,
            };
            before = self.rest.get(at - 1).copied().unwrap_or_default();
        }
        let raw = self.take(at);
        self.take(1);
        Token::Text { raw, escapes: true }
    }

    /// `$tag$ ... $tag$`, or a parameter or a stray dollar sign.
    fn dollar(&mut self) -> Token<'a> {
        let tag_end = self
            .rest
            .iter()
            .skip(1)
            .position(|&byte| byte == b'$' || !continues_word(byte));
        let delimiter = tag_end
            .and_then(|end| self.rest.get(..end + 2))
            .unwrap_or_default();
        let begins_with_digit = delimiter.get(1).is_some_and(u8::is_ascii_digit);
        if !delimiter.ends_with(b"$") || begins_with_digit {
            self.take(1);
            return Token::Symbol(b'$');
        }
        self.take(delimiter.len());
        let end = find(self.rest, delimiter);
        self.unclear |= end.is_none();
        let raw = self.take(end.unwrap_or(usize::MAX));
        self.take(delimiter.len());
        Token::Text { raw, escapes: false }
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        if self.literal {
            self.rest = self.rest.trim_ascii_start();
        } else {
            let rest = blank(self.rest);
            self.unclear |= rest.is_none();
            self.rest = rest.unwrap_or_default();
        }
        let &first = self.rest.first()?;
        Some(match first {
            _ if begins_word(first) => self.word(),
            b'\'' if !self.literal => {
                self.take(1);
                self.string()
            }
            b'"' if !self.literal => {
                self.take(1);
                Token::Identifier(self.quoted(b'"'))
            }
            b'$' if !self.literal => self.dollar(),
            _ => {
                self.take(1);
                Token::Symbol(first)
            }
        })
    }
}

fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// Whether a byte may stand in a word after its first.
pub(super) fn continues_word(byte: u8) -> bool {
    begins_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// The text from the first byte that is neither space nor comment.
pub(super) fn skip_blank(text: &[u8]) -> &[u8] {
    blank(text).unwrap_or_default()
}

/// As [`skip_blank`]; `None` if there is a comment that does not end.
fn blank(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [first, rest @ ..] if is_space(*first) => rest,
            [b'-', b'-', rest @ ..] => {
                let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                end.and_then(|end| rest.get(end..)).unwrap_or_default()
            }
            [b'/', b'*', rest @ ..] => comment(rest)?,
            _ => return Some(text),
        };
    }
}

/// What follows a comment that has begun; comments nest. `None` if it does not end.
fn comment(mut text: &[u8]) -> Option<&[u8]> {
    let mut depth = 1usize;
    while depth > 0 {
        text = match text {
            [] => return None,
            [b'*', b'/', rest @ ..] => {
                depth -= 1;
                rest
            }
            [b'/', b'*', rest @ ..] => {
                depth += 1;
                rest
            }
            [_, rest @ ..] => rest,
        };
    }
    Some(text)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
