//! Rust source as words and signs. Comments, strings, characters and lifetimes are left out.

/// A word, a number, `::` or a single sign.
#[derive(Debug)]
pub(super) struct Token {
    /// As written; a raw identifier without its `r#`.
    pub(super) text: String,
    /// Counted from 1.
    pub(super) line: usize,
    /// How many `mod name { … }` it stands in.
    pub(super) modules: usize,
    /// Whether one of those is `#[cfg(test)]`.
    pub(super) test: bool,
}

impl Token {
    /// Whether it can be a segment of a path.
    pub(super) fn is_word(&self) -> bool {
        self.text
            .starts_with(|first: char| first.is_alphabetic() || first == '_')
    }
}

/// Splits a source text.
pub(super) fn tokenize(text: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        rest: text.chars().collect(),
        at: 0,
        line: 1,
        tokens: Vec::new(),
    };
    while lexer.at < lexer.rest.len() {
        lexer.step();
    }
    let mut tokens = lexer.tokens;
    mark_modules(&mut tokens);
    tokens
}

struct Lexer {
    rest: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer {
    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => self.skip_while(|it| it != '\n'),
            ('/', '*') => self.skip_block_comment(),
            ('"', _) => self.skip_quoted('"'),
            ('\'', _) => self.skip_character_or_lifetime(),
            (':', ':') => self.push(2),
            (it, _) if is_word(it) => self.word(),
            (it, _) if it.is_whitespace() => self.bump(1),
            _ => self.push(1),
        }
    }

    fn word(&mut self) {
        let length = self.rest[self.at..].iter().take_while(|it| is_word(**it)).count();
        let word: String = self.rest[self.at..self.at + length].iter().collect();
        let raw = matches!(word.as_str(), "r" | "br" | "cr");
        let hashes = self.rest[self.at + length..]
            .iter()
            .take_while(|it| **it == '#')
            .count();
        match (self.peek(length), self.peek(length + hashes)) {
            (_, '"') if raw => self.skip_raw(length + hashes + 1, hashes),
            ('#', _) if word == "r" => self.bump(length + 1),
            ('"', _) if matches!(word.as_str(), "b" | "c") => {
                self.bump(length);
                self.skip_quoted('"');
            }
            ('\'', _) if word == "b" => {
                self.bump(length);
                self.skip_quoted('\'');
            }
            _ => self.push(length),
        }
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            match (self.peek(0), self.peek(1)) {
                ('\0', _) => return,
                ('/', '*') => {
                    depth += 1;
                    self.bump(2);
                }
                ('*', '/') => {
                    depth -= 1;
                    self.bump(2);
                }
                _ => self.bump(1),
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn skip_quoted(&mut self, quote: char) {
        self.bump(1);
        loop {
            match self.peek(0) {
                '\0' => return,
                '\\' => self.bump(2),
                it => {
                    self.bump(1);
                    if it == quote {
                        return;
                    }
                }
            }
        }
    }

    fn skip_raw(&mut self, opening: usize, hashes: usize) {
        self.bump(opening);
        while self.peek(0) != '\0' {
            let closes = self.peek(0) == '"' && (1..=hashes).all(|it| self.peek(it) == '#');
            if closes {
                return self.bump(1 + hashes);
            }
            self.bump(1);
        }
    }

    fn skip_character_or_lifetime(&mut self) {
        if self.peek(1) == '\\' || self.peek(2) == '\'' {
            self.skip_quoted('\'');
        } else {
            self.bump(1);
            self.skip_while(is_word);
        }
    }

    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) {
        while self.peek(0) != '\0' && wanted(self.peek(0)) {
            self.bump(1);
        }
    }

    fn push(&mut self, length: usize) {
        self.tokens.push(Token {
            text: self.rest[self.at..self.at + length].iter().collect(),
            line: self.line,
            modules: 0,
            test: false,
        });
        self.bump(length);
    }

    fn bump(&mut self, count: usize) {
        for _ in 0..count {
            self.line += usize::from(self.peek(0) == '\n');
            self.at += 1;
        }
    }

    /// The character `ahead` of here, `\0` past the end.
    fn peek(&self, ahead: usize) -> char {
        self.rest.get(self.at + ahead).copied().unwrap_or('\0')
    }
}

fn is_word(it: char) -> bool {
    it.is_alphanumeric() || it == '_'
}

/// What an open brace belongs to.
#[derive(Clone, Copy, PartialEq)]
enum Block {
    Module,
    TestModule,
    Other,
}

fn mark_modules(tokens: &mut [Token]) {
    const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut open = Vec::new();
    let mut after_cfg_test = false;
    for at in 0..tokens.len() {
        tokens[at].modules = open.iter().filter(|it| **it != Block::Other).count();
        tokens[at].test = open.contains(&Block::TestModule);
        match tokens[at].text.as_str() {
            "{" => {
                let is_module = at >= 2 && tokens[at - 2].text == "mod";
                open.push(match (is_module, after_cfg_test) {
                    (true, true) => Block::TestModule,
                    (true, false) => Block::Module,
                    (false, _) => Block::Other,
                });
                after_cfg_test = false;
            }
            "}" => {
                open.pop();
                after_cfg_test = false;
            }
            ";" => after_cfg_test = false,
            "#" => {
                let text = tokens[at..].iter().map(|it| it.text.as_str());
                after_cfg_test |= text.take(CFG_TEST.len()).eq(CFG_TEST);
            }
            _ => {}
        }
    }
}
