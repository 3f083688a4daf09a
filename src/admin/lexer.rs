//! Words of a command, as the console's users type them.

/// A word, or what stands between words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// As it was typed.
    Bare(String),
    /// In quotes, single or double, without them.
    Quoted(String),
    /// `=`
    Equals,
    /// `;`
    End,
}

impl Token {
    /// A word that may be in quotes.
    pub(super) fn word(&self) -> Option<&str> {
        match self {
            Self::Bare(word) | Self::Quoted(word) => Some(word),
            Self::Equals | Self::End => None,
        }
    }

    /// Whether it is this keyword.
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Bare(word) if word.eq_ignore_ascii_case(keyword))
    }
}

/// The tokens of a text. A quote that nobody closes ends with the text; comments are left out.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut rest = text;
    std::iter::from_fn(|| next(&mut rest)).collect()
}

fn next(rest: &mut &str) -> Option<Token> {
    loop {
        let text = rest.trim_start();
        let comment = text.strip_prefix("--").map(|text| (text, "\n"));
        let comment = comment.or_else(|| text.strip_prefix("/*").map(|text| (text, "*/")));
        match comment {
            Some((text, end)) => *rest = text.split_once(end).map_or("", |(_, rest)| rest),
            None => {
                *rest = text;
                break;
            }
        }
    }
    let first = rest.chars().next()?;
    let after = rest.get(first.len_utf8()..).unwrap_or_default();
    match first {
        ';' => {
            *rest = after;
            Some(Token::End)
        }
        '=' => {
            *rest = after;
            Some(Token::Equals)
        }
        '"' | '\'' => {
            let (word, after) = quoted(after, first);
            *rest = after;
            Some(Token::Quoted(word))
        }
        _ => {
            let is_end = |c: char| c.is_whitespace() || matches!(c, ';' | '=' | '"' | '\'');
            let end = rest.find(is_end).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            *rest = after;
            Some(Token::Bare(word.to_owned()))
        }
    }
}

/// The text up to the closing quote, where two stand for one.
fn quoted(text: &str, quote: char) -> (String, &str) {
    let mut word = String::new();
    let mut rest = text;
    while let Some((part, after)) = rest.split_once(quote) {
        word.push_str(part);
        rest = after;
        match rest.strip_prefix(quote) {
            Some(after) => {
                word.push(quote);
                rest = after;
            }
            None => return (word, rest),
        }
    }
    word.push_str(rest);
    (word, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_people_type_them() {
        let bare = |word: &str| Token::Bare(word.to_owned());
        let quoted = |word: &str| Token::Quoted(word.to_owned());
        assert_eq!(
            tokens(" SET\ta='it''s' -- why\n;/* so */kill \"a\"\"b\" x-1.y"),
            [
                bare("SET"),
                bare("a"),
                Token::Equals,
                quoted("it's"),
                Token::End,
                bare("kill"),
                quoted("a\"b"),
                bare("x-1.y"),
            ]
        );
        assert_eq!(tokens("'open"), [quoted("open")]);
        assert_eq!(tokens(" -- nothing"), []);
    }
}
