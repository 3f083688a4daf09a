//! The close look at a text that may matter: which statements it has, and which words stand in them.

use std::borrow::Cow;

use super::{
    Functions, Hints, Reading,
    lexer::{Lexer, Token},
};

/// What matters where a statement begins.
pub(super) const KEYWORDS: [&str; 10] = [
    "set",
    "reset",
    "discard",
    "prepare",
    "deallocate",
    "listen",
    "unlisten",
    "load",
    "do",
    "call",
];

/// Strings that hold SQL that holds strings are looked into so deep.
const DEEPEST: usize = 4;
/// A call whose arguments are longer is not understood.
const LONGEST_CALL: usize = 64;
/// More custom settings in one text are not told apart.
const MOST_NAMES: usize = 64;
const LONGEST_NAME: usize = 256;

/// The words of PL/pgSQL that a statement may follow.
const OPENING: [&str; 5] = ["begin", "then", "else", "loop", "atomic"];

/// How a text is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// As statements.
    Statements,
    /// As code in which a statement may begin with any word: the body of a `DO`, or text whose quotes are unclear.
    Code,
    /// As the body of a function in SQL or PL/pgSQL.
    Body,
    /// As a string: there may be calls of functions in it that somebody executes.
    Data,
}

/// One look at one request.
#[derive(Debug)]
pub(super) struct Look<'f> {
    functions: &'f Functions,
    reading: Reading,
}

impl<'f> Look<'f> {
    pub(super) fn new(functions: &'f Functions) -> Self {
        Self {
            functions,
            reading: Reading::default(),
        }
    }

    pub(super) fn read(mut self, text: &[u8]) -> Reading {
        let clear = self.pass(Lexer::new(text), Manner::Statements, 0);
        if !clear {
            self.reading = Reading::default();
            self.pass(Lexer::literal(text), Manner::Code, 0);
        }
        self.reading
    }

    /// As [`Look::read`], of a function's body.
    pub(super) fn read_body(mut self, body: &[u8], is_sql: bool) -> Reading {
        let manner = if is_sql { Manner::Body } else { Manner::Code };
        if !self.pass(Lexer::new(body), manner, 0) {
            self.reading = Reading::default();
            self.pass(Lexer::literal(body), Manner::Code, 0);
        }
        self.reading
    }

    /// Goes through a text. Whether it is clear where its strings end.
    fn pass<'a>(&mut self, mut lexer: Lexer<'a>, manner: Manner, depth: usize) -> bool {
        let (mut begins, mut statement) = (true, &b""[..]);
        // The word before, and whether the piece before this one was that word.
        let mut previous = &b""[..];
        // What a function does is done when it is called.
        let mut defines = false;
        while let Some(token) = lexer.next() {
            if lexer.is_unclear() {
                break;
            }
            let before = std::mem::take(&mut previous);
            match token {
                Token::Word(word) => {
                    begins |= manner == Manner::Body && OPENING.iter().any(|opening| is(before, opening));
                    if begins {
                        statement = word;
                    }
                    if (begins && manner != Manner::Data) || manner == Manner::Code {
                        self.keyword(word, lexer, manner);
                    }
                    if manner != Manner::Data {
                        self.inside(word, before, statement);
                    }
                    defines |= manner == Manner::Statements && is_definition(statement, before, word);
                    if !defines {
                        self.function(word, lexer);
                    }
                    previous = word;
                }
                Token::Identifier(_) | Token::Text { .. } if defines => {}
                Token::Identifier(name) => {
                    self.schema(name);
                    self.function(name, lexer);
                }
                Token::Text { raw, .. } => {
                    self.schema(raw);
                    let manner = if is(statement, "do") {
                        Manner::Code
                    } else if manner == Manner::Body && is(statement, "execute") {
                        Manner::Statements
                    } else {
                        Manner::Data
                    };
                    self.text(raw, manner, depth + 1);
                }
                Token::Symbol(_) => {}
            }
            begins = token == Token::Symbol(b';');
            defines &= !begins;
        }
        !lexer.is_unclear()
    }

    /// A string in the text.
    fn text(&mut self, raw: &[u8], manner: Manner, depth: usize) {
        if depth == DEEPEST {
            return self.hint(Hints::ASKABLE.union(Hints::OPAQUE));
        }
        let text = without_doubled_quotes(raw);
        if !self.pass(Lexer::new(&text), manner, depth) {
            self.pass(Lexer::literal(&text), manner, depth);
        }
    }

    /// A word that begins a statement, or may.
    fn keyword(&mut self, word: &[u8], mut after: Lexer<'_>, manner: Manner) {
        let Some(keyword) = KEYWORDS.iter().find(|keyword| is(word, keyword)) else {
            return;
        };
        let ahead = after;
        let following = after.next();
        let next = match following {
            Some(Token::Word(next)) => next,
            _ => b"",
        };
        match *keyword {
            "set" => self.set(ahead, manner),
            "reset" => self.setting(ahead),
            "discard" if is(next, "plans") || is(next, "sequences") => {}
            "discard" if is(next, "temp") || is(next, "temporary") => self.hint(Hints::TEMP),
            // What a function calls is known of it otherwise.
            "call" if manner == Manner::Body => {}
            "discard" | "do" | "call" => self.hint(Hints::ASKABLE),
            // Of two-phase commit.
            "prepare" if is(next, "transaction") => {}
            "prepare" | "deallocate" => self.hint(Hints::PREPARED),
            "listen" | "unlisten" => self.hint(Hints::LISTEN),
            // The one hint that no answer takes back.
            "load" if matches!(following, Some(Token::Text { .. } | Token::Symbol(b'\''))) => {
                self.hint(Hints::LOAD);
            }
            _ => {}
        }
    }

    fn set(&mut self, mut after: Lexer<'_>, manner: Manner) {
        let ahead = after;
        let Some(Token::Word(word)) = after.next() else {
            return self.setting(ahead);
        };
        // Each of these may be the first part of a setting's name.
        if followed_by(after, b'.') {
            self.setting(ahead);
        } else if is(word, "local") || is(word, "transaction") {
            // In code it is not known to be a statement, and a function's has no command tag.
            self.reading.local_sets += u32::from(manner == Manner::Statements);
        } else if is(word, "session") {
            self.setting(after);
        } else if !is(word, "constraints") {
            self.setting(ahead);
        }
    }

    /// A setting that is set or reset: its name follows.
    fn setting(&mut self, mut after: Lexer<'_>) {
        let mut name = Vec::new();
        loop {
            match after.next() {
                Some(Token::Word(part) | Token::Identifier(part)) => name.extend_from_slice(part),
                // Quotes and comments that are not read as such; a text from which SQL is made.
                Some(Token::Symbol(b'"' | b'/' | b'-' | b'%')) | None => {
                    return self.hint(Hints::SETTINGS.union(Hints::OPAQUE));
                }
                // No statement that a server would accept.
                _ => return,
            }
            self.hint(Hints::SETTINGS);
            if !followed_by(after, b'.') {
                break;
            }
            after.next();
            name.push(b'.');
            if name.len() > LONGEST_NAME {
                return self.hint(Hints::OPAQUE);
            }
        }
        if followed_by(after, b'&') {
            return self.hint(Hints::OPAQUE);
        }
        self.name(&name);
    }

    /// Notes the name of a setting, if it is a custom one.
    fn name(&mut self, name: &[u8]) {
        if !name.contains(&b'.') {
            return;
        }
        let names = &mut self.reading.names;
        if names
            .iter()
            .any(|known| known.as_bytes().eq_ignore_ascii_case(name))
        {
            return;
        }
        match std::str::from_utf8(name) {
            Ok(text)
                if names.len() < MOST_NAMES && name.len() <= LONGEST_NAME && !text.contains(['"', '\0']) =>
            {
                names.push(text.into());
            }
            _ => self.hint(Hints::OPAQUE),
        }
    }

    /// A word that matters inside a statement.
    fn inside(&mut self, word: &[u8], previous: &[u8], statement: &[u8]) {
        self.schema(word);
        let after = |words: &[&str]| words.iter().any(|before| is(previous, before));
        if is(word, "temp") || is(word, "temporary") {
            if after(&["create", "replace", "local", "global", "into"]) {
                self.hint(Hints::TEMP);
            }
        } else if is(word, "hold") && after(&["with"]) {
            self.hint(Hints::CURSOR);
        } else if is(word, "pg_settings") && !is(statement, "select") {
            // It can be updated.
            self.hint(Hints::SETTINGS);
        }
    }

    /// A name, or a string with names in it, that may be or set the schema in which something is made.
    fn schema(&mut self, text: &[u8]) {
        if text.windows(7).any(|part| part.eq_ignore_ascii_case(b"pg_temp")) {
            self.hint(Hints::TEMP);
        }
    }

    /// A word that may be the name of a function.
    fn function(&mut self, word: &[u8], after: Lexer<'_>) {
        if is(word, "set_config") {
            self.set_config(after);
        } else if begins_with(word, b"pg_advisory_") || begins_with(word, b"pg_try_advisory_") {
            if !word.windows(6).any(|part| part.eq_ignore_ascii_case(b"_xact_")) {
                self.hint(Hints::LOCKS);
            }
        } else if is(word, "dblink_connect")
            || is(word, "dblink_connect_u")
            || begins_with(word, b"pg_replication_origin_session_")
        {
            self.hint(Hints::LOAD);
        }
        if !self.functions.is_empty()
            && let Some(effect) = self.functions.get(&*word.to_ascii_lowercase())
        {
            self.hint(effect.hints);
            effect.names.iter().for_each(|name| self.name(name.as_bytes()));
        }
    }

    /// A call of `set_config(name, value, is_local)`, from behind its name.
    fn set_config(&mut self, after: Lexer<'_>) {
        if self.reading.hints.contains(Hints::SETTINGS.union(Hints::OPAQUE)) {
            return;
        }
        match call(after) {
            Some(Call { is_local: true, .. }) => {}
            Some(Call {
                setting: Some(name), ..
            }) => {
                self.hint(Hints::SETTINGS);
                self.name(name);
            }
            _ => self.hint(Hints::SETTINGS.union(Hints::OPAQUE)),
        }
    }

    fn hint(&mut self, hints: Hints) {
        self.reading.hints.insert(hints);
    }
}

/// What can be told of a call of `set_config`.
struct Call<'a> {
    /// The first argument, if it is nothing but a string that says what it says.
    setting: Option<&'a [u8]>,
    /// The third argument is `true`, literally.
    is_local: bool,
}

/// Reads the arguments. `None` if they are not understood.
fn call<'a>(mut lexer: Lexer<'a>) -> Option<Call<'a>> {
    if lexer.next() != Some(Token::Symbol(b'(')) {
        return None;
    }
    let mut call = Call {
        setting: None,
        is_local: false,
    };
    let (mut argument, mut depth) = (0, 0usize);
    let mut is_first_piece = true;
    for token in lexer.by_ref().take(LONGEST_CALL) {
        match token {
            Token::Symbol(b'(' | b'[') => depth += 1,
            Token::Symbol(b')') if depth == 0 => return (argument == 2).then_some(call),
            Token::Symbol(b')' | b']') => depth = depth.saturating_sub(1),
            Token::Symbol(b',') if depth == 0 => {
                argument += 1;
                is_first_piece = true;
                continue;
            }
            _ => {}
        }
        match token {
            Token::Text {
                raw, escapes: false, ..
            } if argument == 0 && is_first_piece => {
                call.setting = (!raw.contains(&b'\'')).then_some(raw);
            }
            // A cast changes nothing.
            Token::Symbol(b':') if argument == 0 => {}
            Token::Word(name) if argument == 0 && (is(name, "text") || is(name, "varchar")) => {}
            _ if argument == 0 => call.setting = None,
            Token::Word(word) if argument == 2 && is_first_piece => call.is_local = is(word, "true"),
            _ if argument == 2 => call.is_local = false,
            _ => {}
        }
        is_first_piece = false;
    }
    None
}

/// Whether a statement is `CREATE [OR REPLACE] FUNCTION` or `PROCEDURE`, from this word on.
fn is_definition(statement: &[u8], previous: &[u8], word: &[u8]) -> bool {
    is(statement, "create")
        && (is(previous, "create") || is(previous, "replace"))
        && (is(word, "function") || is(word, "procedure"))
}

fn without_doubled_quotes(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.windows(2).any(|pair| pair == b"''") {
        return Cow::Borrowed(text);
    }
    let mut single = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        single.push(byte);
        if byte == b'\'' {
            bytes.next_if_eq(&b'\'');
        }
    }
    Cow::Owned(single)
}

fn followed_by(mut lexer: Lexer<'_>, symbol: u8) -> bool {
    lexer.next() == Some(Token::Symbol(symbol))
}

fn is(word: &[u8], other: &str) -> bool {
    word.eq_ignore_ascii_case(other.as_bytes())
}

fn begins_with(word: &[u8], beginning: &[u8]) -> bool {
    word.get(..beginning.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(beginning))
}
